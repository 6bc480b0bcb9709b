"""Timers that go on as they were when the clock of the machine is set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

_TICKING: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Nobody sets it, and where the kernel has one of that kind it counts while the machine sleeps, so
that a laptop that wakes takes nobody for present who has been silent for hours."""


def install(reactor: Any) -> None:
    """Have a reactor's timers go by a clock that nobody sets.

    Twisted's own is the time of day.  Put back by an hour, it would have everything that is to
    happen in a second happen an hour later: no look at who was revoked, no time-outs, no retries.
    Put forward, all time-outs would be over at once.
    """
    reactor.seconds = steadily(time.time, lambda: time.clock_gettime(_TICKING))


def steadily(now: Callable[[], float], ticking: Callable[[], float]) -> Callable[[], float]:
    """A clock that shows the time of day as it is now, and runs on as another one does.

    What is under way by the first clock already stays right.
    """
    ahead_s = now() - ticking()
    return lambda: ahead_s + ticking()
