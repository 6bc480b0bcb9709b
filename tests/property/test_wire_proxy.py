"""The PROXY header for any octets, any addresses and any cut."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.wire.proxy import (
    BLOCK_OCTETS,
    LINE_OCTETS,
    SIGNATURE,
    Header,
    Malformed,
    crc32c,
    parse,
)

Address = IPv4Address | IPv6Address

PORTS = st.integers(0, 65535)
TLVS = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)),
    max_size=4,
)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, Header]:
    """A good header, and what it says."""
    is_ipv6 = draw(st.booleans())
    ends = draw(st.lists(st.ip_addresses(v=6 if is_ipv6 else 4), min_size=2, max_size=2))
    ports = draw(st.lists(PORTS, min_size=2, max_size=2))
    if draw(st.booleans()):
        line = (
            f"PROXY TCP{6 if is_ipv6 else 4} {ends[0]} {ends[1]} {ports[0]} {ports[1]}\r\n".encode()
        )
        return line, Header(str(ends[0]), ports[0], len(line))
    body = b"".join(each.packed for each in ends)
    body += b"".join(port.to_bytes(2, "big") for port in ports)
    for kind, value in draw(TLVS):
        body += bytes([kind]) + len(value).to_bytes(2, "big") + value
    has_checksum = draw(st.booleans())
    if has_checksum:
        body += b"\x03\x00\x04" + bytes(4)
    family = b"\x21" if is_ipv6 else b"\x11"
    block = SIGNATURE + b"\x21" + family + len(body).to_bytes(2, "big") + body
    if has_checksum:
        block = block[:-4] + crc32c(block).to_bytes(4, "big")
    return block, Header(str(ends[0]), ports[0], len(block))


STREAMS = st.one_of(
    st.binary(max_size=200),
    st.builds(bytes.__add__, st.just(b"PROXY "), st.binary(max_size=200)),
    st.builds(bytes.__add__, st.just(SIGNATURE), st.binary(max_size=300)),
    st.builds(
        lambda good, at, octet: (
            good[0][: at % len(good[0])] + octet + good[0][at % len(good[0]) + 1 :]
        ),
        headers(),
        st.integers(0, 500),
        st.binary(max_size=2),
    ),
)


class ProxyTests(SynchronousTestCase):
    @given(headers(), st.binary(max_size=50))
    def test_what_is_said_is_understood(self, good: tuple[bytes, Header], rest: bytes) -> None:
        octets, header = good
        self.assertEqual(parse(octets + rest), header)

    @given(headers())
    def test_no_less_will_do(self, good: tuple[bytes, Header]) -> None:
        octets, _ = good
        for size in range(len(octets)):
            self.assertIsNone(parse(octets[:size]))

    @given(STREAMS)
    def test_chunks_are_invisible_and_any_octets_get_an_answer(self, octets: bytes) -> None:
        """Whatever is said of a beginning holds for all that goes on from it."""
        first = None
        for size in range(len(octets) + 1):
            said = parse(octets[:size])
            if first is None:
                first = said
            elif isinstance(first, Header):
                self.assertEqual(said, first)
            else:
                self.assertIsInstance(said, Malformed)
        if isinstance(first, Header):
            self.assertLessEqual(first.size, len(octets))

    @given(st.sampled_from([b"PROXY ", SIGNATURE]), st.binary(min_size=64, max_size=64))
    def test_nothing_is_waited_for_for_ever(self, begin: bytes, unit: bytes) -> None:
        octets = begin + unit * (BLOCK_OCTETS // len(unit) + 2)
        self.assertIsNotNone(parse(octets[: 16 + BLOCK_OCTETS]))
        if begin == b"PROXY ":
            self.assertIsNotNone(parse(octets[:LINE_OCTETS]))
