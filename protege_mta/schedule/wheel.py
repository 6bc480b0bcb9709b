"""A timer wheel: many things to wake, one time to wait for."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Final

Bucket = dict[object, None]
"""What is woken together; a dict for its order and its cheap removal."""

FINE_S: Final = 0.25
COARSE_S: Final = 4.0
"""Times are rounded up to a multiple of one of these, so that nothing is woken too early and at
most that much too late."""

COARSE_FROM_S: Final = 3600.0
"""Waits from here on are coarse: over days, fine buckets would hold one item each."""


class Wheel:
    """Items by the time at which they are to be woken.

    Each operation costs O(1), but for a heap of distinct times.  An item is in one bucket at most,
    which it remembers itself: :meth:`put` returns it and :func:`drop` empties it.
    """

    def __init__(self) -> None:
        self._buckets: dict[float, Bucket] = {}
        self._times: list[float] = []

    def put(self, item: object, at: float, now: float) -> Bucket:
        """Wake ``item`` at ``at``, POSIX seconds and finite, or a little later."""
        tick = FINE_S if at - now < COARSE_FROM_S else COARSE_S
        time = math.ceil(at / tick) * tick
        bucket = self._buckets.get(time)
        if bucket is None:
            bucket = self._buckets[time] = {}
            heappush(self._times, time)
        bucket[item] = None
        return bucket

    def next_at(self) -> float:
        """When :meth:`pop` will have something; infinity if never."""
        times = self._times
        while times:
            if self._buckets[times[0]]:
                return times[0]
            del self._buckets[heappop(times)]
        return math.inf

    def pop(self, now: float) -> object | None:
        """Take out one item whose time has come."""
        if self.next_at() > now:
            return None
        item, _ = self._buckets[self._times[0]].popitem()
        return item


def drop(item: object, bucket: Bucket) -> None:
    """Take ``item`` out of the bucket that :meth:`Wheel.put` gave it."""
    del bucket[item]
    if not bucket:
        bucket.clear()  # a dict keeps the memory of what was deleted from it; until now
