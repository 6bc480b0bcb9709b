"""Who is tried when: the sole owner of scheduling state and of its one timer.

The scheduler knows ids, next hops, times, tenant and priority, nothing else.  It starts attempts
through a callback; workers report with :meth:`Scheduler.finished` and own nothing.  How it works
is told in ``docs/explanation/scheduling.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..model.hop import NextHop, Site
from ..model.ids import QueueId
from ..model.outcome import PermanentFailure, TransientFailure
from .backoff import AGENTS, Backoff
from .entry import Entry, Health, Report
from .locator import SLICE, Locate, Locator
from .ramp import Ramp
from .register import Register, idle_state
from .settings import SchedulerSettings
from .sitequeue import HopQueue, Line, SiteQueue, Slots
from .standing import (
    Depth,
    SiteSummary,
    Standing,
    depth_of,
    is_absent,
    next_attempt_at,
    standing_of,
    summary_of,
)
from .wheel import Alarm, drop

if TYPE_CHECKING:
    import random

LOCAL_TROUBLE_S: Final = 60.0
"""What we stumbled over ourselves is tried again after this."""

_T = TypeVar("_T")

Order = Literal["hold", "remove"]
"""What a person wants of an entry that is active, once it comes back."""


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
        settings = settings or SchedulerSettings()
        self._now = now
        self._rng = rng
        self._start = start
        self._unlocated = unlocated
        self._expired = expired
        self._late = late
        self._slots = Slots(settings.concurrency)
        self._agent_slots = Slots(settings.agent_concurrency)
        self._ramp = Ramp(settings.ramp)

        self._alarm = Alarm(clock, now, self._turn)
        self._register = Register()
        self._locator = Locator(
            locate,
            self._alarm,
            now=now,
            rng=rng,
            backoff=settings.backoff,
            windows=settings.windows,
            slots=lambda kind: self._agent_slots if kind == "agent" else self._slots,
            located_s=settings.located_s,
            most_told=settings.concurrency,
            located=self._located,
            unlocated=self._tell_unlocated,
            abandoned=self._move_on,
        )
        self._orders: dict[Entry, Order] = {}
        self._is_starting = False
        self._is_stopping = False
        self._stopped: list[Deferred[None]] = []

    # --- entries come and go ----------------------------------------------------------------------

    def add(self, entry: Entry) -> None:
        """Take an entry; if it is due and its site has room, ``start`` is called in here."""
        self._register.add(entry)
        if entry.state == "held":
            self._watch(entry)
        elif entry.due_at > (now := self._now()):
            self._watch(entry, entry.due_at)
        else:
            self._offer(entry, now)

    def add_recovered(self, entry: Entry) -> None:
        """Take an entry found at start; nothing is called in here.

        What is due is spread over a ramp, and what grew too old while we were down gets one last
        attempt.  Mail for agents is not: whoever of them is there again wants it now, and for those
        who are not it would only keep others' mail waiting.
        """
        now = self._now()
        if entry.state != "held" and entry.due_at <= now and entry.hop.kind != "agent":
            entry.due_at = self._ramp.next_at(now)
            entry.expires_at = max(entry.expires_at, entry.due_at)
        self._register.add(entry)
        self._watch(entry, math.inf if entry.state == "held" else entry.due_at)

    def _step_out(self, entry: Entry) -> None:
        """Take an entry that is not active out of wherever it waits."""
        place = entry.place
        if isinstance(place, Line):
            place.remove(entry)
            if place.lane is not None and not place.lane.queue.hops:
                self._locator.forget_site(place.lane.queue)
        self._unwatch(entry)

    # --- from due to started ----------------------------------------------------------------------

    def _offer(self, entry: Entry, now: float) -> None:
        """A due entry goes to its site, or waits until that is known."""
        hop = self._locator.hop(entry.hop)
        if hop.site is not None and now < hop.fresh_until and not hop.is_emptying:
            self._enqueue(entry, hop.site)
        else:
            self._watch(entry)
            self._locator.wait(entry, hop)

    def _located(self, entry: Entry, queue: SiteQueue) -> None:
        self._unwatch(entry)
        self._enqueue(entry, queue)

    def _move_on(self, queue: SiteQueue) -> None:
        self._make_ready(queue)
        self._start_ready()

    def _enqueue(self, entry: Entry, queue: SiteQueue) -> None:
        if (
            queue.active < queue.window.size
            and not self._is_starting
            and not queue.pause.until
            and not queue.waiting
            and queue.slots.active < queue.slots.size
            and not self._is_stopping
        ):
            self._is_starting = True
            self._begin(entry, queue)
            self._is_starting = False
        else:
            queue.push(entry)
            self._watch(entry)
            self._make_ready(queue)
        if queue.slots.ready:
            self._start_ready()

    def _make_ready(self, queue: SiteQueue) -> None:
        if queue.waiting and not queue.is_ready and queue.has_room:
            queue.is_ready = True
            queue.slots.ready.append(queue)

    def _start_ready(self) -> None:
        """Start what may be started, one entry a site in turn.

        A worker that reports at once calls back into here; the flag lets the outer loop carry on,
        so that a long queue cannot grow the stack.
        """
        if self._is_starting or self._is_stopping:
            return
        self._is_starting = True
        self._fill(self._slots)
        self._fill(self._agent_slots)
        self._is_starting = False
        if self._slots.may_start or self._agent_slots.may_start:
            self._alarm.ring_soon()

    def _fill(self, slots: Slots) -> None:
        ready = slots.ready
        budget = SLICE
        while ready and budget and slots.active < slots.size:
            queue = ready.popleft()
            entry = queue.pop() if queue.has_room else None
            if entry is None:
                queue.is_ready = False
                continue
            ready.append(queue)
            budget -= 1
            self._unwatch(entry)
            if self._locator.leads_to(entry.hop, queue):
                self._begin(entry, queue)
            else:
                self._offer(entry, self._now())
                self._locator.forget_site(queue)

    def _begin(self, entry: Entry, queue: SiteQueue) -> None:
        queue.active += 1
        queue.slots.active += 1
        entry.place = queue
        self._register.change(entry, "active")
        self._hand_over(entry, self._start, queue.site)

    def _tell_unlocated(self, entry: Entry, failure: TransientFailure | PermanentFailure) -> None:
        self._unwatch(entry)
        self._register.change(entry, "active")
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
            queue.slots.active -= 1
            self._learn(queue, report)
            if report.health is Health.ABSENT:
                self._locator.changed(entry.hop)
        else:
            self._locator.told -= 1
        order = self._orders.pop(entry, None) if self._orders else None
        if not report.recipients or order == "remove":
            self._register.forget(entry)
        else:
            self._keep(entry, report, order)
        if isinstance(queue, SiteQueue):
            self._make_ready(queue)
            if not queue.hops:
                self._locator.forget_site(queue)
        else:
            self._locator.serve()
        if self._slots.ready or self._agent_slots.ready:
            self._start_ready()
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
                    backoff=AGENTS if queue.site.kind == "agent" else self._locator.backoff,
                    rng=self._rng,
                )
                if queue.bucket is not None:
                    drop(queue, queue.bucket)
                queue.bucket = self._alarm.set(queue, queue.pause.until)
        elif health is Health.HOST_TROUBLE:
            window.halve()
        elif health is Health.ABSENT:
            window.close()

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
            self._register.change(entry, "held")
            self._watch(entry)
        else:
            self._register.change(entry, idle_state(entry))
            self._watch(entry, entry.due_at)
        if is_late:
            self._tell(self._late, entry)

    def _expire(self, entry: Entry) -> None:
        self._register.forget(entry)
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
            entry.bucket = self._alarm.set(entry, at)

    def _unwatch(self, entry: Entry) -> None:
        if entry.bucket is not None:
            drop(entry, entry.bucket)
            entry.bucket = None

    def _turn(self) -> None:
        """The timer: whose time has come, a slice of them."""
        now = self._now()
        for _ in range(SLICE):
            match self._alarm.pop(now):
                case Entry() as entry:
                    self._woke_entry(entry, now)
                case SiteQueue() as queue:
                    self._woke_site(queue)
                case HopQueue() as hop:
                    self._locator.woke(hop)
                case None:
                    break
        self._locator.serve()
        if self._slots.ready or self._agent_slots.ready:
            self._start_ready()
        self._alarm.rest()

    def _woke_entry(self, entry: Entry, now: float) -> None:
        entry.bucket = None
        is_due = entry.place is None and entry.state != "held" and now >= entry.due_at
        if now >= entry.expires_at and not is_due:  # the last attempt may be due at the very end
            self._step_out(entry)
            self._expire(entry)
            return
        if is_due:
            # If it is late, too, that is told when the attempt leaves something to be told of, or
            # while it waits in line.
            self._offer(entry, now)
            return
        is_late = 0.0 < entry.warn_at <= now
        if is_late:
            entry.warn_at = 0.0
        if entry.place is None and entry.state != "held":
            self._watch(entry, entry.due_at)
        else:
            self._watch(entry)
        if is_late:
            self._tell(self._late, entry)

    def _woke_site(self, queue: SiteQueue) -> None:
        queue.bucket = None
        queue.pause.end()
        self._make_ready(queue)

    def back_off_by(self, backoff: Backoff) -> None:
        """Sites and lookups that fail from now on are left alone for so long."""
        self._locator.backoff = backoff

    def changed(self, hop: NextHop) -> None:
        """Whoever is behind a hop has come or gone.  What waits for it is tried at once, or goes on
        waiting; what failed and waits for its time does so."""
        self._locator.changed(hop)
        if self._slots.ready or self._agent_slots.ready:
            self._start_ready()

    # --- people -----------------------------------------------------------------------------------

    def hold(self, id: QueueId) -> list[Entry]:
        """Stop trying.

        :return: the entries that are held now; active ones are once they come back with
            recipients left (see :meth:`order`), unless they are to be removed.
        """
        held = []
        for entry in self.entries(id):
            if entry.state == "active":
                self._orders.setdefault(entry, "hold")
            elif entry.state != "held":
                self._step_out(entry)
                self._register.change(entry, "held")
                self._watch(entry)
                held.append(entry)
        return held

    def release(self, id: QueueId) -> list[Entry]:
        """Held entries are due now, or when their sender would have them released; orders to hold
        active ones are withdrawn."""
        released = []
        now = self._now()
        for entry in self.entries(id):
            if entry.state == "held":
                self._step_out(entry)
                self._register.change(entry, idle_state(entry))
                entry.due_at = max(now, entry.arrived_at)
                if entry.due_at > now:
                    self._watch(entry, entry.due_at)
                else:
                    self._offer(entry, now)
                released.append(entry)
            elif self._orders.get(entry) == "hold":
                del self._orders[entry]
        return released

    def retry(self, id: QueueId) -> list[Entry]:
        """Waiting entries (not held ones) are due now, and their sites' back-off is lifted."""
        return self._retry(self.entries(id))

    def retry_released(self, id: QueueId) -> list[Entry]:
        """As :meth:`retry`, but what waits for the release that its sender chose goes on waiting."""
        now = self._now()
        return self._retry([entry for entry in self.entries(id) if entry.arrived_at <= now])

    def _retry(self, entries: Iterable[Entry]) -> list[Entry]:
        tried = []
        now = self._now()
        for entry in entries:
            if not _is_waiting(entry):
                continue
            tried.append(entry)
            entry.due_at = min(entry.due_at, now)
            hop = self._locator.hop(entry.hop)
            if self._locator.tell(entry, hop):
                continue
            self._locator.hurry(hop)
            if not _is_waiting(entry):  # its hop was known at once
                continue
            queue = hop.site
            if queue is not None and queue.pause.until:
                queue.pause.end()
                self._step_out(entry)
                queue.express.push(entry)
                self._watch(entry)
                self._make_ready(queue)
                self._start_ready()
            elif entry.place is None:
                self._unwatch(entry)
                self._offer(entry, now)
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
                self._register.forget(entry)
                removed.append(entry)
        return removed

    def order(self, entry: Entry) -> Order | None:
        """What a person wants of an active entry.

        Whoever has it in hand obeys when storing what remains, and stores it again where that has
        changed meanwhile, before reporting it as finished.
        """
        return self._orders.get(entry)

    # --- what is told -----------------------------------------------------------------------------

    def entries(self, id: QueueId) -> tuple[Entry, ...]:
        """The message's entries; empty where it has none."""
        return self._register.entries(id)

    def is_active(self, id: QueueId) -> bool:
        """Whether any entry of the message is in a worker's hands."""
        return any(entry.state == "active" for entry in self.entries(id))

    def standing(self, id: QueueId) -> list[Standing]:
        """Where the message stands, one for each entry."""
        return [
            standing_of(entry, self._locator.known(entry.hop), self._orders.get(entry))
            for entry in self.entries(id)
        ]

    def next_attempt_at(self, entry: Entry) -> float | None:
        """As :func:`~.standing.next_attempt_at`."""
        return next_attempt_at(entry, self._locator.known(entry.hop))

    def absence(self, entry: Entry) -> str:
        """Who it waits for, in words; empty where it waits for nobody to come."""
        hop = self._locator.known(entry.hop)
        if hop is None or hop.absence is None or not is_absent(entry, hop):
            return ""
        return hop.absence.cause.text

    def depth(self) -> Depth:
        """The queue in figures; cheap."""
        return depth_of(self._register, self._locator.sites, self._now())

    def sites(self) -> list[SiteSummary]:
        """Every site known at the moment."""
        return [summary_of(queue) for queue in self._locator.sites.values()]

    # --- the end ----------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Start nothing more from now on; resolves when nothing is active."""
        self._is_stopping = True
        self._alarm.stop()
        self._locator.stop()
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._tell_stopped()
        return stopped

    def _tell_stopped(self) -> None:
        if not self._register.counts["active"]:
            waiting, self._stopped = self._stopped, []
            for stopped in waiting:
                stopped.callback(None)


def _is_waiting(entry: Entry) -> bool:
    """Whether it waits for its time or its turn."""
    return entry.state in ("scheduled", "deferred")
