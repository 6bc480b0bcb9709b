"""Our resolver and a real name server.

DnsResolver  <-- UDP, and TCP for what is too big -->  nsd on 127.0.0.1, zone "test."
"""

from __future__ import annotations

import random
from typing import cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from protege_mta.model.ports import Found
from protege_mta.testing.nameserver import NameServer
from protege_mta.testing.resolver_contract import ORIGIN, ZONE, ResolverContract
from protege_mta.transport.dns import DnsResolver
from protege_mta.transport.dns_exchange import Reactor

reactor = cast(Reactor, _reactor)


class NsdTests(ResolverContract, TestCase):
    """Contract and all, over real sockets; trial fails a test that leaves one open."""

    def setUp(self) -> None:
        self.server = NameServer(ZONE, ORIGIN)
        self.addCleanup(self.server.stop)
        nameservers = [(self.server.address, self.server.port)]
        self.resolver = DnsResolver(reactor, nameservers, rng=random.SystemRandom())

    async def test_a_dead_first_server_costs_no_answer(self) -> None:
        """Nobody listens on the discard port of that address: the kernel says so, and the next
        server is asked."""
        nameservers = [("127.0.0.2", 9), (self.server.address, self.server.port)]
        resolver = DnsResolver(reactor, nameservers, rng=random.SystemRandom())
        self.assertEqual(await resolver.lookup("implicit.test", "A"), Found(("127.0.0.13",)))
