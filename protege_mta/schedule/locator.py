"""From next hops to sites: who is looked up when, and who waits for the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.hop import HopKind, NextHop, Site
from ..model.outcome import PermanentFailure, Scope, TransientFailure
from ..model.reply import TABLE
from .backoff import Backoff
from .entry import Entry
from .sitequeue import HopQueue, Location, SiteQueue, Slots
from .wheel import Alarm, drop
from .window import Window, WindowSettings

if TYPE_CHECKING:
    import random

SLICE: Final = 100
"""So many entries are seen to before the reactor gets its turn."""

Locate = Callable[[NextHop], Deferred[Location]]
"""Finds a next hop's hosts.  A cache lies below it."""


class Locator:
    """Owns the hops and the sites that are in use, and forgets the others.

    :param slots: those that a kind of site shares with others.
    :param located_s: how long a located hop is not looked up again.
    :param most_told: so many entries without a site are in somebody's hands at a time.
    :param located: an entry that waited has a site now.
    :param unlocated: an entry that waited has none.  It is counted in :attr:`told` until the
        scheduler gets it back.
    :param abandoned: no hop leads to this site any more; who waits there moves on.
    :ivar backoff: of sites, and of lookups that fail for now.
    :ivar sites: by key.
    :ivar told: entries without a site in somebody's hands.
    """

    log = Logger()

    def __init__(
        self,
        locate: Locate,
        alarm: Alarm,
        *,
        now: Callable[[], float],
        rng: random.Random,
        backoff: Backoff,
        windows: Mapping[HopKind, WindowSettings],
        slots: Callable[[HopKind], Slots],
        located_s: float,
        most_told: int,
        located: Callable[[Entry, SiteQueue], None],
        unlocated: Callable[[Entry, TransientFailure | PermanentFailure], None],
        abandoned: Callable[[SiteQueue], None],
    ) -> None:
        self._locate = locate
        self._alarm = alarm
        self._now = now
        self._rng = rng
        self.backoff = backoff
        self._windows = windows
        self._slots = slots
        self._located_s = located_s
        self._most_told = most_told
        self._located = located
        self._unlocated = unlocated
        self._abandoned = abandoned
        self.sites: dict[str, SiteQueue] = {}
        self.told = 0
        self._hops: dict[NextHop, HopQueue] = {}
        self._answered: deque[HopQueue] = deque()  # those whose line is being served
        self._is_serving = False
        self._is_stopped = False

    # --- hops ------------------------------------------------------------------------------------

    def known(self, next_hop: NextHop) -> HopQueue | None:
        """The hop, if it is in use at the moment."""
        return self._hops.get(next_hop)

    def hop(self, next_hop: NextHop) -> HopQueue:
        """The hop, in use from now on."""
        hop = self._hops.get(next_hop)
        if hop is None:
            hop = self._hops[next_hop] = HopQueue(next_hop)
            self._wake(hop, self._now() + self._located_s)
        return hop

    def leads_to(self, next_hop: NextHop, queue: SiteQueue) -> bool:
        """Whether an entry that has waited at ``queue`` is still right there.

        It is looked up again if that is long ago, in the background: whoever is behind it may
        have to move.
        """
        hop = self._hops.get(next_hop)
        if hop is None:
            hop = self.hop(next_hop)
            if queue.hops:  # forgotten while other hops kept the site in use
                self._lead(hop, queue)
        if hop.site is queue and hop.may_look and self._now() >= hop.fresh_until:
            self._look(hop)
        return hop.site is queue

    def wait(self, entry: Entry, hop: HopQueue) -> None:
        """An entry stands in the hop's line until that is looked up."""
        hop.line.push(entry)
        if hop.may_look:
            self._look(hop)

    def hurry(self, hop: HopQueue) -> None:
        """Lift the pause of a hop that could not be looked up."""
        hop.pause.end()
        if hop.line.first is not None and hop.may_look:
            self._look(hop)

    def changed(self, next_hop: NextHop) -> None:
        """Whoever is behind a hop has come or gone: what waits for it, at its site too, is located
        anew at once, whatever pause there was."""
        hop = self._hops.get(next_hop)
        if hop is None:
            return
        hop.pause.clear()
        hop.fresh_until = 0.0
        self._lead(hop, None)
        if hop.line.first is not None and hop.may_look:
            self._look(hop)

    def tell(self, entry: Entry, hop: HopQueue) -> bool:
        """Hand over an entry that waits for somebody to come, as one that has no site, so that it
        can be routed anew; whether it did."""
        if hop.absence is None or entry.place is not hop.line:
            return False
        hop.line.remove(entry)
        self.told += 1
        self._unlocated(entry, hop.absence)
        return True

    def woke(self, hop: HopQueue) -> None:
        """Its time has come: the end of a pause, or to be forgotten."""
        hop.bucket = None
        now = self._now()
        if now >= hop.pause.until:
            hop.pause.end()
        if hop.is_idle(now):
            del self._hops[hop.hop]
            self._lead(hop, None)
            return
        self._wake(hop, max(hop.pause.until, now + self._located_s))
        if hop.line.first is not None and hop.may_look:
            self._look(hop)

    def stop(self) -> None:
        """Ask nothing more, serve nobody."""
        self._is_stopped = True
        for hop in list(self._hops.values()):
            if hop.lookup is not None:
                hop.lookup.cancel()

    def _wake(self, hop: HopQueue, at: float) -> None:
        if hop.bucket is not None:
            drop(hop, hop.bucket)
        hop.bucket = self._alarm.set(hop, at)

    # --- lookups ---------------------------------------------------------------------------------

    def _look(self, hop: HopQueue) -> None:
        if self._is_stopped:
            return
        hop.lookup = lookup = maybeDeferred(self._locate, hop.hop)
        lookup.addErrback(self._broke, hop)
        lookup.addCallback(self._ended, hop)
        lookup.addErrback(lambda failure: self.log.failure("bug", failure=failure))

    def _broke(self, failure: Failure, hop: HopQueue) -> Location:
        if not failure.check(CancelledError):
            self.log.failure("lookup of {hop} broke", failure=failure, hop=hop.hop.name)
        return TransientFailure(Scope.SITE, TABLE["local-error"])

    def _ended(self, location: Location, hop: HopQueue) -> None:
        hop.lookup = None
        if self._is_stopped:
            return
        now = self._now()
        if isinstance(location, TransientFailure) and location.scope is Scope.ABSENT:
            # Those who wait are not told, and are asked for again when somebody has come, or when
            # the wheel wakes the hop.
            if hop.absence is None:
                hop.absent_since = now
            hop.absence = location
            hop.fresh_until = 0.0
            self._lead(hop, None)
            return
        hop.absence = None
        match location:
            case Site():
                hop.pause.clear()
                hop.fresh_until = now + self._located_s
                self._lead(hop, self._queue_of(location))
            case TransientFailure():
                hop.failure = location
                hop.pause.fail(str(location.cause), now=now, backoff=self.backoff, rng=self._rng)
                self._wake(hop, hop.pause.until)
            case PermanentFailure():
                hop.failure = location
                hop.fresh_until = 0.0
                self._lead(hop, None)
        hop.is_emptying = True
        self._answered.append(hop)
        self.serve()

    def serve(self) -> None:
        """Give those who waited for a lookup what it answered, one a hop in turn.

        A worker that reports at once calls back into here; the flag lets the outer loop carry on.
        """
        if self._is_serving or self._is_stopped:
            return
        self._is_serving = True
        answered = self._answered
        budget, stuck = SLICE, 0
        while budget and stuck < len(answered):
            hop = answered.popleft()
            entry, failure = hop.line.first, hop.failure
            if entry is None or (failure is None and hop.site is None):
                # Nobody is left; or whoever was found has gone meanwhile, and they wait as before.
                hop.is_emptying = False
                hop.failure = None
                if entry is not None and hop.may_look:
                    self._look(hop)
                continue
            answered.append(hop)
            if failure is not None and self.told >= self._most_told:
                stuck += 1
                continue
            budget, stuck = budget - 1, 0
            hop.line.remove(entry)
            if failure is not None:
                self.told += 1
                self._unlocated(entry, failure)
            elif hop.site is not None:  # which was looked at above
                self._located(entry, hop.site)
        self._is_serving = False
        if not budget:
            self._alarm.ring_soon()

    # --- sites -----------------------------------------------------------------------------------

    def _queue_of(self, site: Site) -> SiteQueue:
        queue = self.sites.get(site.key)
        if queue is None:
            window = Window.opened(self._windows[site.kind])
            queue = self.sites[site.key] = SiteQueue(site, window, self._slots(site.kind))
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
            if not before.hops:
                before.pause.end()
                self._abandoned(before)
                self.forget_site(before)

    def forget_site(self, queue: SiteQueue) -> None:
        """Forget a site that no hop leads to, once nothing is left of it."""
        if not queue.hops and not queue.active and not queue.waiting:
            if queue.bucket is not None:
                drop(queue, queue.bucket)
                queue.bucket = None
            # Its key may be another queue's by now.
            if self.sites.get(queue.site.key) is queue:
                del self.sites[queue.site.key]
