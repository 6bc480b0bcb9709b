"""Who is tried when: the sole owner of scheduling state and of its one timer.

The scheduler knows ids, next hops, times, tenant and priority, nothing else.  It starts attempts
through a callback; workers report with :meth:`Scheduler.finished` and own nothing.  How it works
is told in ``docs/explanation/scheduling.md``.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeVar

import attrs
from attrs import validators
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.hop import HopKind, NextHop, Site
from ..model.ids import QueueId
from ..model.outcome import PermanentFailure, Scope, TransientFailure
from ..model.reply import TABLE
from .backoff import Backoff
from .entry import Entry, EntryState, Health, Report
from .sitequeue import HopQueue, Line, Location, SiteQueue
from .standing import Depth, SiteSummary, Standing, standing_of
from .wheel import Wheel, drop
from .window import WINDOWS, Window, WindowSettings

SLICE: Final = 100
"""So much is done before the reactor gets its turn."""

LONGEST_SLEEP_S: Final = 30.0
"""A wall clock that was set, or a machine that slept, is noticed after this."""

LOCAL_TROUBLE_S: Final = 60.0
"""What we stumbled over ourselves is tried again after this."""

_T = TypeVar("_T")

Order = Literal["hold", "remove"]
"""What a person wants of an entry that is active, once it comes back."""

Locate = Callable[[NextHop], Deferred[Location]]
"""Finds a next hop's hosts.  A cache lies below it: it is asked again every ``located_s``."""


@attrs.frozen(kw_only=True)
class SchedulerSettings:
    """Limits and paces.

    :ivar concurrency: attempts under way at a time, all sites together.
    :ivar windows: attempts under way at a site, by its kind.
    :ivar backoff: of sites and of lookups, which live in memory only.
    :ivar located_s: for how long a located next hop is not looked up again.
    :ivar ramp: mail that is due after a restart is started ever faster, by so many starts a
        second more each second.
    """

    concurrency: int = attrs.field(default=500, validator=validators.ge(1))
    windows: Mapping[HopKind, WindowSettings] = WINDOWS
    backoff: Backoff = attrs.field(factory=lambda: Backoff(first_s=30.0))
    located_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    ramp: float = attrs.field(default=20.0, validator=validators.gt(0))


class Scheduler:
    """Starts each entry's attempts at the right time.

    :param clock: for the one timer.
    :param now: POSIX seconds.
    :param rng: source of jitter.
    :param locate: finds a hop's site; asked once for all entries that wait for it.
    :param start: begin an attempt.  The entry is in the worker's hands until :meth:`finished`,
        which may be called at once, from inside ``start``.
    :param unlocated: the hop of a due entry has no site, for now or for ever.  The entry is in the
        callee's hands, without a slot, until :meth:`finished` with a report of UNKNOWN health.
    :param expired: its age has passed and it is out of the scheduler; it was not active.
    :param late: its sender should be told of the delay.  The entry stays where it is, and its
        ``warn_at`` is 0 from now on.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        rng: random.Random,
        locate: Locate,
        start: Callable[[Entry, Site], None],
        unlocated: Callable[[Entry, TransientFailure | PermanentFailure], None],
        expired: Callable[[Entry], None],
        late: Callable[[Entry], None],
        settings: SchedulerSettings | None = None,
    ) -> None:
        self._clock = clock
        self._now = now
        self._rng = rng
        self._locate = locate
        self._start = start
        self._unlocated = unlocated
        self._expired = expired
        self._late = late
        self._settings = settings = settings or SchedulerSettings()
        self._concurrency = settings.concurrency

        self._by_id: dict[QueueId, Entry | tuple[Entry, ...]] = {}
        self._counts: dict[EntryState, int] = {
            "scheduled": 0,
            "deferred": 0,
            "active": 0,
            "held": 0,
        }
        self._orders: dict[Entry, Order] = {}
        self._hops: dict[NextHop, HopQueue] = {}
        self._sites: dict[str, SiteQueue] = {}
        self._active = 0  # attempts that occupy a slot
        self._unlocated_count = 0  # entries in hand without one

        self._ready: deque[SiteQueue] = deque()  # sites with room and somebody waiting
        self._emptying: deque[HopQueue] = deque()  # hops whose lookup has ended
        self._is_starting = False
        self._is_passing_on = False

        self._wheel = Wheel()
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf
        self._recovered = 0
        self._recovering_since = 0.0
        self._is_stopping = False
        self._stopped: list[Deferred[None]] = []

    # --- entries come and go ----------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Take an entry; if it is due and its site has room, ``start`` is called in here."""
        self._take(entry)
        if entry.state == "held":
            self._watch(entry)
        elif entry.due_at > (now := self._now()):
            self._watch(entry, entry.due_at)
        else:
            self._offer(entry, now)

    def add_recovered(self, entry: Entry) -> None:
        """Take an entry found at start; nothing is called in here.

        What is due is spread over a ramp, and what grew too old while we were down gets one last
        attempt.
        """
        now = self._now()
        if entry.state != "held" and entry.due_at <= now:
            if not self._recovered:
                self._recovering_since = now
            self._recovered += 1
            # A pace that grows by ramp each second has started ramp * t**2 / 2 after t seconds.
            ramp_s = math.sqrt(2.0 * self._recovered / self._settings.ramp)
            entry.due_at = max(now, self._recovering_since + ramp_s)
            entry.expires_at = max(entry.expires_at, entry.due_at)
        self._take(entry)
        self._watch(entry, math.inf if entry.state == "held" else entry.due_at)

    def _take(self, entry: Entry) -> None:
        if entry.state != "held":
            entry.state = "deferred" if entry.attempts else "scheduled"
        self._counts[entry.state] += 1
        present = self._by_id.get(entry.id)
        if present is None:
            self._by_id[entry.id] = entry
        else:
            self._by_id[entry.id] = (*_entries(present), entry)

    def _forget(self, entry: Entry) -> None:
        """The entry is out; it stood nowhere any more, and was counted in its state."""
        self._counts[entry.state] -= 1
        entry.state = "gone"
        present = self._by_id[entry.id]
        if present is entry:
            del self._by_id[entry.id]
        else:
            rest = tuple([other for other in _entries(present) if other is not entry])
            self._by_id[entry.id] = rest[0] if len(rest) == 1 else rest

    def _set_state(self, entry: Entry, state: EntryState) -> None:
        self._counts[entry.state] -= 1
        self._counts[state] += 1
        entry.state = state

    def _step_out(self, entry: Entry) -> None:
        """Take an entry that is not active out of wherever it waits."""
        place = entry.place
        if isinstance(place, Line):
            place.remove(entry)
            if place.lane is not None and not place.lane.queue.hops:
                self._forget_site(place.lane.queue)
        self._unwatch(entry)

    # --- from due to started ----------------------------------------------------------------------

    def _offer(self, entry: Entry, now: float) -> None:
        """A due entry goes to its site, or waits until that is known."""
        hop = self._hops.get(entry.hop)
        if hop is None:
            hop = self._hops[entry.hop] = HopQueue(entry.hop)
            self._wake(hop, now + self._settings.located_s)
        if hop.site is not None and now < hop.fresh_until and not hop.is_emptying:
            self._enqueue(entry, hop.site)
        else:
            hop.line.push(entry)
            self._watch(entry)
            if hop.may_look:
                self._look(hop)

    def _enqueue(self, entry: Entry, queue: SiteQueue) -> None:
        if (
            queue.active < queue.window.size
            and not self._is_starting
            and not queue.pause.until
            and not queue.waiting
            and self._active < self._concurrency
            and not self._is_stopping
        ):
            self._is_starting = True
            self._begin(entry, queue)
            self._is_starting = False
        else:
            queue.push(entry)
            self._watch(entry)
            self._make_ready(queue)
        if self._ready:
            self._start_ready()

    def _make_ready(self, queue: SiteQueue) -> None:
        if not queue.is_ready and queue.has_room and queue.waiting:
            queue.is_ready = True
            self._ready.append(queue)

    def _start_ready(self) -> None:
        """Start what may be started, one entry a site in turn.

        A worker that reports at once calls back into here; the flag lets the outer loop carry on,
        so that a long queue cannot grow the stack.
        """
        if self._is_starting or self._is_stopping:
            return
        self._is_starting = True
        ready = self._ready
        budget = SLICE
        while ready and budget and self._active < self._concurrency:
            queue = ready.popleft()
            entry = queue.pop() if queue.has_room else None
            if entry is None:
                queue.is_ready = False
                continue
            ready.append(queue)
            budget -= 1
            self._unwatch(entry)
            hop = self._hops.get(entry.hop)
            if hop is None or hop.site is not queue:  # its hosts are others by now
                self._offer(entry, self._now())
                self._forget_site(queue)
                continue
            self._begin(entry, queue)
            if hop.may_look and self._now() >= hop.fresh_until:
                self._look(hop)  # it waited long; those behind it may have to move
        self._is_starting = False
        if ready and self._active < self._concurrency:
            self._sleep_until(self._now())

    def _begin(self, entry: Entry, queue: SiteQueue) -> None:
        queue.active += 1
        self._active += 1
        entry.place = queue
        self._set_state(entry, "active")
        self._hand_over(entry, self._start, queue.site)

    def _tell_unlocated(self, entry: Entry, failure: TransientFailure | PermanentFailure) -> None:
        self._unlocated_count += 1
        self._set_state(entry, "active")
        self._hand_over(entry, self._unlocated, failure)

    def _hand_over(self, entry: Entry, worker: Callable[[Entry, _T], None], about: _T) -> None:
        """An entry that its worker stumbles over comes back."""
        try:
            worker(entry, about)
        except Exception:
            self.log.failure("attempt of {queue_id} could not be started", queue_id=entry.id)
            if entry.state == "active":
                due_at = self._now() + LOCAL_TROUBLE_S
                self.finished(
                    entry, Report(Health.UNKNOWN, entry.recipients, entry.attempts, due_at)
                )

    # --- locating ---------------------------------------------------------------------------------

    def _look(self, hop: HopQueue) -> None:
        hop.lookup = lookup = maybeDeferred(self._locate, hop.hop)
        lookup.addErrback(self._lookup_broke, hop)
        lookup.addCallback(self._located, hop)
        lookup.addErrback(lambda failure: self.log.failure("bug", failure=failure))

    def _lookup_broke(self, failure: Failure, hop: HopQueue) -> Location:
        if not failure.check(CancelledError):
            self.log.failure("lookup of {hop} broke", failure=failure, hop=hop.hop.name)
        return TransientFailure(Scope.SITE, TABLE["local-error"])

    def _located(self, location: Location, hop: HopQueue) -> None:
        hop.lookup = None
        if self._is_stopping:
            return
        now = self._now()
        match location:
            case Site():
                hop.pause.clear()
                hop.fresh_until = now + self._settings.located_s
                self._lead(hop, self._queue_of(location))
            case TransientFailure():
                hop.failure = location
                hop.pause.fail(
                    str(location.cause), now=now, backoff=self._settings.backoff, rng=self._rng
                )
                self._wake(hop, hop.pause.until)
            case PermanentFailure():
                hop.failure = location
                hop.fresh_until = 0.0
                self._lead(hop, None)
        hop.is_emptying = True
        self._emptying.append(hop)
        self._pass_on()

    def _queue_of(self, site: Site) -> SiteQueue:
        queue = self._sites.get(site.key)
        if queue is None:
            window = Window.opened(self._settings.windows[site.kind])
            queue = self._sites[site.key] = SiteQueue(site, window)
        queue.site = site
        return queue

    def _lead(self, hop: HopQueue, queue: SiteQueue | None) -> None:
        """From now on ``hop`` leads to ``queue``."""
        before = hop.site
        if queue is before:
            return
        hop.site = queue
        if queue is not None:
            queue.hops += 1
        if before is not None:
            before.hops -= 1
            if not before.hops:  # nobody waits for its hosts any more; who waits here moves on
                before.pause.end()
                self._make_ready(before)
                self._start_ready()
            self._forget_site(before)

    def _forget_site(self, queue: SiteQueue) -> None:
        if not queue.hops and not queue.active and not queue.waiting:
            if queue.bucket is not None:
                drop(queue, queue.bucket)
                queue.bucket = None
            # Removed only if it is still the one: a callback may have made another meanwhile.
            if self._sites.get(queue.site.key) is queue:
                del self._sites[queue.site.key]

    def _pass_on(self) -> None:
        """Give those who waited for a lookup what it answered, one a hop in turn."""
        if self._is_passing_on:
            return
        self._is_passing_on = True
        emptying = self._emptying
        budget, stuck = SLICE, 0
        while emptying and budget and stuck < len(emptying):
            hop = emptying.popleft()
            entry, failure = hop.line.first, hop.failure
            if entry is None:
                hop.is_emptying = False
                hop.failure = None
                continue
            emptying.append(hop)
            if failure is not None and self._unlocated_count >= self._concurrency:
                stuck += 1
                continue
            budget, stuck = budget - 1, 0
            hop.line.remove(entry)
            self._unwatch(entry)
            if failure is not None:
                self._tell_unlocated(entry, failure)
            elif hop.site is not None:
                self._enqueue(entry, hop.site)
        self._is_passing_on = False
        if emptying and not budget:
            self._sleep_until(self._now())

    # --- attempts end -----------------------------------------------------------------------------

    def finished(self, entry: Entry, report: Report) -> None:
        """A worker gives the entry back.

        :raise RuntimeError: it was not active.
        """
        if entry.state != "active":
            raise RuntimeError(f"{entry.id} is reported as finished, but it was {entry.state}")
        queue = entry.place
        entry.place = None
        if isinstance(queue, SiteQueue):
            queue.active -= 1
            self._active -= 1
            self._learn(queue, report)
        else:
            self._unlocated_count -= 1
        order = self._orders.pop(entry, None) if self._orders else None
        if not report.recipients or order == "remove":
            self._forget(entry)
        else:
            self._keep(entry, report, order)
        if isinstance(queue, SiteQueue):
            self._make_ready(queue)
            if not queue.hops:
                self._forget_site(queue)
        if self._ready:
            self._start_ready()
        if self._emptying:
            self._pass_on()
        if self._is_stopping:
            self._tell_stopped()

    def _learn(self, queue: SiteQueue, report: Report) -> None:
        health, window = report.health, queue.window
        if health is Health.GOOD:
            window.grow()
            if queue.pause.failures:
                queue.pause.clear()
        elif health is Health.DEAD or (health is Health.HOST_TROUBLE and window.size == 1):
            window.close()
            # What was under way when the pause began says nothing that is not known already.
            if not queue.pause.until:
                queue.pause.fail(
                    report.cause,
                    now=self._now(),
                    backoff=self._settings.backoff,
                    rng=self._rng,
                )
                self._wake(queue, queue.pause.until)
        elif health is Health.HOST_TROUBLE:
            window.halve()

    def _keep(self, entry: Entry, report: Report, order: Order | None) -> None:
        """What remains waits for its time, unless that has run out."""
        entry.recipients = report.recipients
        entry.attempts = report.attempts
        entry.due_at = report.due_at
        now = self._now()
        if now >= entry.expires_at:
            self._expire(entry)
            return
        is_late = 0.0 < entry.warn_at <= now
        if is_late:
            entry.warn_at = 0.0
        if order == "hold":
            self._set_state(entry, "held")
            self._watch(entry)
        else:
            self._set_state(entry, "deferred" if entry.attempts else "scheduled")
            self._watch(entry, entry.due_at)
        if is_late:
            self._tell(self._late, entry)

    def _expire(self, entry: Entry) -> None:
        self._forget(entry)
        self._tell(self._expired, entry)

    def _tell(self, callback: Callable[[Entry], None], entry: Entry) -> None:
        try:
            callback(entry)
        except Exception:
            self.log.failure("{queue_id} could not be seen to", queue_id=entry.id)

    # --- time -------------------------------------------------------------------------------------

    def _watch(self, entry: Entry, due_at: float = math.inf) -> None:
        """Have the wheel wake an entry that is not active.

        :param due_at: left out where the entry waits for something else than its time.
        """
        at = min(due_at, entry.expires_at)
        if 0.0 < entry.warn_at < at:
            at = entry.warn_at
        if at < math.inf:
            entry.bucket = self._wheel.put(entry, at, self._now())
            self._sleep_until(self._wheel.next_at())

    def _unwatch(self, entry: Entry) -> None:
        if entry.bucket is not None:
            drop(entry, entry.bucket)
            entry.bucket = None

    def _wake(self, sleeper: SiteQueue | HopQueue, at: float) -> None:
        """Have the wheel wake a site or a hop."""
        if sleeper.bucket is not None:
            drop(sleeper, sleeper.bucket)
        sleeper.bucket = self._wheel.put(sleeper, at, self._now())
        self._sleep_until(self._wheel.next_at())

    def _sleep_until(self, at: float) -> None:
        if at >= self._timer_at or self._is_stopping:
            return
        now = self._now()
        sleep_s = min(max(at - now, 0.0), LONGEST_SLEEP_S)
        if self._timer is not None:
            if now + sleep_s >= self._timer_at:
                return
            self._timer.cancel()
        self._timer_at = now + sleep_s
        self._timer = self._clock.callLater(sleep_s, self._turn)

    def _turn(self) -> None:
        """The timer: whose time has come, a slice of them."""
        self._timer, self._timer_at = None, math.inf
        now = self._now()
        for _ in range(SLICE):
            match self._wheel.pop(now):
                case Entry() as entry:
                    self._woke_entry(entry, now)
                case SiteQueue() as queue:
                    self._woke_site(queue)
                case HopQueue() as hop:
                    self._woke_hop(hop, now)
                case None:
                    break
        if self._emptying:
            self._pass_on()
        if self._ready:
            self._start_ready()
        self._sleep_until(self._wheel.next_at())

    def _woke_entry(self, entry: Entry, now: float) -> None:
        entry.bucket = None
        is_due = entry.place is None and entry.state != "held" and now >= entry.due_at
        if now >= entry.expires_at and not is_due:  # the last attempt may be due at the very end
            self._step_out(entry)
            self._expire(entry)
            return
        is_late = 0.0 < entry.warn_at <= now
        if is_late:
            entry.warn_at = 0.0
        if is_due:
            self._offer(entry, now)
        elif entry.place is None and entry.state != "held":
            self._watch(entry, entry.due_at)
        else:
            self._watch(entry)
        if is_late:
            self._tell(self._late, entry)

    def _woke_site(self, queue: SiteQueue) -> None:
        queue.bucket = None
        queue.pause.end()
        self._make_ready(queue)

    def _woke_hop(self, hop: HopQueue, now: float) -> None:
        hop.bucket = None
        if now >= hop.pause.until:
            hop.pause.end()
        if hop.is_idle(now):
            del self._hops[hop.hop]
            self._lead(hop, None)
            return
        self._wake(hop, max(hop.pause.until, now + self._settings.located_s))
        if hop.line.first is not None and hop.may_look:
            self._look(hop)

    # --- people -----------------------------------------------------------------------------------

    def hold(self, id: QueueId) -> list[Entry]:
        """Stop trying.

        :return: the entries that are held now; active ones are once they come back with
            recipients left (see :meth:`order`).
        """
        held = []
        for entry in self.entries(id):
            if entry.state == "active":
                self._orders[entry] = "hold"
            elif entry.state != "held":
                self._step_out(entry)
                self._set_state(entry, "held")
                self._watch(entry)
                held.append(entry)
        return held

    def release(self, id: QueueId) -> list[Entry]:
        """Held entries are due now; orders to hold active ones are withdrawn."""
        released = []
        now = self._now()
        for entry in self.entries(id):
            if entry.state == "held":
                self._step_out(entry)
                self._set_state(entry, "deferred" if entry.attempts else "scheduled")
                entry.due_at = now
                self._offer(entry, now)
                released.append(entry)
            elif self._orders.get(entry) == "hold":
                del self._orders[entry]
        return released

    def retry(self, id: QueueId) -> list[Entry]:
        """Waiting entries (not held ones) are due now, and their sites' back-off is lifted."""
        tried = []
        now = self._now()
        for entry in self.entries(id):
            if entry.state not in ("scheduled", "deferred"):
                continue
            tried.append(entry)
            entry.due_at = min(entry.due_at, now)
            hop = self._hops.get(entry.hop)
            if hop is not None:
                hop.pause.end()
            queue = hop.site if hop is not None else None
            if queue is not None and queue.pause.until:
                queue.pause.end()
                self._step_out(entry)
                queue.express.push(entry)
                self._watch(entry)
                self._make_ready(queue)
                self._start_ready()
            elif entry.place is None:
                self._step_out(entry)
                self._offer(entry, now)
            elif hop is not None and entry.place is hop.line and hop.may_look:
                self._look(hop)
        return tried

    def remove(self, id: QueueId) -> list[Entry]:
        """Forget the message.

        :return: the entries that are out of the scheduler now; active ones are once they come
            back, whatever their report says (see :meth:`order`).
        """
        removed = []
        for entry in self.entries(id):
            if entry.state == "active":
                self._orders[entry] = "remove"
            else:
                self._step_out(entry)
                self._forget(entry)
                removed.append(entry)
        return removed

    def order(self, entry: Entry) -> Order | None:
        """What a person wants of an active entry.

        Whoever has it in hand obeys when storing what remains, before reporting it as finished.
        """
        return self._orders.get(entry)

    # --- what is told -----------------------------------------------------------------------------

    def entries(self, id: QueueId) -> tuple[Entry, ...]:
        """The message's entries; empty where it has none."""
        present = self._by_id.get(id)
        return () if present is None else _entries(present)

    def is_active(self, id: QueueId) -> bool:
        """Whether any entry of the message is in a worker's hands."""
        return any(entry.state == "active" for entry in self.entries(id))

    def standing(self, id: QueueId) -> list[Standing]:
        """Where the message stands, one for each entry."""
        return [
            standing_of(
                entry, self._hops.get(entry.hop), self._orders.get(entry), self._concurrency
            )
            for entry in self.entries(id)
        ]

    def depth(self) -> Depth:
        """The queue in figures; cheap."""
        # Mail comes in the order of its arrival, so that the first is the oldest, or nearly so.
        oldest = next(iter(self._by_id.values()), None)
        return Depth(
            scheduled=self._counts["scheduled"],
            deferred=self._counts["deferred"],
            active=self._counts["active"],
            held=self._counts["held"],
            oldest_arrived_at=0.0 if oldest is None else _entries(oldest)[0].arrived_at,
            sites=len(self._sites),
            paused_sites=sum(queue.pause.until > 0.0 for queue in self._sites.values()),
        )

    def sites(self) -> list[SiteSummary]:
        """Every site known at the moment."""
        return [
            SiteSummary(
                key=key,
                kind=queue.site.kind,
                waiting=queue.waiting,
                active=queue.active,
                window=queue.window.size,
                failures=queue.pause.failures,
                paused_until=queue.pause.until,
                cause=queue.pause.cause,
            )
            for key, queue in self._sites.items()
        ]

    # --- the end ----------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Start nothing more from now on; resolves when nothing is active."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for hop in list(self._hops.values()):
            if hop.lookup is not None:
                hop.lookup.cancel()
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._tell_stopped()
        return stopped

    def _tell_stopped(self) -> None:
        if not self._counts["active"]:
            waiting, self._stopped = self._stopped, []
            for stopped in waiting:
                stopped.callback(None)


def _entries(present: Entry | tuple[Entry, ...]) -> tuple[Entry, ...]:
    return (present,) if isinstance(present, Entry) else present
