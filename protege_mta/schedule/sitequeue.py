"""Where due entries wait: a site's lanes, in which tenants take turns, and a hop's line."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from ..model.hop import NextHop, Site
from ..model.outcome import PermanentFailure, TransientFailure
from .backoff import Pause
from .entry import Entry
from .wheel import Bucket
from .window import Window

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

Location = Site | TransientFailure | PermanentFailure
"""What a lookup answers."""

URGENT_TURNS: Final = 4
"""So many urgent entries go before an ordinary one that waits beside them."""


class Line:
    """First come, first served; an entry may step out from anywhere at the same price.

    The links are in the entries (``ahead``, ``behind``).

    :ivar lane: whose count this line is part of; None for a hop's own line.
    """

    __slots__ = ("first", "lane", "last")

    def __init__(self, lane: Lane | None = None) -> None:
        self.lane = lane
        self.first: Entry | None = None
        self.last: Entry | None = None

    def push(self, entry: Entry) -> None:
        last = self.last
        if last is None:
            self.first = entry
        else:
            last.behind = entry
            entry.ahead = last
        self.last = entry
        entry.place = self

    def remove(self, entry: Entry) -> None:
        """Take out an entry whose ``place`` this is."""
        ahead, behind = entry.ahead, entry.behind
        if ahead is None:
            self.first = behind
        else:
            ahead.behind = behind
        if behind is None:
            self.last = ahead
        else:
            behind.ahead = ahead
        entry.ahead = entry.behind = entry.place = None
        if self.lane is not None:
            self.lane.waiting -= 1
            self.lane.queue.waiting -= 1


class Lane:
    """Entries of one priority: a line for each tenant, served in turn.

    :ivar queue: the site's queue that this is part of.
    :ivar waiting: how many entries there are.
    """

    __slots__ = ("_lines", "_turns", "queue", "waiting")

    def __init__(self, queue: SiteQueue) -> None:
        self.queue = queue
        self.waiting = 0
        self._lines: dict[str, Line] = {}
        self._turns: deque[str] = deque()  # the tenants in _lines, each of them once

    def push(self, entry: Entry) -> None:
        line = self._lines.get(entry.tenant)
        if line is None:
            line = self._lines[entry.tenant] = Line(self)
            self._turns.append(entry.tenant)
        line.push(entry)
        self.waiting += 1
        self.queue.waiting += 1

    def pop(self) -> Entry | None:
        """The first entry of the tenant whose turn it is."""
        turns = self._turns
        while turns:
            tenant = turns.popleft()
            line = self._lines[tenant]
            entry = line.first
            if entry is not None:
                line.remove(entry)
                if line.first is not None:
                    turns.append(tenant)
                    return entry
            del self._lines[tenant]  # served, or its entries have stepped out since
            if entry is not None:
                return entry
        return None


class Slots:
    """Attempts that many sites share.

    :ivar size: how many may be under way at a time.
    :ivar active: how many are.
    :ivar ready: the sites with room and somebody waiting, in turn.
    """

    __slots__ = ("active", "ready", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.active = 0
        self.ready: deque[SiteQueue] = deque()

    @property
    def may_start(self) -> bool:
        """Whether there is a slot, and somebody who may have it."""
        return bool(self.ready) and self.active < self.size


class SiteQueue:
    """A site: its due entries, its window and its back-off.

    :ivar site: as it was located last.
    :ivar slots: what its attempts occupy, with those of other sites.
    :ivar express: what a person asked for, before all else.
    :ivar waiting: how many due entries wait in all lanes.
    :ivar active: attempts under way.
    :ivar hops: how many hops lead here.
    :ivar is_ready: whether it stands in the scheduler's line of sites that may start something.
    :ivar bucket: where the wheel will wake it.
    """

    __slots__ = (
        "_urgent_streak",
        "active",
        "bucket",
        "express",
        "hops",
        "is_ready",
        "ordinary",
        "pause",
        "site",
        "slots",
        "urgent",
        "waiting",
        "window",
    )

    def __init__(self, site: Site, window: Window, slots: Slots) -> None:
        self.site = site
        self.slots = slots
        self.window = window
        self.pause = Pause()
        self.express, self.urgent, self.ordinary = Lane(self), Lane(self), Lane(self)
        self.waiting = 0
        self.active = 0
        self.hops = 0
        self.is_ready = False
        self.bucket: Bucket | None = None
        self._urgent_streak = 0

    @property
    def has_room(self) -> bool:
        """Whether another attempt may start; where no hop leads here any more, whether those who
        wait may move on."""
        return (self.active < self.window.size and not self.pause.until) or not self.hops

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not self.active and not self.waiting and now >= self.pause.remembered_until

    def push(self, entry: Entry) -> None:
        (self.urgent if entry.is_urgent else self.ordinary).push(entry)

    def pop(self) -> Entry | None:
        """Whose turn it is; None where nobody waits."""
        if self.express.waiting:
            return self.express.pop()
        if self.urgent.waiting and (
            self._urgent_streak < URGENT_TURNS or not self.ordinary.waiting
        ):
            self._urgent_streak += 1
            return self.urgent.pop()
        self._urgent_streak = 0
        return self.ordinary.pop()


@attrs.define(eq=False)
class HopQueue:
    """A next hop: its site once located, and the due entries that wait to know it.

    :ivar site: None before the first answer.
    :ivar fresh_until: how long ``site`` may be relied upon, POSIX seconds.
    :ivar lookup: the question under way.
    :ivar failure: what those who wait are being told; None where they move on to ``site``.
    :ivar is_emptying: whether an answer is being passed on to those who wait.
    :ivar pause: of lookups that failed for now.
    :ivar absence: why those who wait go on waiting, where nobody is there to deliver to; None
        where somebody is, or nobody has looked yet.
    :ivar absent_since: when that was found first, POSIX seconds.
    :ivar bucket: where the wheel will wake it.
    """

    hop: NextHop
    line: Line = attrs.field(factory=Line)
    site: SiteQueue | None = None
    fresh_until: float = 0.0
    lookup: Deferred[Location] | None = None
    failure: TransientFailure | PermanentFailure | None = None
    is_emptying: bool = False
    pause: Pause = attrs.field(factory=Pause)
    absence: TransientFailure | None = None
    absent_since: float = 0.0
    bucket: Bucket | None = None

    @property
    def may_look(self) -> bool:
        """Whether a lookup may be started: none is, none has just ended, none has just failed."""
        return self.lookup is None and not self.is_emptying and not self.pause.until

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return (
            self.line.first is None
            and self.lookup is None
            and not self.is_emptying
            and now >= self.fresh_until
            and now >= self.pause.remembered_until
            # The last hop of a site stays for the sake of what the site remembers.
            and (self.site is None or self.site.hops > 1 or self.site.is_idle(now))
        )
