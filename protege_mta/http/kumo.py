"""``POST /api/inject/v1``: KumoMTA's injection, whose clients are served unchanged.

Each recipient gets a message of its own.  ``deferred_spool`` changes nothing, since every message
is durable before the answer; ``deferred_generation`` only that successes are not counted, as there.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from email.utils import getaddresses, parsedate_tz
from typing import Any, Final, Literal

import attrs
import msgspec
from klein import Klein
from twisted.web.iweb import IRequest

from ..message import trace
from ..message.compose import (
    Attachment,
    Draft,
    Mailbox,
    flaw_of_content_id,
    flaw_of_field,
    flaw_of_text,
)
from ..message.headers import values
from ..message.line_ends import LineEnds
from ..message.mailboxes import names_somebody
from ..message.repair import repaired, split
from ..message.templates import Dialect
from ..model.address import Address
from ..model.caller import Caller, Flaw
from ..model.ids import QueueId
from . import answer
from .endpoint import Answer, Endpoint
from .filling import checked_template, filled
from .mailroom import Outgoing, Posting, Replay
from .members import address_of, decoded, fields_of, mailbox_of
from .messages import BATCH, IDEMPOTENCY, SLICE, Desk, reason, replayed
from .new_message import Correspondent
from .outgoing import Common, envelope_of, outgoing
from .reading import Refused, body_of, pointer, typed, value_of


class KumoMailbox(msgspec.Struct):
    """An address and its display name."""

    email: str
    name: str | None = None


class KumoRecipient(msgspec.Struct):
    """:ivar name: the display name.
    :ivar substitutions: before all others; next come `email`, `name` if there is one, and
        `to_header`, then those of the request.
    :ivar metadata: for what ``trace_headers`` names of it.
    """

    email: str
    name: str | None = None
    substitutions: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class KumoAttachment(msgspec.Struct):
    """:ivar base64: whether ``data`` is that.
    :ivar content_id: for an image in HTML.
    """

    data: str
    content_type: str
    base64: bool = False
    file_name: str | None = None
    content_id: str | None = None


class KumoContent(msgspec.Struct):
    """A message in parts."""

    text_body: str | None = None
    html_body: str | None = None
    amp_html_body: str | None = None
    attachments: list[KumoAttachment] = []
    headers: dict[str, str] = {}
    from_: KumoMailbox | None = msgspec.field(name="from", default=None)
    subject: str | None = None
    reply_to: KumoMailbox | None = None


class KumoTrace(msgspec.Struct):
    """What a message says for those who get reports about it.

    :ivar received_header: taken, and not used: there is always one.
    :ivar supplemental_header: whether there is a field with the recipient, and what is named of the
        metadata, as JSON in base64.
    """

    received_header: bool = False
    supplemental_header: bool = True
    header_name: str = "X-KumoRef"
    include_meta_names: list[str] = []


class KumoRequest(msgspec.Struct):
    """Messages to send, one to each recipient.

    :ivar content: the whole message (RFC 5322), or its parts.
    :ivar substitutions: for all recipients.
    :ivar template_dialect: what the content is written in. Of Handlebars there are values, `if`,
        `unless`, `each` and `with`, and neither partials nor helpers. Values are escaped in HTML only.
    :ivar deferred_spool: taken, and not used.
    :ivar trace_headers: left out for no supplemental header.
    """

    envelope_sender: str
    content: str | KumoContent
    recipients: list[KumoRecipient]
    substitutions: dict[str, Any] = {}
    template_dialect: Literal["Jinja", "Static", "Handlebars"] = "Jinja"
    deferred_generation: bool = False
    deferred_spool: bool = False
    trace_headers: KumoTrace | None = None


class KumoAnswer(msgspec.Struct):
    """:ivar success_count: how many will be tried; 0 with ``deferred_generation``, whatever was taken.
    :ivar fail_count: how many will not, be they refused or suppressed.
    :ivar failed_recipients: their addresses; why is in ``errors``, in the same order.
    :ivar message_ids: in the order of the recipients; null for one that was refused.  One that is
        suppressed has an id, by which its events ``received`` and ``suppressed`` are found.
    """

    success_count: int
    fail_count: int
    failed_recipients: list[str]
    errors: list[str]
    message_ids: list[str | None]


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/inject/v1",
        summary="Inject messages, as KumoMTA's clients do",
        description="Clients in `relay_hosts` of the listener need no key; one that they send has to "
        "be right.",
        request=KumoRequest,
        parameters=(IDEMPOTENCY,),
        answers={200: Answer(summary="What became of each recipient", type=KumoAnswer)},
        problems=(400, 409, 413, 415, 422),
        scope="send",
        by_network=True,
        tag="KumoMTA",
    ),
)


def add(app: Klein, desk: Desk) -> None:
    """Serve it."""

    @app.route("/api/inject/v1", methods=["POST"])
    async def inject(request: IRequest) -> bytes:
        caller = await desk.authenticate(request, "send")
        if isinstance(caller, Flaw):
            return answer.flaw(request, caller)
        return await _injected(desk, request, caller)


async def _injected(desk: Desk, request: IRequest, caller: Caller) -> bytes:
    limits = desk.read_limits()
    octets = body_of(request, limits)
    posting = desk.begin(request, caller, octets)
    if isinstance(posting, Replay):
        return replayed(request, posting, 200)
    try:
        wanted: KumoRequest = typed(value_of(octets, limits), KumoRequest)
        told = await _added(desk, posting, caller, wanted)
        body = msgspec.json.encode(told)
        if any(told.message_ids):
            flaw = await posting.store(body.decode("utf-8"))
            if flaw is not None:
                raise Refused(flaw)
    finally:
        posting.abandon()
    return answer.json(request, msgspec.Raw(body))


async def _added(desk: Desk, posting: Posting, caller: Caller, wanted: KumoRequest) -> KumoAnswer:
    if not wanted.recipients:
        raise Refused(Flaw(422, "no-recipient", "there is no recipient", "/recipients"))
    if len(wanted.recipients) > 10 * BATCH:
        raise Refused(
            Flaw(422, "too-many-recipients", f"{10 * BATCH} recipients at most", "/recipients")
        )
    sender = Address("")
    if wanted.envelope_sender not in ("", "<>"):
        sender = address_of(wanted.envelope_sender, "/envelope_sender")
    _look_at_templates(wanted)
    write = _writer(desk, caller, wanted, sender)
    told = KumoAnswer(0, 0, [], [], [])
    for number, recipient in enumerate(wanted.recipients):
        if number % SLICE == SLICE - 1:
            await desk.pause()
        try:
            found = posting.add(write(posting.new_id(), number, recipient))
        except Refused as refused:
            found = refused.flaw
        if isinstance(found, Flaw):
            if found.kind in _OF_THE_REQUEST and not any(told.message_ids):
                raise Refused(found)
            told.message_ids.append(None)
            error = f"{found.member}: {reason(found)}" if found.member else reason(found)
        else:
            told.message_ids.append(found.id)
            (one,) = found.recipients
            error = ""
            if one.state == "suppressed":
                error = f"{pointer('recipients', number, 'email')}: {one.detail}"
        if error:
            told.fail_count += 1
            told.failed_recipients.append(recipient.email)
            told.errors.append(error)
        else:
            told.success_count += 1
    if wanted.deferred_generation:
        told.success_count = 0
    return told


_OF_THE_REQUEST: Final = frozenset({"sender-not-allowed", "rate-limited", "message-too-large"})
"""What is wrong with all messages of a request alike, so that clients look for it in the status."""


Write = Callable[[QueueId, int, KumoRecipient], Outgoing]


def _writer(desk: Desk, caller: Caller, wanted: KumoRequest, sender: Address) -> Write:
    """Makes the message of each recipient.  :raise Refused: there can be none."""
    writer = desk.writer
    shared = Common(
        author=Mailbox(sender),
        tenant=caller.tenant,
        limits=writer.limits(),
    )
    content = wanted.content
    if isinstance(content, str):

        def write(id: QueueId, number: int, recipient: KumoRecipient) -> Outgoing:
            to = _to(number, recipient)
            text = _fill(wanted, _values(wanted, recipient, to), content, "/content")
            whole = _whole(text, sender, id, trace.date(int(writer.now())), writer.hostname())
            for name, value in _traced(wanted, recipient):
                folded = value.replace(" ", "\r\n ")
                whole = f"{name}: {folded}\r\n".encode("ascii") + whole
            if len(whole) > shared.limits.message_octets:
                raise Refused(Flaw(413, "message-too-large", "the message is too large"))
            return Outgoing(
                id=id,
                envelope=envelope_of(sender, (to.address,)),
                content=whole,
                tenant=shared.tenant,
                from_member="/content",
                sender_member="/envelope_sender",
                members=(pointer("recipients", number, "email"),),
            )

        return write
    attachments = _attachments(content.attachments, shared.limits.attachment_octets)

    def build(id: QueueId, number: int, recipient: KumoRecipient) -> Outgoing:
        to = _to(number, recipient)
        values = _values(wanted, recipient, to)
        headers = {
            name: _fill(wanted, values, value, "/content" + pointer("headers", name))
            for name, value in content.headers.items()
        }
        named = {name.lower(): (name, value) for name, value in headers.items()}
        subject = _fill(wanted, values, content.subject or "", "/content/subject")
        if content.subject is None and "subject" in named:
            subject = named["subject"][1]
        if flaw_of_text(subject):
            raise _refused(flaw_of_text(subject), "/content/subject")
        author = _mailbox(wanted, values, content.from_, "/content/from")
        reply_to = _mailbox(wanted, values, content.reply_to, "/content/reply_to")
        found = (author or _named(named, "from") or (None,))[0]
        if found is None and not sender:
            raise _refused("there is no author", "/content/from")
        given = _named(named, "sender")
        draft = Draft(
            author=found or Mailbox(sender),
            sender=given[0] if given else None,
            to=_named(named, "to") or (to,),
            cc=_named(named, "cc"),
            reply_to=reply_to or _named(named, "reply-to"),
            subject=subject,
            text=_body(wanted, values, content.text_body, "text_body"),
            html=_body(wanted, values, content.html_body, "html_body"),
            amp=_body(wanted, values, content.amp_html_body, "amp_html_body"),
            attachments=attachments,
            fields=(
                *_traced(wanted, recipient),
                *fields_of(
                    {
                        name: value
                        for name, value in headers.items()
                        if name.lower() not in _MEMBERS and value.strip()
                    },
                    "/content/headers",
                ),
            ),
            date=_date(named) or trace.date(int(writer.now())),
            message_id=f"<{id}@{writer.hostname()}>",
            seed=id,
        )
        made = outgoing(
            draft,
            (to.address,),
            id=id,
            members=(pointer("recipients", number, "email"),),
            from_member="/content/from",
            shared=shared,
            at="/content",
        )
        envelope = envelope_of(sender, (to.address,))
        return attrs.evolve(made, envelope=envelope, sender_member="/envelope_sender")

    return build


_MEMBERS: Final = frozenset(
    {"from", "to", "cc", "sender", "reply-to", "subject", "date", "mime-version"}
)
"""Header fields that are given as such, and are what members of the message are."""


def _named(named: Mapping[str, tuple[str, str]], name: str) -> tuple[Mailbox, ...]:
    """The mailboxes of a header field that was given as text."""
    if name not in named:
        return ()
    member = "/content" + pointer("headers", named[name][0])
    text = named[name][1]
    if flaw_of_text(text):
        raise _refused(flaw_of_text(text), member)
    return tuple(
        mailbox_of(Correspondent(address, display), member)
        for display, address in getaddresses([text])
    )


def _date(named: Mapping[str, tuple[str, str]]) -> str:
    """The Date field that was given; empty for none."""
    name, text = named.get("date", ("Date", ""))
    if text and (flaw_of_text(text) or not text.isascii() or parsedate_tz(text) is None):
        raise _refused("this is no date (RFC 5322, 3.3)", "/content" + pointer("headers", name))
    return text.strip()


def _traced(wanted: KumoRequest, recipient: KumoRecipient) -> Iterator[tuple[str, str]]:
    """The supplemental header, if there is to be one; its value is in words that can be folded."""
    asked = wanted.trace_headers
    if asked is None or not asked.supplemental_header:
        return
    if flaw_of_field(asked.header_name, "x"):
        raise _refused("there can be no such field", "/trace_headers/header_name")
    told = {"_@_": "\\_/", "recipient": recipient.email}
    given = recipient.metadata
    told |= {name: given[name] for name in asked.include_meta_names if name in given}
    text = base64.b64encode(msgspec.json.encode(told)).decode("ascii")
    yield asked.header_name, " ".join(text[at : at + 64] for at in range(0, len(text), 64))


def _mailbox(
    wanted: KumoRequest, given: dict[str, Any], mailbox: KumoMailbox | None, at: str
) -> tuple[Mailbox, ...]:
    if mailbox is None:
        return ()
    email = _fill(wanted, given, mailbox.email, f"{at}/email")
    name = _fill(wanted, given, mailbox.name or "", f"{at}/name")
    return (mailbox_of(Correspondent(email, name), at),)


def _to(number: int, recipient: KumoRecipient) -> Mailbox:
    at = pointer("recipients", number)
    if flaw_of_text(recipient.name or ""):
        raise _refused(flaw_of_text(recipient.name or ""), at + "/name")
    return Mailbox(address_of(recipient.email.strip(), at + "/email"), recipient.name or "")


def _values(wanted: KumoRequest, recipient: KumoRecipient, to: Mailbox) -> dict[str, Any]:
    """What a template has of a recipient: it goes before what is given for all, and what is given
    for the recipient before that, as with KumoMTA."""
    name = to.name.replace("\\", "\\\\").replace('"', '\\"')
    own = {
        "email": recipient.email,
        "to_header": f'"{name}" <{to.address}>' if name else f"<{to.address}>",
    }
    if recipient.name is not None:
        own["name"] = recipient.name
    return {**wanted.substitutions, **own, **recipient.substitutions}


_DIALECTS: Final[Mapping[str, Dialect]] = {"Jinja": "jinja", "Handlebars": "handlebars"}
"""Those in which there is something to be filled in."""


def _look_at_templates(wanted: KumoRequest) -> None:
    """What is no template fails for every recipient.  :raise Refused: 422 that names it."""
    content = wanted.content
    if isinstance(content, str):
        _look_at(wanted, content, "/content")
        return
    texts = {
        "/text_body": content.text_body,
        "/html_body": content.html_body,
        "/amp_html_body": content.amp_html_body,
        "/subject": content.subject,
        **{pointer("headers", name): value for name, value in content.headers.items()},
    }
    for member, text in texts.items():
        _look_at(wanted, text or "", f"/content{member}", is_html="html" in member)


def _look_at(wanted: KumoRequest, text: str, member: str, *, is_html: bool = False) -> None:
    dialect = _DIALECTS.get(wanted.template_dialect)
    if dialect is not None:
        checked_template(text, member, is_html=is_html, is_strict=False, dialect=dialect)


def _fill(
    wanted: KumoRequest, given: dict[str, Any], text: str, member: str, *, is_html: bool = False
) -> str:
    """Filled in as KumoMTA does: what is not there is empty, and only HTML is escaped."""
    dialect = _DIALECTS.get(wanted.template_dialect)
    if dialect is None:
        return text
    return filled(text, given, member, is_html=is_html, is_strict=False, dialect=dialect)


def _body(wanted: KumoRequest, given: dict[str, Any], text: str | None, member: str) -> str | None:
    if text is None:
        return None
    return _fill(wanted, given, text, f"/content/{member}", is_html="html" in member)


def _attachments(given: list[KumoAttachment], most_octets: int) -> tuple[Attachment, ...]:
    found, total = [], 0
    for index, one in enumerate(given):
        at = "/content" + pointer("attachments", index)
        content = decoded(one.data) if one.base64 else one.data.encode("utf-8", "replace")
        if content is None:
            raise _refused("this is no base64", at + "/data")
        total += len(content)
        if total > most_octets:
            raise Refused(
                Flaw(413, "attachments-too-large", "the attachments are too large together", at)
            )
        if one.content_id and flaw_of_content_id(one.content_id):
            raise _refused("this is no content id", at + "/content_id")
        found.append(
            Attachment(
                content=content,
                filename=one.file_name or "attachment",
                content_type=one.content_type,
                content_id=one.content_id or "",
            )
        )
    return tuple(found)


def _whole(text: str, sender: Address, id: QueueId, date: str, hostname: str) -> bytes:
    """A message that came as text, as it is queued: line ends are CRLF, and what every message has
    is there.  :raise Refused:"""
    ends = LineEnds()
    try:
        octets = ends.feed(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise _refused("the message has a half of a character", "/content") from None
    octets += ends.end()
    if ends.has_bare_cr or b"\0" in octets:
        raise _refused("the message has a bare CR or a NUL", "/content")
    fields, body = split(octets)
    authors = values(fields, b"from")
    if len(authors) > 1 or not all(map(names_somebody, authors)) or not (authors or sender):
        raise _refused("the message needs one From field, with an address in it", "/content")
    fields = repaired(fields, date=date, author=sender, message_id=f"<{id}@{hostname}>")
    return fields + b"\r\n" + body


def _refused(detail: str, member: str) -> Refused:
    return Refused(Flaw(422, "bad-content", detail, member))
