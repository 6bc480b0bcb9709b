"""Words that both halves of the outbound client share: what it can wait for, and our own causes."""

from __future__ import annotations

import enum
from typing import Final

from ..model.reply import Reply


class Awaited(enum.IntEnum):
    """What the next reply will answer; numbers the time limits of RFC 5321, 4.5.3.2.

    TLS is no reply: it is the handshake.  EMPTY_DOT is the end of a message that nobody gets
    (RFC 2920, 3.1).
    """

    GREETING = 0
    TLS = 1
    EHLO = 2
    HELO = 3
    STARTTLS = 4
    AUTH = 5
    RSET = 6
    MAIL = 7
    RCPT = 8
    DATA = 9
    BLOCK = 10
    DOT = 11
    EMPTY_DOT = 12
    QUIT = 13


NAMES: Final[dict[Awaited, str]] = {
    Awaited.GREETING: "the greeting",
    Awaited.TLS: "the TLS handshake",
    Awaited.BLOCK: "the content to be taken",
    Awaited.DOT: "the reply to the final dot",
    Awaited.EMPTY_DOT: "the reply to the final dot",
}
"""For texts; the others are called after their command."""


UNMET: Final = "5.7.30"
"""The status code of :func:`unmet` (RFC 8689, 7)."""


def name_of(awaited: Awaited) -> str:
    return NAMES.get(awaited) or f"the reply to {awaited.name}"


def unmet(why: str) -> Reply:
    """A cause for not sending on what requires TLS (RFC 8689, 4.2.1)."""
    return Reply(550, UNMET, (f"REQUIRETLS support required: {why}",))


def our_reply(enhanced: str, text: str) -> Reply:
    """A cause in the shape of a reply where no peer spoke: always 4yz, for it is never the
    sender's fault."""
    return Reply(451, enhanced, (text,))
