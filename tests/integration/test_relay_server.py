"""Tunnels through a real HTTP listener, plain and under TLS, by autobahn's own client.

TunnelClient (autobahn) --TCP, or TLS--> HttpFactory --> TunnelServer --> a house in memory
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import TestCase

from protege_mta.http.listener import HttpLimits, new_app, site
from protege_mta.model.identity import identity_of
from protege_mta.model.outcome import Delivered
from protege_mta.model.ports import Session
from protege_mta.model.stream import Stream
from protege_mta.testing.authority import Authority
from protege_mta.testing.tunnels import OctetsInMemory, TunnelHouse
from protege_mta.transport import fast
from protege_mta.transport.listening import bind
from protege_mta.transport.tls_server import KeyPair, TlsFiles, server_contexts
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.tunnel.socket_client import Agent, TunnelClient
from protege_mta.tunnel.socket_server import TunnelServer

CONTENT = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 65536 * 4


class Watcher:
    def __init__(self) -> None:
        self.here: Deferred[Session] = Deferred()
        self.gone: Deferred[tuple[int, str]] = Deferred()

    def connected(self, session: Session) -> None:
        self.here.callback(session)

    def lost(self, code: int, reason: str) -> None:
        self.gone.callback((code, reason))


class ListenerTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    async def listening(self, tls: TlsFiles | None) -> tuple[TunnelServer, TunnelHouse, int]:
        clock = cast(Any, reactor)
        house = TunnelHouse()
        server = TunnelServer(
            house,
            limits=TunnelLimits(),
            clock=clock,
            now=lambda: 0.0,
            new_id=lambda: str(uuid4()),
            may_attempt=lambda address: address == "192.0.2.5",
            may_log_in=lambda identity: True,
        )
        fast.install(clock)
        factory = site(new_app(), clock=clock, limits=HttpLimits(connections=1, idle_s=1))
        factory.configure(trusted_proxies=(), upgrade=lambda _: server.sockets.socket("192.0.2.5"))
        if tls is not None:
            factory.tls = server_contexts(tls).public
        bound = bind("http", "127.0.0.1", 0)
        number = bound.address[1]
        port: IListeningPort = bound.accept(clock, factory)
        self.addCleanup(port.stopListening)
        return server, house, number

    async def both_ways(self, tls: TlsFiles | None, trust: ssl.Certificate | None) -> None:
        """A big message each way at the same time, in a reliable session."""
        clock = cast(Any, reactor)
        server, house, port = await self.listening(tls)
        endpoint: Any = TCP4ClientEndpoint(clock, "127.0.0.1", port)
        if trust is not None:
            endpoint = wrapClientTLS(ssl.optionsForClientTLS("mx.test", trustRoot=trust), endpoint)
        key = Ed25519PrivateKey.generate()
        identity = identity_of(key.public_key().public_bytes_raw())
        home = TunnelHouse()
        client = TunnelClient(
            f"{'ws' if tls is None else 'wss'}://mx.test/ws",
            home,
            limits=TunnelLimits(),
            clock=clock,
            new_id=lambda: str(uuid4()),
        )
        watcher = Watcher()
        client.connect(endpoint, Agent(identity, key.sign), watcher)
        session = await watcher.here
        there = server.to(identity)
        assert there is not None
        self.assertEqual(there.peer_address, "192.0.2.5")
        out = session.send(Stream("a@agents.test", "b@far.test"), OctetsInMemory(CONTENT))
        back = there.send(Stream("b@far.test", "a@agents.test"), OctetsInMemory(CONTENT))
        self.assertIsInstance(await out, Delivered)
        self.assertIsInstance(await back, Delivered)
        for one in (house, home):
            [(_, _, content)] = one.taken
            self.assertEqual(content, CONTENT)
        await server.close()
        self.assertEqual((await watcher.gone)[0], 1001)
        client.close()

    async def test_plain(self) -> None:
        await self.both_ways(None, None)

    async def test_tls(self) -> None:
        authority = Authority(self.folder)
        pair = KeyPair(*authority.issue("mx.test"))
        trust = ssl.Certificate.loadPEM(authority.ca_file.read_bytes())
        await self.both_ways(TlsFiles((pair,)), trust)
