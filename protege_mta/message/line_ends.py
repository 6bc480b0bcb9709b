"""Content whose lines may end in a bare LF or CR, made fit for this house (RFC 5321, 2.3.8)."""

from __future__ import annotations

import re
from typing import Final

_END: Final = re.compile(rb"\r\n|\r|\n")


class LineEnds:
    """Makes every line end a CRLF, the last one too, however the octets are cut."""

    __slots__ = ("_held", "_last")

    def __init__(self) -> None:
        self._held = b""  # a CR that may be half of a CRLF
        self._last = b""

    def feed(self, octets: bytes) -> bytes:
        """What is known of the lines so far."""
        octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        if self._held:
            octets = octets[:-1]
        if not octets:
            return b""
        ends = octets.count(b"\r\n")
        if octets.count(b"\n") != ends or octets.count(b"\r") != ends:
            octets = _END.sub(b"\r\n", octets)
        self._last = octets[-1:]
        return octets

    def end(self) -> bytes:
        """The rest; nothing where there was no content at all."""
        if self._held:
            self._held = b""
            return b"\r\n"
        return b"\r\n" if self._last not in (b"", b"\n") else b""
