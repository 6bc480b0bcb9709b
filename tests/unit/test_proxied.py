"""What a proxy says of its client, and what we make of it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.reply import TABLE
from protege_mta.model.tally import Tally
from protege_mta.testing.doors import FakeDoor
from protege_mta.testing.smtp_dialog import Wire
from protege_mta.transport.proxied import ProxiedFactory
from protege_mta.transport.smtp_factory import SmtpServerFactory
from protege_mta.wire.proxy import BLOCK_OCTETS, SIGNATURE, Header, Malformed, crc32c, parse
from protege_mta.wire.settings import ServerSettings

TCP4: Final = bytes([198, 51, 100, 7, 192, 0, 2, 25]) + b"\x04\x01\x00\x19"
TCP6: Final = bytes.fromhex("20010db8" + "00" * 11 + "07" + "20010db8" + "00" * 11 + "19")
LINE: Final = b"PROXY TCP4 198.51.100.7 192.0.2.25 1025 25\r\n"


def block(family: int = 0x11, body: bytes = TCP4, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_checksum(more: bytes = b"") -> bytes:
    zeroed = block(body=TCP4 + tlv(3, bytes(4)) + more)
    at = len(zeroed) - len(more) - 4
    return zeroed[:at] + crc32c(zeroed).to_bytes(4, "big") + zeroed[at + 4 :]


class LineTests(SynchronousTestCase):
    """Version 1."""

    def test_good(self) -> None:
        for line, address, port in [
            (LINE, "198.51.100.7", 1025),
            (b"PROXY TCP6 2001:DB8::7 2001:db8::19 65535 0\r\n", "2001:db8::7", 65535),
            (b"PROXY TCP4 255.255.255.255 1.1.1.1 65535 65535\r\n", "255.255.255.255", 65535),
            (b"PROXY UNKNOWN\r\n", "", 0),
            (b"PROXY UNKNOWN ffff:f \xff anything\r\n", "", 0),
        ]:
            for rest in (b"", b"EHLO c.example\r\n"):
                self.assertEqual(parse(line + rest), Header(address, port, len(line)))

    def test_bad(self) -> None:
        for line in (
            b"PROXY TCP4 198.51.100.7 192.0.2.25 1025 25\n\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.25 1025\r\n",
            b"PROXY TCP4 198.51.100.7  192.0.2.25 1025 25\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.25 1025 25 \r\n",
            b"PROXY TCP4 198.51.100.07 192.0.2.25 1025 25\r\n",
            b"PROXY TCP4 198.51.100.256 192.0.2.25 1025 25\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.25 01025 25\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.25 65536 25\r\n",
            b"PROXY TCP4 198.51.100.7 192.0.2.25 -1 25\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::19 1025 25\r\n",
            b"PROXY TCP6 198.51.100.7 192.0.2.25 1025 25\r\n",
            b"PROXY TCP6 fe80::1%eth0 2001:db8::19 1025 25\r\n",
            b"PROXY UDP4 198.51.100.7 192.0.2.25 1025 25\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY \r\n",
            b"PROXY tcp4 198.51.100.7 192.0.2.25 1025 25\r\n",
            b"PROXY UNKNOWN " + b"x" * 94,
            b"EHLO c.example\r\n",
            b"\x16\x03\x01",
            b"PROXX",
        ):
            self.assertIsInstance(parse(line), Malformed, line)

    def test_no_more_is_waited_for_than_fits(self) -> None:
        longest = b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n"
        self.assertEqual(parse(longest), Header("", 0, 107))
        self.assertIsNone(parse(longest[:106]))
        self.assertIsInstance(parse(longest[:105] + b"x\r\n"), Malformed)


class BlockTests(SynchronousTestCase):
    """Version 2."""

    def test_good(self) -> None:
        for header, address, port in [
            (block(), "198.51.100.7", 1025),
            (block(0x21, TCP6 + b"\x04\x01\x00\x19"), "2001:db8::7", 1025),
            (block(body=TCP4 + tlv(0x20, b"") + tlv(2, b"mx.test")), "198.51.100.7", 1025),
            (with_checksum(), "198.51.100.7", 1025),
            (with_checksum(tlv(4, bytes(300))), "198.51.100.7", 1025),
            (block(0x00, b""), "", 0),
            (block(0x00, b"anything"), "", 0),
            (block(0x31, bytes(216)), "", 0),
            (block(0x00, b"", command=0x20), "", 0),
            (block(0xFF, b"discarded", command=0x20), "", 0),
            (block(body=TCP4 + tlv(4, bytes(BLOCK_OCTETS - 15))), "198.51.100.7", 1025),
        ]:
            for rest in (b"", b"\x16\x03\x01"):
                self.assertEqual(parse(header + rest), Header(address, port, len(header)))

    def test_bad(self) -> None:
        good = with_checksum()
        for header in (
            block(command=0x11),
            block(command=0x31),
            block(command=0x22),
            block(0x12),
            block(0x32, bytes(216)),
            block(0x41),
            block(0x13),
            block(body=TCP4[:-1]),
            block(0x21, TCP6),
            block(body=TCP4 + b"\x04"),
            block(body=TCP4 + b"\x04\x00"),
            block(body=TCP4 + b"\x04\x00\x02x"),
            block(body=TCP4 + tlv(3, bytes(3))),
            good[:-1] + bytes([good[-1] ^ 1]),
            good[:16] + bytes([good[16] ^ 1]) + good[17:],
            block(body=good[16:] + good[28:]),
            SIGNATURE + b"\x21\x11" + (BLOCK_OCTETS + 1).to_bytes(2, "big"),
            SIGNATURE[:-1] + b"\r",
        ):
            self.assertIsInstance(parse(header), Malformed, header)

    def test_a_checksum_as_others_make_it(self) -> None:
        """RFC 3720, B.4."""
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)


class Channel(Wire):
    """:ivar protocol: who gets what comes in; as with Twisted's own, it may be replaced."""

    protocol: IProtocol


class FactoryTests(SynchronousTestCase):
    """Proxies are at 192.0.2.0/24."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tally = Tally()
        self.door = FakeDoor()
        self.inner = SmtpServerFactory(
            self.door,
            ServerSettings("mx.test"),
            listener="mx",
            tally=self.tally,
            clock=self.clock,
            new_session_id=lambda: "s1",
            now=self.clock.seconds,
            new_nonce=lambda: "nonce",
        )
        self.factory = ProxiedFactory(
            self.inner, (ip_network("192.0.2.0/24"),), tally=self.tally, clock=self.clock
        )

    def connect(self, address: str) -> Channel:
        wire = Channel()
        protocol = self.factory.buildProtocol(IPv4Address("TCP", address, 40000))
        assert protocol is not None
        wire.protocol = protocol
        protocol.makeConnection(wire)
        return wire

    def test_the_client_is_who_the_proxy_says(self) -> None:
        for header in (LINE, block()):
            wire = self.connect("192.0.2.1")
            self.assertEqual((wire.value(), self.door.peers), (b"", []))
            wire.protocol.dataReceived(header)
            self.assertEqual(wire.value(), b"220 mx.test ESMTP ready\r\n")
            (peer,) = self.door.peers
            self.assertEqual((peer.address, peer.port), ("198.51.100.7", 1025))
            wire.protocol.connectionLost(connectionDone)
        self.assertEqual((self.tally.connections_in, self.tally.connections_in_open), (2, 0))

    def test_however_it_is_cut(self) -> None:
        for header in (LINE, block()):
            wire = self.connect("::ffff:192.0.2.1")
            for octet in header + b"NOOP\r\n":
                wire.protocol.dataReceived(bytes([octet]))
            self.assertEqual(wire.value(), b"220 mx.test ESMTP ready\r\n250 2.0.0 ok\r\n")
            wire.protocol.connectionLost(connectionDone)

    def test_what_comes_with_it_is_the_clients(self) -> None:
        wire = self.connect("192.0.2.1")
        wire.protocol.dataReceived(LINE + b"EHLO c.example\r\nNOOP\r\n")
        self.assertEqual(self.door.peers[0].helo, "c.example")
        self.assertTrue(wire.value().endswith(b"250 2.0.0 ok\r\n"))

    def test_without_an_address_it_is_the_proxy_itself(self) -> None:
        for header in (b"PROXY UNKNOWN\r\n", block(0x00, b"", command=0x20)):
            wire = self.connect("192.0.2.1")
            wire.protocol.dataReceived(header)
            (peer,) = self.door.peers
            self.assertEqual((peer.address, peer.port), ("192.0.2.1", 40000))
            wire.protocol.connectionLost(connectionDone)

    def test_a_proxy_that_says_nothing_of_the_kind_is_cut_off(self) -> None:
        for octets in (b"EHLO c.example\r\n", b"PROXY nonsense\r\n", b"\x16\x03\x01"):
            wire = self.connect("192.0.2.1")
            wire.protocol.dataReceived(octets)
            self.assertTrue(wire.is_aborted)
            wire.protocol.dataReceived(LINE)  # what the kernel had already
            wire.protocol.connectionLost(connectionDone)
            self.assertEqual(wire.value(), b"")
        self.assertEqual((self.door.peers, self.tally.proxy_headers_refused), ([], 3))

    def test_anybody_else_s_header_is_a_bad_command(self) -> None:
        wire = self.connect("203.0.113.9")
        wire.clear()
        wire.protocol.dataReceived(LINE)
        self.assertEqual(wire.value(), TABLE["bad-syntax"].octets())
        self.assertEqual(self.door.peers[0].address, "203.0.113.9")
        wire.protocol.dataReceived(block())
        self.assertEqual(self.door.peers[0].address, "203.0.113.9")

    def test_the_limits_are_the_clients_own(self) -> None:
        self.door.on_opened = lambda peer: (
            TABLE["too-many-connections"] if peer.address == "198.51.100.7" else None
        )
        wire = self.connect("192.0.2.1")
        wire.protocol.dataReceived(LINE + b"EHLO c.example\r\n")
        self.assertEqual(wire.value(), TABLE["too-many-connections"].octets())
        self.assertTrue(wire.disconnecting)

    def test_octet_by_octet_wins_no_time(self) -> None:
        wire = self.connect("192.0.2.1")
        for octet in LINE:
            wire.protocol.dataReceived(bytes([octet]))
            self.clock.advance(1)
            if wire.is_aborted:
                break
        self.assertTrue(10 <= self.clock.seconds() <= 20, self.clock.seconds())
        wire.protocol.connectionLost(connectionDone)
        self.factory.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_hang_up_before_the_header_leaves_nothing(self) -> None:
        wire = self.connect("192.0.2.1")
        wire.protocol.dataReceived(LINE[:20])
        wire.protocol.connectionLost(connectionDone)
        self.factory.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.tally.connections_in, 0)
