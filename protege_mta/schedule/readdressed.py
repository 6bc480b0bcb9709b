"""A message under another reverse-path than it has in the spool."""

from __future__ import annotations

import attrs

from ..model.address import Address
from ..model.envelope import Message
from ..model.ports import Content


class Readdressed:
    """A :class:`~..model.ports.Content` over another, whose octets it has."""

    __slots__ = ("_content", "message")

    def __init__(self, content: Content, sender: Address) -> None:
        self._content = content
        message = content.message
        self.message: Message = attrs.evolve(
            message, envelope=attrs.evolve(message.envelope, sender=sender)
        )

    @property
    def size_octets(self) -> int:
        return self._content.size_octets

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        return self._content.read(offset, size)

    def close(self) -> None:
        self._content.close()
