"""How a long run is judged."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .samples import Change, Sample, changes, look


def sample(at_s: float, octets: float) -> Sample:
    return Sample(at_s, octets, octets, 20.0, 7.0, 0.0, 0.0)


class ChangeTests(SynchronousTestCase):
    def test_quarters(self) -> None:
        """The medians of the second and of the last one; what lies between counts for nothing."""
        octets = [999, 999, 1, 100, 90, 900, 5, 5, 5, 110, 107, 1]
        looks = [sample(10.0 * at, value) for at, value in enumerate(octets)]
        found = {one.figure: one for one in changes(looks, 120.0)}
        self.assertEqual(found["pss_octets"], Change("pss_octets", 100, 107))
        self.assertFalse(found["pss_octets"].is_steady)
        self.assertTrue(found["threads"].is_steady)

    def test_tolerance(self) -> None:
        """5 % either way; a thread and two descriptors by chance."""
        self.assertTrue(Change("rss_octets", 100.0, 105.0).is_steady)
        self.assertTrue(Change("rss_octets", 100.0, 95.0).is_steady)
        self.assertFalse(Change("rss_octets", 100.0, 106.0).is_steady)
        self.assertTrue(Change("threads", 7.0, 8.0).is_steady)
        self.assertFalse(Change("threads", 7.0, 9.0).is_steady)
        self.assertTrue(Change("descriptors", 20.0, 22.0).is_steady)
        self.assertFalse(Change("descriptors", 20.0, 23.0).is_steady)

    def test_nothing_to_compare(self) -> None:
        self.assertEqual(changes([sample(1.0, 1.0)], 100.0), [])

    def test_nobody_there(self) -> None:
        """A service that is not up is no sample, and no error."""
        self.assertIsNone(look(os.getpid(), Path(self.mktemp()), 0.0))
