"""Segments that are done with become the next ones, within bounds."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Batch, End
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import NoSuchMessage, SpoolFull
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.files import Room
from protege_mta.spool.record import MAGIC
from protege_mta.testing.contracts import Lines, append
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool

SEGMENT: Final = 16384
SHARD: Final = Path("/spool/0")
PLENTY: Final = 1_000_000_000


class SparesTests(SynchronousTestCase):
    """Segments of 16 KiB on a disk in memory, with a floor of a gigabyte."""

    def setUp(self) -> None:
        self.disk = CrashFiles()
        self.journal = Lines()
        self.now = 1000.0
        self.spool = self.start()

    def start(self, **settings: Any) -> DiskSpool:
        spool = disk_spool(
            self.disk,
            self.journal,
            now=lambda: self.now,
            segment_octets=SEGMENT,
            free_octets=PLENTY,
            cache_octets=0,
            **settings,
        )
        spool.acquire()
        self.found = [it.message.id for it in spool.recover()]
        return spool

    def take(self, octets: int = 1000, events: Sequence[bytes] = ()) -> QueueId:
        one = append(b"x" * octets)
        self.successResultOf(self.spool.commit(Batch((one,), tuple(events))))
        return one.message.id

    def end(self, *ids: QueueId) -> None:
        batch = Batch(tuple([End(id, (0,), "delivered") for id in ids]))
        self.successResultOf(self.spool.commit(batch))

    def pass_through(self, messages: int, octets: int = 1000) -> None:
        for _ in range(messages):
            self.end(self.take(octets))

    def spares(self) -> list[int]:
        """Their lengths."""
        paths = [path for path in self.disk.paths() if path.suffix == ".spare"]
        return [len(self.disk.content(path)) for path in paths]

    def made(self, name: str) -> int:
        """How many segments were made by creating or renaming a file."""
        return sum(
            step.name == name and ".fresh" in {step.path.suffix, step.to.suffix}
            for step in self.disk.steps
            if step.to.suffix != ".spare"
        )

    def test_no_new_files(self) -> None:
        """Where mail comes and goes, all segments but the first few are made from spares."""
        self.pass_through(400)
        self.assertEqual(self.made("create"), 3)
        self.assertGreater(self.made("rename"), 30)
        self.assertEqual(self.spool.stats().corrupt, 0)

    def test_a_renewed_segment(self) -> None:
        """It has its whole length again, its own header, and nothing where its first record goes."""
        self.pass_through(40)
        ahead = max(path for path in self.disk.paths() if path.suffix == ".fresh")
        octets = self.disk.content(ahead)
        self.assertEqual(len(octets), SEGMENT)
        self.assertEqual(octets[16:24], int(ahead.name[:10]).to_bytes(8, "little"))
        self.assertEqual(octets[24:32], bytes.fromhex(ahead.name[11:27])[::-1])
        self.assertEqual(octets[64:512], bytes(448))
        self.assertIn(MAGIC, octets)

    def test_two_at_most(self) -> None:
        """However many segments are done with at once, two are kept; what they take is said."""
        ids = [self.take() for _ in range(100)]
        self.end(*ids)
        self.assertEqual(len(self.spares()), 2)
        taken = sum(use.end for use in self.spool._index.uses.values())
        self.assertEqual(self.spool.stats().disk_octets, taken + 2 * SEGMENT)

    def test_only_whole_ones(self) -> None:
        """A segment that was cut short, by a restart, or made for one big batch, is not kept."""
        self.end(self.take())
        self.successResultOf(self.spool.close())
        self.spool = self.start()
        self.end(self.take())
        big = append(b"b" * 20_000)
        self.successResultOf(self.spool.commit(Batch((big,))))
        self.end(big.message.id)
        self.take()
        self.assertEqual(sum(path.suffix == ".fresh" for path in self.disk.paths()), 2)
        self.assertEqual(self.spares(), [])

    def test_gone_at_the_end(self) -> None:
        """A service that has stopped leaves none behind."""
        self.end(*[self.take() for _ in range(100)])
        self.successResultOf(self.spool.close())
        self.assertEqual(self.spares(), [])

    def test_gone_at_the_start(self) -> None:
        """Those of a process that was killed are removed, unread."""
        stays = self.take()
        self.end(*[self.take() for _ in range(100)])
        self.disk = self.disk.crashed(10**6, "kept")
        self.assertEqual(len(self.spares()), 2)
        self.spool = self.start()
        self.assertEqual(self.found, [stays])
        self.assertEqual(self.spares(), [])

    def test_room_is_tight(self) -> None:
        """They are given back before mail would be refused for their sake, and none is kept."""
        self.end(*[self.take() for _ in range(100)])
        self.disk.left = Room(PLENTY + 2 * SEGMENT, 10**6)
        self.now += 2
        self.take()
        self.assertEqual(len(self.spares()), 2)
        self.disk.left = Room(PLENTY + 2 * SEGMENT - 1, 10**6)
        self.now += 2
        ids = [self.take()]
        self.assertEqual(self.spares(), [])
        self.end(*ids)
        for _ in range(60):
            self.now += 2
            self.pass_through(1)
        self.assertEqual(self.spares(), [])

    def test_few_inodes(self) -> None:
        """Nor is one kept where files run out."""
        self.end(*[self.take() for _ in range(100)])
        self.disk.left = Room(2 * PLENTY, 9_999)
        self.now += 2
        self.spool.stats()
        self.assertEqual(self.spares(), [])

    def test_one_that_cannot_be_removed(self) -> None:
        """The log says so, and mail goes on."""
        self.end(*[self.take() for _ in range(100)])
        self.disk.left = Room(PLENTY + SEGMENT, 10**6)
        self.now += 2
        self.disk.faults["unlink"] = OSError(errno.EIO, "bad")
        self.take()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_no_room_to_renew(self) -> None:
        """A spare whose rest cannot be reserved is removed, and mail refused until there is room."""
        self.end(*[self.take() for _ in range(100)])
        self.disk.faults["allocate"] = OSError(errno.ENOSPC, "full")
        while not self.spool.stats().is_full:
            self.take()
        self.assertEqual(len(self.spares()), 1)
        self.disk.faults.clear()
        self.take()
        self.assertEqual(self.made("rename"), 1)
        self.flushLoggedErrors(OSError)

    def test_no_room_for_a_name(self) -> None:
        """A folder that is full keeps no spares, and removes those it has."""
        ids = [self.take() for _ in range(100)]
        self.disk.faults["rename"] = OSError(errno.ENOSPC, "full")
        self.end(*ids[:50])
        self.assertEqual(self.spares(), [])
        del self.disk.faults["rename"]
        self.end(*ids[50:])
        self.assertEqual(len(self.spares()), 2)
        self.disk.faults["rename"] = OSError(errno.ENOSPC, "full")
        while not self.spool.stats().is_full:
            self.take()
        self.failureResultOf(self.spool.commit(Batch((append(),))), SpoolFull)
        self.take()
        self.assertEqual(self.spares(), [])
        self.flushLoggedErrors(OSError)

    def test_damage_is_not_used_again(self) -> None:
        """Where octets were lost once, none are written again."""
        ids = [self.take() for _ in range(20)]
        self.successResultOf(self.spool.close())
        first = min(path for path in self.disk.paths() if path.suffix == ".fresh")
        whole = self.disk.content(first)
        at = whole.index(MAGIC, 2000)
        self.disk.replaced(first, whole[: at + 8] + b"\xff" + whole[at + 9 :])
        self.spool = self.start()
        self.assertEqual(self.spool.stats().corrupt, 1)
        self.end(*ids)
        self.take()
        self.assertNotIn(first, self.disk.paths())
        self.assertNotIn(first.with_suffix(".spare"), self.disk.paths())

    def test_read_too_late(self) -> None:
        """Who asks for a message that ends, and whose segment is written once more before the
        octets are read, is told that it is gone; nothing is called damaged."""
        works: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        is_slow = False

        def in_thread(work: Callable[[], Any], /) -> Deferred[Any]:
            done: Deferred[Any] = Deferred()
            works.append((work, done))
            if not is_slow:
                run()
            return done

        def run() -> None:
            while works:
                work, done = works.pop()
                try:
                    done.callback(work())
                except Exception as error:
                    done.errback(error)

        self.successResultOf(self.spool.close())
        self.spool = self.start(in_thread=in_thread)
        one = self.take()
        place = self.spool._index.place(one)
        assert place is not None
        segment = self.spool._index.uses[place[0]].segment
        is_slow = True
        reading = self.spool.open(one)
        late = works.pop()
        is_slow = False
        # The file is opened before it is retired, as far as the reader goes.
        fd = self.disk.open(segment.path(SHARD))
        self.end(one)
        self.pass_through(100)
        self.patch(self.disk, "open", lambda path, to_write=False: fd)
        works.append(late)
        run()
        self.failureResultOf(reading, NoSuchMessage)
        self.assertEqual(self.spool.stats().corrupt, 0)
