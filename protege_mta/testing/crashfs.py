"""A disk in memory that can be asked what any crash would have left of it.

:class:`CrashFiles` records every operation.  :meth:`CrashFiles.crashed` replays the first so many of
them and cuts the power there; :func:`~.medium.crashes` cuts it everywhere.  Faults can be put in its
way, too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..spool.files import Files, Room
from .medium import Medium, Step, Tree

Crash = Literal["kept", "dropped", "torn"]
"""What becomes of what was not synced: all of it reached the disk, none of it did, or each sector
and each name as chance would have it."""


class CrashFiles(Files):
    """:class:`~protege_mta.spool.files.Files` in memory.

    :param tree: what is there at first.
    :ivar steps: everything that has been done.
    :ivar before: what was there before the first of them: the disk of an earlier crash.
    :ivar faults: errors to raise, by the name of the method that raises them.
    :ivar left: what the file system says it has left.
    :ivar user: whom every file belongs to.
    """

    def __init__(self, tree: Tree | None = None) -> None:
        self.steps: list[Step] = []
        self.faults: dict[str, OSError] = {}
        self.left = Room(2**40, 2**20)
        self.user = 0
        self.before = Tree(frozenset({Path("/")}), {}) if tree is None else tree
        self._medium = Medium(self.before)
        self._open: dict[int, int] = {}
        self._locks: dict[Path, int] = {}
        self._next = 100 + len(self.before.files)

    # --- what a test asks ------------------------------------------------------------------------

    def crashed(self, after: int, crash: Crash, seed: int = 0) -> CrashFiles:
        """The disk that a machine finds after it lost power behind the first ``after`` steps."""
        medium = Medium(self.before)
        for step in self.steps[:after]:
            medium.do(step)
        if crash == "torn":
            disk = CrashFiles(medium.torn(random.Random(seed)))
        else:
            disk = CrashFiles(medium.kept() if crash == "kept" else medium.dropped())
        disk.left, disk.user = self.left, self.user
        return disk

    def tree(self) -> Tree:
        """What is there now."""
        return self._medium.kept()

    def replaced(self, path: Path, octets: bytes) -> None:
        """Damage: the file's octets are these now, whoever wrote them, and were always."""
        inode = self._medium.names[path]
        self._medium.octets(inode)[:] = octets
        self._medium.settle(inode)
        if path in self.before.files:
            self.before = Tree(self.before.folders, {**self.before.files, path: octets})

    def content(self, path: Path) -> bytes:
        return bytes(self._medium.octets(self._medium.names[path]))

    def paths(self) -> list[Path]:
        """Every file there is."""
        return sorted(self._medium.names)

    # --- Files -----------------------------------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        self._fault("make_folder")
        for folder in (*reversed(path.parents), path):
            if folder not in self._medium.folders:
                self._step(Step("make-folder", path=folder))

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self._medium.names if path.parent == folder]

    def create(self, path: Path) -> int:
        self._fault("create")
        if path in self._medium.names:
            raise FileExistsError(17, "there is such a file", str(path))
        if path.parent not in self._medium.folders:
            raise FileNotFoundError(2, "no such folder", str(path))
        self._next += 1
        self._step(Step("create", self._next, path))
        return self._descriptor(self._next)

    def open(self, path: Path, *, to_write: bool = False) -> int:
        self._fault("open")
        if path not in self._medium.names:
            raise FileNotFoundError(2, "no such file", str(path))
        return self._descriptor(self._medium.names[path])

    def close(self, fd: int) -> None:
        del self._open[fd]
        self._locks = {path: held for path, held in self._locks.items() if held != fd}

    def size(self, fd: int) -> int:
        return len(self._medium.octets(self._open[fd]))

    def allocate(self, fd: int, octets: int) -> None:
        self._fault("allocate")
        self._step(Step("allocate", self._open[fd], offset=octets))

    def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        self._fault("write")
        self._step(Step("write", self._open[fd], offset=offset, octets=b"".join(pieces)))

    def write_through(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        # Whatever one call leaves in a crash, two do as well.
        self.write(fd, pieces, offset)
        self.sync_data(fd)

    def read(self, fd: int, octets: int, offset: int) -> bytes:
        self._fault("read")
        return bytes(self._medium.octets(self._open[fd])[offset : offset + octets])

    def truncate(self, fd: int, octets: int) -> None:
        self._fault("truncate")
        self._step(Step("truncate", self._open[fd], offset=octets))

    def sync_data(self, fd: int) -> None:
        self._fault("sync_data")
        self._step(Step("sync", self._open[fd]))

    def sync(self, fd: int) -> None:
        self._fault("sync")
        self._step(Step("sync", self._open[fd]))

    def sync_folder(self, path: Path) -> None:
        self._fault("sync_folder")
        self._step(Step("sync-folder", path=path))

    def unlink(self, path: Path) -> None:
        self._fault("unlink")
        if path not in self._medium.names:
            raise FileNotFoundError(2, "no such file", str(path))
        self._step(Step("unlink", path=path))

    def rename(self, path: Path, to: Path) -> None:
        self._fault("rename")
        if path not in self._medium.names:
            raise FileNotFoundError(2, "no such file", str(path))
        self._step(Step("rename", self._medium.names[path], path, to=to))

    def room(self, folder: Path) -> Room:
        self._fault("room")
        return self.left

    def lock(self, path: Path) -> int | None:
        if path in self._locks:
            return None
        fd = self.open(path) if path in self._medium.names else self.create(path)
        self._locks[path] = fd
        return fd

    def owner(self, path: Path) -> int:
        if path not in self._medium.folders and path not in self._medium.names:
            raise FileNotFoundError(2, "no such file", str(path))
        return self.user

    # --- within ----------------------------------------------------------------------------------

    def _fault(self, method: str) -> None:
        if method in self.faults:
            raise self.faults[method]

    def _descriptor(self, inode: int) -> int:
        self._next += 1
        self._open[self._next] = inode
        return self._next

    def _step(self, step: Step) -> None:
        self._medium.do(step)
        self.steps.append(step)
