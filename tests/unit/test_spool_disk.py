"""Big files, floors, failures, lock and thread of the spool on disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, BigFile, End, with_head
from protege_mta.model.ports import Damaged, SpoolFailed, SpoolFull, SpoolLocked
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.files import Files, Room
from protege_mta.spool.line import ThreadLine
from protege_mta.spool.lock import ForeignOwner, check_owner
from protege_mta.testing.contracts import DUE, append
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.medium import crashes
from protege_mta.testing.spools import disk_spool

from .spool_lines import LineContract

BIG: Final = Path("/spool/0/big")


class Later:
    """``in_thread`` whose work is done when the test says so."""

    def __init__(self) -> None:
        self.works: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, work: Callable[[], Any], /) -> Deferred[Any]:
        self.works.append((work, Deferred()))
        return self.works[-1][1]

    def work(self) -> None:
        """Do the oldest piece of work."""
        work, answer = self.works.pop(0)
        try:
            result = work()
        except Exception:
            answer.errback(Failure())
        else:
            answer.callback(result)


def started(disk: CrashFiles, **settings: Any) -> DiskSpool:
    spool = disk_spool(disk, **settings)
    spool.acquire()
    list(spool.recover())
    return spool


class FillsUp(CrashFiles):
    """Reserves nothing, and may have no room for all of a write.

    :ivar room_octets: for one write; None for any.
    """

    room_octets: int | None = None

    def allocate(self, fd: int, octets: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "cannot reserve")

    def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        whole = b"".join(pieces)
        super().write(fd, [whole[: self.room_octets]], offset)
        if self.room_octets is not None and len(whole) > self.room_octets:
            raise OSError(errno.ENOSPC, "full")


class BigTests(SynchronousTestCase):
    """Content above the threshold."""

    def setUp(self) -> None:
        self.disk = CrashFiles()
        self.spool = started(self.disk, big_octets=2**20)

    def test_whole_way(self) -> None:
        """In pieces to a file, synced before any record names it, and back."""
        content = os.urandom(3 * 2**20 + 17)
        incoming = self.spool.receive()
        for at in range(0, len(content), 65536):
            self.assertIsNone(incoming.write(content[at : at + 65536]))
        sealed = self.successResultOf(incoming.sealed())
        assert isinstance(sealed, BigFile)
        self.assertEqual(sealed.size_octets, len(content))
        names = [step.name for step in self.disk.steps if "big" in str(step.path)]
        self.assertEqual(names[-2:], ["create", "sync-folder"])
        one = append(content)
        self.successResultOf(self.spool.commit(Batch((Append(one.message, sealed, DUE),))))
        self.successResultOf(self.spool.close())
        self.spool = started(self.disk.crashed(10**6, "dropped"))
        opened = self.successResultOf(self.spool.open(one.message.id))
        self.assertEqual(opened.size_octets, len(content))
        self.assertEqual(opened.read(2**20, 100), content[2**20 : 2**20 + 100])
        self.assertEqual(opened.read(), content)
        opened.close()

    def test_a_head_that_is_known_last(self) -> None:
        """What is put in front of a file comes first, after restarts too, and all is counted."""
        content, head = os.urandom(2**20 + 17), b"Authentication-Results: x; none\r\n"
        incoming = self.spool.receive()
        incoming.write(content)
        looked = self.successResultOf(incoming.look())
        self.assertEqual((looked.size_octets, looked.read()), (len(content), content))
        looked.close()
        sealed = self.successResultOf(incoming.sealed())
        one = append(head + content)
        placed = with_head(sealed, head)
        self.successResultOf(self.spool.commit(Batch((Append(one.message, placed, DUE),))))
        octets = self.spool.stats().content_octets
        for _ in range(2):
            opened = self.successResultOf(self.spool.open(one.message.id))
            self.assertEqual(opened.size_octets, len(head + content))
            self.assertEqual(opened.read(), head + content)
            self.assertEqual(opened.read(10, 10), head[10:20])
            self.assertEqual(opened.read(30, 10), (head + content)[30:40])
            self.assertEqual(opened.read(len(head), 5), content[:5])
            opened.close()
            self.successResultOf(self.spool.close())
            self.spool = started(self.disk.crashed(10**6, "dropped"))
            self.assertEqual(self.spool.stats().content_octets, octets)

    def test_looked_at_and_discarded(self) -> None:
        """A message that is refused for what was seen leaves no file behind."""
        incoming = self.spool.receive()
        incoming.write(b"1" * (2**20 + 1))
        looked = self.successResultOf(incoming.look())
        incoming.discard()
        self.assertEqual(looked.read(2**20), b"1")
        looked.close()
        self.assertEqual(self.disk.names(BIG), [])

    def test_small_content_looked_at(self) -> None:
        """It is in memory, and stays counted there."""
        incoming = self.spool.receive()
        incoming.write(b"one")
        incoming.write(b"two")
        looked = self.successResultOf(incoming.look())
        self.assertEqual((looked.size_octets, looked.read(2, 2)), (6, b"et"))
        assert self.spool._big is not None
        self.assertEqual(self.spool._big.memory_octets, 6)
        self.assertEqual(incoming.at_hand(), (b"one", b"two"))
        self.assertEqual(self.spool._big.memory_octets, 0)

    def test_back_pressure(self) -> None:
        """A sender that is faster than the disk waits; two chunks are in memory at most."""
        later = Later()
        assert self.spool._big is not None
        self.spool._big.in_thread = later
        incoming = self.spool.receive()
        self.assertIsNone(incoming.write(b"1" * (2**20 + 1)))
        self.assertIsNone(incoming.write(b"2" * 200_000))
        waiting = incoming.write(b"3" * 100_000)
        assert waiting is not None
        self.assertNoResult(waiting)
        later.work()
        self.successResultOf(waiting)
        sealed = incoming.sealed()
        self.assertNoResult(sealed)
        while later.works:
            later.work()
        big = self.successResultOf(sealed)
        assert isinstance(big, BigFile)
        self.assertEqual(self.disk.content(BIG / big.name)[-100_001:-99_999], b"23")

    def test_discarded(self) -> None:
        """Nothing stays of it, whenever it is discarded."""
        for moment in range(4):
            later = Later()
            assert self.spool._big is not None
            self.spool._big.in_thread = later
            incoming = self.spool.receive()
            incoming.write(b"1" * (2**20 + 1))
            if moment == 1:
                later.work()
            elif moment >= 2:
                incoming.sealed().addErrback(lambda _: None)
                later.work()
                if moment == 3:
                    later.work()
            incoming.discard()
            while later.works:
                later.work()
            self.assertEqual(self.disk.names(BIG), [])

    def test_memory(self) -> None:
        """All that comes in together stays within its memory; what is over goes to files."""
        self.spool = started(CrashFiles(), incoming_octets=1000)
        first, second = self.spool.receive(), self.spool.receive()
        first.write(b"1" * 600)
        second.write(b"2" * 600)
        self.assertIsInstance(self.successResultOf(second.sealed()), BigFile)
        self.assertEqual(self.successResultOf(first.sealed()), (b"1" * 600,))
        third = self.spool.receive()
        third.write(b"3" * 900)
        self.assertEqual(self.successResultOf(third.sealed()), (b"3" * 900,))

    def test_no_room(self) -> None:
        self.disk.faults["write"] = OSError(errno.ENOSPC, "full")
        incoming = self.spool.receive()
        incoming.write(b"1" * (2**20 + 1))
        incoming.write(b"2" * 2**20)
        self.failureResultOf(incoming.sealed(), SpoolFull)
        self.assertEqual(self.disk.names(BIG), [])

    def test_bad_disk(self) -> None:
        """The message is refused; the spool goes on, for its log is sound."""
        self.disk.faults["sync"] = OSError(errno.EIO, "bad")
        incoming = self.spool.receive()
        incoming.write(b"1" * (2**20 + 1))
        self.failureResultOf(incoming.sealed(), SpoolFailed)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        del self.disk.faults["sync"]
        self.successResultOf(self.spool.commit(Batch((append(),))))


class FloorTests(SynchronousTestCase):
    """What is refused when, and what never is."""

    def test_octets_and_inodes(self) -> None:
        clock, disk = Clock(), CrashFiles()
        spool = disk_spool(disk, now=clock.seconds, free_octets=10_000_000, free_inodes=10)
        spool.acquire()
        list(spool.recover())
        disk.left = Room(20_000_000, 10)
        clock.advance(1)
        spool.check_room(9_999_000)
        self.assertRaises(SpoolFull, spool.check_room, 10_000_001)
        disk.left = Room(20_000_000, 9)
        clock.advance(0.5)
        spool.check_room(1)
        clock.advance(0.6)
        self.assertRaises(SpoolFull, spool.check_room, 1)

    def test_nobody_can_tell(self) -> None:
        disk = CrashFiles()
        disk.faults["room"] = OSError(errno.EIO, "bad")
        spool = started(disk)
        self.failureResultOf(spool.commit(Batch((append(),))), SpoolFull)
        self.assertEqual(spool.stats().free_octets, 0)

    def test_what_is_accepted_counts(self) -> None:
        """A burst between two looks at the disk does not cross the floor."""
        spool = started(CrashFiles(), free_octets=2**40 - 100_000)
        for _ in range(9):
            self.successResultOf(spool.commit(Batch((append(b"x" * 10_000),))))
        self.failureResultOf(spool.commit(Batch((append(b"x" * 10_000),))), SpoolFull)

    def test_no_segment_to_be_had(self) -> None:
        """A disk that fills up under us is said to be full, and the log is sound."""
        disk = CrashFiles()
        spool = started(disk)
        one = append(b"x" * 9000)
        self.successResultOf(spool.commit(Batch((one,))))
        disk.faults["allocate"] = OSError(errno.ENOSPC, "full")
        self.successResultOf(spool.commit(Batch((append(b"x" * 9000),))))  # the one made ahead
        self.failureResultOf(spool.commit(Batch((append(b"x" * 9000),))), SpoolFull)
        self.successResultOf(spool.commit(Batch((End(one.message.id, (0,), "removed"),))))
        del disk.faults["allocate"]
        self.successResultOf(spool.commit(Batch((append(b"x" * 9000),))))
        self.flushLoggedErrors(OSError)

    def test_no_room_in_the_segment(self) -> None:
        """Where nothing can be reserved a write may find no room: what it began is cut off."""
        disk = FillsUp()
        spool = started(disk)
        one, two = append(b"1" * 1000), append()
        self.successResultOf(spool.commit(Batch((one,))))
        disk.room_octets = 400
        self.failureResultOf(spool.commit(Batch((append(b"2" * 1000),))), SpoolFull)
        self.successResultOf(spool.commit(Batch((End(one.message.id, (0,), "removed"),))))
        disk.room_octets = None
        self.successResultOf(spool.commit(Batch((two,))))
        again = disk_spool(disk.crashed(10**6, "dropped"))
        again.acquire()
        self.assertEqual([it.message.id for it in again.recover()], [two.message.id])
        self.assertEqual(again.stats().corrupt, 0)

    def test_no_room_for_a_batch(self) -> None:
        """No message of a batch that was refused comes back, though all of its record may have been
        written, and whenever the power is lost then."""
        disk = FillsUp()
        spool = started(disk)
        one = append(b"1")
        self.successResultOf(spool.commit(Batch((one,))))
        first = len(disk.steps)
        disk.room_octets = 1500
        batch = tuple(append(b"2" * 300) for _ in range(4))
        self.failureResultOf(spool.commit(Batch(batch)), SpoolFull)
        self.successResultOf(spool.commit(Batch((End(one.message.id, (0,), "removed"),))))
        found = set()
        for after, tree in crashes(disk.before, disk.steps):
            if after >= first:
                again = disk_spool(CrashFiles(tree))
                again.acquire()
                found.add((*(it.message.id for it in again.recover()), again.stats().corrupt))
        self.assertEqual(found, {(one.message.id, 0), (0,)})

    def test_room_for_ends(self) -> None:
        """Content is refused as soon as there is no segment ahead: its room is for ends."""
        disk = CrashFiles()
        spool = started(disk)
        one = append(b"x" * 9000)
        self.successResultOf(spool.commit(Batch((one,))))
        disk.faults["allocate"] = OSError(errno.ENOSPC, "full")
        self.successResultOf(spool.commit(Batch((append(b"x" * 9000),))))  # the one made ahead
        self.failureResultOf(spool.commit(Batch((append(b"x"),))), SpoolFull)
        self.assertRaises(SpoolFull, spool.check_room, 0)
        self.assertTrue(spool.stats().is_full)
        lazy = Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True)
        self.successResultOf(spool.commit(lazy))
        disk.faults.clear()
        spool.check_room(0)
        self.assertFalse(spool.stats().is_full)
        self.successResultOf(spool.commit(Batch((append(b"x"),))))


class FailureTests(SynchronousTestCase):
    """A disk that breaks its promises."""

    def test_never_again(self) -> None:
        """A sync that failed is not repeated, even though it would succeed now."""
        disk = CrashFiles()
        spool = started(disk)
        disk.faults["sync_data"] = OSError(errno.EIO, "bad")
        self.failureResultOf(spool.commit(Batch((append(),))), SpoolFailed)
        disk.faults.clear()
        steps = len(disk.steps)
        self.failureResultOf(spool.commit(Batch((append(),))), SpoolFailed)
        self.assertEqual(len(disk.steps), steps)
        self.successResultOf(spool.close())

    def test_restart(self) -> None:
        """A restart on a mended disk goes on with what was acknowledged."""
        disk = CrashFiles()
        spool = started(disk)
        one = append()
        self.successResultOf(spool.commit(Batch((one,))))
        disk.faults["write"] = OSError(errno.EROFS, "read-only")
        self.failureResultOf(spool.commit(Batch((append(),))), SpoolFailed)
        disk.faults.clear()
        self.successResultOf(spool.close())
        again = disk_spool(disk)
        again.acquire()
        self.assertEqual([it.message.id for it in again.recover()], [one.message.id])
        self.successResultOf(again.commit(Batch((append(),))))

    def test_unreadable(self) -> None:
        """What the disk cannot read is offered to nobody, and again after a restart."""
        disk = CrashFiles()
        spool = started(disk, cache_octets=0)
        one = append()
        self.successResultOf(spool.commit(Batch((one,))))
        disk.faults["read"] = OSError(errno.EIO, "bad")
        self.failureResultOf(spool.open(one.message.id), Damaged)
        self.assertEqual(list(spool.corrupt_ids()), [one.message.id])
        disk.faults.clear()
        self.successResultOf(spool.close())
        again = disk_spool(disk)
        again.acquire()
        self.assertEqual([it.message.id for it in again.recover()], [one.message.id])

    def test_too_many_files(self) -> None:
        """A fault that says nothing about the content leaves it alone."""
        disk = CrashFiles()
        spool = started(disk, cache_octets=0)
        one = append(b"content")
        self.successResultOf(spool.commit(Batch((one,))))
        disk.faults["open"] = OSError(errno.EMFILE, "too many open files")
        self.failureResultOf(spool.open(one.message.id), OSError)
        del disk.faults["open"]
        self.assertEqual(self.successResultOf(spool.open(one.message.id)).read(), b"content")


class LockTests(SynchronousTestCase):
    def test_pid(self) -> None:
        """The second one is told who has it."""
        folder = Path(self.mktemp())
        first = disk_spool(Files(), folder=folder)
        first.acquire()
        error = self.assertRaises(SpoolLocked, disk_spool(Files(), folder=folder).acquire)
        self.assertIn(f"process {os.getpid()}", str(error))
        self.successResultOf(first.close())

    def test_owner(self) -> None:
        """A command run as somebody else, root included, leaves no files of another owner."""
        folder = Path(self.mktemp())
        check_owner(folder)
        folder.mkdir()
        check_owner(folder)
        self.assertRaises(ForeignOwner, check_owner, folder, user=os.geteuid() + 1)

    def test_modes(self) -> None:
        """Nobody else reads mail."""
        folder = Path(self.mktemp())
        spool = disk_spool(Files(), folder=folder, free_octets=0, free_inodes=0)
        spool.acquire()
        list(spool.recover())
        self.successResultOf(spool.commit(Batch((append(),))))
        for path in [folder / "0", *(folder / "0").iterdir()]:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)
        self.successResultOf(spool.close())


class ThreadTests(LineContract, SynchronousTestCase):
    """The writer in its own thread; the test plays the reactor."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.new_spool(ThreadLine)
        list(self.spool.recover())

    def test_group_commit(self) -> None:
        """What one turn of the reactor brings is one sync, answered in order."""
        order: list[int] = []

        def answered(_: None, number: int) -> None:
            order.append(number)

        for number in range(50):
            batch = Batch((append(),), (b"%d\n" % number,))
            self.spool.commit(batch).addCallback(answered, number)
        self.turn(until=lambda: len(order) == 50)
        self.assertEqual(order, list(range(50)))
        self.assertEqual(self.spool.stats().commits, 1)
        self.assertEqual(self.journal.lines, [b"%d\n" % number for number in range(50)])

    def test_lazy_alone(self) -> None:
        """A lazy batch with nobody to go with is synced by itself, shortly."""
        one = append()
        answers: list[None] = []
        self.spool.commit(Batch((one,))).addCallback(answers.append)
        self.turn(until=lambda: bool(answers))
        lazy = Batch((End(one.message.id, (0,), "delivered"),), is_lazy=True)
        self.successResultOf(self.spool.commit(lazy))
        self.turn(until=lambda: self.spool.stats().commits == 2)
        self.assertEqual(self.spool.stats().operations, 2)

    def tearDown(self) -> None:
        closed: list[None] = []
        self.spool.close().addCallback(closed.append)
        self.turn(until=lambda: bool(closed))
