"""A message in the form for one hop, to be read in pieces."""

from __future__ import annotations

import attrs

from ..model.ports import Content, Prepared


@attrs.frozen
class PreparedOctets:
    """An :class:`~..model.ports.Octets` over content that stays where it is."""

    content: Content
    prepared: Prepared

    @property
    def size_octets(self) -> int:
        return len(self.prepared.head) + self._rest_octets

    @property
    def _rest_octets(self) -> int:
        body = self.prepared.body
        if body is not None:
            return len(body)
        return self.content.size_octets - self.prepared.skip_octets

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """As :meth:`~..model.ports.Content.read`."""
        head, body = self.prepared.head, self.prepared.body
        if size < 0:
            size = max(0, self.size_octets - offset)
        first = head[offset : offset + size]
        size -= len(first)
        if not size:
            return first
        at = max(0, offset - len(head))
        if body is None:
            return first + self.content.read(self.prepared.skip_octets + at, size)
        return first + body[at : at + size]
