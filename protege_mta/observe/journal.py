"""The event journal: ``events.jsonl``, one line an event, once each whatever dies when.

The spool keeps every batch's events beside its operations until the journal has synced them.  The
journal's cursor, a small file beside it, says how far that is: a position in the spool and the
octet of the journal that belongs to it.  After a crash the spool tells again what came after the
cursor; what the file already has there is told apart by the events' ids.

The file may be moved away at any time (:meth:`FileJournal.reopen` follows), and it may be cut to
nothing (logrotate's ``copytruncate``), where a crash in the same second can double a line.  A
journal that cannot be written never stops mail: lines wait in memory, then in the spool.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from twisted.logger import Logger

from ..model.ports import Position

START: Final[Position] = (0, 0)

_PENDING_OCTETS: Final = 16 * 2**20
_BLOCK_OCTETS: Final = 64 * 1024
_TICK_S: Final = 0.05


class _Cursor(msgspec.Struct, frozen=True):
    position: Position = START
    inode: int = 0
    offset: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Identified(msgspec.Struct):
    id: str = ""


_decode: Final = msgspec.json.Decoder(_Identified).decode


class FileJournal:
    """:class:`~..model.ports.Journal` in one file.

    :meth:`open` and :meth:`recover` come first, then :meth:`start`; every method but
    :meth:`append` and :meth:`synced` may block for the disk, and all are safe in any thread.

    :param path: of the journal; its cursor lies beside it, ``.cursor`` added to the name.
    :param failed: called, in any thread, for each write or sync that failed.
    :param sync_interval_s: how long after an event the file and the cursor are synced at most,
    :param sync_octets: and after how many octets of events it does not wait so long.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        *,
        failed: Callable[[], None],
        sync_interval_s: float = 1.0,
        sync_octets: int = 4 * 2**20,
    ) -> None:
        self._path = path
        self._cursor_path = path.with_name(path.name + ".cursor")
        self._failed = failed
        self._ticks = max(1, round(sync_interval_s / _TICK_S))
        self._sync_octets = sync_octets
        # Held for the time of a write to the page cache; guards what follows it.
        self._lock = threading.Lock()
        self._fd = -1
        self._pending: list[bytes] = []
        self._pending_octets = 0
        self._unsynced_octets = 0
        self._position = START
        self._is_dirty = False
        self._has_written = False  # in this tick, so that what else comes waits for its end
        self._is_gapped = False
        self._is_failing = False
        # Held while the disk works; whoever takes both takes this one first.
        self._sync_lock = threading.Lock()
        self._synced = START
        self._cursor = _Cursor()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- start and end ---------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file, cut off a line torn by a crash, and read the cursor.  :raise OSError:"""
        self._fd = _open(self._path)
        _cut_torn_line(self._fd)
        try:
            self._cursor = msgspec.json.decode(self._cursor_path.read_bytes(), type=_Cursor)
        except FileNotFoundError:
            self._cursor = _Cursor()
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.log.warn("{path} is damaged, reading the whole journal", path=self._cursor_path)
            self._cursor = _Cursor()
        self._position = self._synced = self._cursor.position

    def recover(self, events: Iterable[tuple[Sequence[bytes], Position]]) -> None:
        """Append what a crash kept from the file.

        :param events: the spool's batches after :meth:`synced`, in order.
        """
        present = set(self._ids_after_cursor())
        for lines, position in events:
            missing = [line for line in lines if _id(line) not in present]
            self.publish(missing, position)
        self.sync()

    def start(self) -> None:
        """Sync from now on, in a thread of our own."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write and sync what there is; the last call."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.sync()
        with self._sync_lock, self._lock:
            os.close(self._fd)
            self._fd = -1

    # --- lines -----------------------------------------------------------------------------------

    def publish(self, lines: Sequence[bytes], position: Position) -> None:
        """Write a durable batch's lines, which the spool can tell again from before ``position``.

        Where our own thread runs, the first batch of a tick is written at once, and those that
        follow it with one call at the tick's end: the spool's writer, who calls this, has to wait
        for the interpreter after each call on the system.
        """
        with self._lock:
            self._position = position
            self._add(lines)
            if not self._has_written or self._pending_octets >= _BLOCK_OCTETS:
                self._write()
                self._has_written = self._thread is not None

    def append(self, line: bytes) -> None:
        """Write, shortly, a line that no batch stands behind.  Never blocks for the disk."""
        with self._lock:
            self._add((line,))

    def synced(self) -> Position:
        """What lies before this position need not be told again."""
        return self._synced

    def sync(self) -> None:
        """Put on stable storage what has been published, and move the cursor behind it."""
        with self._sync_lock:
            with self._lock:
                self._write()
                self._has_written = False
                fd, position = self._fd, self._position
                self._is_dirty = bool(self._pending)
                self._unsynced_octets = 0
                if self._pending or self._is_gapped:
                    return
                found = os.fstat(fd)
            cursor = _Cursor(position, found.st_ino, found.st_size)
            if cursor == self._cursor:
                return
            self._settle(fd, cursor)

    def reopen(self) -> None:
        """Follow a rotation: write to a new file of the old name.

        Where that cannot be had, the old file stays in use.
        """
        with self._sync_lock:
            try:
                fresh = _open(self._path)
            except OSError as error:
                self._tell(error)
                return
            with self._lock:
                self._write()
                old, self._fd = self._fd, fresh
                position = self._position
                is_whole = not (self._pending or self._is_gapped)
            found = os.fstat(fresh)
            if self._sync_file(old) and is_whole:
                self._settle(fresh, _Cursor(position, found.st_ino, found.st_size))
            os.close(old)

    # --- within ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            for _ in range(self._ticks):
                if self._stop.wait(_TICK_S) or self._unsynced_octets >= self._sync_octets:
                    break
                with self._lock:
                    self._write()
                    self._has_written = False
            self.sync()
            if self._is_dirty:  # the disk refused: try again in a while
                self._wake.set()

    def _add(self, lines: Sequence[bytes]) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._wake.set()
        if self._pending_octets > _PENDING_OCTETS:
            # Memory is bounded.  The spool still has them, and since the cursor stays where it is
            # from now on, the next start writes them.
            self._pending = [b"\n"] if self._pending[0] == b"\n" else []
            self._pending_octets = 0
            self._is_gapped = True
            self.log.error(
                "events wait in the spool until the next start, as {path} cannot be written",
                path=self._path,
            )
        self._pending += lines
        octets = sum(map(len, lines))
        self._pending_octets += octets
        self._unsynced_octets += octets

    def _write(self) -> None:
        """Write the pending lines, whole ones only; what cannot be written stays pending."""
        if not self._pending:
            return
        octets = b"".join(self._pending)
        done = 0
        try:
            while done < len(octets):
                done += os.write(self._fd, octets[done:] if done else octets)
        except OSError as error:
            whole = octets.rfind(b"\n", 0, done) + 1
            self._pending = [octets[whole:]]
            self._pending_octets = len(octets) - whole
            self._tell(error)
            try:
                if done > whole:
                    os.ftruncate(self._fd, os.fstat(self._fd).st_size - (done - whole))
            except OSError:
                self._pending.insert(0, b"\n")  # ends the torn line, so that only it is spoilt
            return
        self._pending.clear()
        self._pending_octets = 0
        if self._is_failing:
            self._is_failing = False
            self.log.info("{path} can be written again", path=self._path)

    def _sync_file(self, fd: int) -> bool:
        try:
            os.fdatasync(fd)
        except OSError as error:
            # What the kernel could not write it may have forgotten: a second sync proves nothing.
            self._is_gapped = True
            self._tell(error)
            return False
        return True

    def _settle(self, fd: int, cursor: _Cursor) -> None:
        """Sync the file and store the cursor.

        The folder is not synced: an older cursor is as good, since what it leaves to be told again
        is in the file by then.
        """
        if not self._sync_file(fd):
            return
        fresh = self._cursor_path.with_name(self._cursor_path.name + ".new")
        try:
            with open(fresh, "wb") as file:
                file.write(msgspec.json.encode(cursor))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._cursor_path)
        except OSError as error:
            self._is_dirty = True
            self._tell(error)
            return
        self._cursor = cursor
        self._synced = cursor.position

    def _tell(self, error: OSError) -> None:
        self._failed()
        if not self._is_failing:
            self._is_failing = True
            self.log.error("cannot write {path}: {error}", path=self._path, error=error.strerror)

    def _ids_after_cursor(self) -> Iterator[str]:
        """Ids of the events that were written after the cursor was stored."""
        cursor, found = self._cursor, os.fstat(self._fd)
        if cursor.inode == found.st_ino and cursor.offset <= found.st_size:
            yield from _ids(self._path, cursor.offset)
            return
        yield from _ids(self._path, 0)
        for moved in self._path.parent.glob(f"{self._path.name}*"):
            if moved.stat().st_ino == cursor.inode != found.st_ino:
                yield from _ids(moved, cursor.offset)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _cut_torn_line(fd: int) -> None:
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


def _id(line: bytes) -> str:
    return _decode(line).id


def _ids(path: Path, offset: int) -> Iterator[str]:
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            try:
                yield _id(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # not ours; a person's note, or a line that a disk has spoilt
