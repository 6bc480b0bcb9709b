"""What a submission server adds to and takes from a message (RFC 6409, section 8).

Only the header section is touched, and of it only the fields named here: the octets of all others
stay as they are, and so do signatures that the client made.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Final

from .headers import values

_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_LINES: Final = re.compile(rb"(?:(?:[!-9;-~]+[ \t]*:|[ \t])[^\r\n]*\r\n)*")
_WHITE: Final = (b" ", b"\t")

_DATE_OCTETS: Final = 200  # with a day, a zone and a comment it has fewer than 60


class HeaderReader:
    """Takes a message in pieces and holds it back until its header section is whole.

    The section ends at the blank line, or before the first line that is no field: that line and
    what follows is the body of a message whose author left the blank line out, as other servers
    have it too.  A line ``From ...`` at the very start, which parts the messages of a mailbox file,
    belongs to neither.  The outcome is a function of the octets, however they are cut; a bare CR or
    LF ends no line.

    :param most_octets: within which the end has to show.
    """

    __slots__ = ("_at", "_held", "_most_octets", "_start")

    def __init__(self, most_octets: int) -> None:
        self._most_octets = most_octets
        self._held = bytearray()
        self._start = 0  # of the first field
        self._at = 0  # of the first line that has not been looked at

    @property
    def is_too_long(self) -> bool:
        """Whether the end can no longer show in time; nothing need be fed then."""
        return len(self._held) > self._most_octets

    def feed(self, octets: bytes) -> tuple[bytes, bytes] | None:
        """Take the next octets.

        :return: the fields, without the blank line, and what has come of the body, once that can
            be told; the reader is of no more use then.
        """
        held, most = self._held, self._most_octets
        held += octets
        if b"\n" not in octets:
            return None
        if not self._at and held.startswith(b"From ") and not _FIELD.match(held):
            end = held.find(b"\r\n", 0, most)
            if end < 0:
                return None
            self._start = self._at = end + 2
        if self._at == self._start and held.startswith(_WHITE, self._at):
            end = self._at  # there is nothing that it could be a fold of
        else:
            lines = _LINES.match(held, self._at, most)
            end = self._at = lines.end() if lines else self._at
        line_end = held.find(b"\r\n", end, most)
        if line_end < 0:
            return None
        body = end + 2 if line_end == end else end
        return bytes(held[self._start : end]), bytes(held[body:])

    def end(self) -> tuple[bytes, bytes]:
        """The content ends here; as :meth:`feed`.  A last line without a CRLF is given one."""
        self._most_octets = len(self._held) + 2
        return self.feed(b"\r\n") or (bytes(self._held[self._start :]), b"")


def split(message: bytes) -> tuple[bytes, bytes]:
    """The fields and the body of a whole message, as :class:`HeaderReader` tells them apart."""
    reader = HeaderReader(len(message))
    return reader.feed(message) or reader.end()


def repaired(fields: bytes, *, date: str, author: str, message_id: str) -> bytes:
    """A header section that may leave the house: complete, and without secret recipients.

    Bcc, Resent-Bcc and Return-Path go.  Date is added where there is none that can be read
    (RFC 6409, 8.2), Message-ID where there is none (8.3), From likewise.

    :param fields: as :class:`HeaderReader` gives them.
    :param date: a date-time (RFC 5322, 3.3).
    :param author: the value of From; empty for a message that must not be given one.
    :param message_id: with its angle brackets.
    :return: fields, without a blank line behind them.
    """
    kept = _UNFIT.sub(b"", fields)
    added = ""
    if not any(map(_is_date, values(kept, b"date"))):
        kept = _DATE.sub(b"", kept)
        added += f"Date: {date}\r\n"
    if author and not values(kept, b"from"):
        added += f"From: {author}\r\n"
    if not any(values(kept, b"message-id")):
        kept = _MESSAGE_ID.sub(b"", kept)
        added += f"Message-ID: {message_id}\r\n"
    return kept + added.encode("utf-8")


def named(names: bytes) -> re.Pattern[bytes]:
    """Whole fields, with their folds."""
    return re.compile(
        rb"^(?:" + names + rb")[ \t]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*",
        re.IGNORECASE | re.MULTILINE,
    )


_UNFIT: Final = named(b"bcc|resent-bcc|return-path")
_DATE: Final = named(b"date")
_MESSAGE_ID: Final = named(b"message-id")


def _is_date(value: bytes) -> bool:
    if len(value) > _DATE_OCTETS:
        return False
    try:
        parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, IndexError, OverflowError):
        return False
    return True
