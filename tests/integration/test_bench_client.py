"""The benchmark's load client against our server: what it counts has arrived.

bench.tls_client, in a thread  -- loopback, STARTTLS -->  SmtpServerFactory, FakeDoor
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bench.paced import content
from bench.tls_client import Load, Report, Run, Version
from protege_mta.model.reply import TABLE
from protege_mta.model.tally import Tally
from protege_mta.testing.authority import Authority
from protege_mta.testing.doors import FakeDoor
from protege_mta.transport.listening import bind
from protege_mta.transport.smtp_factory import SmtpServerFactory
from protege_mta.wire.settings import ServerSettings

VERSIONS: tuple[Version, Version] = ("1.3", "1.2")


class ClientTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.door = FakeDoor()
        self.factory = SmtpServerFactory(
            self.door,
            ServerSettings("mx.test"),
            listener="mx",
            tally=Tally(),
            clock=cast(IReactorTime, _reactor),
            now=time.time,
            new_session_id=lambda: "s1",
            new_nonce=lambda: "nonce",
            tls=Authority(folder).context("mx.test"),
        )
        self.port = bind("mx", "127.0.0.1", 0).accept(cast(IReactorCore, _reactor), self.factory)

        self.addCleanup(self.stop)

    async def stop(self) -> None:
        await cast(Deferred[None], self.port.stopListening())
        self.factory.abort()
        await self.factory.drain()

    async def send(self, **options: Any) -> Report:
        port = cast(IPv4Address, self.port.getHost()).port
        return cast(Report, await deferToThread(Run(Load(port, **options)).go))

    async def test_every_message_arrives_whole(self) -> None:
        """Of any size, with many a connection and one, over TLS and in the clear."""
        for size, is_reusing, version in (
            (4096, True, "1.3"),
            (65536, False, "1.2"),
            (10, True, ""),
        ):
            self.door.intakes.clear()
            report = await self.send(
                sessions=3, count=10, size_octets=size, is_reusing=is_reusing, version=version
            )
            expected = content(size).removesuffix(b".\r\n")
            self.assertTrue([one.content for one in self.door.messages] == [expected] * 10)
            connections = (3 if is_reusing else 10) if version else 0
            self.assertEqual((report.count, report.handshakes), (10, connections))

    async def test_handshakes_are_full_or_resumed_as_asked(self) -> None:
        """The first of each session cannot be but full."""
        for version in VERSIONS:
            full = await self.send(sessions=2, count=8, version=version)
            self.assertEqual((full.count, full.handshakes, full.resumed), (8, 8, 0))
            resumed = await self.send(sessions=2, count=8, version=version, is_resuming=True)
            self.assertEqual((resumed.handshakes, resumed.resumed), (8, 6))
            self.assertEqual(resumed.ciphers, full.ciphers)
            self.assertIn(f"TLSv{version} ", full.ciphers[0])

    async def test_another_reply_than_expected_ends_it(self) -> None:
        self.door.on_recipient = lambda *_: TABLE["no-relaying"]
        with self.assertRaisesRegex(RuntimeError, "RCPT TO.*was answered.*550 5.7.1"):
            await self.send(sessions=2, count=8, size_octets=100)
