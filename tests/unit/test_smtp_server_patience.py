"""How long we wait for whom: early talkers, and clients that send one octet at a time.

The state before the header of a proxy is in ``test_proxied``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.reply import TABLE
from protege_mta.model.tally import Tally
from protege_mta.testing.doors import FakeDoor
from protege_mta.testing.smtp_dialog import Client, Wire
from protege_mta.transport.smtp_factory import SmtpServerFactory
from protege_mta.wire.settings import ServerSettings

GREETING = b"220 mx.test ESMTP ready\r\n"
TRANSACTION = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


class Case(SynchronousTestCase):
    """:ivar greet_delay_s: of the listener."""

    greet_delay_s = 0.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.door = FakeDoor()
        self.factory = SmtpServerFactory(
            self.door,
            ServerSettings("mx.test"),
            listener="mx",
            tally=Tally(),
            clock=self.clock,
            new_session_id=lambda: "s1",
            now=self.clock.seconds,
            new_nonce=lambda: "nonce",
            tls=cast(IOpenSSLServerConnectionCreator, object()),
            greet_delay_s=self.greet_delay_s,
        )

    def connect(self) -> Client:
        return Client(factory=self.factory)


class EarlyTalkerTests(Case):
    """RFC 5321, 3.1 and 4.3.1: the server speaks first."""

    greet_delay_s = 4.0

    def test_who_waits_is_greeted(self) -> None:
        client = self.connect()
        self.clock.advance(3.9)
        self.assertEqual(client.hear(), b"")
        self.clock.advance(0.1)
        self.assertEqual(client.hear(), GREETING)
        self.assertEqual(client.codes(b"EHLO c.example\r\n"), [250])
        self.assertEqual(self.door.peers[0].offence, "")

    def test_who_does_not_is_sent_away(self) -> None:
        for octets in (b"EHLO c.example\r\nMAIL FROM:<>\r\n", b"E", b"\x16\x03\x01", b"\r\n"):
            client = self.connect()
            self.assertEqual(client.say(octets), b"")
            self.clock.advance(4.0)
            self.assertEqual(client.hear(), TABLE["talked-early"].octets())
            self.assertTrue(client.transport.disconnecting)
            self.assertEqual(client.say(b"EHLO c.example\r\n"), b"")
            self.assertEqual(self.door.peers[0].offence, "talked-early")
            client.connection.connectionLost()
        self.assertEqual(TABLE["talked-early"].code, 554)

    def test_it_cannot_fill_our_memory_meanwhile(self) -> None:
        client = self.connect()
        client.say(b"x" * 65536)
        client.say(b"x" * 65536)
        self.assertNotEqual(client.transport.producerState, "producing")

    def test_a_refused_connection_hears_why_at_once(self) -> None:
        self.door.on_opened = lambda peer: TABLE["too-many-connections"]
        self.assertEqual(self.connect().hear(), TABLE["too-many-connections"].octets())
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # the sweep's

    def test_a_hang_up_ends_the_wait(self) -> None:
        client = self.connect()
        client.connection.connectionLost()
        self.factory.doStop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_who_is_waiting_when_we_shut_down_is_sent_away(self) -> None:
        client = self.connect()
        drained = self.factory.drain()
        self.clock.advance(4.0)
        self.assertEqual(client.hear(), TABLE["shutting-down"].octets())
        client.connection.connectionLost()
        self.successResultOf(drained)

    def test_a_reload_is_for_new_connections(self) -> None:
        self.factory.greet_delay_s = 0.0
        self.assertEqual(self.connect().hear(), GREETING)


class Encrypting(Wire):
    """:ivar is_encrypted: whether TLS was begun."""

    is_encrypted = False

    def startTLS(self, contextFactory: IOpenSSLServerConnectionCreator) -> None:
        self.is_encrypted = True

    def getHandle(self) -> SSL.Connection:
        raise AssertionError("nobody shakes hands here")


class SlowTests(Case):
    """Whatever comes next, it has to come in its time, however many octets of it do."""

    def dribble(
        self, client: Client, octet: bytes, limit_s: float, has_ended: Callable[[], bool]
    ) -> None:
        """An octet every nine seconds, until we have had enough; within ``limit_s`` of the
        beginning, twice the coarseness of the sweep and an octet's time aside."""
        began_at = self.clock.seconds()
        while not has_ended():
            waited_s = self.clock.seconds() - began_at
            self.assertLessEqual(waited_s, limit_s + 20, "it goes on for ever")
            self.clock.pump([4.5, 4.5])
            client.connection.dataReceived(octet)
        self.assertGreaterEqual(self.clock.seconds() - began_at, limit_s)

    def says_too_long(self, client: Client) -> Callable[[], bool]:
        return lambda: client.hear().endswith(TABLE["idle-too-long"].octets())

    def test_silence_before_the_first_command(self) -> None:
        client = self.connect()
        self.dribble(client, b"", 300, self.says_too_long(client))

    def test_a_command(self) -> None:
        client = self.connect()
        client.say(b"EHLO c.example\r\n")
        self.dribble(client, b"N", 300, self.says_too_long(client))

    def test_a_command_that_is_too_long(self) -> None:
        """Its octets are thrown away as they come, and win nothing."""
        client = self.connect()
        client.say(b"N" * 5000)
        self.dribble(client, b"N", 300, self.says_too_long(client))

    def test_a_response_in_auth(self) -> None:
        self.factory.settings = ServerSettings("mx.test", mechanisms=("PLAIN",))
        client = self.connect()
        client.hear()
        self.assertEqual(client.codes(b"EHLO c.example\r\nAUTH PLAIN\r\n"), [250, 334])
        self.dribble(client, b"x", 300, self.says_too_long(client))

    def test_data(self) -> None:
        client = self.connect()
        client.say(TRANSACTION + b"DATA\r\n")
        self.dribble(client, b"x", 300, self.says_too_long(client))
        self.assertEqual(self.door.intakes[0].ended, "aborted")

    def test_line_ends_of_data(self) -> None:
        """Whole lines are no progress either, where they are short."""
        client = self.connect()
        client.say(TRANSACTION + b"DATA\r\n")
        self.dribble(client, b"\r\n", 300, self.says_too_long(client))

    def test_the_end_of_data(self) -> None:
        client = self.connect()
        client.say(TRANSACTION + b"DATA\r\nx\r\n")
        self.dribble(client, b".", 300, self.says_too_long(client))

    def test_a_chunk(self) -> None:
        client = self.connect()
        client.say(TRANSACTION + b"BDAT 1000000 LAST\r\n")
        self.dribble(client, b"x", 300, self.says_too_long(client))
        self.assertEqual(self.door.intakes[0].ended, "aborted")

    def test_a_chunk_that_was_refused(self) -> None:
        client = self.connect()
        client.say(b"EHLO c.example\r\nBDAT 1000000 LAST\r\n")
        self.dribble(client, b"x", 300, self.says_too_long(client))

    def encrypting(self, *, is_tls_first: bool) -> tuple[Client, Encrypting]:
        self.factory.is_tls_first = is_tls_first
        client = Client()
        wire = Encrypting()
        client.transport = wire
        client.connection = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1025))
        client.connection.makeConnection(cast(Any, wire))
        return client, wire

    def test_a_handshake(self) -> None:
        """Its octets do not even reach us; the time runs from its beginning."""
        for is_tls_first in (True, False):
            client, wire = self.encrypting(is_tls_first=is_tls_first)
            if not is_tls_first:
                client.say(b"EHLO c.example\r\nSTARTTLS\r\n")
            self.assertTrue(wire.is_encrypted)
            self.dribble(client, b"", 60, lambda wire=wire: wire.is_aborted)  # type: ignore[misc]
            client.connection.connectionLost()

    def test_a_farewell_that_is_not_read(self) -> None:
        client = self.connect()
        client.say(b"QUIT\r\n")
        self.dribble(client, b"x", 30, lambda: client.transport.is_aborted)

    def test_replies_that_are_not_read(self) -> None:
        client = self.connect()
        client.connection.pauseProducing()
        self.dribble(client, b"N", 300, lambda: client.transport.is_aborted)
