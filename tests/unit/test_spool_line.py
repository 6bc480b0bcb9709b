"""Tests of the line between the reactor and the spool's writer."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.spool.line import ThreadLine
from protege_mta.spool.writer import Item, Job
from protege_mta.testing.spools import call

WAIT_S = 10.0


class Worker:
    """Shows what it is given, and is closed by an item that has a file to unlink."""

    def __init__(self) -> None:
        self.is_closed = False
        self.turns: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()

    def turn(self, jobs: Sequence[Job]) -> None:
        self.is_closed = any(isinstance(job, Item) and job.unlinks for job in jobs)
        self.turns.put(list(jobs))


class ThreadLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.worker = Worker()

    def line(self, lazy_s: float, in_reactor: Callable[..., object] = call) -> ThreadLine:
        line = ThreadLine(self.worker, lazy_s, in_reactor)
        self.addCleanup(line.put, job("close"))
        return line

    def test_lazy_rings_nobody(self) -> None:
        """While the writer is going to look anyway a lazy job disturbs nobody; it goes with the
        next one."""
        rings: list[Callable[[], object]] = []
        self.addCleanup(lambda: [ring() for ring in rings])
        line = self.line(WAIT_S, rings.append)
        lazy, other = job(), job()
        line.put(lazy, is_lazy=True)
        self.assertEqual(rings, [])
        line.put(other)
        self.assertEqual(len(rings), 1)
        rings.pop()()
        self.assertEqual(self.worker.turns.get(timeout=WAIT_S), [lazy, other])

    def test_lazy_alone(self) -> None:
        """A lazy job alone is done shortly, whether the writer has gone to sleep or not."""
        line = self.line(0.0001)
        for _ in range(100):
            lazy = job()
            line.put(lazy, is_lazy=True)
            self.assertEqual(self.worker.turns.get(timeout=WAIT_S), [lazy])

    def test_order(self) -> None:
        """Nothing is lost, and nothing overtakes."""
        line = self.line(0.0001)
        jobs = [job() for _ in range(1000)]
        for number, one in enumerate(jobs):
            line.put(one, is_lazy=number % 3 == 0)
        done: list[Job] = []
        while len(done) < len(jobs):
            done += self.worker.turns.get(timeout=WAIT_S)
        self.assertTrue(all(map(lambda one, other: one is other, done, jobs)))


def job(*unlinks: str) -> Item:
    return Item((), [], (), 0, unlinks=unlinks)
