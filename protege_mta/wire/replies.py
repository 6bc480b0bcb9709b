"""Replies as peers send them (RFC 5321, 4.2; RFC 2034).

Pure: octets in, replies out; what comes out is a function of the stream, not of its chunks.
Lenient where a careless server would be (a bare LF ends a line, a code may stand alone), strict
where a reply could no longer be matched to its command: then there is a :class:`Fault`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final

import attrs

from ..model.reply import Reply

LINE_OCTETS: Final = 2048
"""Longest line taken, its end included; RFC 5321, 4.5.3.1.5, allows 512."""

LINES: Final = 128
"""Most lines of one reply."""

TEXT_CHARACTERS: Final = 512
"""What is kept of a line's text."""

_SHAPE: Final = re.compile(r"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|\Z)")
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


@attrs.frozen
class Fault:
    """The stream stopped being replies; nothing after it can be trusted.

    :ivar reason: what was wrong, in our words.
    """

    reason: str


def _parse(octets: bytes) -> tuple[Reply, bool] | None:
    """One line without its LF, and whether it is a reply's last; None where it has no code."""
    match = _SHAPE.match((octets[:-1] if octets.endswith(b"\r") else octets).decode("latin-1"))
    if match is None:
        return None
    code, mark, text = match[1], match[2], (match[3] or "")[:TEXT_CHARACTERS]
    if not (text.isascii() and text.isprintable()):
        text = _UNPRINTABLE.sub("?", text.replace("\t", " "))
    text = text.rstrip()
    enhanced = ""
    found = _ENHANCED.match(text)
    if found is not None and found[1][0] == code[0]:
        enhanced, text = found[1], text[found.end() :]
    return Reply(int(code), enhanced, (text,)), mark != "-"


@functools.lru_cache(maxsize=1024)  # a server says the same few things for every message
def _whole(chunk: bytes) -> tuple[Reply, ...] | None:
    """A chunk that is replies of one line each and nothing else; None for any other."""
    if not chunk.endswith(b"\n"):
        return None
    replies = []
    for octets in chunk[:-1].split(b"\n"):
        line = _parse(octets)
        if line is None or not line[1]:
            return None
        replies.append(line[0])
    return tuple(replies)


@attrs.define(eq=False)
class ReplyParser:
    """Cut what a server sends into replies.

    Texts come out as printable US-ASCII: tabs become spaces, any other octet a question mark.  The
    enhanced code is taken off the texts where its class agrees with the reply's first digit.

    :ivar fault: set where the stream stopped being replies, after those that :meth:`feed` gave
        back; then the parser is spent, and gives no more.
    """

    fault: Fault | None = attrs.field(default=None, init=False)
    _pending: bytes = attrs.field(default=b"", init=False)
    _lines: list[Reply] = attrs.field(factory=list, init=False)
    _is_between: bool = attrs.field(default=True, init=False)

    @property
    def is_midway(self) -> bool:
        """Whether there is more than :meth:`feed` has given back: part of a reply, or a fault."""
        return not self._is_between

    def feed(self, chunk: bytes) -> Sequence[Reply]:
        """Take the next octets off the wire; returns the replies that they completed, in order."""
        if self._is_between and len(chunk) < LINE_OCTETS:
            whole = _whole(chunk)
            if whole is not None:
                return whole
        replies: list[Reply] = []
        if self.fault is None:
            lines = (self._pending + chunk).split(b"\n")
            self._pending = lines.pop()
            for line in lines:
                reply = self._take(line)
                if isinstance(reply, Fault):
                    self.fault = reply
                    break
                if reply is not None:
                    replies.append(reply)
            else:
                if len(self._pending) >= LINE_OCTETS:
                    self.fault = Fault("a reply line is too long")
            self._is_between = not (self._pending or self._lines or self.fault)
        return replies

    def _take(self, octets: bytes) -> Reply | Fault | None:
        if len(octets) >= LINE_OCTETS:
            return Fault("a reply line is too long")
        line = _parse(octets)
        if line is None:
            return Fault("a reply line without a reply code")
        (reply, is_last), lines = line, self._lines
        if not lines and is_last:
            return reply
        if lines and lines[0].code != reply.code:
            return Fault("the lines of a reply have different codes")
        lines.append(reply)
        if not is_last:
            return Fault("a reply has too many lines") if len(lines) >= LINES else None
        self._lines = []
        return Reply(
            reply.code,
            next(filter(None, (each.enhanced for each in lines)), ""),
            tuple(text for each in lines for text in each.lines),
        )
