"""The journal as it is kept for programs: ``state_dir/journal``, files of a bounded size in order.

A segment's name is its number, the POSIX milliseconds of when it was begun; numbers only grow, in
one folder or in one that took its place.  Each start of the service begins a new one, since what a
loss of power has taken off the end of the last one is told again: so an octet of a segment never
becomes another one, and a place in it stays what it was.  A segment is whole once there is a later
one.

Whoever reads needs no lock and may be another process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred

from ..model.ports import CursorGone, Page
from .line_file import LineFile, cut_torn_line, ids_of, open_at_end

SEGMENT_OCTETS: Final = 16 * 2**20
"""A segment that has more is the last one no longer."""

SEGMENT_S: Final = 86_400.0
"""Nor is one that was begun longer ago, so that old events can go though few come."""

READ_OCTETS: Final = 1_048_576
"""How much is read in one go at most, unless one line is longer."""

_T = TypeVar("_T")

_SUFFIX: Final = ".jsonl"
_GONE_SUFFIX: Final = ".pruned"
_DIGITS: Final = 14


class Segments(LineFile):
    """The segments, for the journal that writes them.

    :param now: POSIX seconds.
    :ivar keep_octets: the oldest ones go when all of them together have more,
    :ivar keep_s: and when all that they tell happened longer ago.
    """

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], float],
        failed: Callable[[], None],
        keep_octets: int,
        keep_s: float,
        segment_octets: int = SEGMENT_OCTETS,
    ) -> None:
        super().__init__(folder, failed)
        self.keep_octets = keep_octets
        self.keep_s = keep_s
        self._now = now
        self._segment_octets = segment_octets
        self._number = 0
        self._size = 0
        self._named = 0  # the last segment that is in the folder whatever loses power

    def open(self, first: int) -> None:
        """Make the folder, and mend what may have been torn.  The next line begins a new segment.

        :param first: the number of the first segment that was not synced as a whole.
        :raise OSError:
        """
        self.path.mkdir(0o700, parents=True, exist_ok=True)
        numbers = numbers_in(self.path)
        self._number = self._named = max(numbers, default=0)
        for number in numbers:
            if number >= first:
                fd = open_at_end(path_of(self.path, number))
                try:
                    cut_torn_line(fd)
                    self._size = os.fstat(fd).st_size
                finally:
                    os.close(fd)

    @property
    def place(self) -> tuple[int, int]:
        """The segment, and how many octets of it are written."""
        return self._number, self._size

    def write(self) -> int:
        """As its base's; the first line of a segment makes the file."""
        if not self.pending:
            return 0
        if self.fd < 0:
            number = max(self._number + 1, int(self._now() * 1000))
            try:
                self.fd = open_at_end(path_of(self.path, number))
            except OSError as error:
                self.tell(error)
                return 0
            self._number, self._size = number, 0
        done = super().write()
        self._size += done
        return done

    def turn(self) -> bool:
        """Let go of a segment that is full, if nothing waits to be written behind a torn line; the
        descriptor is the caller's then."""
        age_s = self._now() - self._number / 1000
        is_due = self._size >= self._segment_octets or age_s > min(SEGMENT_S, self.keep_s / 4)
        if self.fd < 0 or self.pending or not is_due:
            return False
        self.fd = -1
        return True

    def sync_name(self) -> bool:
        """Put a new segment's name on stable storage; whether all names are there."""
        number = self._number  # there may be another one by the end of this
        if self._named == number:
            return True
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            self.tell(error)
            return False
        self._named = number
        return True

    def ids_after(self, segment: int, offset: int) -> Iterator[str]:
        """Ids of the events behind a place."""
        for number in numbers_in(self.path):
            if number >= segment:
                yield from ids_of(path_of(self.path, number), offset if number == segment else 0)

    def prune(self, before: int) -> None:
        """Remove the oldest segments that are more than is to be kept, as far as ``before``."""
        numbers = numbers_in(self.path)
        sizes = [path_of(self.path, number).stat().st_size for number in numbers]
        octets, oldest = sum(sizes), self._now() - self.keep_s
        for number, following, size in zip(numbers, numbers[1:], sizes, strict=False):
            # What it tells happened before the next one was begun.
            if number >= before or (octets <= self.keep_octets and following / 1000 >= oldest):
                break
            # Where it ended is known before it goes, so that nobody who has had all of it ever seems
            # to have missed something.
            end = _end_of_pruned(self.path, cursor_of(number, size))
            for earlier in self.path.glob(f"*{_GONE_SUFFIX}"):
                earlier.rename(end)
            end.touch(0o600)
            path_of(self.path, number).unlink()
            octets -= size


# --- reading -------------------------------------------------------------------------------------


class SegmentReader:
    """Reads the segments of a folder.  Each method may block for the disk, and is safe in any
    thread.

    A cursor is the segment and the octet in it, as text that sorts as the events do.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, cursor: str, most: int) -> Page:
        """Events behind a cursor.

        :param cursor: empty for the oldest that is kept.
        :param most: 1 or more; fewer than there are may be given in any case.
        :raise CursorGone: what lies behind it is no longer kept, or it was never one of ours.
        :raise OSError:
        """
        return self._found(cursor, lambda: self._read(cursor, most))

    def oldest(self) -> str:
        """The cursor before all that is kept."""
        numbers = numbers_in(self._folder)
        return cursor_of(numbers[0], 0) if numbers else ""

    def keeps(self, cursor: str) -> bool:
        """Whether all that was ever behind a cursor is still there."""
        return cursor >= self.oldest() or _end_of_pruned(self._folder, cursor).exists()

    def end(self) -> str:
        """The cursor behind what there is now."""
        numbers = numbers_in(self._folder)
        if not numbers:
            return ""
        path = path_of(self._folder, numbers[-1])
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            while size > 0:
                start = max(0, size - READ_OCTETS)
                file.seek(start)
                found = file.read(size - start).rfind(b"\n")
                if found >= 0:
                    size = start + found + 1
                    break
                size = start
        return cursor_of(numbers[-1], size)

    def count(self, cursor: str) -> tuple[int, str]:
        """How many events there are behind a cursor, and the cursor behind those.

        :raise CursorGone:
        :raise OSError:
        """
        return self._found(cursor, lambda: self._counted(cursor))

    def _found(self, cursor: str, look: Callable[[], _T]) -> _T:
        try:
            return look()
        except FileNotFoundError:  # removed in this very moment
            try:
                return look()
            except FileNotFoundError as error:
                raise CursorGone(cursor, self.oldest()) from error

    def _counted(self, cursor: str) -> tuple[int, str]:
        count = 0
        numbers = numbers_in(self._folder)
        if not numbers and not cursor:
            return 0, ""
        start = self._start(numbers, cursor)
        if start is None:
            return 0, cursor
        number, offset = start
        for one in numbers[numbers.index(number) :]:
            with open(path_of(self._folder, one), "rb") as file:
                begin = end = offset if one == number else 0
                file.seek(begin)
                while octets := file.read(READ_OCTETS):
                    last = octets.rfind(b"\n")
                    if last >= 0:
                        end = begin + last + 1
                    count += octets.count(b"\n")
                    begin += len(octets)
            cursor = cursor_of(one, end)
        return count, cursor

    def _read(self, cursor: str, most: int) -> Page:
        numbers = numbers_in(self._folder)
        if not numbers and not cursor:
            return Page((), (), "", is_end=True)
        start = self._start(numbers, cursor)
        if start is None:
            return Page((), (), cursor, is_end=True)
        number, offset = start
        while True:
            lines, ends = self._lines(number, offset, most)
            if lines:
                texts = [cursor_of(number, end) for end in ends]
                kept = [(line, end) for line, end in zip(lines, texts, strict=True) if line]
                return Page(
                    [line for line, _ in kept], [end for _, end in kept], texts[-1], is_end=False
                )
            if number == numbers[-1]:
                return Page((), (), cursor_of(number, offset), is_end=True)
            number, offset = numbers[numbers.index(number) + 1], 0

    def _start(self, numbers: Sequence[int], cursor: str) -> tuple[int, int] | None:
        """Where reading begins; None for the end of all."""
        oldest = cursor_of(numbers[0], 0) if numbers else ""
        place = _parsed(cursor or oldest)
        if place is None or not numbers:
            raise CursorGone(cursor, oldest)
        number, offset = place
        if number < numbers[0]:
            if _end_of_pruned(self._folder, cursor).exists():
                return numbers[0], 0
            raise CursorGone(cursor, oldest)
        if number not in numbers:
            # A loss of power has taken the segment's name away before it was synced: whatever was
            # in it comes later.
            later = [one for one in numbers if one > number]
            return (later[0], 0) if later else None
        if offset:
            with open(path_of(self._folder, number), "rb") as file:
                file.seek(offset - 1)
                before = file.read(1)
            if before and before != b"\n":  # made up, or a disk has spoilt the line before it
                raise CursorGone(cursor, self._next_line(numbers, number, offset))
        return place

    def _next_line(self, numbers: Sequence[int], number: int, offset: int) -> str:
        """The cursor before the first line that begins behind an octet."""
        with open(path_of(self._folder, number), "rb") as file:
            file.seek(offset)
            while octets := file.read(READ_OCTETS):
                found = octets.find(b"\n")
                if found >= 0:
                    return cursor_of(number, file.tell() - len(octets) + found + 1)
        later = numbers[numbers.index(number) + 1 :]
        return cursor_of(later[0], 0) if later else self.end()

    def _lines(self, number: int, offset: int, most: int) -> tuple[list[bytes], list[int]]:
        """Whole lines, without LF, and the octets at which they end."""
        with open(path_of(self._folder, number), "rb") as file:
            file.seek(offset)
            octets = file.read(READ_OCTETS)
            end = octets.rfind(b"\n") + 1
            while not end:
                more = file.read(READ_OCTETS)
                if not more:
                    return [], []
                octets += more
                end = octets.rfind(b"\n") + 1
        lines = octets[: end - 1].split(b"\n", most)[:most]
        ends = []
        for line in lines:
            offset += len(line) + 1
            ends.append(offset)
        return lines, ends


class StoredJournal:
    """:class:`~..model.ports.JournalReader` over a folder of segments.

    :param in_thread: runs a function that blocks elsewhere.
    """

    def __init__(
        self, folder: Path, in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    ) -> None:
        self._reader = SegmentReader(folder)
        self._in_thread = in_thread

    def after(self, cursor: str, most: int) -> Deferred[Page]:
        return self._in_thread(lambda: self._reader.read(cursor, most))

    def count(self, cursor: str) -> Deferred[tuple[int, str]]:
        """How many events there are behind a cursor, and the cursor behind those.  Fails with
        :class:`~..model.ports.CursorGone`."""
        return self._in_thread(lambda: self._reader.count(cursor))

    def end(self) -> str:
        """The cursor behind what there is now."""
        return self._reader.end()


def cursor_of(number: int, offset: int) -> str:
    """A place as text."""
    return f"{number:0{_DIGITS}d}-{offset:010d}"


def _parsed(cursor: str) -> tuple[int, int] | None:
    number, _, offset = cursor.partition("-")
    is_ours = len(number) == _DIGITS and len(offset) == 10 and (number + offset).isdigit()
    return (int(number), int(offset)) if is_ours and cursor.isascii() else None


def numbers_in(folder: Path) -> list[int]:
    """The segments of a folder in order; none where there is no folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if len(stem) == _DIGITS and stem.isdigit())


def path_of(folder: Path, number: int) -> Path:
    """A segment's file."""
    return folder / f"{number:0{_DIGITS}d}{_SUFFIX}"


def _end_of_pruned(folder: Path, cursor: str) -> Path:
    """An empty file, which is there if the cursor is the end of the last segment that was removed."""
    return folder / f"{cursor}{_GONE_SUFFIX}"
