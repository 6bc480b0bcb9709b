"""A spool that writes through a ring: what the ring does, what the thread does, and what fails."""

from __future__ import annotations

import errno
from collections.abc import Callable

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, End
from protege_mta.model.ports import SpoolFailed
from protege_mta.spool.line import Line
from protege_mta.spool.ring_line import RingLine
from protege_mta.testing.contracts import append
from protege_mta.testing.rings import ScriptedRing

from .spool_lines import LineContract


class RingLineTests(LineContract, SynchronousTestCase):
    """The test plays the reactor, and the kernel."""

    def setUp(self) -> None:
        super().setUp()
        self.answers: list[object] = []
        self.reactor = MemoryReactorClock()
        self.ring = ScriptedRing()
        self.is_finishing = True
        self.spool = self.new_spool(self.new_line)
        list(self.spool.recover())
        self.addCleanup(self.close)

    def new_line(self, worker: object, lazy_s: float, in_reactor: Callable[..., object]) -> Line:
        self.line = RingLine(worker, lazy_s, in_reactor, self.reactor, self.ring)  # type: ignore[arg-type]
        return self.line

    def begin(self) -> None:
        """Commit, and have the ring begin with it: the first one of all is the thread's, which
        makes the segment."""
        self.commit()
        self.turn(until=lambda: bool(self.answers))
        self.answers.clear()
        self.commit()
        self.turn(until=lambda: self.ring.is_busy, finish=False)

    def commit(self) -> Append:
        one = append()
        self.spool.commit(Batch((one,), (b"1\n",))).addBoth(self.answers.append)
        return one

    def turn(self, *, until: Callable[[], bool], finish: bool = True) -> None:
        """:param finish: whether the kernel ends a write as soon as it is begun."""
        self.is_finishing = finish
        super().turn(until=until)

    def step(self) -> None:
        if self.is_finishing and self.ring.is_busy:
            self.finish()
        else:
            super().step()

    def finish(self, result: int | None = None) -> None:
        self.ring.finish(result)
        self.line.doRead()

    def close(self) -> None:
        if self.ring.is_closed:
            return
        closed: list[object] = []
        self.spool.close().addBoth(closed.append)
        self.turn(until=lambda: bool(closed))
        self.assertTrue(self.ring.is_closed)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def recovered(self) -> int:
        """How many messages a start after all this finds."""
        again = self.new_spool(self.new_line)
        count = len(list(again.recover()))
        closed: list[object] = []
        again.close().addBoth(closed.append)
        self.turn(until=lambda: bool(closed))
        return count

    def test_group(self) -> None:
        """What comes while the ring is busy is one group, begun as soon as it is not; nobody is
        answered before his octets are on stable storage."""
        self.begin()
        commits = self.spool.stats().commits
        for _ in range(5):
            self.commit()
        self.turn(until=self.calls.empty, finish=False)
        self.assertEqual(self.answers, [])
        self.finish()
        self.assertEqual(self.answers, [None])
        self.assertTrue(self.ring.is_busy)
        self.finish()
        self.assertEqual(self.answers, [None] * 6)
        self.assertEqual(self.spool.stats().commits, commits + 2)
        self.assertEqual(len(self.journal.lines), 7)

    def test_lazy_alone(self) -> None:
        """A lazy batch with nobody to go with goes when its time has come."""
        one = self.commit()
        self.turn(until=lambda: bool(self.answers))
        lazy = Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True)
        self.successResultOf(self.spool.commit(lazy))
        self.assertFalse(self.ring.is_busy)
        self.reactor.advance(0.01)
        self.turn(until=lambda: self.ring.is_busy, finish=False)
        self.finish()
        self.assertEqual(self.spool.stats().operations, 2)

    def test_written_in_part(self) -> None:
        """Where the ring has written less than it should, or found no room, the thread does it."""
        self.begin()
        for result in (100, 0, -errno.ENOSPC, -errno.EINTR):
            self.finish(result)
            self.assertFalse(self.ring.is_busy)
            self.turn(until=lambda: bool(self.answers))
            self.assertEqual(self.answers, [None])
            self.answers.clear()
            self.commit()
            self.turn(until=lambda: self.ring.is_busy, finish=False)
        self.finish()
        self.close()
        self.assertEqual(self.recovered(), 6)

    def test_a_ring_that_cannot_do_it(self) -> None:
        """Nor can it the next time, so that the thread takes its place."""
        self.begin()
        with capturedLogs() as logged:
            self.finish(-errno.EOPNOTSUPP)
            self.commit()
            self.turn(until=lambda: len(self.answers) == 2, finish=False)
        self.assertEqual(self.answers, [None, None])
        self.assertIn(LogLevel.warn, [event["log_level"] for event in logged])

    def test_a_ring_that_takes_nothing(self) -> None:
        self.begin()
        self.finish()
        self.ring.refusal = OSError(errno.EAGAIN, "busy")
        self.commit()
        self.turn(until=lambda: len(self.answers) == 2, finish=False)
        self.assertEqual(self.answers, [None, None])

    def test_a_disk_that_fails(self) -> None:
        """Who waits is refused, and the spool stops for good: what it holds nobody knows."""
        self.begin()
        self.finish(-errno.EIO)
        self.turn(until=lambda: bool(self.answers))
        self.commit()
        self.turn(until=lambda: len(self.answers) == 2)
        for answer in self.answers:
            assert isinstance(answer, Failure)
            self.assertTrue(answer.check(SpoolFailed))

    def test_a_reactor_that_lets_go(self) -> None:
        """What is under way then has an answer, though not a good one."""
        self.begin()
        self.line.connectionLost(Failure(ConnectionLost()))
        self.turn(until=lambda: bool(self.answers), finish=False)
        [answer] = self.answers
        assert isinstance(answer, Failure)
        self.assertTrue(answer.check(SpoolFailed))

    def test_somebody_who_cannot_be_told(self) -> None:
        """A bug in who is told of a group does not keep the others from theirs."""
        self.begin()
        self.patch(self.spool, "written", lambda *what: 1 / 0)
        self.finish()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.line.fileno(), self.ring.fd)
        self.commit()
        self.turn(until=lambda: self.ring.is_busy, finish=False)
        self.finish()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
