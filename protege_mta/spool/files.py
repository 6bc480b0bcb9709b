"""Every call that the spool makes on files, in one place.

What the spool promises rests on the order of these calls, so that a test can put another
:class:`Files` in this one's place, record that order, and try every crash in it
(:mod:`protege_mta.testing.crashfs`).  Nothing else in the spool touches the disk, but for the one
write that the kernel may do in place of :meth:`Files.write_through` (:mod:`.ring`).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

_VECTORS: Final = 1024  # IOV_MAX of Linux and the BSDs
_THROUGH: Final[int] = getattr(os, "RWF_DSYNC", 0)  # Linux alone
_NOT_HERE: Final = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@attrs.frozen
class Room:
    """What a file system has left for us."""

    free_octets: int
    free_inodes: int


class Files:
    """The operating system's files.  Every method blocks, and raises :class:`OSError`."""

    def make_folder(self, path: Path) -> None:
        """Create a folder, mode 0700, and its missing parents; it may be there already."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def create(self, path: Path) -> int:
        """A new file to read and write, mode 0600.  :raise FileExistsError:"""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, *, to_write: bool = False) -> int:
        return os.open(path, (os.O_RDWR if to_write else os.O_RDONLY) | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def allocate(self, fd: int, octets: int) -> None:
        """Reserve room from the file's start, so that writing there neither fails for want of it
        nor changes the file's size, which would cost each sync a journal commit."""
        os.posix_fallocate(fd, 0, octets)

    def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        """Write all of it."""
        for first in range(0, len(pieces), _VECTORS):
            vectors = pieces[first : first + _VECTORS]
            octets = sum(map(len, vectors))
            done = os.pwritev(fd, vectors, offset)
            if done < octets:
                rest = memoryview(b"".join(vectors))
                while done < octets:
                    done += os.pwrite(fd, rest[done:], offset + done)
            offset += octets

    def write_through(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        """:meth:`write` and :meth:`sync_data`, in one call where the system has one (``RWF_DSYNC``).

        The thread so lets go of the interpreter, and waits to have it back, once and not twice: 2 %
        less processor time a small message.
        """
        if _THROUGH and len(pieces) <= _VECTORS:
            try:
                if os.pwritev(fd, pieces, offset, _THROUGH) == sum(map(len, pieces)):
                    return
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
        self.write(fd, pieces, offset)
        self.sync_data(fd)

    def read(self, fd: int, octets: int, offset: int) -> bytes:
        """So many octets, or fewer where the file ends."""
        found = os.pread(fd, octets, offset)
        if len(found) == octets or not found:
            return found
        pieces = [found]
        got = len(found)
        while got < octets and (found := os.pread(fd, octets - got, offset + got)):
            pieces.append(found)
            got += len(found)
        return b"".join(pieces)

    def truncate(self, fd: int, octets: int) -> None:
        os.ftruncate(fd, octets)

    def sync_data(self, fd: int) -> None:
        """Put the file's octets on stable storage, and its size where that changed."""
        os.fdatasync(fd)

    def sync(self, fd: int) -> None:
        """As :meth:`sync_data`, with all that is known about the file."""
        os.fsync(fd)

    def sync_folder(self, path: Path) -> None:
        """Put the folder's names on stable storage."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def rename(self, path: Path, to: Path) -> None:
        os.rename(path, to)

    def room(self, folder: Path) -> Room:
        found = os.statvfs(folder)
        # File systems without a fixed number of inodes (btrfs) say 0 of 0.
        inodes = found.f_favail if found.f_files else 2**63
        return Room(found.f_bavail * found.f_frsize, inodes)

    def lock(self, path: Path) -> int | None:
        """Lock a file, made if need be.  :return: its descriptor, or None: someone else has it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def owner(self, path: Path) -> int:
        """The user id that a file belongs to."""
        return os.stat(path).st_uid
