"""Where due entries wait: a site's lanes, in which tenants take turns, and a hop's line."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from ..model.hop import NextHop, Site
from .backoff import Backoff
from .entry import Entry
from .wheel import Bucket
from .window import Window


class Line:
    """First come, first served; an entry may step out from anywhere at the same price.

    The links are in the entries (``ahead``, ``behind``), so that a million of them cost no more.

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


class Lane:
    """Entries of one priority: a line for each tenant, served in turn.

    :ivar waiting: how many entries there are.
    """

    __slots__ = ("_lines", "_turns", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._lines: dict[str, Line] = {}
        self._turns: deque[str] = deque()

    def push(self, entry: Entry) -> None:
        line = self._lines.get(entry.tenant)
        if line is None:
            line = self._lines[entry.tenant] = Line(self)
            self._turns.append(entry.tenant)
        line.push(entry)
        self.waiting += 1

    def pop(self) -> Entry | None:
        """The first entry of the tenant whose turn it is."""
        turns = self._turns
        while turns:
            tenant = turns.popleft()
            line = self._lines[tenant]
            entry = line.first
            if entry is None:  # its entries have stepped out since
                del self._lines[tenant]
                continue
            line.remove(entry)
            if line.first is None:
                del self._lines[tenant]
            else:
                turns.append(tenant)
            return entry
        return None


@attrs.define(eq=False)
class Pause:
    """A back-off, of a site or of a hop's lookup, in memory only.

    :ivar failures: in a row.
    :ivar until: POSIX seconds; 0 where there is no pause.
    :ivar remembered_until: when the failures are forgotten if nobody has come since.
    :ivar cause: the last failure, in words.
    """

    failures: int = 0
    until: float = 0.0
    remembered_until: float = 0.0
    cause: str = ""
