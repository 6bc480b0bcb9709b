"""``GET /v1/message/{id}`` and ``GET /v1/messages``: what became of messages; and a hand in.

A key for ``send`` sees the messages that it has sent, one for ``read`` those of its tenant (of all,
where it has none), one for ``admin`` all.  To change anything it takes the key that sent the message,
or ``admin``; and what waits for approval is released by ``admin``, never by the key that sent it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from ..message.parts import attachments, body_of, read_parts
from ..model import ids
from ..model.caller import Caller, Flaw, Scope
from ..model.ids import QueueId
from ..model.message_query import MessageQuery
from ..model.ports import Content
from ..observe.events import Event
from . import answer, pieces
from .endpoint import Answer, Endpoint
from .message_query import PARAMETERS, asked, limit_of, values_of

Action = Literal["cancel", "retry", "hold", "release"]
ACTIONS: Final[tuple[Action, ...]] = ("cancel", "retry", "hold", "release")


class Whose(msgspec.Struct):
    """Who may know of a message.  :ivar needs_approval: it came to wait for a person."""

    identity: str
    tenant: str
    needs_approval: bool = False


class RecipientStanding(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A recipient.

    :ivar status: the last event's name, or where it stands in the queue: ``scheduled``, ``active``,
        ``deferred``, ``held``, ``corrupt``; ``ended`` for a moment, until its fate can be told.
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
    """A message.

    :ivar tags: its sender's words for reports.
    :ivar is_queued: whether it is in the queue, with its content.
    """

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
    tags: Sequence[str] = ()
    is_queued: bool
    recipients: list[RecipientStanding]


class MessageTimeline(MessageSummary, kw_only=True):
    """A message, and all that has happened to it."""

    events: list[Event]


class MessagePage(msgspec.Struct):
    """The newest first.

    :ivar next: the ``after`` of the next request; empty at the end.
    """

    messages: list[MessageSummary]
    next: str


class Done(msgspec.Struct):
    """What an action has come to.

    :ivar changed: whether anything is different now: false where all was as it is wanted.
    :ivar under_way: whether an attempt is under way, which nobody breaks off: it may deliver the
        message.  The same is done to what it leaves, unless the service dies before it is over.
    """

    id: str
    changed: bool
    under_way: bool = False


class AuthenticateAny(Protocol):
    """:data:`~.endpoint.Authenticate` where one of several scopes will do."""

    def __call__(
        self, request: IRequest, scope: Scope, *others: Scope
    ) -> Awaitable[Caller | Flaw]: ...


class Records(Protocol):
    """Messages that are in the queue, and those that were.

    What is asked of those that were raises :class:`~.reading.Refused` where nobody can tell now.
    """

    def whose(self, id: QueueId) -> Awaitable[Whose | None]:
        """None for a message that nobody knows of any more."""

    def timeline(self, id: QueueId) -> Awaitable[tuple[MessageSummary, Sequence[bytes]] | None]:
        """It, and its events as lines of JSON."""

    def list(self, query: MessageQuery, most: int) -> Awaitable[list[MessageSummary]]: ...

    def change(self, id: QueueId, action: Action) -> Awaitable[Done | Flaw]:
        """What has come of it, or why it does not apply."""

    def open(self, id: QueueId) -> Awaitable[Content | None]:
        """Its octets, to be closed; None where it is not in the queue.  :raise Damaged:"""

    def in_thread(self, work: Any) -> Deferred[Any]: ...


_ID: Final = {"problems": (404,), "tag": "Messages"}

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/message/{id}",
        summary="Show where a message stands, and all that has happened to it",
        answers={200: Answer(summary="The message", type=MessageTimeline)},
        scope="send",
        or_scope="read",
        **_ID,  # type: ignore[arg-type]
    ),
    Endpoint(
        method="GET",
        path="/v1/messages",
        summary="List messages, the newest first",
        parameters=PARAMETERS,
        answers={200: Answer(summary="Messages", type=MessagePage)},
        problems=(400,),
        scope="send",
        or_scope="read",
        tag="Messages",
    ),
    Endpoint(
        method="GET",
        path="/v1/message/{id}/raw",
        summary="Read a message as it is, while it is in the queue",
        answers={200: Answer(summary="The message", media_type="message/rfc822")},
        scope="send",
        or_scope="read",
        **_ID,  # type: ignore[arg-type]
    ),
    Endpoint(
        method="GET",
        path="/v1/message/{id}/attachments/{n}",
        summary="Read an attachment, while its message is in the queue",
        answers={200: Answer(summary="Its content", media_type="application/octet-stream")},
        scope="send",
        or_scope="read",
        **_ID,  # type: ignore[arg-type]
    ),
    *(
        Endpoint(
            method="POST",
            path=f"/v1/message/{{id}}/{action}",
            summary=summary,
            answers={
                200: Answer(summary="Done", type=Done),
                202: Answer(summary="To be done to what the attempt under way leaves", type=Done),
            },
            scope="send",
            problems=(404, 409),
            why={409: "The message is not where this can be done; `type` says why"},
            tag="Messages",
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
_NO_ATTACHMENT: Final = Flaw(
    404, "no-such-attachment", "the message has no such attachment", hint="they are counted from 0"
)
_ONLY_OWN: Final = Flaw(
    403, "not-your-message", "this takes the key that sent the message, or the scope admin"
)
_NO_APPROVAL: Final = Flaw(
    403,
    "approval-required",
    "the message came to wait for approval: to release it takes the scope admin and another key",
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
        return None if is_admin and not _is_sender(caller, whose) else _NO_APPROVAL
    if is_admin or (is_own and "send" in caller.scopes):
        return None
    return _ONLY_OWN


def _is_own(caller: Caller, whose: Whose) -> bool:
    """Whether the caller has sent it.  A key may have the name of one that is gone, which was
    another tenant's."""
    return _is_sender(caller, whose) and caller.tenant == whose.tenant


def _is_sender(caller: Caller, whose: Whose) -> bool:
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
        values = values_of(request)
        query, limit = asked(values, caller), limit_of(values)
        found = await records.list(query, limit)
        following = found[-1].id if len(found) == limit else ""
        return answer.json(request, MessagePage(found, following))

    def serve(action: Action) -> None:
        @app.route(f"/v1/message/<id>/{action}", methods=["POST"])
        async def change(request: IRequest, id: str) -> bytes:
            found = await seen(request, id)
            if isinstance(found, Flaw):
                return answer.flaw(request, found)
            caller, name, whose = found
            flaw = may_change(caller, whose, action)
            if flaw is not None:
                return answer.flaw(request, flaw)
            done = await records.change(name, action)
            if isinstance(done, Flaw):
                return answer.flaw(request, done)
            return answer.json(request, done, 202 if done.under_way else 200)

    for action in ACTIONS:
        serve(action)

    @app.route("/v1/message/<id>/raw", methods=["GET"])
    async def raw(request: IRequest, id: str) -> bytes:
        found = await seen(request, id)
        content = None if isinstance(found, Flaw) else await records.open(found[1])
        if content is None:
            return answer.flaw(request, found if isinstance(found, Flaw) else _GONE)
        headers = {
            b"Content-Type": b"message/rfc822",
            b"Content-Length": b"%d" % content.size_octets,
        }
        try:
            await pieces.send(request, headers, _all_of(content))
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
                return answer.flaw(request, _NO_ATTACHMENT)
            # Never as what a stranger says that it is: a browser would believe it.
            headers = {
                b"Content-Type": b"application/octet-stream",
                b"Content-Disposition": b"attachment",
            }
            await pieces.send(request, headers, body_of(content, parts[int(n)]))
        finally:
            content.close()
        return b""


def _all_of(content: Content) -> Iterator[bytes]:
    for offset in range(0, content.size_octets, 65_536):
        yield content.read(offset, 65_536)
