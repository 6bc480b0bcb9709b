"""Trace fields that we put in front of a message (RFC 5321, section 4.4)."""

from __future__ import annotations

import datetime
import functools
import re
from typing import Final

from ..model.address import DOMAIN_OCTETS, Address
from ..model.ids import QueueId
from ..model.outcome import TlsFacts

TUNNEL: Final = "WSS"
"""The WITH keyword of what came through a tunnel, wherever its TLS ends; IANA has none for
WebSocket."""

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
)  # fmt: skip
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_HELO: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|\[[A-Za-z0-9.:]+\]")


@functools.lru_cache(4)  # a busy second stamps thousands of messages
def date(at: int) -> str:
    """A date-time in UTC (RFC 5322, 3.3).  :param at: POSIX seconds."""
    when = _EPOCH + datetime.timedelta(seconds=at)
    return (
        f"{_DAYS[when.weekday()]}, {when.day:02} {_MONTHS[when.month - 1]} {when.year:04}"
        f" {when.hour:02}:{when.minute:02}:{when.second:02} +0000"
    )


def protocol(
    *,
    is_esmtp: bool,
    is_encrypted: bool = False,
    is_authenticated: bool = False,
    is_smtputf8: bool = False,
) -> str:
    """The WITH keyword of an SMTP session (RFC 3848; RFC 6531, 4.3)."""
    if not is_esmtp:
        return "SMTP"
    base = "UTF8SMTP" if is_smtputf8 else "ESMTP"
    return base + ("S" if is_encrypted else "") + ("A" if is_authenticated else "")


def received(
    *,
    hostname: str,
    id: QueueId,
    at: float,
    protocol: str,
    helo: str = "",
    peer_address: str = "",
    tls: TlsFacts | None = None,
    recipient: Address | None = None,
) -> bytes:
    """The Received field of one message, folded, with its CRLF.

    :param hostname: ours.
    :param at: when we took responsibility, POSIX seconds.
    :param protocol: the WITH keyword, :func:`protocol` for SMTP; empty where there was none.
    :param helo: the argument of HELO or EHLO; one that is neither a domain nor an address literal
        is left out.
    :param peer_address: IP address; empty where it is not to be told.  Without a ``helo`` too, as
        from local doors, there is no FROM clause.
    :param recipient: the one recipient, or None where there are several: who else got the message
        is nobody's business (RFC 5321, 7.6).  One beyond US-ASCII is left out too, so that the
        field fits any hop.
    """
    came = _from(helo, peer_address)
    with_protocol = f" with {protocol}" if protocol else ""
    lines = f"{came}by {hostname}{with_protocol} id {id}"
    if tls is not None:
        lines += f"\r\n\t({tls.protocol} {tls.cipher})"
    if recipient and recipient.isascii():
        lines += f"\r\n\tfor <{recipient}>"
    return f"Received: {lines};\r\n\t{date(int(at))}\r\n".encode("ascii")


def streamed(
    *,
    hostname: str,
    id: QueueId,
    at: float,
    recipient: Address,
    peer_address: str,
    relay: str = "",
    tls: TlsFacts | None = None,
) -> bytes:
    """:func:`received` for a stream of a tunnel.

    :param relay: the name of the relay server that it came from; empty for an agent's.
    """
    return received(
        hostname=hostname,
        id=id,
        at=at,
        protocol=TUNNEL,
        helo=relay,
        peer_address=peer_address,
        tls=tls,
        recipient=recipient,
    )


@functools.lru_cache(1024)  # most mail comes from few clients; looking it up takes 1 us less
def _from(helo: str, peer_address: str) -> str:
    name = helo if len(helo) <= DOMAIN_OCTETS and _HELO.fullmatch(helo) else ""
    if not peer_address:
        return f"from {name}\r\n\t" if name else ""
    literal = f"[IPv6:{peer_address}]" if ":" in peer_address else f"[{peer_address}]"
    return f"from {name or literal} ({literal})\r\n\t"


def return_path(sender: Address) -> bytes:
    """What final delivery puts first (RFC 5321, 4.4)."""
    return f"Return-Path: <{sender}>\r\n".encode()


def delivered_to(recipient: Address) -> bytes:
    """What final delivery leaves for :mod:`.loop` to find (RFC 9228)."""
    return f"Delivered-To: {recipient}\r\n".encode()
