"""``GET /v1/events``: what has happened, from any place on; ``GET /v1/events/stream``: and what is
happening, as Server-Sent Events (HTML Living Standard, 9.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from zope.interface import implementer

from ..model.caller import Caller, Flaw
from ..model.event import EVENTS
from ..model.ports import CursorGone, JournalReader
from ..observe.events import Event
from . import answer
from .answer import PROBLEM, Problem
from .endpoint import Answer, Authenticate, Endpoint, Parameter

MOST: Final = 1000
"""Events in an answer, whatever is asked for."""

USUAL: Final = 100

LOOKED_AT: Final = 20_000
"""After so many events of the journal an answer is given, be there few or none that were asked for."""

STREAMS: Final = 100
POLL_S: Final = 0.2

RECHECK_S: Final = 1.0
"""How often a stream's key is looked at again: one that was revoked sees nothing more."""

HEARTBEAT_S: Final = 15.0
STUCK_S: Final = 60.0
"""A client that takes nothing for so long is hung up on; it can come back to where it was."""


class EventPage(msgspec.Struct, kw_only=True):
    """Some events.

    :ivar next: the cursor to ask on with, be there more now or not.
    :ivar more: whether there was more to look at.
    """

    events: list[Event]
    next: str
    more: bool


class Gone(Problem, kw_only=True):
    """A cursor whose events are no longer kept.

    :ivar oldest: the cursor to begin with.
    """

    oldest: str


_CURSOR_GONE: Final = Answer(
    summary="What is behind the cursor is no longer kept", type=Gone, media_type=PROBLEM
)

_FILTERS: Final = (
    Parameter(name="event", summary="Only these events; several with commas between them"),
    Parameter(name="recipient", summary="Only those about this address"),
    Parameter(name="tenant", summary="Only those of this tenant"),
    Parameter(name="message_id", summary="Only those of this message"),
)

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/events",
        summary="List events in the order in which they came about",
        description="`next` is the `after` of the next request. A page may be empty where `more` "
        "is true: many events were looked at, and none was asked for.",
        parameters=(
            Parameter(
                name="after", summary="A cursor; without one, from the oldest event that is kept"
            ),
            Parameter(name="limit", summary=f"Most events, up to {MOST}", type=int),
            *_FILTERS,
        ),
        answers={200: Answer(summary="Events", type=EventPage), 410: _CURSOR_GONE},
        problems=(400,),
        scope="read",
        tag="Events",
    ),
    Endpoint(
        method="GET",
        path="/v1/events/stream",
        summary="Follow events as they come about",
        description="Server-Sent Events: `event` is the event's name, `id` its cursor, `data` the "
        "object. Without `after` and `Last-Event-ID` it begins with what comes next. It ends within "
        "a second once the key is revoked.",
        parameters=(
            Parameter(name="after", summary="A cursor"),
            Parameter(
                name="Last-Event-ID", summary="The cursor of the last event had", place="header"
            ),
            *_FILTERS,
        ),
        answers={
            200: Answer(summary="Events without end", media_type="text/event-stream"),
            410: _CURSOR_GONE,
        },
        problems=(400,),
        scope="read",
        tag="Events",
    ),
)


class _Head(msgspec.Struct, frozen=True):
    event: str
    recipient: str = ""
    tenant: str = ""
    message_id: str = ""


_head_of: Final = msgspec.json.Decoder(_Head).decode


@attrs.frozen(kw_only=True)
class Filter:
    """What a client wants to see; what is empty or None is not looked at."""

    events: frozenset[str] = frozenset()
    recipient: str = ""
    tenant: str | None = None
    message_id: str = ""

    def event_of(self, line: bytes) -> str | None:
        """The event's name, where it is one of these."""
        try:
            head = _head_of(line)
            line.decode()  # which is not looked at as a whole for its head
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # a line that a disk has spoilt
        is_wanted = (
            (not self.events or head.event in self.events)
            and (not self.recipient or head.recipient.lower() == self.recipient)
            and (self.tenant is None or head.tenant == self.tenant)
            and (not self.message_id or head.message_id == self.message_id)
        )
        return head.event if is_wanted else None


def asked(request: IRequest, caller: Caller) -> Filter | Flaw:
    """What the query asks for, as far as the caller may know it: a key of a tenant, its tenant's
    events; one of nobody's, everything."""
    events = frozenset(filter(None, ",".join(_values(request, b"event")).split(",")))
    if not events.issubset(EVENTS):
        return Flaw(
            400,
            "no-such-event",
            "there is no event of this name",
            member="/event",
            hint=f"one of {', '.join(EVENTS)}",
        )
    tenant = _value(request, b"tenant")
    if caller.tenant and "admin" not in caller.scopes:
        if tenant not in (None, caller.tenant):
            return Flaw(
                403, "not-your-tenant", "the key belongs to another tenant", member="/tenant"
            )
        tenant = caller.tenant
    return Filter(
        events=events,
        recipient=(_value(request, b"recipient") or "").lower(),
        tenant=tenant,
        message_id=_value(request, b"message_id") or "",
    )


def add(
    app: Klein, journal: JournalReader, authenticate: Authenticate, clock: IReactorTime
) -> None:
    """Serve the journal's events."""
    streams: set[_Stream] = set()

    @app.route("/v1/events", methods=["GET"])
    async def events(request: IRequest) -> bytes:
        request.setHeader(b"Cache-Control", b"no-store")
        wanted = await _wanted(request, authenticate)
        limit = _limit(request)
        if isinstance(wanted, Flaw):
            return answer.flaw(request, wanted)
        if isinstance(limit, Flaw):
            return answer.flaw(request, limit)
        try:
            found = await _page(journal, wanted, _value(request, b"after") or "", limit)
        except CursorGone as gone:
            return _gone(request, gone)
        return answer.json(request, found)

    @app.route("/v1/events/stream", methods=["GET"])
    async def stream(request: IRequest) -> bytes:
        wanted = await _wanted(request, authenticate)
        if isinstance(wanted, Flaw):
            return answer.flaw(request, wanted)
        if len(streams) >= STREAMS:
            request.setHeader(b"Retry-After", b"30")
            return answer.problem(request, 503, "too many streams")
        after = request.getHeader("last-event-id") or _value(request, b"after")
        try:
            cursor = journal.end() if after is None else after
            await journal.after(cursor, 1)  # so that what is gone is 410, and not a stream
        except CursorGone as gone:
            return _gone(request, gone)
        request.setHeader(b"Content-Type", b"text/event-stream")
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"X-Accel-Buffering", b"no")  # proxies of nginx's kind
        if request.method == b"HEAD":
            return b""
        following = _Stream(
            request, journal, wanted, cursor, clock, lambda: _wanted(request, authenticate)
        )
        streams.add(following)
        try:
            await following.run()
        finally:
            streams.discard(following)
        return b""


async def _wanted(request: IRequest, authenticate: Authenticate) -> Filter | Flaw:
    caller = await authenticate(request, "read")
    return caller if isinstance(caller, Flaw) else asked(request, caller)


async def _page(
    journal: JournalReader, wanted: Filter, cursor: str, limit: int
) -> dict[str, object]:
    found: list[msgspec.Raw] = []
    looked_at, is_end = 0, False
    while len(found) < limit and looked_at < LOOKED_AT:
        page = await journal.after(cursor, MOST)
        cursor, is_end = page.cursor, page.is_end
        if is_end:
            break
        looked_at += len(page.lines)
        for line, end in zip(page.lines, page.ends, strict=True):
            if wanted.event_of(line) is not None:
                found.append(msgspec.Raw(line))
                if len(found) == limit:
                    cursor = end
                    break
    return {"events": found, "next": cursor, "more": not is_end}


@implementer(IPushProducer)
class _Stream:
    """One client that follows.  It is read for as fast as it takes what there is.

    :param wanted_now: what its key may see now, or why nothing.
    """

    def __init__(
        self,
        request: Any,
        journal: JournalReader,
        wanted: Filter,
        cursor: str,
        clock: IReactorTime,
        wanted_now: Callable[[], Awaitable[Filter | Flaw]],
    ) -> None:
        self._request = request
        self._journal = journal
        self._wanted_now = wanted_now
        self._checked_at = clock.seconds()
        self._wanted = wanted
        self._cursor = cursor
        self._clock = clock
        self._is_gone = False
        self._is_paused = False
        self._wrote_at = clock.seconds()
        self._pause: Deferred[None] | None = None

    async def run(self) -> None:
        """Until the client goes, or is stuck."""
        self._request.notifyFinish().addBoth(self._gone)
        self._request.registerProducer(self, True)
        self._write(b"retry: 2000\n\n")
        while not self._is_gone:
            if not await self._is_allowed() or self._is_gone:
                break
            silent_s = self._clock.seconds() - self._wrote_at
            if self._is_paused:
                if silent_s >= STUCK_S:
                    self._request.channel.forceAbortClient()
                    break
                await self._sleep(POLL_S)
                continue
            try:
                page = await self._journal.after(self._cursor, USUAL)
            except CursorGone:
                break  # so far behind; it is told when it comes back
            if not self._is_gone:
                self._tell(page.lines, page.ends)
            self._cursor = page.cursor
            if page.is_end:
                if silent_s >= HEARTBEAT_S and not self._is_gone:
                    self._write(b": nothing new\n\n")
                await self._sleep(POLL_S)
        if not self._is_gone:
            self._request.unregisterProducer()

    async def _is_allowed(self) -> bool:
        """Whether the client may still see something, by what its key is now."""
        now = self._clock.seconds()
        if now - self._checked_at >= RECHECK_S:
            self._checked_at = now
            wanted = await self._wanted_now()
            if isinstance(wanted, Flaw):
                return wanted.status == 503  # nobody can tell just now
            self._wanted = wanted
        return True

    def _tell(self, lines: Sequence[bytes], ends: Sequence[str]) -> None:
        told = []
        for line, end in zip(lines, ends, strict=True):
            name = self._wanted.event_of(line)
            if name is not None:
                told.append(
                    b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), end.encode(), line)
                )
        if told:
            self._write(b"".join(told))

    def _write(self, octets: bytes) -> None:
        self._wrote_at = self._clock.seconds()
        self._request.write(octets)

    def _sleep(self, seconds: float) -> Deferred[None]:
        pause = self._pause = Deferred()
        call = self._clock.callLater(seconds, pause.callback, None)

        def end(result: Failure | None) -> Failure | None:
            self._pause = None
            if call.active():
                call.cancel()
            return result

        return pause.addBoth(end)  # Klein cancels it when the client goes

    def _gone(self, _: object) -> None:
        self._is_gone = True
        if self._pause is not None:
            self._pause.callback(None)

    # --- for the transport -----------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False

    def stopProducing(self) -> None:
        self._is_gone = True


def _gone(request: IRequest, gone: CursorGone) -> bytes:
    request.setResponseCode(410)
    request.setHeader(b"Content-Type", PROBLEM.encode("ascii"))
    return msgspec.json.encode(
        Gone(
            type="urn:protege-mta:problem:cursor-gone",
            title="Gone",
            status=410,
            detail="the events behind this cursor are no longer kept",
            member="/after",
            hint="begin with the cursor in oldest, or without one",
            oldest=gone.oldest,
        )
    )


def _values(request: IRequest, name: bytes) -> list[str]:
    values: list[bytes] = request.args.get(name, [])
    return [value.decode("utf-8", "replace") for value in values]


def _value(request: IRequest, name: bytes) -> str | None:
    values = _values(request, name)
    return values[-1] if values else None


def _limit(request: IRequest) -> int | Flaw:
    text = _value(request, b"limit")
    if text is None:
        return USUAL
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0:
        return min(int(text), MOST)
    return Flaw(400, "no-number", "limit is no whole number above 0", member="/limit")
