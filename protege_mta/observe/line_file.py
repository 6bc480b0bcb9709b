"""A file that lines are put at the end of: whole ones, in order, or none for the time being."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from twisted.logger import Logger

_PENDING_OCTETS: Final = 16 * 2**20
_BLOCK_OCTETS: Final = 64 * 1024


class LineFile:
    """What waits to be written, and the file it goes to.

    Nothing here is safe in two threads at once, but :meth:`sync`.

    :param failed: called for each write or sync that failed.
    :ivar pending: what waits; :ivar pending_octets: its octets, as far as they were added.
    :ivar is_gapped: something is missing that only the spool still has, or what was written may not
        be there: nothing is durable any more until the next start.
    :ivar has_dropped: the former of the two.
    """

    log = Logger()

    def __init__(self, path: Path, failed: Callable[[], None]) -> None:
        self.path = path
        self.fd = -1
        self.pending: list[bytes] = []
        self.pending_octets = 0
        self.is_gapped = False
        self.has_dropped = False
        self._failed = failed
        self._is_failing = False

    @property
    def is_whole(self) -> bool:
        """Whether all that was added is written."""
        return not (self.pending or self.is_gapped)

    def add(self, lines: Sequence[bytes], octets: int) -> None:
        """Take lines, which are written with the next :meth:`write`.  :param octets: of them all."""
        if self.pending_octets > _PENDING_OCTETS:
            # Memory is bounded.  The spool still has them, and since the cursor stays where it is
            # from now on, the next start writes them.
            self.pending = [b"\n"] if self.pending[0] == b"\n" else []
            self.pending_octets = 0
            self.is_gapped = self.has_dropped = True
            self.log.error(
                "events wait in the spool until the next start, as {path} cannot be written",
                path=self.path,
            )
        self.pending += lines
        self.pending_octets += octets

    def write(self) -> int:
        """Write what waits, whole lines only; what cannot be written goes on waiting.

        :return: how many octets the file has grown by.
        """
        if not self.pending:
            return 0
        octets = b"".join(self.pending)
        done = 0
        try:
            while done < len(octets):
                done += os.write(self.fd, octets[done:] if done else octets)
        except OSError as error:
            whole = octets.rfind(b"\n", 0, done) + 1
            self.pending = [octets[whole:]]
            self.pending_octets = len(octets) - whole
            self.tell(error)
            try:
                if done > whole:
                    os.ftruncate(self.fd, os.fstat(self.fd).st_size - (done - whole))
            except OSError:
                self.pending.insert(0, b"\n")  # ends the torn line, so that only it is spoilt
                return done
            return whole
        self.pending.clear()
        self.pending_octets = 0
        if self._is_failing:
            self._is_failing = False
            self.log.info("{path} can be written again", path=self.path)
        return done

    def sync(self, fd: int) -> bool:
        """Put what was written by ``fd`` on stable storage; whether that has worked."""
        try:
            os.fdatasync(fd)
        except OSError as error:
            # What the kernel could not write it may have forgotten: a second sync proves nothing.
            self.is_gapped = True
            self.tell(error)
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def tell(self, error: OSError) -> None:
        """Count it, and log the first of a row."""
        self._failed()
        if not self._is_failing:
            self._is_failing = True
            self.log.error("cannot write {path}: {error}", path=self.path, error=error.strerror)


class _Identified(msgspec.Struct):
    id: str = ""


_decode: Final = msgspec.json.Decoder(_Identified).decode


def id_of(line: bytes) -> str:
    """The id of an event.  :raise msgspec.DecodeError: it is none."""
    return _decode(line).id


def ids_of(path: Path, offset: int) -> Iterator[str]:
    """Ids of the events in a file from an octet on."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            try:
                yield id_of(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # not ours; a person's note, or a line that a disk has spoilt


def open_at_end(path: Path) -> int:
    """A descriptor that writes at the file's end; the file is made where there is none."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def cut_torn_line(fd: int) -> None:
    """Cut off what stands behind the last LF."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK_OCTETS)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
