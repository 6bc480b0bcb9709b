"""What a spool does whoever writes for it: the test plays the reactor."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, End
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.line import LineMaker
from protege_mta.spool.settings import SpoolSettings
from protege_mta.testing.contracts import Lines, append
from protege_mta.testing.spools import at_once

if TYPE_CHECKING:
    _TestCase = SynchronousTestCase
else:
    _TestCase = object


class LineContract(_TestCase):
    """Mix into a ``SynchronousTestCase``, and give it a spool in ``setUp``."""

    spool: DiskSpool

    def setUp(self) -> None:
        self.calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]]
        self.calls = queue.SimpleQueue()
        self.journal = Lines()
        self.folder = Path(self.mktemp())

    def new_spool(self, line: LineMaker) -> DiskSpool:
        spool = DiskSpool(
            self.folder,
            SpoolSettings(segment_octets=65536, free_octets=0, free_inodes=0, lazy_s=0.01),
            now=lambda: 0.0,
            in_reactor=lambda function, *arguments: self.calls.put((function, arguments)),
            in_thread=at_once,
            journal=self.journal,
            line=line,
        )
        spool.acquire()
        return spool

    def turn(self, *, until: Callable[[], bool]) -> None:
        while not until():
            self.step()

    def step(self) -> None:
        """Wait for the next thing that the reactor has to do, and do it."""
        function, arguments = self.calls.get(timeout=10)
        function(*arguments)

    def test_many_groups(self) -> None:
        """Across segments, with ends and reclaiming, nothing is lost or out of order."""
        done: list[int] = []

        def answered(_: None, number: int, one: Append) -> None:
            done.append(number)
            end = Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True)
            self.successResultOf(self.spool.commit(end))

        for number in range(600):
            one = append(b"x" * 1000)
            self.spool.commit(Batch((one,))).addCallback(answered, number, one)
            if number % 20 == 0:
                self.turn(until=lambda number=number: len(done) > number // 2)  # type: ignore[misc]
        self.turn(until=lambda: len(done) == 600)
        self.assertEqual(done, list(range(600)))
        self.assertEqual(self.spool.stats().messages, 0)
