"""Figures out of measurements: medians with ranges, percentiles, ratios; text of counters."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

_COUNTED: Final = re.compile(rb"mesg=(\d+)")


@attrs.frozen
class Spread:
    """The middle of some measurements, and how far they lie apart."""

    median: float
    least: float
    most: float

    def text(self, digits: int = 0) -> str:
        """Such as ``512 (480-530)``."""
        middle, low, high = (f"{x:.{digits}f}" for x in (self.median, self.least, self.most))
        return middle if low == high else f"{middle} ({low}-{high})"


def spread(values: Sequence[float]) -> Spread:
    """:raise ValueError: there are none."""
    if not values:
        raise ValueError("no measurements")
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times theirs ours are, turn by turn.

    The machine changes by the minute, so that only what was measured one after the other is
    compared.
    """
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed (the nearest rank).

    :param share: above 0, at most 1.
    :raise ValueError: there are no values.
    """
    if not values:
        raise ValueError("no measurements")
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@attrs.frozen
class Latency:
    """How long things took, in milliseconds."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float


def latency(seconds: Sequence[float]) -> Latency:
    """:raise ValueError: there are none."""
    p50, p95, p99 = (percentile(seconds, share) * 1000 for share in (0.5, 0.95, 0.99))
    return Latency(len(seconds), p50, p95, p99, max(seconds) * 1000)


def counted(octets: bytes) -> int | None:
    """Messages that smtp-sink has counted, by the last whole line of its counters (``-c``).

    It ends each with a carriage return; what stands behind the last one is not complete.
    """
    counts = _COUNTED.findall(octets[: octets.rfind(b"\r") + 1])
    return int(counts[-1]) if counts else None


def status_octets(text: str, name: str) -> int:
    """A size out of ``/proc/PID/status`` or ``smaps_rollup``, such as ``VmRSS``; 0 without it."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0


def matched(sent: Mapping[str, float], arrived: Mapping[str, float]) -> list[float]:
    """How long each message took that arrived, in seconds, from two maps of moments by its name."""
    return [arrived[name] - at for name, at in sent.items() if name in arrived]


def megabytes(octets: float) -> str:
    return f"{octets / 1e6:.0f}"
