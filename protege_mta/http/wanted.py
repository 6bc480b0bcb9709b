"""How what ``POST /v1/message`` takes becomes messages for the queue.

No I/O: a request, who asks and the time go in, messages or flaws come out.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import attrs
import msgspec
from msgspec import Meta

from ..message import compose, templates, trace
from ..message.compose import Attachment, Draft, Mailbox
from ..message.templates import Dialect
from ..model.address import Address, domain_of, parse
from ..model.caller import Caller, Flaw
from ..model.domain import ascii_domain
from ..model.envelope import Envelope, Recipient
from ..model.ids import QueueId
from .mailroom import Outgoing
from .new_message import AnyMailbox, Correspondent, NewAttachment, NewMessage, Unsubscribe
from .reading import Refused, pointer

PAST_S: Final = 300.0
"""A clock that is so much slow does no harm to ``send_at``."""


@attrs.frozen(kw_only=True)
class MessageLimits:
    """:ivar recipients: of one message.
    :ivar message_octets: the largest message, as it is queued.
    :ivar attachment_octets: of all attachments of one, decoded.
    :ivar future_release_s: how far off ``send_at`` may be.
    """

    recipients: int
    message_octets: int
    attachment_octets: int
    future_release_s: float


UnsubscribeUrl = Callable[[QueueId, Address, str], str]
"""The one-click URL of a message, its recipient and tenant; empty where there is none."""


@attrs.frozen(kw_only=True)
class Writer:
    """Makes messages of requests.

    :ivar limits: asked each time, since a reload may change them.
    :ivar now: POSIX seconds.
    :ivar hostname: ours, for message ids.
    """

    limits: Callable[[], MessageLimits]
    now: Callable[[], float]
    hostname: Callable[[], str]
    unsubscribe_url: UnsubscribeUrl = lambda id, address, tenant: ""

    def written(
        self, wanted: NewMessage, caller: Caller, new_id: Callable[[], QueueId], at: str = ""
    ) -> Iterator[tuple[Address, Outgoing | Flaw]]:
        """The messages that a request is for, each made when it is asked for, with its first
        recipient; a flaw where a template cannot be filled in for one.

        :param at: where the message is in the request, as a JSON pointer.
        :raise Refused:
        """
        limits = self.limits()
        author = mailbox_of(wanted.from_, at + "/from")
        to = list(_mailboxes(wanted.to, at + "/to"))
        cc = list(_mailboxes(wanted.cc, at + "/cc"))
        bcc = list(_mailboxes(wanted.bcc, at + "/bcc"))
        everybody = [*to, *cc, *bcc]
        if not everybody:
            raise _refused("no-recipient", "there is no recipient", at + "/to")
        is_template = wanted.template == "jinja"
        if is_template and (cc or bcc):
            raise _refused(
                "bad-member",
                "a template makes a message for each recipient, and has no Cc and Bcc",
                at + ("/cc" if cc else "/bcc"),
            )
        if len(everybody) > limits.recipients:
            raise _refused(
                "too-many-recipients",
                f"a message has {limits.recipients} recipients at most",
                at + "/to",
            )
        sharing = self._common(wanted, caller, author, at, limits)
        if not is_template:
            if any(isinstance(one, Correspondent) and one.substitutions for one in wanted.to):
                raise _refused(
                    "bad-member",
                    "substitutions are for templates",
                    at + "/to",
                    'set "template" to "jinja"',
                )
            one = self._one(wanted, sharing, new_id(), (to, cc, bcc), at)
            yield everybody[0].address, one
            return
        for index, mailbox in enumerate(to):
            try:
                filled = _filled(wanted, index, mailbox, at)
                copy = self._one(filled, sharing, new_id(), ([mailbox], [], []), at, index)
            except Refused as refused:
                yield mailbox.address, refused.flaw
            else:
                yield mailbox.address, copy

    def _common(
        self, wanted: NewMessage, caller: Caller, author: Mailbox, at: str, limits: MessageLimits
    ) -> Common:
        """What is the same for each message of a request."""
        reply_to = wanted.reply_to
        if reply_to is None:
            reply_to = []
        elif not isinstance(reply_to, list):
            reply_to = [reply_to]
        named = {name.lower(): value for name, value in wanted.headers.items()}
        tenant = caller.tenant if wanted.tenant is None else wanted.tenant
        if tenant != caller.tenant and "admin" not in caller.scopes:
            raise Refused(
                Flaw(
                    403,
                    "tenant-not-allowed",
                    "this key may not send for this tenant",
                    at + "/tenant",
                    "leave the member out, or use a key of the tenant's",
                )
            )
        campaign = wanted.campaign or named.get("x-campaign", "").strip()
        for text, member in ((tenant, "/tenant"), (campaign, "/campaign")):
            if compose.flaw_of_text(text):
                raise _refused("bad-member", f"this text {compose.flaw_of_text(text)}", at + member)
        hold_until = 0.0
        if wanted.send_at is not None:
            hold_until = self._release_at(wanted.send_at, at + "/send_at", limits)
        return Common(
            author=author,
            reply_to=tuple(_mailboxes(reply_to, at + "/reply_to")),
            attachments=_attachments(wanted.attachments, at + "/attachments", limits),
            tenant=tenant,
            campaign=campaign[:200],
            tags=_tags(wanted.tags, at),
            is_urgent=wanted.priority == "high"
            or named.get("x-type", "").strip().lower() == "transactional",
            hold_until=hold_until,
            limits=limits,
        )

    def _release_at(self, text: str, member: str, limits: MessageLimits) -> float:
        at = time_of(text)
        if at is None:
            raise _refused(
                "bad-member", "this is no time as RFC 3339 has it", member, "2026-12-01T09:00:00Z"
            )
        now = self.now()
        if at < now - PAST_S:
            raise _refused("bad-member", "this time has passed", member)
        if at > now + limits.future_release_s:
            raise _refused(
                "bad-member",
                "this is further off than messages are held",
                member,
                f"{int(limits.future_release_s)} s ahead at most",
            )
        return at if at > now else 0.0

    def _one(
        self,
        wanted: NewMessage,
        shared: Common,
        id: QueueId,
        who: tuple[Sequence[Mailbox], Sequence[Mailbox], Sequence[Mailbox]],
        at: str,
        index: int = 0,
    ) -> Outgoing:
        to, cc, bcc = who
        addresses = [one.address for one in (*to, *cc, *bcc)]
        draft = Draft(
            author=shared.author,
            to=tuple(to),
            cc=tuple(cc),
            reply_to=shared.reply_to,
            subject=_subject(wanted.subject, at),
            text=wanted.text,
            html=wanted.html,
            attachments=shared.attachments,
            fields=self._fields(wanted, id, addresses, shared, at),
            date=trace.date(int(self.now())),
            message_id=f"<{id}@{self.hostname()}>",
            seed=id,
        )
        members = [
            pointer_to(at, name, index + number)
            for name, some in zip(("to", "cc", "bcc"), who, strict=True)
            for number in range(len(some))
        ]
        return outgoing(
            draft,
            addresses,
            id=id,
            members=tuple(members),
            from_member=at + "/from",
            shared=shared,
            at=at,
        )

    def _fields(
        self, wanted: NewMessage, id: QueueId, to: Sequence[Address], shared: Common, at: str
    ) -> tuple[tuple[str, str], ...]:
        given = tuple(fields_of(wanted.headers, at + "/headers"))
        names = {name.lower(): name for name, _ in given}
        made: list[tuple[str, str]] = []
        if shared.tags:
            made.append(("X-Tags", ", ".join(shared.tags)))
        if wanted.campaign and "x-campaign" not in names:
            made.append(("X-Campaign", wanted.campaign))
        if wanted.unsubscribe is not None:
            made += self._unsubscribe(
                wanted.unsubscribe, id, to, shared.tenant, at + "/unsubscribe"
            )
        for name, _ in made:
            if name.lower() in names:  # mail programs take no List-Unsubscribe that is there twice
                raise _refused(
                    "bad-header",
                    "this field is made of another member of the request",
                    at + pointer("headers", names[name.lower()]),
                    "leave one of the two out",
                )
        return (*given, *made)

    def _unsubscribe(
        self, wanted: Unsubscribe, id: QueueId, to: Sequence[Address], tenant: str, at: str
    ) -> tuple[tuple[str, str], ...]:
        url = wanted.url
        if wanted.one_click and not url:
            if len(to) != 1:
                raise _refused(
                    "bad-member",
                    "a link that unsubscribes is for one recipient",
                    at + "/one_click",
                    "send each recipient a message of its own",
                )
            url = self.unsubscribe_url(id, to[0], tenant)
            if not url.lower().startswith("https://"):
                raise _refused(
                    "bad-member",
                    "this server has no https address of its own for links",
                    at + "/one_click",
                    "name a URL, or have [api] public_url set to one with https",
                )
        elif wanted.one_click and not url.lower().startswith("https://"):
            raise _refused("bad-member", "one click needs an https URL", at + "/url")
        places = []
        for text, member, start in ((wanted.mailto, "/mailto", "mailto:"), (url, "/url", "http")):
            if not text:
                continue
            if not text.lower().startswith(start) or not compose.is_unsubscribe_place(text):
                raise _refused("bad-member", "this is no such URI", at + member)
            places.append(text)
        if not places:
            raise _refused("missing-member", "there is nowhere to unsubscribe", at + "/url")
        return compose.unsubscribe_fields(places, is_one_click=wanted.one_click)


@attrs.frozen(kw_only=True)
class Common:
    """What is the same for all messages of a request.

    :ivar hold_until: POSIX seconds; 0 to go at once.
    """

    author: Mailbox
    reply_to: tuple[Mailbox, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    tenant: str = ""
    campaign: str = ""
    tags: tuple[str, ...] = ()
    is_urgent: bool = False
    hold_until: float = 0.0
    limits: MessageLimits


def outgoing(
    draft: Draft,
    recipients: Sequence[Address],
    *,
    id: QueueId,
    members: tuple[str, ...],
    from_member: str,
    shared: Common,
    at: str,
) -> Outgoing:
    """A draft with its envelope, each recipient once.  :raise Refused: it is too large, or cannot be written."""
    try:
        content = compose.composed(draft)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can say and UTF-8 cannot
        raise _refused("bad-member", "a text has a half of a character", at) from None
    if len(content) > shared.limits.message_octets:
        raise Refused(Flaw(413, "message-too-large", "the message is too large", at))
    sender = draft.author.address
    first: dict[Address, str] = {}
    for address, member in zip(recipients, members, strict=True):
        first.setdefault(address, member)
    return Outgoing(
        id=id,
        envelope=envelope_of(sender, tuple(first), shared.hold_until),
        content=content,
        tenant=shared.tenant,
        campaign=shared.campaign,
        tags=shared.tags,
        is_urgent=shared.is_urgent,
        from_member=from_member,
        members=tuple(first.values()),
    )


def envelope_of(
    sender: Address, recipients: Sequence[Address], hold_until: float = 0.0
) -> Envelope:
    """An envelope; ``send_at`` is what FUTURERELEASE is by SMTP."""
    until = ""
    if hold_until:
        until = f"until;{datetime.fromtimestamp(int(hold_until), UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Envelope(
        sender,
        tuple(map(Recipient, recipients)),
        is_smtputf8=not (sender.isascii() and all(map(str.isascii, recipients))),
        hold_until=hold_until,
        future_release=until,
    )


# --- members -------------------------------------------------------------------------------------

_TAG: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NAMED: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^<>"]*?))\s*<([^<>]*)>\s*')


def pointer_to(at: str, name: str, index: int) -> str:
    """Where an entry of a list of mailboxes is."""
    return f"{at}/{name}/{index}"


def time_of(text: str) -> float | None:
    """What RFC 3339 has, in POSIX seconds; None for anything else."""
    try:
        when: datetime = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
        return when.timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def _tags(given: Sequence[str], at: str) -> tuple[str, ...]:
    """Each once.  :raise Refused:"""
    for number, tag in enumerate(given):
        if not is_tag(tag):
            raise _refused(
                "bad-member",
                "a tag has 64 letters, digits and ._:- at most",
                at + pointer("tags", number),
            )
    return tuple(dict.fromkeys(given))


def _mailboxes(given: Sequence[AnyMailbox], at: str) -> Iterator[Mailbox]:
    for index, one in enumerate(given):
        yield mailbox_of(one, f"{at}/{index}")


def mailbox_of(given: AnyMailbox, at: str) -> Mailbox:
    """:raise Refused:"""
    if isinstance(given, str):
        name, text = "", given
        if given.endswith(">"):
            match = _NAMED.fullmatch(given) if len(given) <= 1000 else None
            if match is not None:
                quoted, plain, text = match.groups()
                name = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
    else:
        name, text = given.name, given.address
        at = f"{at}/address" if not compose.flaw_of_text(name) else f"{at}/name"
    if compose.flaw_of_text(name):
        raise _refused("bad-member", f"this text {compose.flaw_of_text(name)}", at)
    if len(name) > 500:
        raise _refused("bad-member", "the name is too long", at)
    return Mailbox(address_of(text.strip(), at), name)


def address_of(text: str, at: str) -> Address:
    """An address; a domain in U-labels becomes one in A-labels, which every server takes
    (RFC 5890).  :raise Refused:"""
    found = parse(text, is_smtputf8=True)
    if found is not None and not found.isascii():
        local, _, domain = found.rpartition("@")
        if not domain.isascii():
            found = parse(f"{local}@{ascii_domain(domain)}", is_smtputf8=True)
    if found is None or not domain_of(found):
        raise _refused("bad-address", "this is no address", at, "user@example.org")
    return found


def _subject(text: str, at: str) -> str:
    if compose.flaw_of_text(text):
        raise _refused("bad-member", f"this text {compose.flaw_of_text(text)}", at + "/subject")
    return text


def fields_of(given: Mapping[str, str], at: str) -> Iterator[tuple[str, str]]:
    """Header fields that may be added.  :raise Refused:"""
    seen: set[str] = set()
    for name, value in given.items():
        flaw = compose.flaw_of_field(name, value)
        if not flaw and name.lower() in seen:
            flaw = "is there twice"
        seen.add(name.lower())
        if flaw:
            member = pointer(name) if name.isprintable() else ""
            raise _refused("bad-header", f"this field {flaw}", at + member)
        yield name, value


def _attachments(
    given: Sequence[NewAttachment], at: str, limits: MessageLimits
) -> tuple[Attachment, ...]:
    found, total = [], 0
    for index, one in enumerate(given):
        where = f"{at}/{index}"
        content = decoded(one.content_b64)
        if content is None:
            raise _refused("bad-base64", "this is no base64", f"{where}/content_b64")
        total += len(content)
        if total > limits.attachment_octets:
            raise Refused(
                Flaw(413, "attachments-too-large", "the attachments are too large together", where)
            )
        if one.content_id and compose.flaw_of_content_id(one.content_id):
            raise _refused("bad-member", "this is no content id", f"{where}/content_id")
        found.append(
            Attachment(
                content=content,
                filename=one.filename,
                content_type=one.content_type,
                content_id=one.content_id,
            )
        )
    return tuple(found)


def decoded(text: str) -> bytes | None:
    """Base64, which may be in lines; None for what is none."""
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True) if text else b""
    except (binascii.Error, ValueError):
        return None


def _filled(wanted: NewMessage, index: int, mailbox: Mailbox, at: str) -> NewMessage:
    """The message for one recipient."""
    given = wanted.to[index]
    own = given.substitutions if isinstance(given, Correspondent) else {}
    values = {"email": mailbox.address, "name": mailbox.name, **wanted.substitutions, **own}
    return msgspec.structs.replace(
        wanted,
        subject=filled(wanted.subject, values, at + "/subject"),
        text=None if wanted.text is None else filled(wanted.text, values, at + "/text"),
        html=None
        if wanted.html is None
        else filled(wanted.html, values, at + "/html", is_html=True),
        headers={
            name: filled(value, values, at + pointer("headers", name))
            for name, value in wanted.headers.items()
        },
    )


def filled(
    text: str,
    values: Mapping[str, Any],
    member: str,
    *,
    is_html: bool = False,
    is_strict: bool = True,
    dialect: Dialect = "jinja",
) -> str:
    """A template filled in.  :raise Refused: 422 that names the template."""
    if "{" not in text:
        return text
    try:
        made = templates.template(text, is_html=is_html, is_strict=is_strict, dialect=dialect)
        return made.rendered(values)
    except templates.BadTemplate as error:
        raise _refused(
            "bad-template", "the template cannot be filled in", member, str(error)
        ) from None


def checked_template(
    text: str,
    member: str,
    *,
    is_html: bool = False,
    is_strict: bool = True,
    dialect: Dialect = "jinja",
) -> None:
    """See to it that it is a template, whatever it will be filled in with.

    :raise Refused: 422 that names it.
    """
    if "{" not in text:
        return
    try:
        templates.template(text, is_html=is_html, is_strict=is_strict, dialect=dialect)
    except templates.BadTemplate as error:
        raise _refused("bad-template", "this is no template", member, str(error)) from None


def _refused(kind: str, detail: str, member: str, hint: str = "") -> Refused:
    return Refused(Flaw(422, kind, detail, member, hint))
