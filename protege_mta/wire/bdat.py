"""Message content in chunks (RFC 3030, 2; no BINARYMIME, so that content has lines).

The borders of chunks mean nothing: a CRLF may lie across one.
"""

from __future__ import annotations


class ChunkJoiner:
    """Put the chunks of one message together again."""

    __slots__ = ("_ends_line", "_held")

    def __init__(self) -> None:
        self._held = b""
        self._ends_line = True

    def feed(self, octets: bytes) -> bytes:
        """Take the next octets, of whatever chunk; give back the content that is certain by now.

        No CRLF is ever torn between two results: a CR at the end of one is a bare CR.
        """
        if self._held:
            octets = self._held + octets
            self._held = b""
        if octets.endswith(b"\r"):
            self._held = b"\r"
            octets = octets[:-1]
        if octets:
            self._ends_line = octets.endswith(b"\n")
        return octets

    def finish(self) -> bytes:
        """What remains after the last chunk: nothing; the CRLF that the last line lacks, since
        content in this house ends in one; or a CR that turned out to be bare."""
        if self._held:
            return self._held
        return b"" if self._ends_line else b"\r\n"
