"""Many things to wake, one timer: a wheel of times, and the alarm that goes off for the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

Bucket = dict[object, None]
"""What is woken together; a dict for its order and its cheap removal."""

FINE_S: Final = 0.25
COARSE_S: Final = 4.0
"""Times are rounded up to a multiple of one of these, so that nothing is woken too early and at
most that much too late."""

COARSE_FROM_S: Final = 3600.0
"""Waits from here on are coarse: over days, fine buckets would hold one item each."""

LONGEST_SLEEP_S: Final = 30.0
"""A wall clock that was set, or a machine that slept, is noticed after this."""


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


class Alarm:
    """A wheel and the one timer that goes with it.

    :param clock: for the timer.
    :param now: POSIX seconds, which may jump.
    :param ring: called when something may be due: it takes that out with :meth:`pop`, and says
        :meth:`rest` at its end.
    """

    def __init__(
        self, clock: IReactorTime, now: Callable[[], float], ring: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._now = now
        self._ring = ring
        self._wheel = Wheel()
        self._timer: IDelayedCall | None = None
        self._rings_at = math.inf
        self._is_stopped = False

    def set(self, item: object, at: float) -> Bucket:
        """Wake ``item`` at ``at``, POSIX seconds and finite, or a little later."""
        bucket = self._wheel.put(item, at, self._now())
        self.rest()
        return bucket

    def pop(self, now: float) -> object | None:
        """Take out one item whose time has come."""
        return self._wheel.pop(now)

    def rest(self) -> None:
        """Sleep until something is due."""
        at = self._wheel.next_at()
        if at < math.inf:
            self._sleep(at)

    def ring_soon(self) -> None:
        """There is more to do than one turn of the reactor may take."""
        self._sleep(-math.inf)

    def stop(self) -> None:
        """Never ring again."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sleep(self, at: float) -> None:
        if self._is_stopped:
            return
        sleep_s = min(max(at - self._now(), 0.0), LONGEST_SLEEP_S)
        # By the timer's clock: the other one may have been set since, and be ahead of it.
        rings_at = self._clock.seconds() + sleep_s
        if rings_at >= self._rings_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = rings_at
        self._timer = self._clock.callLater(sleep_s, self._rang)

    def _rang(self) -> None:
        self._timer, self._rings_at = None, math.inf
        self._ring()
