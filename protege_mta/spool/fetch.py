"""Reads one message's content or header from its segment, in any thread."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from zlib import crc32

import attrs

from ..model.envelope import Message
from ..model.ids import QueueId
from . import record as records
from .content import BigContent, BigOctets, MemoryContent
from .files import Files
from .record import CONTENT, HEADER_OCTETS, Record
from .segment import Segment

_HEAD_OCTETS: Final = 4096
_BLOCK_OCTETS: Final = 2**20


class Mismatch(Exception):
    """What lies there is not what was written.  :ivar octets: the record as far as it is known."""

    def __init__(self, reason: str, octets: bytes = b"") -> None:
        super().__init__(reason)
        self.octets = octets


@attrs.frozen
class Fetched:
    content: MemoryContent | BigContent


@attrs.frozen
class Fetcher:
    """:ivar folder: the shard's."""

    _files: Files
    _folder: Path

    def content(self, segment: Segment, offset: int, octets: int, id: QueueId) -> Fetched:
        """The message and its octets, verified.  :raise Mismatch:  :raise OSError:"""
        whole = self._read(segment, offset, octets)
        record = _record(whole, segment, offset, id)
        meta = records.content_meta(record.meta)
        message = records.message_of(id, meta)
        start = HEADER_OCTETS + len(record.meta)
        body = whole[start : start + record.body_octets]
        if crc32(body) != record.body_checksum:
            raise Mismatch("the content does not match its checksum", whole)
        if meta.big:
            return Fetched(self._big(message, body, meta.big, meta.sum))
        return Fetched(MemoryContent(message, (body,)))

    def header(self, segment: Segment, offset: int, octets: int, id: QueueId) -> Fetched:
        """The message alone.  :raise Mismatch:  :raise OSError:"""
        head = self._read(segment, offset, min(octets, _HEAD_OCTETS))
        length = records.meta_octets(head) or 0
        if HEADER_OCTETS + length > len(head):
            head = self._read(segment, offset, octets)
        record = _record(head, segment, offset, id)
        message = records.message_of(id, records.content_meta(record.meta))
        return Fetched(MemoryContent(message, ()))

    def _read(self, segment: Segment, offset: int, octets: int) -> bytes:
        fd = self._files.open(segment.path(self._folder))
        try:
            return self._files.read(fd, octets, offset)
        finally:
            self._files.close(fd)

    def _big(self, message: Message, head: bytes, name: str, checksum: int | None) -> BigContent:
        octets = BigOctets.open(self._files, self._folder / "big" / name, head)
        content = BigContent(message, octets)
        if content.size_octets != message.size_octets:
            content.close()
            raise Mismatch(f"big/{name} has {content.size_octets - len(head)} octets")
        if checksum is not None:
            found, offset = 0, len(head)
            while block := content.read(offset, _BLOCK_OCTETS):
                found = crc32(block, found)
                offset += len(block)
            if found != checksum:
                content.close()
                raise Mismatch(f"big/{name} does not match its checksum")
        return content


def _record(octets: bytes, segment: Segment, offset: int, id: QueueId) -> Record:
    record = records.read(octets, 0, offset, segment.epoch)
    if record is None or record.kind != CONTENT or record.id != id:
        raise Mismatch("no record of it is where it should be", octets)
    return record
