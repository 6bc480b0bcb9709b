"""The event journal, one line an event, once each whatever dies when.

It is written twice: to ``events.jsonl``, for people and whatever they have that reads logs, and to
the :mod:`.segments` that programs read from any place on.  The spool keeps every batch's events
beside its operations until the journal has synced both.  The journal's cursor, a small file beside
``events.jsonl``, says how far that is: a position in the spool, and the octets of the files that
belong to it.  After a crash the spool tells again what came after the cursor; what a file already
has there is told apart by the events' ids.

``events.jsonl`` may be moved away at any time (:meth:`FileJournal.reopen` follows), and it may be
cut to nothing (logrotate's ``copytruncate``), where a crash in the same second can double a line.
A journal that cannot be written never stops mail: lines wait in memory, then in the spool.
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
from .line_file import LineFile, cut_torn_line, id_of, ids_of, open_at_end
from .segments import Segments

START: Final[Position] = (0, 0)

_TICK_S: Final = 0.05
_BLOCK_OCTETS: Final = 2**20

_Octets = Annotated[int, msgspec.Meta(ge=0)]


class _Cursor(msgspec.Struct, frozen=True):
    """How far everything is synced: the log's file by its inode, and the segment by its number."""

    position: Position = START
    inode: int = 0
    offset: _Octets = 0
    segment: _Octets = 0
    segment_offset: _Octets = 0


class FileJournal:
    """:class:`~..model.ports.Journal` in one log and, where they are given, in segments.

    :meth:`open` and :meth:`recover` come first, then :meth:`start`; every method but
    :meth:`append` and :meth:`synced` may block for the disk, and all are safe in any thread.

    :param path: of the log; the cursor lies beside it, ``.cursor`` added to the name.
    :param failed: called, in any thread, for each write or sync that failed.
    :param segments: ours from now on.
    :param sync_interval_s: how long after an event the files and the cursor are synced at most,
    :param sync_octets: and after how many octets of events it does not wait so long.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        *,
        failed: Callable[[], None],
        segments: Segments | None = None,
        sync_interval_s: float = 1.0,
        sync_octets: int = 4 * 2**20,
    ) -> None:
        self._path = path
        self._cursor_path = path.with_name(path.name + ".cursor")
        self._ticks = max(1, round(sync_interval_s / _TICK_S))
        self._sync_octets = sync_octets
        # Held for the time of a write to the page cache; guards what follows it.
        self._lock = threading.Lock()
        self._file = LineFile(path, failed)
        self._segments = segments
        self._files = (self._file,) if segments is None else (self._file, segments)
        self._unsynced_octets = 0
        self._position = START
        self._is_dirty = False
        # Held while the disk works; whoever takes both takes this one first.
        self._sync_lock = threading.Lock()
        self._synced = START
        self._cursor = _Cursor()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- start and end ---------------------------------------------------------------------------

    def open(self) -> None:
        """Open the files, cut off a line torn by a crash, and read the cursor.  :raise OSError:"""
        self._file.fd = open_at_end(self._path)
        cut_torn_line(self._file.fd)
        try:
            self._cursor = msgspec.json.decode(self._cursor_path.read_bytes(), type=_Cursor)
        except FileNotFoundError:
            self._cursor = _Cursor()
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.log.warn("{path} is damaged, reading the whole journal", path=self._cursor_path)
            self._cursor = _Cursor()
        if self._segments is not None:
            self._segments.open(self._cursor.segment)
        self._position = self._synced = self._cursor.position

    def recover(self, events: Iterable[tuple[Sequence[bytes], Position]]) -> None:
        """Append what a crash kept from the files, to each what it has not.

        :param events: the spool's batches after :meth:`synced`, in order.
        """
        cursor = self._cursor
        present = [set(self._ids_after_cursor())]
        if self._segments is not None:
            present.append(set(self._segments.ids_after(cursor.segment, cursor.segment_offset)))
        for lines, position in events:
            with self._lock:
                self._position = position
                self._is_dirty = True
                for file, ids in zip(self._files, present, strict=True):
                    missing = [line for line in lines if id_of(line) not in ids]
                    file.add(missing, sum(map(len, missing)))
                self._write()
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
            for file in self._files:
                file.close()

    def keep(self, octets: int, seconds: float) -> None:
        """Keep so much in segments from now on."""
        if self._segments is not None:
            self._segments.keep_octets, self._segments.keep_s = octets, seconds

    # --- lines -----------------------------------------------------------------------------------

    def publish(self, lines: Sequence[bytes], position: Position) -> None:
        """Write a durable batch's lines, which the spool can tell again from before ``position``:
        shortly, where our own thread runs and the disk does not keep it."""
        with self._lock:
            self._position = position
            self._add(lines)
            if self._thread is None or self._file.pending_octets >= _BLOCK_OCTETS:
                self._write()

    def append(self, line: bytes) -> None:
        """Write, shortly, a line that no batch stands behind.  Never blocks for the disk."""
        with self._lock:
            self._add((line,))

    def flush(self) -> bool:
        """Have readers of the segments, or of the log where there are none, see what was published.

        :return: whether they see all of it; else the disk refuses, or did so for too long.
        """
        with self._lock:
            self._write()
            file = self._files[-1]
            return not (file.pending or file.has_dropped)

    def synced(self) -> Position:
        """What lies before this position need not be told again."""
        return self._synced

    def sync(self) -> None:
        """Put on stable storage what has been published, and move the cursor behind it."""
        with self._sync_lock:
            with self._lock:
                self._write()
                self._is_dirty = any(file.pending for file in self._files)
                self._unsynced_octets = 0
                cursor = self._reached()
                fds = [file.fd for file in self._files]
                has_turned = self._segments is not None and self._segments.turn()
            if cursor is not None and cursor != self._cursor:
                self._settle(fds, cursor)
            if has_turned:
                self._turned(fds[-1])

    def reopen(self) -> None:
        """Follow a rotation of the log: write to a new file of the old name.

        Where that cannot be had, the old file stays in use.
        """
        with self._sync_lock:
            try:
                fresh = open_at_end(self._path)
            except OSError as error:
                self._file.tell(error)
                return
            with self._lock:
                self._write()
                old, self._file.fd = self._file.fd, fresh
                cursor = self._reached()
                fds = [file.fd for file in self._files]
            if self._file.sync(old) and cursor is not None:
                self._settle(fds, cursor)
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
            self.sync()
            if self._is_dirty:  # the disk refused: try again in a while
                self._wake.set()

    def _add(self, lines: Sequence[bytes]) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            self._wake.set()
        octets = sum(map(len, lines))
        for file in self._files:
            file.add(lines, octets)
        self._unsynced_octets += octets

    def _write(self) -> None:
        for file in self._files:
            file.write()

    def _reached(self) -> _Cursor | None:
        """The cursor behind all that is written; None where something that was told is not."""
        if not all(file.is_whole for file in self._files):
            return None
        found = os.fstat(self._file.fd)
        segment = (0, 0) if self._segments is None else self._segments.place
        return _Cursor(self._position, found.st_ino, found.st_size, *segment)

    def _settle(self, fds: Sequence[int], cursor: _Cursor) -> None:
        """Sync the files and store the cursor.

        The folder is not synced: an older cursor is as good, since what it leaves to be told again
        is in the files by then.
        """
        for file, fd in zip(self._files, fds, strict=True):
            if fd >= 0 and not file.sync(fd):
                return
        if self._segments is not None and not self._segments.sync_name():
            self._is_dirty = True
            return
        fresh = self._cursor_path.with_name(self._cursor_path.name + ".new")
        try:
            with open(fresh, "wb") as opened:
                opened.write(msgspec.json.encode(cursor))
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(fresh, self._cursor_path)
        except OSError as error:
            self._is_dirty = True
            self._file.tell(error)
            return
        self._cursor = cursor
        self._synced = cursor.position

    def _turned(self, fd: int) -> None:
        """A segment is full: let go of it, and of the oldest ones."""
        segments = self._segments
        if segments is None:
            raise RuntimeError("a segment is full where there are none")
        segments.sync(fd)  # the cursor may not have moved
        os.close(fd)
        try:
            segments.prune(self._cursor.segment)
        except OSError as error:
            segments.tell(error)

    def _ids_after_cursor(self) -> Iterator[str]:
        """Ids of the log's events that were written after the cursor was stored."""
        cursor, found = self._cursor, os.fstat(self._file.fd)
        if cursor.inode == found.st_ino and cursor.offset <= found.st_size:
            yield from ids_of(self._path, cursor.offset)
            return
        yield from ids_of(self._path, 0)
        for moved in self._path.parent.glob(f"{self._path.name}*"):
            if moved.stat().st_ino == cursor.inode != found.st_ino:
                yield from ids_of(moved, cursor.offset)
