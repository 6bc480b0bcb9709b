"""``GET /v1/message/{id}`` and ``GET /v1/messages``: what became of messages; and a hand in.

A key for ``send`` sees the messages that it has sent, one for ``read`` those of its tenant (of all,
where it has none), one for ``admin`` all.  To change anything it takes the key that sent the message,
or ``admin``; and what waits for approval is released by ``admin``, never by the key that sent it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol

import attrs
import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.web.iweb import IRequest
from zope.interface import implementer

from ..message.parts import attachments, body_of, read_parts
from ..model import ids
from ..model.caller import Caller, Flaw, Scope
from ..model.ids import QueueId
from ..model.ports import Content
from ..observe.events import Event
from . import answer
from .endpoint import Answer, Endpoint, Parameter

MOST: Final = 1000
USUAL: Final = 100

Action = Literal["cancel", "retry", "hold", "release"]
ACTIONS: Final[tuple[Action, ...]] = ("cancel", "retry", "hold", "release")


class Whose(msgspec.Struct):
    """Who may know of a message.  :ivar needs_approval: it came to wait for a person."""

    identity: str
    tenant: str
    needs_approval: bool = False


class RecipientStanding(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A recipient.

    :ivar status: the last event's name, or where it stands in the queue.
    :ivar next_attempt_at: POSIX seconds; absent where there is none.
    :ivar why: why it waits, in a sentence.
    """

    address: str
    status: str
    attempts: int = 0
    next_attempt_at: float | None = None
    last_reply: str = ""
    why: str = ""


class MessageSummary(msgspec.Struct, kw_only=True):
    """A message.  :ivar is_queued: whether it is in the queue, with its content."""

    id: str
    at: str
    sender: str
    subject: str
    size_octets: int
    source: str
    identity: str
    tenant: str
    campaign: str
    header_message_id: str
    is_queued: bool
    recipients: list[RecipientStanding]


class MessageTimeline(MessageSummary, kw_only=True):
    """A message, and all that has happened to it."""

    events: list[Event]


class MessagePage(msgspec.Struct):
    """The newest first.  :ivar next: the ``after`` of the next request; empty at the end."""

    messages: list[MessageSummary]
    next: str


class Done(msgspec.Struct):
    """:ivar changed: whether there was anything to do."""

    id: str
    changed: bool


@attrs.frozen(kw_only=True)
class Query:
    """What a list is asked for; what is empty or None is not looked at.

    :ivar before: an id: only older messages.
    """

    recipient: str = ""
    sender: str | None = None
    status: str = ""
    tenant: str | None = None
    identity: str = ""
    campaign: str = ""
    before: str = ""


class AuthenticateAny(Protocol):
    """:data:`~.endpoint.Authenticate` where one of several scopes will do."""

    def __call__(
        self, request: IRequest, scope: Scope, *others: Scope
    ) -> Awaitable[Caller | Flaw]: ...


class Records(Protocol):
    """Messages that are in the queue, and those that were."""

    def whose(self, id: QueueId) -> Awaitable[Whose | None]:
        """None for a message that nobody knows of any more."""

    def timeline(self, id: QueueId) -> Awaitable[tuple[MessageSummary, Sequence[bytes]] | None]:
        """It, and its events as lines of JSON."""

    def list(self, query: Query, most: int) -> Awaitable[list[MessageSummary]]: ...

    def change(self, id: QueueId, action: Action) -> Awaitable[bool | None]:
        """Whether there was anything to do; None where it is not in the queue."""

    def open(self, id: QueueId) -> Awaitable[Content | None]:
        """Its octets, to be closed; None where it is not in the queue."""

    def in_thread(self, work: Any) -> Deferred[Any]: ...


_ID: Final = {"problems": (401, 403, 404, 503), "tag": "Messages"}

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/message/{id}",
        summary="Show where a message stands, and all that has happened to it",
        answers={200: Answer(summary="The message", type=MessageTimeline)},
        scope="send",
        **_ID,  # type: ignore[arg-type]
    ),
    Endpoint(
        method="GET",
        path="/v1/messages",
        summary="List messages, the newest first",
        parameters=(
            Parameter(name="recipient", summary="Only those to this address"),
            Parameter(name="sender", summary="Only those of this reverse-path"),
            Parameter(
                name="status", summary="Only those with a recipient whose last event is this"
            ),
            Parameter(name="tenant", summary="Only those of this tenant"),
            Parameter(name="campaign", summary="Only those of this campaign"),
            Parameter(name="after", summary="The `next` of the page before"),
            Parameter(name="limit", summary=f"Most messages, up to {MOST}", type=int),
        ),
        answers={200: Answer(summary="Messages", type=MessagePage)},
        problems=(400, 401, 403, 503),
        scope="send",
        tag="Messages",
    ),
    Endpoint(
        method="GET",
        path="/v1/message/{id}/raw",
        summary="Read a message as it is, while it is in the queue",
        answers={200: Answer(summary="The message", media_type="message/rfc822")},
        scope="send",
        **_ID,  # type: ignore[arg-type]
    ),
    Endpoint(
        method="GET",
        path="/v1/message/{id}/attachments/{n}",
        summary="Read an attachment, while its message is in the queue",
        answers={200: Answer(summary="Its content", media_type="application/octet-stream")},
        scope="send",
        **_ID,  # type: ignore[arg-type]
    ),
    *(
        Endpoint(
            method="POST",
            path=f"/v1/message/{{id}}/{action}",
            summary=summary,
            answers={200: Answer(summary="Done", type=Done)},
            scope="send",
            **_ID,  # type: ignore[arg-type]
        )
        for action, summary in (
            ("cancel", "Take a message out of the queue; nobody is told"),
            ("retry", "Try a message that waits now"),
            ("hold", "Try a message no more until it is released"),
            ("release", "Let a held message go on"),
        )
    ),
)

_UNKNOWN: Final = Flaw(404, "no-such-message", "there is no such message, or it is not yours")
_GONE: Final = Flaw(
    404,
    "not-in-queue",
    "the message is not in the queue any more",
    hint="its content is kept until its last recipient has met its fate",
)
_ONLY_OWN: Final = Flaw(
    403, "not-your-message", "this takes the key that sent the message, or the scope admin"
)
_NO_APPROVAL: Final = Flaw(
    403,
    "approval-required",
    "the message waits for approval, which takes the scope admin and another key",
)


def may_see(caller: Caller, whose: Whose) -> bool:
    """Whether a caller may know of a message."""
    if "admin" in caller.scopes:
        return True
    if "read" in caller.scopes and caller.tenant in ("", whose.tenant):
        return True
    return "send" in caller.scopes and _is_own(caller, whose)


def may_change(caller: Caller, whose: Whose, action: Action) -> Flaw | None:
    """Why a caller may not do that to a message that it may see; None to go on."""
    is_admin, is_own = "admin" in caller.scopes, _is_own(caller, whose)
    if action == "release" and whose.needs_approval:
        return None if is_admin and not is_own else _NO_APPROVAL
    if is_admin or (is_own and "send" in caller.scopes):
        return None
    return _ONLY_OWN


def _is_own(caller: Caller, whose: Whose) -> bool:
    return bool(caller.identity) and caller.identity == whose.identity


def add(app: Klein, records: Records, authenticate: AuthenticateAny) -> None:
    """Serve them."""

    async def seen(request: IRequest, text: str) -> tuple[Caller, QueueId, Whose] | Flaw:
        request.setHeader(b"Cache-Control", b"no-store")
        caller = await authenticate(request, "read", "send")
        if isinstance(caller, Flaw):
            return caller
        id = ids.parse(text)
        whose = None if id is None else await records.whose(id)
        if id is None or whose is None or not may_see(caller, whose):
            return _UNKNOWN
        return caller, id, whose

    @app.route("/v1/message/<id>", methods=["GET"])
    async def message(request: IRequest, id: str) -> bytes:
        found = await seen(request, id)
        if isinstance(found, Flaw):
            return answer.flaw(request, found)
        timeline = await records.timeline(found[1])
        if timeline is None:
            return answer.flaw(request, _UNKNOWN)
        summary, lines = timeline
        told = msgspec.to_builtins(summary)
        return answer.json(request, told | {"events": [msgspec.Raw(line) for line in lines]})

    @app.route("/v1/messages", methods=["GET"])
    async def messages(request: IRequest) -> bytes:
        request.setHeader(b"Cache-Control", b"no-store")
        caller = await authenticate(request, "read", "send")
        if isinstance(caller, Flaw):
            return answer.flaw(request, caller)
        query, limit = asked(request, caller), _limit(request)
        if isinstance(query, Flaw):
            return answer.flaw(request, query)
        if isinstance(limit, Flaw):
            return answer.flaw(request, limit)
        found = await records.list(query, limit)
        following = found[-1].id if len(found) == limit else ""
        return answer.json(request, MessagePage(found, following))

    @app.route("/v1/message/<id>/<action>", methods=["POST"])
    async def change(request: IRequest, id: str, action: str) -> bytes:
        found = await seen(request, id)
        if isinstance(found, Flaw):
            return answer.flaw(request, found)
        caller, name, whose = found
        wanted = next((one for one in ACTIONS if one == action), None)
        if wanted is None:
            return answer.problem(request, 404)
        flaw = may_change(caller, whose, wanted)
        if flaw is not None:
            return answer.flaw(request, flaw)
        changed = await records.change(name, wanted)
        if changed is None:
            return answer.flaw(request, _GONE)
        return answer.json(request, Done(name, changed))

    @app.route("/v1/message/<id>/raw", methods=["GET"])
    async def raw(request: IRequest, id: str) -> bytes:
        found = await seen(request, id)
        content = None if isinstance(found, Flaw) else await records.open(found[1])
        if content is None:
            return answer.flaw(request, found if isinstance(found, Flaw) else _GONE)
        try:
            request.setHeader(b"Content-Type", b"message/rfc822")
            request.setHeader(b"Content-Length", b"%d" % content.size_octets)
            await _Sender(request, _all_of(content)).done
        finally:
            content.close()
        return b""

    @app.route("/v1/message/<id>/attachments/<n>", methods=["GET"])
    async def attachment(request: IRequest, id: str, n: str) -> bytes:
        found = await seen(request, id)
        content = None if isinstance(found, Flaw) else await records.open(found[1])
        if content is None:
            return answer.flaw(request, found if isinstance(found, Flaw) else _GONE)
        try:
            parts = attachments(await records.in_thread(lambda: read_parts(content)))
            if not n.isdecimal() or len(n) > 4 or int(n) >= len(parts):
                return answer.problem(request, 404)
            # Never as what a stranger says that it is: a browser would believe it.
            request.setHeader(b"Content-Type", b"application/octet-stream")
            request.setHeader(b"Content-Disposition", b"attachment")
            await _Sender(request, body_of(content, parts[int(n)])).done
        finally:
            content.close()
        return b""


def asked(request: IRequest, caller: Caller) -> Query | Flaw:
    """What the query asks for, as far as the caller may know it."""
    tenant, identity = _value(request, b"tenant"), ""
    if "admin" not in caller.scopes:
        if "read" not in caller.scopes:
            identity = caller.identity or " "  # who has no name has sent nothing
        elif caller.tenant:
            if tenant not in (None, caller.tenant):
                return Flaw(
                    403, "not-your-tenant", "the key belongs to another tenant", member="/tenant"
                )
            tenant = caller.tenant
    before = _value(request, b"after") or ""
    if before and ids.parse(before) is None:
        return Flaw(400, "bad-cursor", "this is no cursor of ours", member="/after")
    return Query(
        recipient=_value(request, b"recipient") or "",
        sender=_value(request, b"sender"),
        status=_value(request, b"status") or "",
        tenant=tenant,
        identity=identity,
        campaign=_value(request, b"campaign") or "",
        before=before,
    )


def _limit(request: IRequest) -> int | Flaw:
    text = _value(request, b"limit") or str(USUAL)
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= MOST:
        return Flaw(400, "bad-limit", f"wanted a number from 1 to {MOST}", member="/limit")
    return int(text)


def _value(request: IRequest, name: bytes) -> str | None:
    arguments: dict[bytes, list[bytes]] = request.args or {}
    values = arguments.get(name)
    return values[-1].decode("utf-8", "replace") if values else None


def _all_of(content: Content) -> Iterator[bytes]:
    for offset in range(0, content.size_octets, 65_536):
        yield content.read(offset, 65_536)


@implementer(IPullProducer)
class _Sender:
    """Writes pieces as fast as the client takes them.

    :ivar done: resolves at the end, or when the client is gone.
    """

    def __init__(self, request: Any, pieces: Iterator[bytes]) -> None:
        self.done: Deferred[None] = Deferred()
        self._request = request
        self._pieces = pieces
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.done.called:
            return
        piece = next(self._pieces, None)
        if piece is None:
            self._request.unregisterProducer()
            self.done.callback(None)
            return
        self._request.write(piece)

    def stopProducing(self) -> None:
        self._gone(None)

    def _gone(self, _: object) -> None:
        if not self.done.called:
            self.done.callback(None)
