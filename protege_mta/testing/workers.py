"""A workshop around a scheduler: virtual time, sites on demand, workers that note what they get."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from ..model.hop import Host, NextHop, Site
from ..model.ids import QueueId
from ..model.outcome import PermanentFailure, TransientFailure
from ..schedule.entry import DONE, Entry, EntryState, Health, Report
from ..schedule.scheduler import Scheduler
from ..schedule.settings import SchedulerSettings
from ..schedule.sitequeue import Location

START = 1_000_000_000.0
"""When every workshop opens, POSIX seconds."""


def site(key: str) -> Site:
    """An MX site of one host."""
    return Site(key, "mx", (Host(key, ("192.0.2.1",), 25),))


@attrs.define(eq=False)
class Workshop:
    """Owns a scheduler and plays everybody around it.

    :ivar locations: what a lookup of a domain answers; a domain that is not here is a site of its
        own name, and one whose answer is None is never answered.
    :ivar looked_up: the domains that were asked for, in order.
    :ivar started: attempts in the order of their start, with the time since :data:`START`;
        ``expired`` and ``late`` likewise.
    :ivar at_work: entries in a worker's hands, and the key of the site each was started at.
    :ivar unlocated: entries that were handed over without a site, and why.
    """

    settings: SchedulerSettings = attrs.field(factory=SchedulerSettings)
    locations: dict[str, Location | Deferred[Location]] = attrs.field(factory=dict)
    clock: Clock = attrs.field(factory=Clock, init=False)
    scheduler: Scheduler = attrs.field(init=False)
    looked_up: list[str] = attrs.field(factory=list, init=False)
    started: list[tuple[float, str]] = attrs.field(factory=list, init=False)
    at_work: dict[Entry, str] = attrs.field(factory=dict, init=False)
    unlocated: list[tuple[Entry, TransientFailure | PermanentFailure]] = attrs.field(
        factory=list, init=False
    )
    expired: list[tuple[float, str]] = attrs.field(factory=list, init=False)
    late: list[tuple[float, str]] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.clock.advance(START)
        self.scheduler = Scheduler(
            clock=self.clock,
            now=self.clock.seconds,
            rng=random.Random(0),
            locate=self._locate,
            start=self._start,
            unlocated=lambda entry, failure: self.unlocated.append((entry, failure)),
            expired=lambda entry: self.expired.append((self.elapsed, entry.id)),
            late=lambda entry: self.late.append((self.elapsed, entry.id)),
            settings=self.settings,
        )

    @property
    def elapsed(self) -> float:
        """Seconds since :data:`START`."""
        return self.clock.seconds() - START

    def entry(
        self,
        name: str,
        domain: str = "a.test",
        *,
        due_in_s: float = 0.0,
        expires_in_s: float = 432_000.0,
        warn_in_s: float = 0.0,
        attempts: int = 0,
        tenant: str = "",
        is_urgent: bool = False,
        state: EntryState = "scheduled",
    ) -> Entry:
        """An entry that arrives now; times count from now."""
        now = self.clock.seconds()
        return Entry(
            id=QueueId(name),
            hop=NextHop("mx", domain),
            recipients=(0,),
            arrived_at=now,
            due_at=now + due_in_s,
            expires_at=now + expires_in_s,
            warn_at=now + warn_in_s if warn_in_s else 0.0,
            attempts=attempts,
            tenant=tenant,
            is_urgent=is_urgent,
            state=state,
        )

    def add(self, name: str, domain: str = "a.test", *, tenant: str = "") -> Entry:
        """Add an entry that is due now."""
        entry = self.entry(name, domain, tenant=tenant)
        self.scheduler.add(entry)
        return entry

    def names(self) -> list[str]:
        """Who was started, in order."""
        return [name for _, name in self.started]

    def working(self) -> list[str]:
        """Who is in a worker's hands, longest first."""
        return [entry.id for entry in self.at_work]

    def end(self, name: str, report: Report = DONE) -> None:
        """The worker that has ``name`` reports."""
        (entry,) = (entry for entry in self.at_work if entry.id == name)
        del self.at_work[entry]
        self.scheduler.finished(entry, report)

    def fail(self, name: str, health: Health, due_in_s: float = 300.0, attempts: int = 1) -> None:
        """The worker that has ``name`` reports that its recipient remains."""
        due_at = self.clock.seconds() + due_in_s
        self.end(name, Report(health, (0,), attempts, due_at, "connection refused"))

    def counts(self, turns: int, count: Callable[[], int]) -> list[int]:
        """What ``count`` says before each of so many turns of the reactor, no time passing."""
        found: list[int] = []

        def note() -> None:
            found.append(count())
            if len(found) < turns:
                self.clock.callLater(0, note)

        self.clock.callLater(0, note)
        self.clock.advance(0)
        return found

    def pass_s(self, seconds: float, step_s: float = 1.0) -> None:
        """Let time pass in steps, as a reactor would see it."""
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s

    def _locate(self, hop: NextHop) -> Deferred[Location]:
        self.looked_up.append(hop.name)
        location = self.locations.get(hop.name, site(hop.name))
        return location if isinstance(location, Deferred) else succeed(location)

    def _start(self, entry: Entry, at: Site) -> None:
        self.started.append((self.elapsed, entry.id))
        self.at_work[entry] = at.key
