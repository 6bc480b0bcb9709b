"""``POST /api/send`` and ``GET /api/health``: the contract of TS Pro Relay, whose clients are served
unchanged.  Its answers are ``{"ok"}`` and ``{"ok", "error"}``, whatever is wrong.

Unlike the original, which delivers in the request, we have the message durably queued, and hold the
answer until its first attempt has ended.  A request that comes again is answered by what has become
of its message, which was not known yet when its name was stored.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import attrs
import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IRequest

from ..message import trace
from ..message.compose import Attachment, Draft, Mailbox, flaw_of_text
from ..model.address import Address
from ..model.caller import Caller, Flaw
from ..model.ids import QueueId
from . import answer
from .endpoint import Answer, Endpoint, Parameter
from .mailroom import FAILED, Accepted, Outgoing, Replay
from .members import address_of, decoded
from .messages import IDEMPOTENCY, Desk, replayed
from .outgoing import Common, outgoing
from .reading import Refused, octets_of, typed, value_of
from .timeline import MessageSummary

WAIT_S: Final = 25.0
"""The longest that an answer is held; the client gives up after 30 s."""

LOOK_S: Final = 0.25
"""How often it is looked again for what has become of a message: nobody says when it is durable."""

RECIPIENTS: Final = 100

Look = Callable[[QueueId], Awaitable[MessageSummary | None]]
"""Where a message stands; None where nobody knows of it any more.  :raise Refused: nobody can tell
now."""


class PortalAttachment(msgspec.Struct):
    """A file; one without content is passed over.

    :ivar content_b64: in base64.
    """

    filename: str | None = None
    mime_type: str | None = None
    content_b64: str | None = None


class PortalMessage(msgspec.Struct):
    """A message to send, as the portal has it.

    :ivar from_email: left out, the configured default sender.
    :ivar to: a list, or one string that is split at commas and semicolons; 100 at most.
    """

    from_email: str | None = None
    from_name: str | None = None
    to: list[str] | str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    reply_to: str | None = None
    reply_to_name: str | None = None
    attachments: list[PortalAttachment] | None = None


class PortalAnswer(msgspec.Struct, omit_defaults=True):
    """:ivar error: what is wrong, where it is not ok."""

    ok: bool
    error: str = ""


class PortalHealth(msgspec.Struct):
    """:ivar configured: whether mail can leave."""

    ok: bool
    configured: bool


_REFUSED: Final = {
    400: "The request cannot be read, or makes no sense",
    401: "No key, or a wrong one",
    403: "The key may not do this",
    409: "The Idempotency-Key is another request's, or that one is being worked on, or nobody knows "
    "any more what became of it",
    413: "Too large",
    429: "Too often; Retry-After says when to come back",
    500: "No delivery route is configured",
    502: "A recipient is refused, or will not have the message",
    503: "Not just now; Retry-After says when to come back",
}


def _refusals(*statuses: int) -> dict[int, Answer]:
    return {one: Answer(summary=_REFUSED[one], type=PortalAnswer) for one in statuses}


ENDPOINTS: Final = (
    Endpoint(
        method="POST",
        path="/api/send",
        summary="Send a message, as the portal does",
        description="The answer is held until the first attempt has ended, 25 s at most: 502 where "
        "it failed for good for a recipient, else 200, since the message is durably queued. The same "
        "`Idempotency-Key` and body again are answered by what has become of the message by then: 502 "
        "where a recipient will not have it, at whatever attempt that was decided, and 200 only where "
        "each has it or it still waits.",
        request=PortalMessage,
        parameters=(
            Parameter(name="wait", summary="0 to be answered at once", type=str),
            attrs.evolve(
                IDEMPOTENCY,
                summary="The same key and body again are sent once, and answered by what has become "
                "of the message",
            ),
        ),
        answers={
            200: Answer(summary="Sent, or queued", type=PortalAnswer),
            **_refusals(400, 401, 403, 409, 413, 429, 500, 502, 503),
        },
        scope="send",
        tag="Portal",
    ),
    Endpoint(
        method="GET",
        path="/api/health",
        summary="Whether the key is right, and mail can leave",
        answers={
            200: Answer(summary="The key is right", type=PortalHealth),
            **_refusals(401, 403, 429, 503),
        },
        scope="send",
        tag="Portal",
    ),
)


@attrs.frozen(kw_only=True)
class Portal:
    """What is particular to the portal's endpoints.

    :ivar default_from: the sender of requests that name none; None for no such.
    :ivar is_configured: whether mail can leave.
    :ivar look: asked of messages that came before.
    :ivar place_s: takes a place among the requests of an address, for an identity; the return is how
        long there is none, in seconds.
    """

    default_from: Callable[[], Address | None]
    is_configured: Callable[[], bool]
    look: Look
    place_s: Callable[[str, str], float]
    clock: IReactorTime


def add(app: Klein, desk: Desk, portal: Portal) -> None:
    """Serve them."""

    @app.route("/api/send", methods=["POST"])
    async def send(request: IRequest) -> bytes:
        caller = await desk.authenticate(request, "send")
        if isinstance(caller, Flaw):
            return answer.short(request, caller)
        try:
            return await _sent(desk, portal, request, caller)
        except Refused as refused:
            return answer.short(request, _as_portal(refused.flaw))

    @app.route("/api/health", methods=["GET"])
    async def health(request: IRequest) -> bytes:
        request.setHeader(b"Cache-Control", b"no-store")
        caller = await desk.authenticate(request, "send")
        if isinstance(caller, Flaw):
            return answer.short(request, caller)
        return answer.json(request, PortalHealth(True, portal.is_configured()))


_SENT: Final = '{"ok":true}'


async def _sent(desk: Desk, portal: Portal, request: IRequest, caller: Caller) -> bytes:
    limits = desk.read_limits()
    octets = octets_of(request, limits)
    posting = desk.begin(request, caller, octets)
    if isinstance(posting, Replay):
        return await _again(portal, request, caller, posting)
    told: Deferred[bool] | None = None
    try:
        _take_place(portal, request, caller)  # a replay, which sends nothing, needs none
        if not portal.is_configured():
            raise Refused(Flaw(500, "no-route", "no delivery route is configured"))
        value = value_of(octets, limits)
        if not isinstance(value, dict):
            raise _bad("the body is not a JSON object")
        wanted: PortalMessage = typed(value, PortalMessage)
        one = _outgoing(desk, portal, wanted, posting.new_id(), caller.tenant)
        found = posting.add(one)
        if isinstance(found, Flaw):
            raise Refused(found)
        if any(each.state == "rejected" for each in found.recipients):
            raise Refused(_FAILED)
        if _waits(request, caller, found):
            told = desk.mailroom.outcome(found.id)
        flaw = await posting.store(_SENT)
        if flaw is not None:
            raise Refused(flaw if flaw.status == 503 else _FAILED)
        if told is not None:
            told.addTimeout(WAIT_S, portal.clock, lambda *_: False)
            waiting, told = told, None
            if await waiting:
                raise Refused(_FAILED)
    finally:
        posting.abandon()
        if told is not None:
            told.addErrback(lambda _: None)  # it is cancelled here, and nobody waits
            told.cancel()
    return answer.json(request, PortalAnswer(True))


def _take_place(portal: Portal, request: IRequest, caller: Caller) -> None:
    """One of those that its address has in an hour.  :raise Refused: there is none."""
    wait_s = portal.place_s(cast(Any, request).client_address, caller.identity)
    if wait_s:
        raise Refused(
            Flaw(
                429,
                "rate-limited",
                "too many messages from this address in an hour",
                retry_after_s=math.ceil(wait_s),
            )
        )


_FAILED: Final = Flaw(502, "delivery-failed", "delivery failed")
_FORGOTTEN: Final = Flaw(
    409,
    "message-forgotten",
    "the message was taken when this Idempotency-Key first came, and nobody knows any more what "
    "became of it",
)
_UNTOLD: Final = Flaw(
    503, "log-behind", "what became of the message cannot be told yet", retry_after_s=1
)


def _waits(request: IRequest, caller: Caller, found: Accepted) -> bool:
    # Who is suppressed meets that fate at the first attempt.
    is_tried = all(each.state in ("queued", "suppressed") for each in found.recipients)
    return is_tried and _may_wait(request, caller)


def _may_wait(request: IRequest, caller: Caller) -> bool:
    args = cast(dict[bytes, list[bytes]], request.args)
    return caller.waits and args.get(b"wait") != [b"0"]


async def _again(portal: Portal, request: IRequest, caller: Caller, replay: Replay) -> bytes:
    """What is true now of a message that came before; waited for as at first where it is not
    decided.

    :raise Refused: it has failed, or nobody knows.
    """
    until = portal.clock.seconds() + (WAIT_S if _may_wait(request, caller) else 0.0)
    while True:
        found = await portal.look(replay.id)
        if found is None:
            raise Refused(_FORGOTTEN)
        has_failed = _has_failed(found)
        if has_failed is not None or portal.clock.seconds() >= until:
            break
        await deferLater(portal.clock, LOOK_S, lambda: None)
    if has_failed is None and not _is_all_queued(found):
        raise Refused(_UNTOLD)
    if has_failed:
        request.setHeader(b"Idempotent-Replayed", b"true")
        raise Refused(_FAILED)
    return replayed(request, replay, 200)


_NOT_TO_BE: Final = FAILED | {"corrupt"}


def _has_failed(found: MessageSummary) -> bool | None:
    """Whether a recipient will not have the message; None until the first attempt has ended for each,
    or is put off until a person lets it be made."""
    states = {one.status for one in found.recipients}
    if states & _NOT_TO_BE:
        return True
    is_over = all(
        one.status in ("delivered", "relayed")
        or (found.is_queued and (one.attempts > 0 or one.status == "held"))
        for one in found.recipients
    )
    return False if is_over else None


def _is_all_queued(found: MessageSummary) -> bool:
    """Whether no recipient has met a fate that is not known yet."""
    return found.is_queued and all(one.status != "ended" for one in found.recipients)


def _outgoing(
    desk: Desk, portal: Portal, wanted: PortalMessage, id: QueueId, tenant: str
) -> Outgoing:
    writer = desk.writer
    limits = writer.limits()
    given = (wanted.from_email or "").strip() or portal.default_from()
    if not given:
        raise _bad("from_email is missing, and there is no default sender")
    to = wanted.to or []
    if isinstance(to, str):
        to = to.replace(";", ",").split(",")
    recipients = [one.strip() for one in to if one.strip()]
    if not recipients:
        raise _bad("to is empty")
    if len(recipients) > RECIPIENTS:
        raise _bad("to has more than 100 recipients")
    author = Mailbox(address_of(given, "/from_email"), _text(wanted.from_name, "from_name"))
    addresses = [address_of(one, "/to") for one in recipients]
    reply_to: tuple[Mailbox, ...] = ()
    if wanted.reply_to and wanted.reply_to.strip():
        address = address_of(wanted.reply_to.strip(), "/reply_to")
        reply_to = (Mailbox(address, _text(wanted.reply_to_name, "reply_to_name")),)
    draft = Draft(
        author=author,
        to=tuple(map(Mailbox, dict.fromkeys(addresses))),
        reply_to=reply_to,
        subject=_text(wanted.subject, "subject"),
        text=wanted.text or "",
        html=wanted.html or None,
        attachments=_attachments(wanted.attachments or [], limits.attachment_octets),
        date=trace.date(int(writer.now())),
        message_id=f"<{id}@{writer.hostname()}>",
        seed=id,
    )
    return outgoing(
        draft,
        addresses,
        id=id,
        members=("/to",) * len(addresses),
        from_member="/from_email",
        shared=Common(author=author, tenant=tenant, limits=limits),
        at="",
    )


def _attachments(given: list[PortalAttachment], most_octets: int) -> tuple[Attachment, ...]:
    found, total = [], 0
    for one in given:
        if not one.content_b64:
            continue
        content = decoded(one.content_b64)
        if content is None:
            raise _bad("an attachment is not base64")
        total += len(content)
        if total > most_octets:
            raise Refused(Flaw(413, "too-large", "the attachments are too large together"))
        kind = one.mime_type or ""
        found.append(
            Attachment(
                content=content,
                filename=one.filename or "attachment",
                content_type=kind if "/" in kind else "application/octet-stream",
            )
        )
    return tuple(found)


def _text(given: str | None, member: str) -> str:
    text = given or ""
    if flaw_of_text(text):
        raise _bad(f"{member} {flaw_of_text(text)}")
    return text


def _bad(detail: str) -> Refused:
    return Refused(Flaw(400, "bad-request", detail))


_UNDELIVERABLE: Final = frozenset({"no-recipient", "not-kept"})


def _as_portal(flaw: Flaw) -> Flaw:
    """With the statuses that the contract has."""
    if flaw.kind in _UNDELIVERABLE:
        return _FAILED
    if flaw.status in (415, 422):
        where = f"{flaw.member.lstrip('/')}: " if flaw.member else ""
        return Flaw(400, flaw.kind, where + flaw.detail)
    return flaw
