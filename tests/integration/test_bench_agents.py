"""The benchmark's agents against our relay's side of tunnels: what they tell has come.

bench.agents, a process  -- loopback, WebSocket -->  TunnelServer, TunnelHouse
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import cast

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bench.agents import Plan, identity
from bench.tunnel_servers import Agents
from protege_mta.model.identity import Identity
from protege_mta.model.outcome import Delivered
from protege_mta.model.stream import Stream
from protege_mta.testing.tunnels import OctetsInMemory, TunnelHouse
from protege_mta.transport.listening import bind
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.tunnel.socket_server import TunnelServer

LIMIT_S = 30.0


class AgentsTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.refused: set[Identity] = set()
        self.server = TunnelServer(
            TunnelHouse(),
            limits=TunnelLimits(),
            clock=cast(IReactorTime, _reactor),
            now=time.time,
            new_id=lambda: str(uuid.uuid4()),
            may_attempt=lambda address: True,
            may_log_in=lambda who: who not in self.refused,
        )
        self.port = bind("http", "127.0.0.1", 0).accept(
            cast(IReactorCore, _reactor), self.server.sockets
        )
        self.addCleanup(self.stop)

    async def stop(self) -> None:
        await cast(Deferred[None], self.port.stopListening())
        await self.server.close()

    def agents(self, *, is_reliable: bool, deaf: int = 0) -> Agents:
        port = cast(IPv4Address, self.port.getHost()).port
        return Agents(Plan(port, 3, is_reliable, deaf), self.folder)

    def send(self, number: int, name: str, size: int) -> Deferred[object]:
        session = self.server.to(identity(number))
        assert session is not None
        stream = Stream("s@client.test", f"{name}@agents.test")
        return cast(Deferred[object], session.send(stream, OctetsInMemory(b"x" * size)))

    async def test_each_acknowledges_what_it_tells_of(self) -> None:
        """Small and large, more than may be sent without credit; by either kind of agent."""
        for is_reliable in (True, False):
            with self.agents(is_reliable=is_reliable) as agents:
                await deferToThread(agents.connect)
                sizes = [4096, 3_000_000, 0]
                sending = [self.send(n, f"{n}r", size) for n, size in enumerate(sizes)]
                outcomes = await gatherResults(sending)
                await deferToThread(agents.wait, "mail", 3, LIMIT_S)
                self.assertEqual([type(one) for one in outcomes], [Delivered] * 3)
                self.assertEqual(set(agents.told.login), {"0", "1", "2"})
                self.assertEqual(set(agents.told.mail), {"0r", "1r", "2r"})

    async def test_deaf_ones_read_nothing(self) -> None:
        with self.agents(is_reliable=True, deaf=1) as agents:
            await deferToThread(agents.connect)
            unheard = self.send(0, "0r", 10)
            await self.send(1, "1r", 10)
            await deferToThread(agents.wait, "mail", 1, LIMIT_S)
            self.assertEqual(list(agents.told.mail), ["1r"])
            self.assertNoResult(unheard)
        await unheard

    async def test_whoever_is_turned_away_ends_it(self) -> None:
        self.refused = {identity(2)}
        with (
            self.agents(is_reliable=True) as agents,
            self.assertRaisesRegex(RuntimeError, "agent 2: .*identity_not_allowed"),
        ):
            await deferToThread(agents.connect)
