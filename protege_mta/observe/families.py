"""Figures in the shapes that prometheus_client has, under our names."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts by upper bound; an observation costs one bisection and two additions.

    :param bounds: ascending, the last bucket (``+Inf``) not among them.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts as the text format wants them."""
        total = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            rows.append((floatToGoString(bound), total))
        return rows


def counter(name: str, text: str, value: float) -> Metric:
    """One number that only grows."""
    return CounterMetricFamily(f"protege_mta_{name}", text, value=value)


def counters(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    """Numbers that only grow, by the values of their labels."""
    family = CounterMetricFamily(f"protege_mta_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """One number as it is now."""
    return GaugeMetricFamily(f"protege_mta_{name}", text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Numbers as they are now, by the value of their one label."""
    family = GaugeMetricFamily(f"protege_mta_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def histogram(name: str, text: str, of: Histogram) -> Metric:
    """What was observed, without labels."""
    return HistogramMetricFamily(
        f"protege_mta_{name}", text, buckets=of.buckets(), sum_value=of.sum
    )


def keyed(values: Mapping[str, int]) -> list[tuple[tuple[str, ...], float]]:
    """Counts by what is their one label."""
    return [((key,), value) for key, value in values.items()]


def in_out(inward: int, outward: int) -> list[tuple[tuple[str, ...], float]]:
    """A count for each direction."""
    return [(("in",), inward), (("out",), outward)]
