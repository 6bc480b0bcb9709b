"""The replies that carry our name: to a connection, to HELO, and to EHLO (RFC 5321, 4.1.1.1)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from ..model.reply import Reply


@lru_cache(maxsize=64)
def greeting(hostname: str) -> bytes:
    """220."""
    return Reply(220, "", (f"{hostname} ESMTP ready",)).octets()


@lru_cache(maxsize=64)
def hello(hostname: str) -> bytes:
    """To HELO."""
    return Reply(250, "", (hostname,)).octets()


@lru_cache(maxsize=64)
def abilities(
    hostname: str,
    message_octets: int,
    may_start_tls: bool,
    mechanisms: tuple[str, ...],
    more: tuple[str, ...] = (),
) -> bytes:
    """To EHLO.

    :param mechanisms: that AUTH takes on this channel.
    :param more: lines for what else is not offered to everybody.
    """
    offers = [hostname, "PIPELINING", f"SIZE {message_octets}"]
    # Never the last: GNU SASL's client looks for "250-" before them.
    if may_start_tls:
        offers.append("STARTTLS")
    if mechanisms:
        offers.append(" ".join(("AUTH", *mechanisms)))
    offers += [
        "8BITMIME",
        "ENHANCEDSTATUSCODES",
        "SMTPUTF8",
        "CHUNKING",
        "DSN",
    ]
    return Reply(250, "", (*offers, *more)).octets()


def future_release(longest_s: int, now: float) -> str:
    """The line for FUTURERELEASE (RFC 4865): the longest wait, and the latest time.

    The time is cut to the minute, so that replies to EHLO are made once in that.

    :param now: POSIX seconds.
    """
    latest = datetime.fromtimestamp(now // 60 * 60 + longest_s, UTC)
    return f"FUTURERELEASE {longest_s} {latest:%Y-%m-%dT%H:%M:%SZ}"
