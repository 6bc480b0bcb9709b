"""What a proxy says of the client it stands for: the PROXY protocol, versions 1 and 2.

HAProxy's ``proxy-protocol.txt``, sections 2.1 and 2.2.  Pure, and a function of the stream, not of
its chunks.  Who may say such a thing, and how long it may take, is for others to know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

import attrs

LINE_OCTETS: Final = 107
"""Longest header of version 1, its CRLF included."""

BLOCK_OCTETS: Final = 4096
"""More addresses and TLVs than this, in version 2, are no header of ours to read; the protocol
wants senders to stay below 536 octets."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""Version 2 begins with it."""

_FIXED_OCTETS: Final = 16
_PROXY: Final = b"PROXY "
_PORT: Final = r"(0|[1-9][0-9]{0,4})"
_LINE: Final = re.compile(rf"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) {_PORT} {_PORT}\Z")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: .*)?\Z", re.DOTALL)

_LOCAL: Final = 0x20
_FORWARDED: Final = 0x21

_UNSPECIFIED: Final = frozenset({0x00, 0x01, 0x02, 0x10, 0x20, 0x30})
"""Family or protocol unknown to the proxy: there is nothing to read an address from."""

_TCP4: Final = 0x11
_TCP6: Final = 0x21
_ADDRESS_OCTETS: Final = {_TCP4: 12, _TCP6: 36, 0x31: 216}
"""By family and protocol: TCP over IPv4 and IPv6, UNIX stream sockets."""

_CRC32C: Final = 0x03


@attrs.frozen
class Header:
    """A whole header.

    :ivar address: the client's IP address; empty where there is none to be known, as for the
        proxy's own health checks, so that the connection's real endpoints count.
    :ivar port: likewise.
    :ivar size: how many octets of the stream the header took.
    """

    address: str
    port: int
    size: int


@attrs.frozen
class Malformed:
    """No header, and none can come of it.  :ivar why: for the log; no octets of the peer's."""

    why: str


def parse(octets: bytes) -> Header | Malformed | None:
    """Read the header at the beginning of a stream.

    :param octets: all that has come so far.
    :return: None where more has to come; that is never so beyond 16 + :data:`BLOCK_OCTETS` octets.
    """
    if octets.startswith(SIGNATURE):
        return _block(octets)
    if octets.startswith(_PROXY):
        return _line(octets)
    if SIGNATURE.startswith(octets) or _PROXY.startswith(octets):
        return None
    return Malformed("no PROXY header")


def _line(octets: bytes) -> Header | Malformed | None:
    """Version 1."""
    end = octets.find(b"\r\n", 0, LINE_OCTETS)
    if end < 0:
        return Malformed("line without an end") if len(octets) >= LINE_OCTETS else None
    line, size = octets[:end], end + 2
    if _UNKNOWN.match(line):
        return Header("", 0, size)
    match = _LINE.match(line.decode("latin-1"))
    if match is None:
        return Malformed("syntax error in the line")
    kind = IPv4Address if match[1] == "4" else IPv6Address
    try:
        source, _ = kind(match[2]), kind(match[3])
    except AddressValueError:
        return Malformed("no address of the family that is named")
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        return Malformed("no port")
    return Header(str(source), ports[0], size)


def _block(octets: bytes) -> Header | Malformed | None:
    """Version 2."""
    if len(octets) < _FIXED_OCTETS:
        return None
    command, family = octets[12], octets[13]
    length = int.from_bytes(octets[14:16], "big")
    size = _FIXED_OCTETS + length
    if command not in (_LOCAL, _FORWARDED):
        return Malformed("unknown version or command")
    if length > BLOCK_OCTETS:
        return Malformed("header too long")
    if len(octets) < size:
        return None
    if command == _LOCAL or family in _UNSPECIFIED:
        return Header("", 0, size)
    if family not in _ADDRESS_OCTETS:
        return Malformed("not a family that comes over TCP")
    begin = _FIXED_OCTETS + _ADDRESS_OCTETS[family]
    if begin > size:
        return Malformed("address cut short")
    why = _fault_of_tlvs(octets[:size], begin)
    if why:
        return Malformed(why)
    if family == _TCP4:
        return Header(str(IPv4Address(octets[16:20])), _port(octets, 24), size)
    if family == _TCP6:
        return Header(str(IPv6Address(octets[16:32])), _port(octets, 48), size)
    return Header("", 0, size)


def _port(octets: bytes, at: int) -> int:
    return int.from_bytes(octets[at : at + 2], "big")


def _fault_of_tlvs(header: bytes, begin: int) -> str:
    """What is wrong with the TLVs behind the addresses; empty where nothing is."""
    at, has_checksum = begin, False
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if end > len(header) or value > len(header):
            return "TLV cut short"
        if header[at] == _CRC32C:
            if end - value != 4 or has_checksum:
                return "checksum of another length, or a second one"
            has_checksum = True
            zeroed = header[:value] + bytes(4) + header[end:]
            if crc32c(zeroed) != int.from_bytes(header[value:end], "big"):
                return "wrong checksum"
        at = end
    return ""


# --- CRC-32C -------------------------------------------------------------------------------------


def _table() -> Iterator[int]:
    for octet in range(256):
        rest = octet
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
        yield rest


_TABLE: Final = tuple(_table())


def crc32c(octets: bytes) -> int:
    """The checksum of RFC 4960, appendix B; octet by octet, for a few hundred of them."""
    rest = 0xFFFF_FFFF
    for octet in octets:
        rest = _TABLE[(rest ^ octet) & 0xFF] ^ (rest >> 8)
    return rest ^ 0xFFFF_FFFF
