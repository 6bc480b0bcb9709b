"""The ESMTP server on loopback, over Twisted's stock TCP and over ours, with and without TLS.

smtplib, or a bare socket in a thread  -- loopback -->  SmtpServerFactory, FakeDoor
"""

from __future__ import annotations

import contextlib
import os
import secrets
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from select import select
from typing import Any, TypeVar, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorCore, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from protege_mta.model.outcome import TlsFacts
from protege_mta.model.ports import Peer
from protege_mta.model.reply import Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.authority import Authority
from protege_mta.testing.doors import FakeDoor
from protege_mta.transport import fast, fast_tls
from protege_mta.transport.listening import bind
from protege_mta.transport.smtp_factory import SmtpServerFactory
from protege_mta.transport.tls_server import ServerContext
from protege_mta.wire.settings import ServerSettings

from ..e2e.service import needs

BODY = b"Subject: x\r\n\r\n" + b".a dot and more\r\n" * 20_000

Result = TypeVar("Result")


class Case(TestCase):
    """Over our TCP and the lean dispatch."""

    timeout = 30
    is_fast = True
    is_fast_tls = True

    def setUp(self) -> None:
        self.door = FakeDoor()
        self.tally = Tally()
        self.peers: list[Peer] = []
        self.door.on_opened = self.peers.append
        if not self.is_fast_tls:
            self.patch(fast_tls, "HAS_SEAMS", False)
        if self.is_fast:
            self.assertTrue(fast._HAS_SEAMS)
            self.assertTrue(fast.install(cast(IReactorCore, _reactor)))
            self.addCleanup(self.uninstall)
        else:
            # As if a release of Twisted had changed what the short cuts touch.
            self.patch(fast, "_HAS_SEAMS", False)

    def uninstall(self) -> None:
        for name in fast.ADDED:
            _reactor.__dict__.pop(name, None)

    def context(self) -> ServerContext:
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority(folder)
        self.trusting = ssl.create_default_context(cafile=str(authority.ca_file))
        return authority.context("127.0.0.1")

    def in_front(self, factory: SmtpServerFactory) -> IProtocolFactory:
        """What the port has."""
        return factory

    async def serve(
        self, talk: Callable[[int], Result], tls: ServerContext | None = None, **options: Any
    ) -> Result:
        """What ``talk`` has to tell after it has spoken, in a thread, to our port."""
        self.factory = factory = SmtpServerFactory(
            self.door,
            ServerSettings("mx.test", handshake_s=5.0),
            listener="mx",
            tally=self.tally,
            clock=cast(IReactorTime, _reactor),
            now=time.time,
            new_session_id=lambda: "s1",
            new_nonce=lambda: secrets.token_urlsafe(18),
            tls=tls,
            **options,
        )
        port = bind("mx", "127.0.0.1", 0).accept(
            cast(IReactorCore, _reactor), self.in_front(factory)
        )
        try:
            return cast(Result, await deferToThread(talk, cast(IPv4Address, port.getHost()).port))
        finally:
            await cast(Deferred[None], port.stopListening())
            await factory.drain()


def converse(port: int, *says: bytes, until: bytes = b"") -> bytes:
    """Say each after something was heard, then hear the rest."""
    with socket.create_connection(("127.0.0.1", port), 10) as channel:
        heard = b""
        for say in says:
            heard += channel.recv(65536)
            channel.sendall(say)
        while piece := channel.recv(65536):
            heard += piece
        return heard


class PlainTests(Case):
    async def test_smtplib_sends_many_messages_over_one_connection(self) -> None:
        def talk(port: int) -> None:
            with smtplib.SMTP("127.0.0.1", port, "client.test", 10) as client:
                for _ in range(3):
                    client.sendmail("a@b.example", ["c@d.example", "e@f.example"], BODY)

        await self.serve(talk)
        self.assertEqual([message.content for message in self.door.messages], [BODY] * 3)
        self.assertEqual(self.peers[0].helo, "client.test")
        self.assertEqual((self.tally.connections_in, self.tally.connections_in_open), (1, 0))

    async def test_a_farewell_reaches_the_client(self) -> None:
        heard = await self.serve(lambda port: converse(port, b"NOOP\r\nQUIT\r\n"))
        self.assertEqual(
            heard,
            b"220 mx.test ESMTP ready\r\n250 2.0.0 ok\r\n221 2.0.0 closing channel\r\n",
        )

    async def test_an_answer_that_comes_later_is_sent_then(self) -> None:
        def later(recipient: object) -> Deferred[Reply]:
            answer: Deferred[Reply] = Deferred()
            reply = Reply(450, "4.2.1", ("later",))
            cast(IReactorTime, _reactor).callLater(0.01, answer.callback, reply)
            return answer

        self.door.on_recipient = later
        group = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\nQUIT\r\n"
        heard = await self.serve(lambda port: converse(port, group))
        self.assertEqual(heard.count(b"450 4.2.1 later\r\n"), 2)
        self.assertTrue(heard.endswith(b"later\r\n221 2.0.0 closing channel\r\n"))

    async def test_who_does_not_read_is_not_read_from_and_loses_nothing(self) -> None:
        def talk(port: int) -> tuple[int, int]:
            with socket.create_connection(("127.0.0.1", port), 0.3) as channel:
                sent = 0
                with contextlib.suppress(TimeoutError):
                    # 76 octets come back for each 6: the channel is full before long.
                    while sent < 20_000_000:
                        sent += channel.send(b"HELP\r\n" * 10_000)
                channel.settimeout(30)
                # The last command may have been cut in the middle.
                tail = b"HELP\r\n"[sent % 6 :] + b"QUIT\r\n"
                replies = 0
                while piece := channel.recv(1 << 20):
                    replies += piece.count(b"\n")
                    if tail and select([], [channel], [], 0)[1]:
                        tail = tail[channel.send(tail) :]
                return replies - 2, sent // 6 + 1

        replies, commands = await self.serve(talk)
        self.assertEqual(replies, commands)
        self.assertGreater(commands, 10_000)
        self.assertLess(commands, 20_000_000 // 6)


class TlsTests(Case):
    async def test_smtplib_sends_over_starttls(self) -> None:
        def talk(port: int) -> tuple[bool, bool]:
            with smtplib.SMTP("127.0.0.1", port, "client.test", 10) as client:
                client.ehlo("plain.test")
                was_offered = client.has_extn("starttls")
                client.starttls(context=self.trusting)
                client.ehlo("client.test")
                client.sendmail("a@b.example", ["c@d.example"], BODY)
                return was_offered, client.has_extn("starttls")

        context = self.context()
        self.assertEqual(await self.serve(talk, context), (True, False))
        self.assertEqual([message.content for message in self.door.messages], [BODY])
        (peer,) = self.peers
        self.assertEqual(peer.tls, TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        self.assertEqual(peer.helo, "client.test")
        self.assertEqual((self.tally.tls_in, self.tally.tls_failures_in), (1, 0))

    async def test_what_was_learnt_in_plaintext_is_forgotten(self) -> None:
        def talk(port: int) -> int:
            with smtplib.SMTP("127.0.0.1", port, "client.test", 10) as client:
                client.ehlo("plain.test")
                client.starttls(context=self.trusting)
                return client.docmd("MAIL FROM:<a@b.example>")[0]

        context = self.context()
        self.assertEqual(await self.serve(talk, context), 503)
        self.assertEqual(self.peers[0].helo, "")

    async def test_tls_from_the_first_octet(self) -> None:
        def talk(port: int) -> None:
            with smtplib.SMTP_SSL(
                "127.0.0.1", port, "client.test", timeout=10, context=self.trusting
            ) as client:
                client.sendmail("a@b.example", ["c@d.example"], BODY)

        context = self.context()
        await self.serve(talk, context, is_tls_first=True)
        self.assertEqual([message.content for message in self.door.messages], [BODY])
        assert self.peers[0].tls is not None

    async def test_octets_behind_starttls_end_the_session(self) -> None:
        group = b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b.example>\r\n"
        heard = await self.serve(lambda port: converse(port, group), self.context())
        self.assertTrue(
            heard.endswith(b"421 4.7.0 octets behind STARTTLS, closing channel\r\n"), heard
        )

    async def test_new_keys_are_agreed_on_between_two_commands(self) -> None:
        """With a record that holds no content and asks for an answer (RFC 8446, 4.6.3)."""
        openssl = needs("openssl")
        dialog = [
            (b"NOOP\n", b"250 2.0.0 "),
            (b"K\n", b">>> TLS 1.3, Handshake [length 0005], KeyUpdate"),
            (b"NOOP\n", b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate"),
            (b"", b"250 2.0.0 "),
        ]

        def talk(port: int) -> None:
            where = ["-starttls", "smtp", "-connect", f"127.0.0.1:{port}"]
            screen, terminal = os.openpty()  # or it would keep what it has to tell
            with (
                os.fdopen(screen, "rb", 0) as told,
                subprocess.Popen(
                    [openssl, "s_client", *where, "-tls1_3", "-crlf", "-msg"],
                    stdin=subprocess.PIPE,
                    stdout=terminal,
                    stderr=subprocess.DEVNULL,
                ) as client,
            ):
                os.close(terminal)
                assert client.stdin is not None
                try:
                    for say, awaited in dialog:
                        client.stdin.write(say)
                        client.stdin.flush()
                        while not (line := told.readline()).startswith(awaited):
                            self.assertNotEqual(line, b"")
                finally:
                    client.kill()

        await self.serve(talk, self.context())

    async def test_a_handshake_that_fails_is_counted_and_no_error(self) -> None:
        def talk(port: int) -> bytes:
            return converse(port, b"EHLO x\r\n", b"STARTTLS\r\n", b"this is no handshake\r\n" * 10)

        heard = await self.serve(talk, self.context())
        self.assertIn(b"220 2.0.0 ready to start TLS\r\n", heard)
        self.assertEqual((self.tally.tls_in, self.tally.tls_failures_in), (0, 1))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.door.peers, [])


class StockPlainTests(PlainTests):
    """The same where only Twisted's stock classes serve."""

    is_fast = False


class StockTlsTests(TlsTests):
    """The same where only Twisted's stock classes serve."""

    is_fast = False


class StockTlsOverOurTcpTests(TlsTests):
    """The same where Twisted's TLS has changed, and its TCP has not."""

    is_fast_tls = False
