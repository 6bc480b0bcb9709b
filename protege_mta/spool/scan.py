"""Reads segments from their beginning, whatever state they are in.

Only headers and meta parts are read and verified; bodies are stepped over unless someone asks.  An
octet that does not belong to a record starts a damaged extent, which ends at the next place where a
whole header of the segment's own epoch stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from . import record as records
from .files import Files
from .record import ALIGNMENT, COMMIT, HEADER_OCTETS, MAGIC, Record
from .segment import BLANK_OCTETS, SEGMENT_HEADER_OCTETS, Segment

_WINDOW_OCTETS: Final = 256 * 1024
_PAGE_OCTETS: Final = 4096


class Group(msgspec.Struct, gc=False):
    """Records that were written and synced together.

    :ivar commit: the record that closes it, if that is there.
    :ivar is_whole: whether all of it is there, as far as headers tell.
    """

    segment: Segment
    sequence: int
    start: int
    records: list[Record]
    commit: Record | None = None
    is_whole: bool = False


class SegmentReader:
    """One pass over one segment.

    :ivar damage: extents ``(start, end)`` that hold no records and later records follow.
    :ivar end: behind the last record; what follows is :attr:`tail`.
    :ivar tail: how many octets lie behind :attr:`end` up to the last one that is no zero; known at
        the end of the pass.
    """

    def __init__(self, files: Files, folder: Path, segment: Segment) -> None:
        self.segment = segment
        self.damage: list[tuple[int, int]] = []
        self.end = SEGMENT_HEADER_OCTETS
        self.tail = 0
        self._files = files
        self._fd = files.open(segment.path(folder))
        self.size = files.size(self._fd)
        self._window = b""
        self._window_start = 0
        if self.octets(0, SEGMENT_HEADER_OCTETS) != segment.header():
            # The name says all that the header does.
            self.damage.append((0, SEGMENT_HEADER_OCTETS))

    def close(self) -> None:
        self._files.close(self._fd)

    def is_blank(self) -> bool:
        """Whether nothing was ever written behind the header, though a spare it was made from may
        have left old records further on."""
        return not self.octets(SEGMENT_HEADER_OCTETS, BLANK_OCTETS).strip(b"\0")

    def octets(self, offset: int, size: int) -> bytes:
        """What lies there; zeros where the disk cannot read it, fewer where the file ends."""
        start = offset - self._window_start
        if start < 0 or start + size > len(self._window):
            self._window = self._load(offset, max(size, _WINDOW_OCTETS))
            self._window_start = offset
            start = 0
        return self._window[start : start + size]

    def record(self, offset: int) -> Record | None:
        """The record that begins there, if one does."""
        header = self.octets(offset, HEADER_OCTETS)
        length = records.meta_octets(header)
        if length is None or length > self.size - offset - HEADER_OCTETS:
            return None
        self.octets(offset, HEADER_OCTETS + length)  # has both in the window
        found = records.read(self._window, offset - self._window_start, offset, self.segment.epoch)
        return None if found is None or found.end > self.size else found

    def body(self, record: Record) -> bytes | None:
        """The record's body, or None where it does not match its checksum."""
        found = self.octets(record.body_offset, record.body_octets)
        return found if crc32(found) == record.body_checksum else None

    def records(self, offset: int = SEGMENT_HEADER_OCTETS) -> Iterator[Record]:
        """Every record from ``offset`` on, which must be where one begins or began."""
        while True:
            found = self.record(offset)
            if found is None:
                resumed = self._next(offset + ALIGNMENT)
                if resumed is None:
                    break
                self.damage.append((offset, resumed))
                offset = resumed
            else:
                offset = self.end = found.end
                yield found
        self.tail = self._written_end(self.end) - self.end

    def groups(self) -> Iterator[Group]:
        """Every group, those without a commit record too."""
        group: Group | None = None
        for found in self.records():
            if group is not None and group.sequence != found.sequence:
                yield group
                group = None
            if group is None:
                group = Group(self.segment, found.sequence, found.offset, [])
            if found.kind != COMMIT:
                group.records.append(found)
                continue
            meta = records.commit_meta(found.meta)
            group.commit = found
            group.is_whole = meta.start == group.start and meta.count == len(group.records)
            yield group
            group = None
        if group is not None:
            yield group

    def _load(self, offset: int, size: int) -> bytes:
        try:
            return self._files.read(self._fd, size, offset)
        except OSError:
            pages = []
            for start in range(offset, min(offset + size, self.size), _PAGE_OCTETS):
                wanted = min(_PAGE_OCTETS, offset + size - start, self.size - start)
                try:
                    pages.append(self._files.read(self._fd, wanted, start))
                except OSError:
                    pages.append(b"\0" * wanted)
            return b"".join(pages)

    def _written_end(self, offset: int) -> int:
        """Behind the last octet from ``offset`` on that is no zero; ``offset`` if there is none."""
        end = offset
        while block := self._load(offset, _WINDOW_OCTETS):
            written = len(block.rstrip(b"\0"))
            if written:
                end = offset + written
            offset += len(block)
        return end

    def _next(self, offset: int) -> int | None:
        """Where the next record begins, at ``offset`` or behind it."""
        while True:
            block = self._load(offset, _WINDOW_OCTETS)
            at = block.find(MAGIC)
            while at >= 0:
                place = offset + at
                if place % ALIGNMENT == 0 and self.record(place) is not None:
                    return place
                at = block.find(MAGIC, at + 1)
            if len(block) < len(MAGIC):
                return None
            # The magic may lie across two windows.
            offset += max(1, len(block) - len(MAGIC) + 1)
