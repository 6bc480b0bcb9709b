"""A message's octets, as others read them, and the memory of what has just come in."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final

import attrs

from ..model.envelope import Message
from ..model.ids import QueueId
from .files import Files

_OVERHEAD_OCTETS: Final = 1024


@attrs.define(eq=False)
class MemoryOctets:
    """:class:`~..model.ports.Held` in memory; in pieces, until somebody reads it."""

    _pieces: tuple[bytes, ...]

    @property
    def size_octets(self) -> int:
        return sum(map(len, self._pieces))

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        if len(self._pieces) > 1:
            self._pieces = (b"".join(self._pieces),)
        whole = self._pieces[0] if self._pieces else b""
        if offset == 0 and (size < 0 or size >= len(whole)):
            return whole
        return whole[offset:] if size < 0 else whole[offset : offset + size]

    def close(self) -> None:
        """There is no descriptor."""


@attrs.define(eq=False, init=False)
class MemoryContent(MemoryOctets):
    """:class:`~..model.ports.Content` in memory."""

    message: Message

    def __init__(self, message: Message, pieces: tuple[bytes, ...]) -> None:
        self.message = message
        self._pieces = pieces


@attrs.define(eq=False)
class BigOctets:
    """:class:`~..model.ports.Held` in a file of its own, whose descriptor it owns: the file may be
    unlinked while someone reads.

    :ivar head: what comes before the file's octets.
    """

    size_octets: int
    _head: bytes
    _files: Files
    _fd: int

    @classmethod
    def open(cls, files: Files, path: Path, head: bytes = b"") -> BigOctets:
        """:raise OSError:"""
        fd = files.open(path)
        try:
            return cls(len(head) + files.size(fd), head, files, fd)
        except BaseException:
            files.close(fd)
            raise

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        rest = max(0, self.size_octets - offset)
        size = rest if size < 0 else min(size, rest)
        first = self._head[offset : offset + size]
        if len(first) == size:
            return first
        behind = max(0, offset - len(self._head))
        return first + self._files.read(self._fd, size - len(first), behind)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)

    def __del__(self) -> None:
        self.close()


@attrs.define(eq=False)
class BigContent:
    """:class:`~..model.ports.Content` in a file of its own."""

    message: Message
    _octets: BigOctets

    @property
    def size_octets(self) -> int:
        return self._octets.size_octets

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        return self._octets.read(offset, size)

    def close(self) -> None:
        self._octets.close()


class Cache:
    """Content that waits for its first attempt; what was used longest ago goes first.

    :param octets: how much it may hold.
    """

    def __init__(self, octets: int) -> None:
        self._limit = octets
        self._octets = 0
        # Not a plain dict: to find its first key costs a walk over all the deleted ones.
        self._contents: OrderedDict[QueueId, tuple[MemoryContent, int]] = OrderedDict()

    def put(self, id: QueueId, content: MemoryContent) -> None:
        octets = content.size_octets + _OVERHEAD_OCTETS
        if octets > self._limit:
            return
        if id in self._contents:
            self.drop(id)
        self._contents[id] = (content, octets)
        self._octets += octets
        while self._octets > self._limit:
            _, (_, dropped) = self._contents.popitem(last=False)
            self._octets -= dropped

    def get(self, id: QueueId) -> MemoryContent | None:
        found = self._contents.get(id)
        if found is None:
            return None
        self._contents.move_to_end(id)
        return found[0]

    def drop(self, id: QueueId) -> None:
        found = self._contents.pop(id, None)
        if found is not None:
            self._octets -= found[1]
