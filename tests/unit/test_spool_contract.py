"""One contract, every spool."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Spool
from protege_mta.spool.files import Files, Room
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.contracts import Lines, SpoolContract
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool


class MemorySpoolTests(SpoolContract, SynchronousTestCase):
    """The spool in memory."""

    memory: MemorySpool | None = None

    def make(self, journal: Lines) -> Spool:
        self.memory = self.memory or MemorySpool(journal)
        return self.memory

    def fill(self, spool: Spool) -> None:
        self.made().is_full = True

    def fail_disk(self, spool: Spool) -> None:
        self.made().is_failed = True

    def damage(self, spool: Spool, id: QueueId) -> None:
        self.made().damage(id)

    def made(self) -> MemorySpool:
        if self.memory is None:
            raise RuntimeError("no spool yet")
        return self.memory


class CrashDiskSpoolTests(SpoolContract, SynchronousTestCase):
    """The spool on a disk in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.disk = CrashFiles()
        super().setUp()

    def make(self, journal: Lines) -> Spool:
        # With no cache, each look at a message is one at the disk.
        return disk_spool(self.disk, journal, now=self.clock.seconds, cache_octets=0)

    def fill(self, spool: Spool) -> None:
        self.disk.left = Room(2**30 - 1, 2**20)
        self.clock.advance(1)  # for so long the last look counts

    def fail_disk(self, spool: Spool) -> None:
        self.disk.faults["sync_data"] = OSError(errno.EIO, "a bad disk")

    def damage(self, spool: Spool, id: QueueId) -> None:
        for path in self.disk.paths():
            octets = self.disk.content(path)
            if id.encode() in octets:
                at = octets.index(b"there", octets.index(id.encode()))
                self.disk.replaced(path, octets[:at] + b"th3re" + octets[at + 5 :])


class BadFiles(Files):
    """The real disk, with faults."""

    is_full = False
    is_bad = False

    def room(self, folder: Path) -> Room:
        return Room(0, 0) if self.is_full else super().room(folder)

    def write_through(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        if self.is_bad:
            raise OSError(errno.EIO, "a bad disk")
        super().write_through(fd, pieces, offset)


class RealDiskSpoolTests(SpoolContract, SynchronousTestCase):
    """The spool on the real disk."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp())
        self.files = BadFiles()
        super().setUp()

    def make(self, journal: Lines) -> Spool:
        return disk_spool(
            self.files,
            journal,
            self.folder,
            now=self.clock.seconds,
            cache_octets=0,
            free_octets=1,
            free_inodes=1,
        )

    def fill(self, spool: Spool) -> None:
        self.files.is_full = True
        self.clock.advance(1)

    def fail_disk(self, spool: Spool) -> None:
        self.files.is_bad = True

    def damage(self, spool: Spool, id: QueueId) -> None:
        for path in (self.folder / "0").glob("*.fresh"):
            octets = path.read_bytes()
            if id.encode() in octets:
                at = octets.index(b"there", octets.index(id.encode()))
                with path.open("r+b") as file:
                    file.seek(at)
                    file.write(b"th3re")
