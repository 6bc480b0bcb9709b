"""What recovery makes of damaged segments."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, End, Operation
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Damaged, NoSuchMessage, Recovered
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.record import MAGIC
from protege_mta.testing.contracts import DEFERRED, DUE, Lines, append, message
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool

SHARD: Final = Path("/spool/0")


class DamageTests(SynchronousTestCase):
    """A spool of a few messages in one segment, and octets of it changed."""

    def setUp(self) -> None:
        self.disk = CrashFiles()
        self.journal = Lines()
        self.spool = self.start()

    def start(self) -> DiskSpool:
        spool = disk_spool(self.disk, self.journal, segment_octets=2**16, cache_octets=0)
        spool.acquire()
        self.found = [it.message.id for it in spool.recover()]
        return spool

    def restart(self) -> list[QueueId]:
        if self.spool is not None:
            self.successResultOf(self.spool.close())
        self.spool = self.start()
        return self.found

    def commit(self, *operations: Operation, events: tuple[bytes, ...] = ()) -> None:
        self.assertIsNone(self.successResultOf(self.spool.commit(Batch(operations, events))))

    def some(self, count: int) -> list[QueueId]:
        ids = []
        for _ in range(count):
            one = append(b"Subject: x\r\n\r\n" + b"body " * 100)
            self.commit(one, events=(b"received\n",))
            ids.append(one.message.id)
        return ids

    def segment(self) -> Path:
        """The one that holds records."""
        return next(
            path
            for path in self.disk.paths()
            if path.suffix == ".fresh" and MAGIC in self.disk.content(path)
        )

    def overwrite(self, at: int, octets: bytes) -> None:
        path = self.segment()
        whole = self.disk.content(path)
        self.disk.replaced(path, whole[:at] + octets + whole[at + len(octets) :])

    def offset_of(self, id: QueueId) -> int:
        """Where the header of the content record of ``id`` begins."""
        whole = self.disk.content(self.segment())
        return whole.rindex(MAGIC, 0, whole.index(id.encode()))

    def test_damaged_header(self) -> None:
        """What cannot be read is set aside and counted; everything else is there."""
        ids = self.some(5)
        self.overwrite(self.offset_of(ids[2]) + 20, b"\xff" * 8)
        self.assertEqual(self.restart(), [ids[0], ids[1], ids[3], ids[4]])
        self.assertEqual(self.spool.stats().corrupt, 1)
        (name,) = self.disk.names(SHARD / "corrupt")
        self.assertIn(b"body body", self.disk.content(SHARD / "corrupt" / name))
        self.assertEqual(self.restart(), [ids[0], ids[1], ids[3], ids[4]])
        self.assertEqual(self.spool.stats().corrupt, 1)

    def test_no_room_for_what_is_damaged(self) -> None:
        """Damage that cannot be set aside stops nobody; it stays where it is."""
        ids = self.some(3)
        self.overwrite(self.offset_of(ids[1]) + 20, b"\xff" * 8)
        path = self.segment()
        self.successResultOf(self.spool.close())
        create = self.disk.create

        def only_segments(path: Path) -> int:
            if path.parent.name == "corrupt":
                raise OSError(28, "full")
            return create(path)

        self.patch(self.disk, "create", only_segments)
        self.spool = self.start()
        self.assertEqual(self.found, [ids[0], ids[2]])
        self.commit(End(ids[0], (0,), "removed"), End(ids[2], (0,), "removed"))
        self.commit(append())
        self.assertIn(path, self.disk.paths())
        self.assertEqual(self.spool.stats().corrupt, 1)
        self.flushLoggedErrors(OSError)

    def test_damaged_commit_record(self) -> None:
        """A group whose commit record is damaged was acknowledged all the same: later ones are
        there."""
        ids = self.some(3)
        whole = self.disk.content(self.segment())
        commit = whole.rindex(MAGIC, 0, self.offset_of(ids[1]) - 1)
        self.overwrite(commit + 8, b"\xff")
        self.assertEqual(self.restart(), ids)
        self.assertEqual(self.spool.stats().corrupt, 1)

    def test_damaged_commit_record_before_a_broken_segment(self) -> None:
        """Nor is a group the last one of all where a later segment was written to, whatever has
        become of that."""
        self.successResultOf(self.spool.close())
        self.spool = disk_spool(self.disk, self.journal, segment_octets=4096, cache_octets=0)
        self.spool.acquire()
        list(self.spool.recover())
        ids = self.some(8)
        first, second = [path for path in self.disk.paths() if MAGIC in self.disk.content(path)]
        whole = self.disk.content(first)
        commit = whole.rindex(MAGIC)
        self.disk.replaced(first, whole[: commit + 8] + b"\xff" + whole[commit + 9 :])
        self.disk.replaced(second, b"\xff" * len(self.disk.content(second)))
        left = [id for id in ids if id.encode() in whole]
        self.assertEqual(len(left), 4)
        self.assertEqual(self.restart(), left)
        self.commit(End(left[0], (0,), "removed"))
        self.assertEqual(self.restart(), left[1:])
        self.assertEqual(self.spool.stats().corrupt, 2)

    def test_a_segment_without_a_beginning(self) -> None:
        """Zeros where a segment's first record was do not make it one that was never written to,
        where a later one was."""
        self.successResultOf(self.spool.close())
        self.spool = disk_spool(self.disk, self.journal, segment_octets=4096, cache_octets=0)
        self.spool.acquire()
        list(self.spool.recover())
        ids = self.some(12)
        _, second, _ = [path for path in self.disk.paths() if MAGIC in self.disk.content(path)]
        self.disk.replaced(
            second, bytes(512) + self.disk.content(second)[512:].replace(MAGIC, b"!")
        )
        self.assertEqual(self.restart(), [*ids[:4], *ids[8:]])
        self.assertGreater(self.spool.stats().corrupt, 0)
        kept = [
            self.disk.content(SHARD / "corrupt" / it) for it in self.disk.names(SHARD / "corrupt")
        ]
        self.assertIn(b"body body", b"".join(kept))

    def test_damaged_body(self) -> None:
        """A body is verified when it is opened; the message is kept, and not offered again."""
        ids = self.some(3)
        self.overwrite(self.offset_of(ids[1]) + 400, b"\xff")
        self.assertEqual(self.restart(), ids)
        self.failureResultOf(self.spool.open(ids[1]), Damaged)
        self.assertIn(b"body body", self.disk.content(SHARD / "corrupt" / ids[1]))
        self.assertEqual(self.restart(), [ids[0], ids[2]])
        self.assertEqual(list(self.spool.ids()), ids)
        self.commit(End(ids[1], (0,), "removed"))
        self.assertEqual(list(self.spool.ids()), [ids[0], ids[2]])

    def test_what_is_set_aside_stays(self) -> None:
        """No loss of power takes from corrupt/ what the log no longer has."""
        ids = self.some(3)
        self.overwrite(self.offset_of(ids[1]), b"\xff" * 72)
        self.restart()
        disk = self.disk.crashed(len(self.disk.steps), "dropped")
        (name,) = disk.names(SHARD / "corrupt")
        self.assertIn(b"body body", disk.content(SHARD / "corrupt" / name))

    def test_damaged_events(self) -> None:
        """Events that are damaged are told of in the log; all others are told again."""
        self.some(3)
        whole = self.disk.content(self.segment())
        self.overwrite(whole.index(b"received"), b"\xff")
        self.restart()
        lines = [line for some, _ in self.spool.recover_events((0, 0)) for line in some]
        self.assertEqual(lines, [b"received\n"] * 2)

    def test_a_journal_that_outlived_its_spool(self) -> None:
        """What is committed to a new spool lies behind everything that the journal has synced."""
        self.successResultOf(self.spool.close())
        self.disk, self.journal = CrashFiles(), Lines()
        self.journal.cursor = (7, 4096)
        self.journal.is_synced = False
        self.spool = self.start()
        self.some(1)
        self.assertGreater(self.journal.told[0][1], (7, 4096))
        self.restart()
        lines = [line for some, _ in self.spool.recover_events((7, 4096)) for line in some]
        self.assertEqual(lines, [b"received\n"])

    def test_torn_tail(self) -> None:
        """The last group is there as a whole or not at all, wherever it was cut."""
        ids = self.some(2)
        start = len(self.disk.content(self.segment()).rstrip(b"\0"))
        start += -start % 8
        one, two = append(b"1" * 50), append(b"2" * 50)
        self.commit(one, two)
        whole = self.disk.content(self.segment())
        end = len(whole.rstrip(b"\0"))
        path = self.segment()
        for cut in range(start, end, 5):
            disk = self.disk.crashed(10**6, "kept")
            disk.replaced(path, whole[:cut] + bytes(len(whole) - cut))
            spool = disk_spool(disk, cache_octets=0)
            spool.acquire()
            self.assertEqual([it.message.id for it in spool.recover()], ids)
            self.assertEqual(spool.stats().corrupt, 0)

    def test_segment_header(self) -> None:
        """A segment's name says what its header did."""
        ids = self.some(2)
        self.overwrite(0, b"\xff" * 64)
        self.assertEqual(self.restart(), ids)
        self.assertEqual(self.spool.stats().corrupt, 1)

    def test_records_in_a_message(self) -> None:
        """A sender who puts records into a message brings nothing into being."""
        evil = append(b"evil")
        self.commit(evil)
        segment = self.disk.content(self.segment())
        at = self.offset_of(evil.message.id)
        stolen = segment[at : at + 600].replace(evil.message.id.encode(), b"7" * 26)
        carrier = append(b"\0" * 5 + (MAGIC + stolen) * 3)
        self.commit(carrier)
        last = append()
        self.commit(last)
        # Damage makes recovery look for records where the message lies.
        self.overwrite(self.offset_of(carrier.message.id) + 4, b"\xff")
        self.assertEqual(self.restart(), [evil.message.id, last.message.id])

    def test_missing_big_file(self) -> None:
        spool = disk_spool(self.disk, folder=Path("/other"), big_octets=100)
        spool.acquire()
        list(spool.recover())
        incoming = spool.receive()
        incoming.write(b"b" * 1000)
        content = self.successResultOf(incoming.sealed())
        one = append(b"b" * 1000).message
        self.successResultOf(spool.commit(Batch((Append(one, content, DUE),))))
        self.successResultOf(spool.close())
        (name,) = self.disk.names(Path("/other/0/big"))
        self.disk.unlink(Path("/other/0/big") / name)
        again = disk_spool(self.disk, folder=Path("/other"))
        again.acquire()
        self.assertEqual(list(again.recover()), [])
        self.failureResultOf(again.open(one.id), Damaged)
        self.assertEqual((list(again.ids()), again.stats().corrupt), ([one.id], 1))

    def test_orphans(self) -> None:
        """Big files that no record names go."""
        self.disk.create(SHARD / "big" / "0123-000001")
        self.restart()
        self.assertEqual(self.disk.names(SHARD / "big"), [])

    def test_unreadable_pages(self) -> None:
        """A disk that cannot read a page loses what lies there and nothing else."""
        ids = self.some(20)
        self.successResultOf(self.spool.close())

        class BadPage(CrashFiles):
            def read(self, fd: int, octets: int, offset: int) -> bytes:
                if offset <= 5000 < offset + octets:
                    raise OSError(5, "a bad page")
                return super().read(fd, octets, offset)

        bad = BadPage()
        bad.__dict__.update(self.disk.crashed(10**6, "kept").__dict__)
        spool = disk_spool(bad, cache_octets=0)
        spool.acquire()
        found = [it.message.id for it in spool.recover()]
        self.assertGreater(len(found), 13)
        self.assertLess(len(found), 20)
        self.assertEqual(found, [id for id in ids if id in found])
        self.assertGreater(spool.stats().corrupt, 0)

    def test_gone_after_damage(self) -> None:
        ids = self.some(2)
        self.commit(End(ids[0], (0,), "delivered"))
        self.commit(append())
        self.overwrite(self.offset_of(ids[0]) + 20, b"\xff")
        self.assertNotIn(ids[0], self.restart())
        self.failureResultOf(self.spool.open(ids[0]), NoSuchMessage)


class FormatTests(SynchronousTestCase):
    """Segments of earlier versions, in ``tests/corpora/spool``."""

    def test_version_1(self) -> None:
        disk = CrashFiles()
        disk.make_folder(SHARD)
        for path in (Path(__file__).parents[1] / "corpora" / "spool" / "v1").iterdir():
            disk.create(SHARD / path.name)
            disk.replaced(SHARD / path.name, path.read_bytes())
        spool = disk_spool(disk)
        spool.acquire()
        one, two = spool.recover()
        wanted = message(b"x" * 19, 1, one.message.id)
        # What it does not know has the default.
        envelope = attrs.evolve(
            wanted.envelope, hold_until=0.0, future_release="", requires_tls=False
        )
        self.assertEqual(one, Recovered(attrs.evolve(wanted, envelope=envelope), (DUE,)))
        self.assertEqual(one.message.id, "01hzxw6d0b0000000000000000")
        self.assertEqual(two.message.id, "01hzxw6d0b0000000000000001")
        self.assertEqual(two.statuses, (DEFERRED, None, DEFERRED))
        content = self.successResultOf(spool.open(two.message.id))
        self.assertEqual(content.read(), b"Subject: two\r\n\r\n2\r\n")
        lines = [line for some, _ in spool.recover_events((0, 0)) for line in some]
        self.assertEqual(lines, [b'{"event":"received"}\n', b'{"event":"delivered"}\n'])
