"""Disk use follows what is queued."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Batch, End, Operation, Update, with_head
from protege_mta.model.ids import QueueId
from protege_mta.model.status import RecipientStatus
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.line import Worker
from protege_mta.spool.writer import Job
from protege_mta.testing.contracts import DEFERRED, DUE, Lines, append
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool

SEGMENT = 16384


class ReclaimTests(SynchronousTestCase):
    """Segments of 16 KiB on a disk in memory."""

    def setUp(self) -> None:
        self.disk = CrashFiles()
        self.journal = Lines()
        self.spool = self.start()

    def start(self) -> DiskSpool:
        spool = disk_spool(self.disk, self.journal, segment_octets=SEGMENT)
        spool.acquire()
        self.found = list(spool.recover())
        return spool

    def restart(self) -> None:
        self.successResultOf(self.spool.close())
        self.spool = self.start()

    def commit(self, *operations: Operation, events: tuple[bytes, ...] = ()) -> None:
        self.assertIsNone(self.successResultOf(self.spool.commit(Batch(operations, events))))

    def deliver(self, id: QueueId) -> None:
        self.commit(End(id, (0,), "delivered"))

    def pass_through(self, messages: int, octets: int = 1000) -> None:
        """So many messages come and are delivered at once."""
        for _ in range(messages):
            one = append(b"x" * octets)
            self.commit(one)
            self.deliver(one.message.id)

    def disk_octets(self) -> int:
        return sum(len(self.disk.content(path)) for path in self.disk.paths())

    def test_what_passes_leaves_nothing(self) -> None:
        """However much mail has passed, a few segments are left: written, open, and ahead."""
        highest = 0
        for _ in range(20):
            self.pass_through(100)
            highest = max(highest, self.disk_octets())
        self.assertLess(highest, 4 * SEGMENT)
        self.assertEqual(self.spool.stats().messages, 0)

    def test_no_room_for_copies(self) -> None:
        """A disk that is full puts cleaning off, and stops nothing; later it is made up for."""

        class Full(CrashFiles):
            is_full = False

            def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
                path = next(at for at, i in self._medium.names.items() if i == self._open[fd])
                if self.is_full and path.suffix == ".kept":
                    super().write(fd, pieces[: len(pieces) // 2], offset)
                    raise OSError(errno.ENOSPC, "full")
                super().write(fd, pieces, offset)

        self.disk = disk = Full()
        self.spool = self.start()
        stay = [append(b"x" * 1000) for _ in range(8)]
        disk.is_full = True
        for one in stay:
            self.commit(one)
            self.pass_through(20)
        self.assertFalse(self.spool.stats().is_failed)
        self.restart()
        self.assertEqual([it.message.id for it in self.found], [it.message.id for it in stay])
        self.assertEqual(self.spool.stats().corrupt, 0)
        full = self.disk_octets()
        disk.is_full = False
        for _ in range(3):
            self.pass_through(100)
        self.assertLess(self.disk_octets(), full - 2 * SEGMENT)
        self.restart()
        self.assertEqual([it.message.id for it in self.found], [it.message.id for it in stay])

    def test_one_of_a_thousand_stays(self) -> None:
        """Long-deferred mail pins no segments; its content and states survive all the copying."""
        kept: dict[QueueId, RecipientStatus] = {}
        for number in range(12):
            one = append(b"%d" % number * 500)
            self.commit(one)
            id = one.message.id
            kept[id] = RecipientStatus(
                "deferred", number, 5000.0 + number, number + 2, False, "421"
            )
            self.commit(Update(id, (0,), kept[id]))
            self.pass_through(250)
        live = self.spool.stats().content_octets
        self.assertLess(self.disk_octets(), 2 * live + 8 * SEGMENT)
        self.assertTrue(any(path.suffix == ".kept" for path in self.disk.paths()))
        for _ in range(2):
            self.assertEqual(
                {id: self.successResultOf(self.spool.statuses(id)).statuses for id in kept},
                {id: (status,) for id, status in kept.items()},
            )
            self.restart()
        self.assertEqual([it.message.id for it in self.found], list(kept))
        first = self.successResultOf(self.spool.open(self.found[0].message.id))
        self.assertEqual(first.read(), b"0" * 500)

    def test_states_are_carried(self) -> None:
        """A status outlives the segment it was written to."""
        one = append(b"y" * 9000, recipients=2)
        self.commit(one)
        self.pass_through(200)
        self.commit(Update(one.message.id, (0,), DEFERRED), End(one.message.id, (1,), "bounced"))
        self.pass_through(1000)
        self.restart()
        self.assertEqual([it.statuses for it in self.found], [(DEFERRED, None)])

    def test_the_dead_stay_dead(self) -> None:
        """What ended a message outlives the segment it was written to, while the content lies on
        the disk."""
        stays, ends = append(b"s" * 6000), append(b"e" * 6000)
        self.commit(stays, ends)
        self.pass_through(200)
        self.deliver(ends.message.id)
        self.pass_through(200)
        self.restart()
        self.assertEqual([it.message.id for it in self.found], [stays.message.id])

    def test_journal(self) -> None:
        """No segment goes before the journal has synced its events."""
        self.journal.is_synced = False
        for number in range(100):
            one = append(b"x" * 1000)
            self.commit(one, events=(b"%d\n" % number,))
            self.deliver(one.message.id)
        self.assertGreater(self.disk_octets(), 100_000)
        self.restart()
        lines = [line for lines, _ in self.spool.recover_events((0, 0)) for line in lines]
        self.assertEqual(lines, [b"%d\n" % number for number in range(100)])
        self.journal.cursor = self.journal.told[-1][1]
        self.pass_through(60)
        self.assertLess(self.disk_octets(), 4 * SEGMENT)

    def test_many_restarts(self) -> None:
        """Nor does a file for each restart stay."""
        kept = []
        for _ in range(30):
            one = append()
            kept.append(one.message.id)
            self.commit(one)
            self.restart()
        self.pass_through(20)
        self.assertEqual([it.message.id for it in self.found], kept)
        self.assertLess(self.spool.stats().segments, 18)

    def test_what_comes_before_a_file(self) -> None:
        """It lies in the record, and is carried along with it."""
        incoming = self.spool.receive()
        incoming.write(b"b" * (2**20 + 1))
        placed = with_head(self.successResultOf(incoming.sealed()), b"head")
        one = append(b"head" + b"b" * (2**20 + 1))
        self.successResultOf(self.spool.commit(Batch((type(one)(one.message, placed, DUE),))))
        before = self.spool._index.place(one.message.id)
        self.pass_through(16)
        for _ in range(20):  # long-lived ones in other segments, so that this one is the emptiest
            self.commit(append(b"x" * 2000))
            self.pass_through(16)
        self.assertNotEqual(self.spool._index.place(one.message.id), before)
        for _ in range(2):
            reading = self.successResultOf(self.spool.open(one.message.id))
            self.assertEqual(reading.read(0, 6), b"headbb")
            self.assertEqual(reading.size_octets, 2**20 + 5)
            reading.close()
            self.restart()

    def test_big_files(self) -> None:
        """A big file goes with its message's end."""
        spool = disk_spool(self.disk, folder=Path("/other"), big_octets=100)
        spool.acquire()
        list(spool.recover())
        incoming = spool.receive()
        incoming.write(b"b" * 1000)
        content = self.successResultOf(incoming.sealed())
        one = append(b"b" * 1000)
        self.successResultOf(spool.commit(Batch((type(one)(one.message, content, DUE),))))
        folder = Path("/other/0/big")
        self.assertEqual(len(self.disk.names(folder)), 1)
        reading = self.successResultOf(spool.open(one.message.id))
        self.successResultOf(spool.commit(Batch((End(one.message.id, (0,), "delivered"),))))
        self.assertEqual(self.disk.names(folder), [])
        self.assertEqual(reading.read(990), b"b" * 10)
        reading.close()


class SlowLine:
    """A line whose jobs are done when the test says so."""

    def __init__(self, worker: Worker, lazy_s: float, in_reactor: Callable[..., object]) -> None:
        self.worker = worker
        self.jobs: list[Job] = []

    def put(self, job: Job, *, is_lazy: bool = False) -> None:
        self.jobs.append(job)

    def close(self) -> None:
        """Its work is the test's."""

    def work(self, count: int) -> None:
        taken, self.jobs = self.jobs[:count], self.jobs[count:]
        self.worker.turn(taken)


class PaceTests(SynchronousTestCase):
    def start(self, disk: CrashFiles) -> tuple[DiskSpool, SlowLine]:
        lines: list[SlowLine] = []

        def make(worker: Worker, lazy_s: float, in_reactor: Callable[..., object]) -> SlowLine:
            lines.append(SlowLine(worker, lazy_s, in_reactor))
            return lines[0]

        spool = disk_spool(disk, line=make, segment_octets=4096, cache_octets=0)
        spool.acquire()
        self.found = {it.message.id: list(it.statuses) for it in spool.recover()}
        return spool, lines[0]

    def test_any_pace(self) -> None:
        """However batches in line and steps of the reclaimer take turns, the last word of each
        recipient is the one that counts."""
        for seed in range(25):
            self.run_once(random.Random(seed))

    def run_once(self, rng: random.Random) -> None:
        disk = CrashFiles()
        spool, line = self.start(disk)
        model: dict[QueueId, list[RecipientStatus | None]] = {}
        for number in range(250):
            known = [id for id in spool.ids() if id in model]
            chance = rng.random()
            if chance < 0.35 or not known:
                one = append(b"x" * rng.choice((50, 700)), recipients=2)
                model[one.message.id] = [DUE, DUE]
                self.commit(spool, one)
            elif chance < 0.7:
                id, at = rng.choice(known[:5]), rng.randrange(2)
                status = RecipientStatus("deferred", number, 3000.0, number)
                self.commit(spool, Update(id, (at,), status))
                if model[id][at] is not None:
                    model[id][at] = status
            else:
                id, ends = rng.choice(known[2:] or known), rng.choice(((0,), (1,), (0, 1)))
                self.commit(spool, End(id, ends, "delivered"), is_lazy=rng.random() < 0.5)
                for at in ends:
                    model[id][at] = None
                if not any(model[id]):
                    del model[id]
            if rng.random() < 0.5:
                line.work(rng.randrange(1, 5))
        closed = spool.close()
        while line.jobs:
            line.work(1)
        self.successResultOf(closed)
        self.start(disk)
        self.assertEqual(self.found, model)

    def test_end_in_the_middle_of_a_copy(self) -> None:
        """A message that ends while its copy waits in line does not come back from the copy."""
        disk = CrashFiles()
        spool, line = self.start(disk)
        queued: list[QueueId] = []

        def pass_one() -> None:
            one = append(b"x" * 700)
            self.commit(spool, one)
            self.commit(spool, End(one.message.id, (0,), "delivered"))

        carried: list[QueueId] = []
        for number in range(1000):
            carried = [seen.id for job in line.jobs for seen, _ in getattr(job, "moves", ())]
            if len(carried) > 1:
                break
            if number % 20 == 0:
                pair = append(), append()
                self.commit(spool, *pair)
                queued += [one.message.id for one in pair]
            pass_one()
            line.work(len(line.jobs))
        ends = carried[1]
        self.commit(spool, End(ends, (0,), "delivered"), is_lazy=True)
        for _ in range(200):
            pass_one()
            while line.jobs:
                line.work(1)
        closed = spool.close()
        line.work(1)
        self.successResultOf(closed)
        self.start(disk)
        self.assertEqual(list(self.found), [id for id in queued if id != ends])

    def commit(self, spool: DiskSpool, *operations: Operation, is_lazy: bool = False) -> None:
        spool.commit(Batch(operations, is_lazy=is_lazy))
