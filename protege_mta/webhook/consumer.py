"""One webhook: its events in order, each until it is taken or given up.

One request is under way at a time, so an endpoint that is down, or slow, holds up nothing but
itself.  What has been taken is behind the stored cursor; what was under way when we died is sent
again, with the same id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..model.ports import CursorGone, JournalReader, StateFailed
from ..model.webhook import Figures, State
from ..schedule.backoff import Backoff
from ..state.hooks import DeadLetter, HookStore
from ..transport.poster import Answered, Unanswered

if TYPE_CHECKING:
    import random

POLL_S: Final = 0.2
"""How often the journal is looked at where all of it was seen."""

PAGE_EVENTS: Final = 1000

TROUBLE_S: Final = 5.0
"""How long a disk of ours that cannot be read is left alone."""

REFUSALS: Final = 5
"""After so many tries a request that the endpoint refuses (4xx, or 3xx) is given up."""

GONE: Final = 410
"""The endpoint wants nothing more, ever (Standard Webhooks 1.0): nothing is posted until a person
has us look again."""

GIVE_UP_S: Final = 86_400.0
"""A request that the endpoint answers with another error is given up after so long.  One that it
does not answer never is: then the endpoint is down, and no event is at fault."""

DOWN: Final = 5
"""So many failures in a row, and an endpoint counts as down."""

BACKOFF: Final = Backoff(first_s=1.0, factor=2.0, max_interval_s=3600.0, jitter=0.2)

PATIENT: Final = frozenset({408, 425, 429})
"""Client errors that are about time (RFC 9110, 15.5.9; RFC 8470; RFC 6585, 4)."""

SAVE_S: Final = 1.0
"""How often the place is stored while nothing is to be delivered."""


@attrs.frozen(kw_only=True)
class Wanted:
    """What a webhook is told.

    :ivar events: names; empty for all.
    :ivar tenant: empty for everybody's.
    :ivar batch: most events in a request; with more than one the body is an array.
    """

    events: frozenset[str] = frozenset()
    tenant: str = ""
    batch: int = 1

    def takes(self, head: _Head) -> bool:
        """Whether an event is one of these."""
        if self.events and head.event not in self.events:
            return False
        return not self.tenant or head.tenant == self.tenant


class _Head(msgspec.Struct, frozen=True):
    event: str
    id: str
    tenant: str = ""
    at: str = ""


_head_of: Final = msgspec.json.Decoder(_Head).decode


@attrs.define
class _Parcel:
    """The events of a request.

    :ivar end: the cursor behind them.
    :ivar number: of the dead letter that it was; None for what comes from the journal.
    :ivar passed: how many events of the journal it goes over, those that nobody wants included.
    :ivar tries: how often it was sent; ``refusals`` how often it was answered with 3xx or 4xx.
    :ivar refused_since: when it was first answered with an error, POSIX seconds; None while the
        endpoint does not answer at all.
    """

    id: str
    lines: list[bytes]
    end: str
    at: str = ""
    number: int | None = None
    passed: int = 0
    tries: int = 0
    refusals: int = 0
    refused_since: float | None = None

    def body(self, *, is_array: bool) -> bytes:
        if is_array or len(self.lines) > 1:  # a dead letter of when there were batches
            return b"[" + b",".join(self.lines) + b"]"
        return self.lines[0]


Post = Callable[[str, bytes], "Deferred[Answered | Unanswered]"]
"""Signs and makes a request, given the webhook's id for it and the body; never fails."""


class Consumer:
    """One webhook at work.

    :param now: POSIX seconds.
    """

    log = Logger()

    def __init__(
        self,
        name: str,
        wanted: Wanted,
        *,
        journal: JournalReader,
        count: Callable[[str], Deferred[tuple[int, str]]],
        store: HookStore,
        post: Post,
        clock: IReactorTime,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.name = name
        self._wanted = wanted
        self._journal = journal
        self._count = count
        self._store = store
        self._post = post
        self._clock = clock
        self._now = now
        self._rng = rng
        self._cursor = ""
        self._saved = ""
        self._saved_at = 0.0
        self._moved = -1  # so that the first look finds another one
        self._ahead: deque[tuple[bytes, str]] = deque()
        self._is_at_end = False
        self._passed = 0  # events since the cursor that nobody wants
        self._spoilt = 0  # that nobody could read, and that are not counted yet
        self._parcel: _Parcel | None = None
        self._failures = 0
        self._is_gone = False
        self._last_error = ""
        self._last_delivered_at: float | None = None
        self._next_try_at: float | None = None
        self._waiting_events = 0
        self._counted_to = ""  # the cursor that those are before
        self._pause: Deferred[None] | None = None
        self._is_posting = False
        self._is_ending = False
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Go on from the stored place, which is there."""
        self._running = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        """End; a request that is under way ends first."""
        self._is_ending = True
        running = self._running
        if running is None:
            return succeed(None)
        ended: Deferred[None] = Deferred(lambda _: running.cancel())
        running.addBoth(lambda _: ended.callback(None))
        if not self._is_posting:
            running.cancel()
        return ended

    def look(self) -> None:
        """Another process has changed something: whatever we wait for, look now."""
        if self._pause is not None and self._is_disturbed():
            self._failures, self._is_gone = 0, False
            self._pause.callback(None)

    def figures(self) -> Figures:
        """How it is.  :raise StateFailed:"""
        standing = self._store.standing(self.name)
        parcel = self._parcel
        lag_s = 0.0
        if parcel is not None and parcel.at:
            lag_s = max(0.0, self._now() - _seconds(parcel.at))
        return Figures(
            name=self.name,
            state=self._state(),
            cursor="" if standing is None else standing.cursor,
            delivered=0 if standing is None else standing.delivered,
            failed=0 if standing is None else standing.failed,
            lost=0 if standing is None else standing.lost,
            dead=self._store.dead(self.name),
            lag_events=self._waiting_events,
            lag_s=round(lag_s, 3),
            last_error=self._last_error,
            last_delivered_at=self._last_delivered_at,
            next_try_at=self._next_try_at,
        )

    def _state(self) -> State:
        if self._is_gone:
            return "gone"
        return "ok" if not self._failures else "failing" if self._failures < DOWN else "down"

    async def count(self) -> None:
        """Count the events that have come since the last time."""
        begin = self._counted_to
        if self._moved < 0:
            return
        try:
            more, end = await self._count(begin)
        except CursorGone:
            return  # the loop finds it too, and begins anew
        if self._counted_to == begin:
            self._waiting_events += more
            self._counted_to = end

    # --- the loop --------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_ending:
            try:
                wait_s: float | None = await self._turn()
            except CancelledError:
                return
            except StateFailed as error:
                self.log.error("webhook {name}: {error}", name=self.name, error=error)
                wait_s = TROUBLE_S
            except Exception:
                # One webhook's trouble is not the others'; and what it is about is still there.
                self.log.failure("webhook {name} stumbles", name=self.name)
                wait_s = TROUBLE_S
            if wait_s != 0.0 and not self._is_ending:
                try:
                    await self._sleep(wait_s)
                except CancelledError:
                    return

    async def _turn(self) -> float | None:
        """Do what is next.  :return: how long to wait then, in seconds; None for as long as nobody
        has us look."""
        self._catch_up()
        parcel = self._parcel or self._from_the_dead() or await self._from_the_journal()
        if parcel is None:
            return POLL_S if self._is_at_end else 0.0
        self._parcel = parcel
        parcel.tries += 1
        body = parcel.body(is_array=self._wanted.batch > 1)
        self._is_posting = True
        try:
            answer = await self._post(parcel.id, body)
        finally:
            self._is_posting = False
        self._next_try_at = None
        if isinstance(answer, Answered) and answer.is_success:
            self._taken(parcel)
            return 0.0
        return self._refused(parcel, answer)

    def _catch_up(self) -> None:
        """Find out whether a person has put us elsewhere."""
        if self._spoilt:
            self._store.advance(self.name, self._saved, self._moved, lost=self._spoilt)
            self._spoilt = 0
        standing = self._store.standing(self.name)
        if standing is None or standing.moved == self._moved:
            return
        self._moved = standing.moved
        self._go_to(standing.cursor)

    def _go_to(self, cursor: str) -> None:
        self._cursor = self._saved = cursor
        self._ahead.clear()
        self._passed = 0
        if self._parcel is not None and self._parcel.number is None:
            self._parcel = None
        self._counted_to, self._waiting_events = cursor, 0

    def _is_disturbed(self) -> bool:
        standing = self._store.standing(self.name)
        if standing is not None and standing.moved != self._moved:
            return True
        has_one = self._parcel is not None and self._parcel.number is not None
        return not has_one and self._next_dead() is not None

    # --- what is next ----------------------------------------------------------------------------

    def _next_dead(self) -> DeadLetter | None:
        return next(self._store.letters(self.name, is_wanted=True), None)

    def _from_the_dead(self) -> _Parcel | None:
        letter = self._next_dead()
        if letter is None:
            return None
        return _Parcel(letter.id, list(letter.lines), self._cursor, number=letter.number)

    async def _from_the_journal(self) -> _Parcel | None:
        if not self._ahead and not await self._read():
            return None
        lines: list[bytes] = []
        first: _Head | None = None
        end, spoilt = self._cursor, 0
        while self._ahead and len(lines) < self._wanted.batch:
            line, end = self._ahead.popleft()
            self._passed += 1
            try:
                head = _head_of(line)
                line.decode()  # which is not looked at as a whole for its head
            except (msgspec.DecodeError, UnicodeDecodeError):
                spoilt += 1
                continue
            if self._wanted.takes(head):
                first = first or head
                lines.append(line)
        if spoilt:
            self.log.error(
                "webhook {name}: {count} events cannot be read in the journal, before {end}",
                name=self.name,
                count=spoilt,
                end=end,
            )
            self._spoilt += spoilt
        if first is None:
            self._cursor = end
            self._save()
            return None
        passed, self._passed = self._passed, 0
        # Made of what is in it, so that the same events have the same id after a crash.
        id = first.id if self._wanted.batch == 1 else f"{first.id}+{len(lines)}"
        return _Parcel(id, lines, end, first.at, passed=passed)

    async def _read(self) -> bool:
        """Whether there is something ahead now."""
        moved, self._is_at_end = self._moved, True
        try:
            page = await self._journal.after(self._cursor, PAGE_EVENTS)
        except CursorGone as gone:
            self._lost(self._cursor, gone.oldest, moved)
            self._is_at_end = False
            return False
        self._is_at_end = page.is_end
        self._ahead.extend(zip(page.lines, page.ends, strict=True))
        if not page.lines:
            self._cursor = page.cursor
            self._save()
        return bool(page.lines)

    def _lost(self, cursor: str, oldest: str, moved: int) -> None:
        """Say that events are missing, to who looks after us and, before anything else, to the
        endpoint itself, whatever it wants to be told of."""
        self.log.error(
            "webhook {name}: the events from {cursor} to {oldest} were no longer kept when it was "
            "their turn",
            name=self.name,
            cursor=cursor,
            oldest=oldest,
        )
        now = self._now()
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        id = f"lost.{cursor}.{oldest}"
        told = {"event": "lost", "id": id, "at": at.replace("+00:00", "Z")}
        notice = msgspec.json.encode(told | {"after": cursor, "next": oldest})
        self._store.lose(self.name, oldest, moved, at=now, id=id, notice=notice)
        self._go_to(oldest)

    def _save(self) -> None:
        """Store the place behind events that nobody wanted, now and then."""
        self._seen(self._passed)
        self._passed = 0
        now = self._clock.seconds()
        if self._cursor != self._saved and now - self._saved_at >= SAVE_S:
            self._saved_at = now
            if self._store.advance(self.name, self._cursor, self._moved):
                self._saved = self._cursor

    def _seen(self, events: int) -> None:
        self._waiting_events -= events
        if self._waiting_events < 0:  # we are ahead of the count
            self._waiting_events, self._counted_to = 0, self._cursor

    # --- what came of it -------------------------------------------------------------------------

    def _taken(self, parcel: _Parcel) -> None:
        self._failures, self._last_error = 0, ""
        self._last_delivered_at = self._now()
        self._parcel = None
        if parcel.number is not None:
            self._store.raised(self.name, parcel.number, len(parcel.lines))
        else:
            self._store.advance(self.name, parcel.end, self._moved, delivered=len(parcel.lines))
            self._behind(parcel)

    def _behind(self, parcel: _Parcel) -> None:
        self._cursor = self._saved = parcel.end
        self._seen(parcel.passed)

    def _refused(self, parcel: _Parcel, answer: Answered | Unanswered) -> float | None:
        """It was not taken.  :return: as :meth:`_turn`."""
        self._failures += 1
        self._store.count_failed(self.name)
        wait_s, cause = BACKOFF.wait_s(self._failures, self._rng), ""
        if isinstance(answer, Answered):
            cause = f"status {answer.status}"
            asked_s = answer.retry_after_s(self._now())
            wait_s = max(wait_s, min(asked_s, BACKOFF.max_interval_s))
            if parcel.refused_since is None:
                parcel.refused_since = self._now()
        else:
            cause = answer.cause
            parcel.refused_since = None
        if self._failures == DOWN:
            self.log.warn("webhook {name} is down: {cause}", name=self.name, cause=cause)
        self._last_error = cause
        if isinstance(answer, Answered) and answer.status == GONE:
            self._is_gone = True
            self.log.error(
                "webhook {name}: the endpoint is gone, as it says (410); nothing more is posted "
                "until the next reload, start or replay",
                name=self.name,
            )
            return None
        if isinstance(answer, Answered) and self._is_over(parcel, answer.status):
            self._bury(parcel, cause)
        self._next_try_at = self._now() + wait_s
        return wait_s

    def _is_over(self, parcel: _Parcel, status: int) -> bool:
        if 300 <= status < 500 and status not in PATIENT:
            parcel.refusals += 1
            if parcel.refusals >= REFUSALS:
                return True
        since = parcel.refused_since
        return since is not None and self._now() - since >= GIVE_UP_S

    def _bury(self, parcel: _Parcel, cause: str) -> None:
        now, tries = self._now(), parcel.tries
        if parcel.number is not None:
            self._store.bury_again(parcel.number, at=now, tries=tries, cause=cause)
            self._parcel = None
            return
        self._store.bury(
            self.name,
            parcel.end,
            self._moved,
            at=now,
            id=parcel.id,
            tries=tries,
            cause=cause,
            lines=parcel.lines,
        )
        self._parcel = None  # not before it is kept elsewhere
        self._behind(parcel)
        self.log.warn(
            "webhook {name} would not have {id}: {cause}", name=self.name, id=parcel.id, cause=cause
        )

    def _sleep(self, seconds: float | None) -> Deferred[None]:
        """Until then, or until :meth:`look` finds something; with None until that alone."""
        pause: Deferred[None] = Deferred()
        self._pause = pause
        call = None if seconds is None else self._clock.callLater(seconds, self._woken)

        def end(result: object) -> object:
            self._pause = None
            if call is not None and call.active():
                call.cancel()
            return result

        return pause.addBoth(end)

    def _woken(self) -> None:
        if self._pause is not None:
            self._pause.callback(None)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
