"""Tests of the health check: true, in time, and cheap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.observe.health import Health, HealthLimits, ReactorLag

from .test_metrics import STATS


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.path = Path(self.mktemp())
        self.stats = STATS
        self.lag = ReactorLag(self.clock)
        self.started: list[Deferred[None]] = []

    def health(self, in_thread: Callable[[Callable[[], None]], Deferred[None]]) -> Health:
        return Health(
            self.path,
            HealthLimits(free_octets=1000, free_inodes=100),
            clock=self.clock,
            in_thread=in_thread,
            stats=lambda: self.stats,
            lag=self.lag,
        )

    def later(self, work: Callable[[], None]) -> Deferred[None]:
        """A thread whose work ends when the test says so."""
        self.started.append(Deferred())
        return self.started[-1]

    def test_really_writes(self) -> None:
        health = self.health(execute)
        self.assertEqual(self.successResultOf(health.check()), ())
        self.assertEqual(self.path.read_bytes(), b"written and synced by the health check\n")

    def test_cannot_write(self) -> None:
        self.path.mkdir()
        (problem,) = self.successResultOf(self.health(execute).check())
        self.assertEqual(problem, "cannot write to the spool's disk: Is a directory")

    def test_one_probe_for_all(self) -> None:
        """A flood of checks is one write a second."""
        health = self.health(self.later)
        checks = [health.check() for _ in range(100)]
        self.assertEqual(len(self.started), 1)
        self.started[0].callback(None)
        self.assertEqual([self.successResultOf(check) for check in checks], [()] * 100)
        self.successResultOf(health.check())
        self.assertEqual(len(self.started), 1)
        self.clock.advance(1)
        health.check()
        self.assertEqual(len(self.started), 2)

    def test_disk_that_hangs(self) -> None:
        """A write that never ends is a problem in time, and takes one thread, not one a check."""
        health = self.health(self.later)
        first = health.check()
        self.clock.advance(5)
        self.assertEqual(
            self.successResultOf(first),
            ("a write to the spool's disk has taken 5 s and has not ended",),
        )
        self.clock.advance(55)
        self.assertEqual(
            self.successResultOf(health.check()),
            ("a write to the spool's disk has taken 60 s and has not ended",),
        )
        self.assertEqual(len(self.started), 1)
        self.started[0].callback(None)
        self.clock.advance(1)
        again = health.check()
        self.started[1].callback(None)
        self.assertEqual(self.successResultOf(again), ())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_spool(self) -> None:
        """What would have the next message refused is a problem."""
        self.stats = attrs.evolve(STATS, is_failed=True, free_octets=999, free_inodes=99)
        self.assertEqual(
            self.successResultOf(self.health(execute).check()),
            (
                "the spool has stopped, as its disk broke a promise",
                "999 octets free, below the floor of 1000",
                "99 inodes free, below the floor of 100",
            ),
        )

    def test_bug(self) -> None:
        """A broken probe is a problem and a traceback in the log."""

        def broken(work: Callable[[], None]) -> Deferred[None]:
            return execute(lambda: [][0])

        self.assertEqual(self.successResultOf(self.health(broken).check()), ("the probe failed",))
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)

    def test_shutting_down(self) -> None:
        health = self.health(execute)
        health.stopping()
        self.assertEqual(self.successResultOf(health.check()), ("shutting down",))

    def test_gives_up_waiting(self) -> None:
        """Who no longer waits is forgotten, and the rest is answered."""
        health = self.health(self.later)
        gone, stays = health.check(), health.check()
        gone.cancel()
        self.failureResultOf(gone)
        self.started[0].callback(None)
        self.assertEqual(self.successResultOf(stays), ())

    def test_alone_gives_up_waiting(self) -> None:
        """A probe nobody waits for is not a stuck one: the next one to ask gets its answer."""
        health = self.health(self.later)
        gone = health.check()
        gone.cancel()
        self.failureResultOf(gone)
        check = health.check()
        self.started[0].callback(None)
        self.assertEqual(self.successResultOf(check), ())


class ReactorLagTests(SynchronousTestCase):
    def test_lag(self) -> None:
        """Being late shows for a quarter of a minute, then is over."""
        clock = Clock()
        lag = ReactorLag(clock)
        lag.start()
        clock.pump([1.0, 1.0])
        self.assertEqual(lag.worst_s(), 0.0)
        clock.advance(7.5)
        self.assertEqual(lag.worst_s(), 6.5)
        clock.pump([1.0] * 14)
        self.assertEqual(lag.worst_s(), 6.5)
        clock.pump([1.0] * 2)
        self.assertLess(lag.worst_s(), 1.0)
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
