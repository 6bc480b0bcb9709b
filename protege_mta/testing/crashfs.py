"""A disk in memory that can be asked what any crash would have left of it.

:class:`CrashFiles` records every operation.  :meth:`CrashFiles.crashed` replays the first so many of
them and then applies a :class:`Crash`: octets that were not synced, and names in folders that were
not, are on the disk or are not, as POSIX allows.  Faults can be put in its way, too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

from ..spool.files import Files, Room

Crash = Literal["kept", "dropped", "torn"]
"""What becomes of what was not synced: all of it reached the disk, none of it did, or each sector
and each name as chance would have it."""

SECTOR_OCTETS: Final = 512


@attrs.frozen
class Step:
    """One recorded operation.

    :ivar inode: the file, or 0.
    :ivar path: the name or folder, for operations that have one.
    """

    name: Literal["create", "write", "truncate", "sync", "unlink", "make-folder", "sync-folder"]
    inode: int = 0
    path: Path = Path()
    offset: int = 0
    octets: bytes = b""


@attrs.define(eq=False)
class _File:
    """:ivar unsynced: what has been done to it since its last sync."""

    now: bytearray = attrs.field(factory=bytearray)
    synced: bytes = b""
    unsynced: list[Step] = attrs.field(factory=list)


def _change(octets: bytearray, step: Step) -> None:
    if step.name == "truncate":
        if step.offset < len(octets):
            del octets[step.offset :]
        octets.extend(bytes(step.offset - len(octets)))
        return
    end = step.offset + len(step.octets)
    octets.extend(bytes(max(0, end - len(octets))))
    octets[step.offset : end] = step.octets


class CrashFiles(Files):
    """:class:`~protege_mta.spool.files.Files` in memory.

    :ivar steps: everything that has been done.
    :ivar faults: errors to raise, by the name of the method that raises them.
    :ivar left: what the file system says it has left.
    :ivar user: whom every file belongs to.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.faults: dict[str, OSError] = {}
        self.left = Room(2**40, 2**20)
        self.user = 0
        self._files: dict[int, _File] = {}
        self._names: dict[Path, int] = {}
        self._synced_names: dict[Path, int] = {}
        self._folders: set[Path] = set()
        # What was there before the first step: the disk of an earlier crash.
        self._first_files: dict[int, bytes] = {}
        self._first_names: dict[Path, int] = {}
        self._open: dict[int, int] = {}
        self._locks: dict[Path, int] = {}
        self._next = 100

    # --- what a test asks ------------------------------------------------------------------------

    def crashed(self, after: int, crash: Crash, seed: int = 0) -> CrashFiles:
        """The disk that a machine finds after it lost power behind the first ``after`` steps."""
        disk, rng = CrashFiles(), random.Random(seed)
        disk.left, disk.user, disk._next = self.left, self.user, self._next
        disk._files = {
            inode: _File(bytearray(octets), octets) for inode, octets in self._first_files.items()
        }
        disk._names, disk._synced_names = dict(self._first_names), dict(self._first_names)
        for step in self.steps[:after]:
            disk._do(step)
        names = set(disk._names.items()) ^ set(disk._synced_names.items())
        kept = dict(disk._synced_names)
        for path, inode in sorted(names):
            if crash == "kept" or (crash == "torn" and rng.random() < 0.5):
                if disk._names.get(path) == inode:
                    kept[path] = inode
                elif path not in disk._names:
                    kept.pop(path, None)
        disk._names = kept
        for file in disk._files.values():
            file.now = _survived(file, crash, rng)
            file.synced = bytes(file.now)
            file.unsynced.clear()
        disk._synced_names = dict(kept)
        disk._first_names = dict(kept)
        disk._first_files = {inode: file.synced for inode, file in disk._files.items()}
        return disk

    def replaced(self, path: Path, octets: bytes) -> None:
        """Damage: the file's octets are these now, whoever wrote them."""
        file = self._files[self._names[path]]
        file.now = bytearray(octets)
        file.synced = bytes(octets)

    def content(self, path: Path) -> bytes:
        return bytes(self._files[self._names[path]].now)

    def paths(self) -> list[Path]:
        """Every file there is."""
        return sorted(self._names)

    # --- Files -----------------------------------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        self._fault("make_folder")
        self._step(Step("make-folder", path=path))

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self._names if path.parent == folder]

    def create(self, path: Path) -> int:
        self._fault("create")
        if path in self._names:
            raise FileExistsError(path)
        self._next += 1
        self._step(Step("create", self._next, path))
        return self._descriptor(self._next)

    def open(self, path: Path, *, to_write: bool = False) -> int:
        self._fault("open")
        if path not in self._names:
            raise FileNotFoundError(2, "no such file", str(path))
        return self._descriptor(self._names[path])

    def close(self, fd: int) -> None:
        del self._open[fd]
        self._locks = {path: held for path, held in self._locks.items() if held != fd}

    def size(self, fd: int) -> int:
        return len(self._files[self._open[fd]].now)

    def allocate(self, fd: int, octets: int) -> None:
        self._fault("allocate")
        self._step(Step("truncate", self._open[fd], offset=max(octets, self.size(fd))))

    def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        self._fault("write")
        self._step(Step("write", self._open[fd], offset=offset, octets=b"".join(pieces)))

    def read(self, fd: int, octets: int, offset: int) -> bytes:
        self._fault("read")
        return bytes(self._files[self._open[fd]].now[offset : offset + octets])

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
        if path not in self._names:
            raise FileNotFoundError(2, "no such file", str(path))
        self._step(Step("unlink", path=path))

    def room(self, folder: Path) -> Room:
        self._fault("room")
        return self.left

    def lock(self, path: Path) -> int | None:
        if path in self._locks:
            return None
        fd = self.open(path) if path in self._names else self.create(path)
        self._locks[path] = fd
        return fd

    def owner(self, path: Path) -> int:
        if path not in self._folders and path not in self._names:
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
        self.steps.append(step)
        self._do(step)

    def _do(self, step: Step) -> None:
        if step.name == "create":
            self._files[step.inode] = _File()
            self._names[step.path] = step.inode
        elif step.name == "unlink":
            self._names.pop(step.path, None)
        elif step.name == "make-folder":
            self._folders.add(step.path)
        elif step.name == "sync-folder":
            here = {at: inode for at, inode in self._names.items() if at.parent == step.path}
            there = {at: i for at, i in self._synced_names.items() if at.parent != step.path}
            self._synced_names = there | here
        elif step.name == "sync":
            file = self._files[step.inode]
            if file.unsynced:
                file.synced = bytes(file.now)
                file.unsynced.clear()
        else:
            file = self._files[step.inode]
            _change(file.now, step)
            file.unsynced.append(step)


def _survived(file: _File, crash: Crash, rng: random.Random) -> bytearray:
    if crash == "kept":
        return file.now
    octets = bytearray(file.synced)
    if crash == "dropped":
        return octets
    for step in file.unsynced:
        if step.name == "truncate":
            if rng.random() < 0.5:
                _change(octets, step)
            continue
        start = step.offset
        while start < step.offset + len(step.octets):
            end = min(start - start % SECTOR_OCTETS + SECTOR_OCTETS, step.offset + len(step.octets))
            if rng.random() < 0.5:
                piece = step.octets[start - step.offset : end - step.offset]
                _change(octets, Step("write", offset=start, octets=piece))
            start = end
    return octets
