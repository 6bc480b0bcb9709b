"""Cutting a client's octets into command lines (RFC 5321, 2.3.8 and 4.5.3.1.4).

CRLF alone ends a line; a bare CR or LF is an octet of it like any other, and the reader of the
line has to refuse it.  Pure, and a function of the stream, not of its chunks.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

COMMAND_LINE_OCTETS: Final = 2048
"""Longest command line, its CRLF included: the 512 of RFC 5321, 4.5.3.1.4, and room for what
extensions add to MAIL and RCPT (RFC 3461: 500 for ORCPT; RFC 6531: 2 paths' worth in UTF-8)."""


class Oversize(enum.Enum):
    """A line that was longer than the limit; its octets are gone, its end was found."""

    LINE = "line"


TOO_LONG: Final = Oversize.LINE


def has_bare_ends(octets: bytes) -> bool:
    """Whether a CR or LF stands alone; the edges count as they are."""
    # Three counts take a tenth of the time of one regular expression.
    pairs = octets.count(b"\r\n")
    return octets.count(b"\n") != pairs or octets.count(b"\r") != pairs


class LineReader:
    """What has come in and is not yet used, taken by lines or by octets."""

    __slots__ = ("_at", "_buffer", "_is_skipping")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._is_skipping = False

    def feed(self, octets: bytes) -> None:
        """Take the next octets off the wire, cut anywhere."""
        if self._at < len(self._buffer):
            octets = self._buffer[self._at :] + octets
        self._buffer = octets
        self._at = 0

    def line(self) -> bytes | Literal[Oversize.LINE] | None:
        """The next line without its CRLF; None while its end has not come."""
        at = self._at
        end = self._buffer.find(b"\r\n", at)
        if end < 0:
            if len(self._buffer) - at > COMMAND_LINE_OCTETS:
                # Forget it as it comes, but for a CR that may turn out to be half of its end.
                self._is_skipping = True
                self._buffer = self._buffer[-1:] if self._buffer.endswith(b"\r") else b""
                self._at = 0
            return None
        self._at = end + 2
        if self._is_skipping or self._at - at > COMMAND_LINE_OCTETS:
            self._is_skipping = False
            return TOO_LONG
        return self._buffer[at:end]

    def take(self, size: int) -> bytes:
        """As many octets as there are, up to ``size``."""
        at = self._at
        octets = self._buffer[at : at + size] if at or size < len(self._buffer) else self._buffer
        self._at = at + len(octets)
        return octets

    def take_all(self) -> bytes:
        """Every octet that is there."""
        octets = self._buffer[self._at :] if self._at else self._buffer
        self._buffer = b""
        self._at = 0
        return octets

    @property
    def waiting(self) -> int:
        """How many octets are there."""
        return len(self._buffer) - self._at
