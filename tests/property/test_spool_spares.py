"""Segments that are written once more: whatever of the old records is left under, behind and inside
of the new ones, it is never read."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Batch, End, Operation
from protege_mta.model.ids import QueueId
from protege_mta.spool.disk import DiskSpool
from protege_mta.testing.contracts import Lines, append
from protege_mta.testing.crashfs import Crash, CrashFiles
from protege_mta.testing.spools import disk_spool

SIZES: Final = st.lists(st.integers(0, 700), min_size=1, max_size=5)


def _start(disk: CrashFiles, journal: Lines) -> tuple[DiskSpool, list[QueueId]]:
    spool = disk_spool(disk, journal, segment_octets=4096, cache_octets=0)
    spool.acquire()
    return spool, [it.message.id for it in spool.recover()]


def _result(answer: Deferred[Any]) -> Any:
    got: list[Any] = []
    answer.addCallbacks(got.append, lambda failure: failure.raiseException())
    return got[0]


def _renewed(disk: CrashFiles) -> set[int]:
    """Files that have become segments again."""
    return {step.inode for step in disk.steps if step.to.suffix == ".fresh"}


def _open(disk: CrashFiles) -> int:
    """The file that the last group of a fresh segment went to."""
    fresh = {inode for path, inode in disk._medium.names.items() if path.suffix == ".fresh"}
    groups = [step.inode for step in disk.steps if step.name == "write" and step.offset]
    return next((inode for inode in reversed(groups) if inode in fresh), 0)


class RecycledMachine(RuleBasedStateMachine):
    """Mail comes and goes through segments of 4 KiB, and power is lost within a batch.

    :ivar queued: contents by id.
    :ivar count: of the batches, each of which has an event of that number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = CrashFiles()
        self.journal = Lines()
        self.queued: dict[QueueId, bytes] = {}
        self.count = 0
        self.spool, _ = _start(self.disk, self.journal)

    def commit(self, *operations: Operation) -> None:
        self.count += 1
        _result(self.spool.commit(Batch(operations, (b"%d\n" % self.count,))))

    def take(self, sizes: list[int]) -> None:
        contents = [b"%d" % (size % 10) * size for size in sizes]
        batch = [append(content) for content in contents]
        self.commit(*batch)
        ids = [one.message.id for one in batch]
        self.queued.update(zip(ids, contents, strict=True))

    @rule(sizes=SIZES)
    def taken(self, sizes: list[int]) -> None:
        self.take(sizes)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def ended(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.queued)), min_size=1, unique=True))
        self.commit(*[End(id, (0,), "delivered") for id in ids])
        for id in ids:
            del self.queued[id]

    @rule(count=st.integers(3, 10), size=st.integers(200, 700))
    def passed(self, count: int, size: int) -> None:
        """Traffic that fills segments, which are then written once more."""
        for _ in range(count):
            one = append(b"x" * size)
            self.commit(one)
            self.commit(End(one.message.id, (0,), "delivered"))

    @rule()
    def stopped(self) -> None:
        _result(self.spool.close())
        self.spool, found = _start(self.disk, self.journal)
        assert found == sorted(self.queued)

    @rule(
        sizes=SIZES,
        at=st.integers(0, 20),
        crash=st.sampled_from(["torn", "torn", "dropped", "kept"]),
        seed=st.integers(0, 1000),
    )
    def crashed(self, sizes: list[int], at: int, crash: Crash, seed: int) -> None:
        """Power is lost at some step of a batch: all of it is there, or nothing."""
        before, first, cursor = dict(self.queued), len(self.disk.steps), self.journal.cursor
        self.take(sizes)
        after = min(first + at, len(self.disk.steps))
        self.disk = self.disk.crashed(after, crash, seed)
        self.journal = Lines()
        self.journal.cursor = cursor
        self.spool, found = _start(self.disk, self.journal)
        told: list[bytes] = []
        for lines, position in self.spool.recover_events(cursor):
            told += lines
            self.journal.cursor = position
        if len(found) == len(before):
            self.queued = before
            assert told == []
        else:
            assert told == [b"%d\n" % self.count]
        assert found == sorted(self.queued)
        assert self.spool.stats().corrupt == 0
        self.read()

    @rule()
    def read(self) -> None:
        for id, content in self.queued.items():
            opened = _result(self.spool.open(id))
            assert opened.read() == content
            opened.close()

    def teardown(self) -> None:
        segments = [path for path in self.disk.paths() if path.suffix in {".fresh", ".spare"}]
        live = self.spool.stats().content_octets
        assert sum(len(self.disk.content(path)) for path in segments) < 2 * live + 40 * 4096


class RecycledTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """Through stops and losses of power, segments hold what their own life brought."""
        run_state_machine_as_test(
            RecycledMachine,
            settings=settings(
                max_examples=60,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

    @settings(max_examples=250, deadline=None)
    @given(
        old=st.integers(50, 600),
        new=st.lists(st.integers(0, 600), min_size=1, max_size=3),
        cuts=st.lists(st.tuples(st.integers(64, 4096), st.integers(1, 600)), max_size=5),
    )
    def test_old_octets_in_the_last_group(
        self, old: int, new: list[int], cuts: list[tuple[int, int]]
    ) -> None:
        """The last group is there as a whole, or not at all, wherever the old octets show."""
        disk, journal = CrashFiles(), Lines()
        spool, _ = _start(disk, journal)
        while _open(disk) not in _renewed(disk):
            one = append(b"o" * old)
            _result(spool.commit(Batch((one,), (b"old\n",))))
            _result(spool.commit(Batch((End(one.message.id, (0,), "delivered"),))))
        stays, batch = append(b"stays"), [append(b"n" * size) for size in new]
        _result(spool.commit(Batch((stays,), (b"stays\n",))))
        inode, cursor = _open(disk), journal.cursor
        path = next(path for path, at in disk._medium.names.items() if at == inode)
        was = disk.content(path)
        _result(spool.commit(Batch(tuple(batch), (b"new\n",))))
        assume(_open(disk) == inode)
        whole = disk.content(path)
        octets = bytearray(whole)
        for start, count in cuts:
            octets[start : start + count] = was[start : start + count]
        disk.replaced(path, bytes(octets))
        journal = Lines()
        journal.cursor = cursor
        again, found = _start(disk.crashed(10**6, "kept"), journal)
        told = [line for lines, _ in again.recover_events(cursor) for line in lines]
        # Nobody looks at the zeros that fill a record up.
        is_there = len(found) > 1 or octets == whole
        ids = [one.message.id for one in (stays, *(batch if is_there else ()))]
        self.assertEqual((found, told), (ids, [b"new\n"] if is_there else []))
        self.assertEqual(again.stats().corrupt, 0)
        for id, size in zip(found[1:], new, strict=is_there):
            self.assertEqual(_result(again.open(id)).read(), b"n" * size)
