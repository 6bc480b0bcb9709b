"""Line ends of content that comes by a door where bare LF is allowed: the tunnel."""

from __future__ import annotations

import re
from typing import Final

_BARE_CR: Final = re.compile(rb"\r(?!\n)")


class LineEnds:
    """Makes every line end a CRLF, the last line's too where it has none.

    A bare LF ends a line, as programs on UNIX have it.  A bare CR ends none and is left, to be
    refused: readers differ about it.  The outcome is a function of the octets, however they are cut.

    :param is_cr_an_end: a bare CR ends a line too, for what would be lost if it were refused.
    :ivar has_bare_cr: whether one has come so far that was left.
    """

    __slots__ = ("_held", "_is_cr_an_end", "_last", "has_bare_cr")

    def __init__(self, *, is_cr_an_end: bool = False) -> None:
        self.has_bare_cr = False
        self._is_cr_an_end = is_cr_an_end
        self._held = b""  # a CR that may be half of a CRLF
        self._last = b""

    def feed(self, octets: bytes) -> bytes:
        """Take the next octets; no CRLF is torn between two results."""
        if self._held:
            octets = self._held + octets
        self._held = b"\r" if octets.endswith(b"\r") else b""
        if self._held:
            octets = octets[:-1]
        return self._fixed(octets)

    def end(self) -> bytes:
        """What is still to come at the end of the content."""
        if self._held:
            self._held = b""
            self.has_bare_cr = not self._is_cr_an_end
            return b"\r\n"
        return b"\r\n" if self._last not in (b"", b"\n") else b""

    def _fixed(self, octets: bytes) -> bytes:
        if not octets:
            return b""
        whole = octets.count(b"\r\n")
        if octets.count(b"\r") != whole:
            if self._is_cr_an_end:
                octets = _BARE_CR.sub(b"\r\n", octets)
                whole = octets.count(b"\r\n")
            else:
                self.has_bare_cr = True
        if octets.count(b"\n") != whole:
            octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self._last = octets[-1:]
        return octets
