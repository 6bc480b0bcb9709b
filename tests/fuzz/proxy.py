"""What proxies, and who pretends to be one, say before the client does."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from protege_mta.wire.proxy import (
    BLOCK_OCTETS,
    LINE_OCTETS,
    SIGNATURE,
    Header,
    Malformed,
    crc32c,
    parse,
)

from .target import Target


def header(data: bytes) -> None:
    """A stream: what is said of it never changes as more comes."""
    first = None
    for size in range(min(len(data), 300) + 1):
        said = parse(data[:size])
        first = first or said
        assert type(said) is type(first), "more octets made it another thing"
    whole = parse(data)
    if first is not None:
        assert type(whole) is type(first)
    match whole:
        case Header(address=address, port=port, size=size):
            assert 0 < size <= len(data), "longer than what there is"
            assert parse(data[:size]) == whole, "what comes behind it is read"
            assert parse(data[: size - 1]) is None, "it was whole before its end"
            assert not address or str(ip_address(address)) == address
            assert 0 <= port <= 65535
            assert size <= LINE_OCTETS or data.startswith(SIGNATURE)
        case Malformed(why=why):
            assert why.isascii()
            assert "\n" not in why
        case None:
            assert len(data) < 16 + BLOCK_OCTETS, "waits for more than fits"


_ADDRESSES: Final = bytes([198, 51, 100, 7, 192, 0, 2, 25, 4, 1, 0, 25])


def _block(family: int, body: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def _checked() -> bytes:
    zeroed = _block(0x11, _ADDRESSES + b"\x03\x00\x04" + bytes(4))
    return zeroed[:-4] + crc32c(zeroed).to_bytes(4, "big")


HEADER: Final = Target(
    "proxy_header",
    header,
    [
        b"PROXY TCP4 198.51.100.7 192.0.2.25 1025 25\r\nEHLO c.example\r\n",
        b"PROXY TCP6 2001:db8::7 2001:db8::19 1025 25\r\n",
        b"PROXY UNKNOWN\r\n",
        _block(0x11, _ADDRESSES) + b"\x16\x03\x01",
        _block(0x21, bytes(36)),
        _block(0x31, bytes(216)),
        _block(0x00, b"", 0x20),
        _block(0x11, _ADDRESSES + b"\x02\x00\x07mx.test\x04\x00\x01x"),
        _checked(),
    ],
    (
        b"PROXY ", b"TCP4", b"TCP6", b"UNKNOWN", b" ", b"\r\n", b"\r", b"65535", b"0", b"::", b"%1",
        b"198.51.100.7", b"2001:db8::7", SIGNATURE, b"\x21\x11", b"\x20\x00", b"\x21\x21", b"\x21\x31",
        b"\x00\x0c", b"\x03\x00\x04", b"\x04\x00\x00", b"\xff\xff",
    ),
)  # fmt: skip
