"""Our TLS between transport and protocol does what Twisted's does, whatever comes, in memory.

OpenSSL as the client  <-- octets, cut as a test likes -->  LeanTls, or the stock class
"""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet import main
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.authority import Authority
from protege_mta.transport import fast_tls
from protege_mta.transport.fast_tls import LeanTls
from protege_mta.transport.tls_server import ServerContext

TLS_1_2, TLS_1_3 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
REPLY = b"250 2.1.0 sender ok\r\n"


@cache
def context() -> ServerContext:
    with TemporaryDirectory() as folder:
        return Authority(Path(folder)).context("mx.test")


class Listener:
    """The protocol behind TLS."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.reason: Failure | None = None
        self.then = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        self.then()

    def connectionLost(self, reason: Failure) -> None:
        self.reason = reason


class Tcp:
    """What TLS needs of a TCP transport."""

    connected = True

    def __init__(self, protocol: Listener) -> None:
        self.protocol: Any = protocol
        self.sent: list[bytes] = []
        self.is_due = self.is_ended = self.is_aborted = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def startWriting(self) -> None:
        self.is_due = True

    def loseConnection(self) -> None:
        self.is_ended = True

    def abortConnection(self) -> None:
        self.is_aborted = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None


class Ends:
    """A connection with both of its ends.

    :ivar all_sent: every octet that has left the server.
    """

    def __init__(self, *, is_lean: bool, version: int = TLS_1_3) -> None:
        self.listener = Listener()
        self.tcp = Tcp(self.listener)
        self._clock = Clock()
        self.tls: TLSMemoryBIOProtocol
        if is_lean:
            self.tls = LeanTls(self.tcp, context(), False)
        else:
            factory = TLSMemoryBIOFactory(context(), False, cast(Any, None), self._clock)
            self.tls = factory.protocol(factory, cast(Any, self.listener), False)
        self.tls.makeConnection(cast(Any, self.tcp))
        hello = SSL.Context(SSL.TLS_CLIENT_METHOD)
        hello.set_min_proto_version(version)
        hello.set_max_proto_version(version)
        self.client = SSL.Connection(hello, None)
        self.client.set_connect_state()
        self.all_sent = b""

    def shake_hands(self) -> Ends:
        for _ in range(3):
            with contextlib.suppress(SSL.WantReadError):
                self.client.do_handshake()
            self.receive(self.said())
            self.end_turn()
            self.deliver()
        return self

    def said(self, *plain: bytes) -> bytes:
        """What the client sends: these, a record each, and what it has to say of its own."""
        for one in plain:
            self.client.send(one)
        with contextlib.suppress(SSL.WantReadError):
            return self.client.bio_read(1 << 24)
        return b""

    def receive(self, octets: bytes) -> None:
        """The server has these from the network."""
        if octets and not (self.tcp.is_ended or self.tcp.is_aborted):
            self.tls.dataReceived(octets)

    def end_turn(self) -> None:
        if isinstance(self.tls, LeanTls):
            if self.tcp.is_due:
                self.tcp.is_due = False
                self.tls.seal()
        else:
            self._clock.advance(0)

    def deliver(self) -> None:
        """The client has what has left the server."""
        octets, self.tcp.sent = b"".join(self.tcp.sent), []
        self.all_sent += octets
        if octets:
            self.client.bio_write(octets)

    def answered(self) -> bytes:
        """What the client can read, with ``<end>`` behind it once the server has taken leave."""
        self.deliver()
        heard = b""
        try:
            while True:
                heard += self.client.recv(65536)
        except SSL.WantReadError:
            return heard
        except SSL.ZeroReturnError:
            return heard + b"<end>"

    @property
    def heard(self) -> bytes:
        return b"".join(self.listener.heard)

    def lose(self) -> type[object]:
        """The connection is gone.  :return: what the protocol hears."""
        self.tls.connectionLost(Failure(main.CONNECTION_DONE))
        assert self.listener.reason is not None
        return type(self.listener.reason.value)


class SeamTests(SynchronousTestCase):
    def test_this_release_of_twisted_has_what_we_touch(self) -> None:
        self.assertTrue(fast_tls.HAS_SEAMS)


class LeanTests(SynchronousTestCase):
    """What both promise; :class:`StockTests` shows that Twisted does."""

    is_lean = True

    def ends(self, version: int = TLS_1_3) -> Ends:
        return Ends(is_lean=self.is_lean, version=version).shake_hands()

    def test_a_dialog(self) -> None:
        """With both versions: what is said is heard, what is answered arrives."""
        for version in (TLS_1_2, TLS_1_3):
            ends = self.ends(version)
            for number in range(3):
                ends.receive(ends.said(b"NOOP %d\r\n" % number))
                self.assertEqual(ends.listener.heard[number], b"NOOP %d\r\n" % number)
                ends.tls.write(REPLY)
                ends.end_turn()
                self.assertEqual(ends.answered(), REPLY)

    def test_one_octet_at_a_time(self) -> None:
        ends = self.ends()
        for octet in ends.said(b"NOOP\r\n", b"RSET\r\n"):
            ends.receive(bytes([octet]))
        self.assertEqual(ends.listener.heard, [b"NOOP\r\n", b"RSET\r\n"])

    def test_many_records_at_once(self) -> None:
        """Big ones, and one that is not complete yet."""
        ends = self.ends()
        octets = ends.said(*[b"x" * 16384] * 5)
        ends.receive(octets[:-1])
        self.assertEqual(ends.heard, b"x" * 16384 * 4)
        ends.receive(octets[-1:])
        self.assertEqual(ends.heard, b"x" * 16384 * 5)

    def test_the_handshake_ends_with_content_behind_it(self) -> None:
        ends = Ends(is_lean=self.is_lean)
        with contextlib.suppress(SSL.WantReadError):
            ends.client.do_handshake()
        ends.receive(ends.said())
        ends.end_turn()
        ends.deliver()
        ends.client.do_handshake()
        ends.receive(ends.said(b"EHLO x\r\n"))
        self.assertEqual(ends.heard, b"EHLO x\r\n")

    def test_what_is_said_in_a_turn_is_one_record(self) -> None:
        """That leaves when it ends, with nothing of it in the clear."""
        ends = self.ends()
        for _ in range(10):
            ends.tls.write(REPLY)
        self.assertEqual(ends.tcp.sent, [])
        ends.end_turn()
        ends.deliver()
        self.assertEqual(ends.client.recv(65536), REPLY * 10)
        self.assertNotIn(b"250", ends.all_sent)

    def test_big_content_does_not_wait_for_the_end_of_the_turn(self) -> None:
        ends = self.ends()
        ends.tls.write(b"x" * 70_000)
        self.assertGreater(sum(map(len, ends.tcp.sent)), 70_000)
        self.assertEqual(ends.answered(), b"x" * 70_000)

    def test_what_is_written_before_the_handshake_waits_for_it(self) -> None:
        ends = Ends(is_lean=self.is_lean)
        ends.tls.write(b"220 mx.test\r\n")
        ends.end_turn()
        self.assertEqual(ends.tcp.sent, [])
        ends.shake_hands()
        self.assertEqual(ends.answered(), b"220 mx.test\r\n")
        self.assertNotIn(b"220", ends.all_sent)

    def test_an_end_comes_behind_what_was_said(self) -> None:
        ends = self.ends()
        ends.tls.write(b"221 2.0.0 bye\r\n")
        ends.tls.loseConnection()
        ends.tls.write(b"too late")
        ends.end_turn()
        self.assertEqual(ends.answered(), b"221 2.0.0 bye\r\n<end>")
        self.assertFalse(ends.tcp.is_ended)  # until the client has taken leave as well
        ends.client.shutdown()
        ends.receive(ends.said())
        self.assertTrue(ends.tcp.is_ended)
        self.assertIs(ends.lose(), ConnectionDone)

    def test_a_client_that_takes_leave_is_answered(self) -> None:
        ends = self.ends()
        farewell = ends.said(b"QUIT\r\n")
        ends.client.shutdown()
        ends.receive(farewell + ends.said())
        self.assertEqual(ends.heard, b"QUIT\r\n")
        self.assertTrue(ends.tcp.is_ended)
        self.assertEqual(ends.answered(), b"<end>")
        self.assertIs(ends.lose(), ConnectionDone)

    def test_a_client_that_is_gone_has_not_taken_leave(self) -> None:
        """In the midst of a record, or between two."""
        for count in (0, 10):
            ends = self.ends()
            ends.receive(ends.said(b"NOOP\r\n")[:count])
            self.assertIs(ends.lose(), ConnectionLost)

    def test_what_is_no_record_ends_the_connection(self) -> None:
        """At once, however much its header promises; and what is behind it is not heard."""
        for octets in (b"NOOP\r\n", b"\x17\x03\x03\xff\xff", b"\x17\x09\x03\x00\x10"):
            ends = self.ends()
            ends.receive(octets)
            self.assertTrue(ends.tcp.is_ended, octets)
            self.assertEqual(ends.heard, b"")
            self.assertIs(ends.lose(), SSL.Error)

    def test_a_record_that_was_changed_ends_the_connection(self) -> None:
        ends = self.ends()
        good, bad = ends.said(b"NOOP\r\n"), ends.said(b"RSET\r\n")
        ends.receive(good + bad[:-1] + bytes([bad[-1] ^ 1]))
        self.assertEqual(ends.heard, b"NOOP\r\n")
        self.assertTrue(ends.tcp.is_ended)
        self.assertIs(ends.lose(), SSL.Error)

    def test_nothing_is_heard_after_an_abort(self) -> None:
        ends = self.ends()
        ends.listener.then = ends.tls.abortConnection
        ends.receive(ends.said(b"NOOP\r\n", b"RSET\r\n"))
        self.assertEqual(ends.heard, b"NOOP\r\n")
        self.assertTrue(ends.tcp.is_aborted)

    def test_a_producer_is_paused_and_resumed(self) -> None:
        asked: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                asked.append("pause")

            def resumeProducing(self) -> None:
                asked.append("resume")

        ends = self.ends()
        ends.tls.registerProducer(Producer(), True)
        ends.tcp.producer.pauseProducing()
        ends.tcp.producer.resumeProducing()
        self.assertEqual(asked, ["pause", "resume"])
        ends.tls.loseConnection()  # not while there is one
        ends.tls.write(b"the last")
        ends.end_turn()
        self.assertEqual(ends.answered(), b"the last")
        ends.tls.unregisterProducer()
        self.assertIsNone(ends.tcp.producer)
        self.assertEqual(ends.answered(), b"<end>")


class StockTests(LeanTests):
    """The same of Twisted's own."""

    is_lean = False


class LateSealingTests(SynchronousTestCase):
    def test_the_last_words_of_a_producer_are_heard(self) -> None:
        """Though it goes in the turn in which it said them, and the connection is to end."""
        ends = Ends(is_lean=True).shake_hands()
        ends.tls.registerProducer(object(), True)
        ends.tls.loseConnection()
        ends.tls.write(b"the last")
        ends.tls.unregisterProducer()
        self.assertEqual(ends.answered(), b"the last<end>")
