"""A clock for timers: it shows the time of day at first, and runs on whatever becomes of that."""

from __future__ import annotations

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from protege_mta import steady


class SteadyTests(SynchronousTestCase):
    def test_a_clock_that_is_set_changes_nothing(self) -> None:
        now, ticking = [1_790_000_000.0], [70.0]
        clock = steady.steadily(lambda: now[0], lambda: ticking[0])
        self.assertEqual(clock(), 1_790_000_000.0)
        now[0] -= 3600.0
        ticking[0] += 2.5
        self.assertEqual(clock(), 1_790_000_002.5)
        now[0] += 7200.0
        self.assertEqual(clock(), 1_790_000_002.5)

    def test_timers_of_a_reactor_go_by_it(self) -> None:
        reactor = SelectReactor()
        before = reactor.callLater(10, lambda: None)
        steady.install(reactor)
        after = reactor.callLater(10, lambda: None)
        self.assertIsNot(reactor.seconds, time.time)
        self.assertApproximates(reactor.seconds(), time.time(), 5.0)
        self.assertApproximates(after.getTime(), before.getTime(), 5.0)
        for call in (before, after):
            call.cancel()
