"""The replies that carry our name: to a connection, to HELO, and to EHLO (RFC 5321, 4.1.1.1)."""

from __future__ import annotations

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
    hostname: str, message_octets: int, may_start_tls: bool, mechanisms: tuple[str, ...]
) -> bytes:
    """To EHLO.

    :param mechanisms: that AUTH takes on this channel.
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
    return Reply(250, "", tuple(offers)).octets()
