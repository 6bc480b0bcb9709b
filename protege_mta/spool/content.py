"""A message's octets, as others read them, and the memory of what has just come in."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs

from ..model.envelope import Message
from ..model.ids import QueueId
from .files import Files

_OVERHEAD_OCTETS: Final = 1024


@attrs.define(eq=False)
class MemoryContent:
    """:class:`~..model.ports.Content` in memory."""

    message: Message
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


@attrs.define(eq=False)
class BigContent:
    """:class:`~..model.ports.Content` in a file of its own, whose descriptor it owns: the file may
    be unlinked while someone reads."""

    message: Message
    size_octets: int
    _files: Files
    _fd: int

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        rest = max(0, self.size_octets - offset)
        return self._files.read(self._fd, rest if size < 0 else min(size, rest), offset)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)

    def __del__(self) -> None:
        self.close()


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
