"""Replies as peers send them (RFC 5321, 4.2; RFC 2034).

Pure: octets in, replies out; what comes out is a function of the stream, not of its chunks.
Lenient where a careless server would be (a bare LF ends a line, a code may stand alone), strict
where a reply could no longer be matched to its command: then there is a :class:`Fault`.
"""

from __future__ import annotations

import functools
import re
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


@attrs.frozen
class _Line:
    """:ivar is_last: whether a space or nothing followed the code."""

    reply: Reply
    is_last: bool


@functools.lru_cache(maxsize=512)  # a server says the same few lines for every message
def _parse(octets: bytes) -> _Line | None:
    """One line without its end; None where it has no code."""
    match = _SHAPE.match(octets.decode("latin-1"))
    if match is None:
        return None
    code, mark, text = match[1], match[2], (match[3] or "")[:TEXT_CHARACTERS]
    text = _UNPRINTABLE.sub("?", text.replace("\t", " ")).rstrip()
    enhanced = ""
    found = _ENHANCED.match(text)
    if found is not None and found[1][0] == code[0]:
        enhanced, text = found[1], text[found.end() :]
    return _Line(Reply(int(code), enhanced, (text,)), mark != "-")


@attrs.define(eq=False)
class ReplyParser:
    """Cut what a server sends into replies.

    Texts come out as printable US-ASCII: tabs become spaces, any other octet a question mark.  The
    enhanced code is taken off the texts where its class agrees with the reply's first digit.
    After a :class:`Fault` the parser is spent: it returns nothing more.
    """

    _pending: bytes = attrs.field(default=b"", init=False)
    _lines: list[Reply] = attrs.field(factory=list, init=False)
    _is_spent: bool = attrs.field(default=False, init=False)

    @property
    def is_midway(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._pending or self._lines)

    def feed(self, chunk: bytes) -> list[Reply | Fault]:
        """Take the next octets off the wire; returns what they completed, in order."""
        if self._is_spent:
            return []
        lines = (self._pending + chunk).split(b"\n")
        self._pending = lines.pop()
        events: list[Reply | Fault] = []
        for line in lines:
            event = self._take(line)
            if event is not None:
                events.append(event)
                if isinstance(event, Fault):
                    self._is_spent = True
                    return events
        if len(self._pending) >= LINE_OCTETS:
            self._is_spent = True
            events.append(Fault("a reply line is too long"))
        return events

    def _take(self, octets: bytes) -> Reply | Fault | None:
        if len(octets) >= LINE_OCTETS:
            return Fault("a reply line is too long")
        line = _parse(octets[:-1] if octets.endswith(b"\r") else octets)
        if line is None:
            return Fault("a reply line without a reply code")
        lines = self._lines
        if not lines and line.is_last:
            return line.reply
        if lines and lines[0].code != line.reply.code:
            return Fault("the lines of a reply have different codes")
        lines.append(line.reply)
        if not line.is_last:
            return Fault("a reply has too many lines") if len(lines) >= LINES else None
        self._lines = []
        return Reply(
            line.reply.code,
            next(filter(None, (reply.enhanced for reply in lines)), ""),
            tuple(text for reply in lines for text in reply.lines),
        )
