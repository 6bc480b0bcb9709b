"""Binary messages of the tunnel: one frame each, of a stream's start, content or end.

Pure, and a function of the octets, not of the pieces that they come in.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from ...model.value import value

VERSION: Final = 1
ID_OCTETS: Final = 255
"""The longest stream id."""

BODY_OCTETS: Final = 65_536
"""The longest body of a start or an end that is taken; a chunk has no limit but its field's."""

CHUNK_OCTETS: Final = 65_536
"""The longest body of a chunk that is sent."""

_HEAD: Final = struct.Struct(">BBBI")


class Kind(enum.IntEnum):
    """What a frame is."""

    START = 1
    CHUNK = 2
    END = 3


@value
class Start:
    """A stream begins.  :ivar body: JSON; see :func:`.messages.parse_start`."""

    stream_id: str
    body: bytes


@value
class Piece:
    """The next octets of a chunk's body; never empty."""

    stream_id: str
    octets: bytes


@value
class End:
    """A stream is complete."""

    stream_id: str
    body: bytes


@value
class BadFrame:
    """No frame; nothing more of this message is looked at.  :ivar why: for the log."""

    why: str


FramePart = Start | Piece | End | BadFrame


def encode(kind: Kind, stream_id: str, body: bytes = b"") -> bytes:
    """A whole frame.  :raise ValueError: the id has more than :data:`ID_OCTETS` octets."""
    name = stream_id.encode("utf-8")
    if len(name) > ID_OCTETS:
        raise ValueError(f"a stream id has {ID_OCTETS} octets at most, not {len(name)}")
    return b"".join((_HEAD.pack(VERSION, kind, len(name), len(body)), name, body))


class FrameReader:
    """Takes binary messages in pieces.

    Content is handed on as it comes; what is kept is a head, or a body of :data:`BODY_OCTETS`.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A message begins; whatever was left of another is forgotten."""
        self._kept = b""  # of the head
        self._body = bytearray()
        self._kind: Kind | None = None
        self._stream_id = ""
        self._rest = 0  # of the body
        self._is_bad = False

    def feed(self, octets: bytes) -> list[FramePart]:
        """The next octets of the message."""
        if self._is_bad:
            return []
        if self._kind is None:
            kept = self._kept = self._kept + octets if self._kept else octets
            if why := _fault(kept):
                return self._bad(why)
            if len(kept) < _HEAD.size or len(kept) < (size := _HEAD.size + kept[2]):
                return []
            _, kind, _, length = _HEAD.unpack_from(kept)
            try:
                self._stream_id = kept[_HEAD.size : size].decode("utf-8")
            except UnicodeDecodeError:
                return self._bad("stream id is not UTF-8")
            self._kind, self._rest = Kind(kind), length
            self._kept, octets = b"", kept[size:]
            if kind != Kind.CHUNK and length > BODY_OCTETS:
                return self._bad("body too long")
        if len(octets) > self._rest:
            return self._bad("longer than it says")
        self._rest -= len(octets)
        if self._kind is Kind.CHUNK:
            return [Piece(self._stream_id, octets)] if octets else []
        self._body += octets
        return []

    def finish(self) -> list[FramePart]:
        """The message has ended."""
        if self._is_bad:
            return []
        if self._kind is None or self._rest:
            return self._bad("shorter than it says")
        if self._kind is Kind.CHUNK:
            return []
        part = Start if self._kind is Kind.START else End
        return [part(self._stream_id, bytes(self._body))]

    def _bad(self, why: str) -> list[FramePart]:
        self._is_bad = True
        self._kept, self._body = b"", bytearray()
        return [BadFrame(why)]


def _fault(octets: bytes) -> str:
    """What is wrong with the beginning of a frame; empty where nothing is, so far."""
    if octets and octets[0] != VERSION:
        return "unknown version"
    if len(octets) > 1 and not Kind.START <= octets[1] <= Kind.END:
        return "unknown type"
    return ""
