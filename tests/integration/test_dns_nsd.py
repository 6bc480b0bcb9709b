"""Our resolver and a real name server.

DnsResolver  <-- UDP, and TCP for what is too big -->  nsd on 127.0.0.1, zone "test."
"""

from __future__ import annotations

import random
from typing import cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from protege_mta.model.hop import NextHop, Site
from protege_mta.model.outcome import PermanentFailure, TransientFailure
from protege_mta.model.ports import Found
from protege_mta.routing.mx import MxRouter
from protege_mta.routing.networks import OwnListeners, Prohibited
from protege_mta.routing.site import Located
from protege_mta.testing.nameserver import NameServer
from protege_mta.testing.resolver_contract import ORIGIN, ZONE, ResolverContract
from protege_mta.transport.addresses import has_global_ipv6, is_local
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


class RoutingTests(TestCase):
    """MX routing over the wire, on the zone of the resolvers' contract."""

    def setUp(self) -> None:
        server = NameServer(ZONE, ORIGIN)
        self.addCleanup(server.stop)
        self.router = MxRouter(
            DnsResolver(reactor, [(server.address, server.port)], rng=random.SystemRandom()),
            own_names=["ns.test"],
            own=OwnListeners(is_local),
            prohibited=Prohibited([]),
            port=2525,
            rng=random.Random(1),
            prefers_ipv6=has_global_ipv6,
        )

    async def locate(self, domain: str) -> Located:
        return await self.router(NextHop("mx", domain))

    async def test_hosts(self) -> None:
        for domain, key, addresses in [
            (
                "several.test",
                "mx:dead.several.test;a.several.test b.several.test;c.several.test",
                {"127.0.0.9", "127.0.0.10", "::1", "127.0.0.11", "127.0.0.12"},
            ),
            ("implicit.test", "mx:implicit.test", {"127.0.0.13"}),
            ("only-ipv6.test", "mx:only-ipv6.test", {"2001:db8::25"}),
            ("aliased-host.test", "mx:alias-of-a.test", {"127.0.0.10", "::1"}),
        ]:
            site = await self.locate(domain)
            assert isinstance(site, Site), site
            self.assertEqual(site.key, key)
            self.assertEqual(
                {address for host in site.hosts for address in host.addresses}, addresses
            )

    async def test_failures(self) -> None:
        for domain, kind, enhanced in [
            ("null.test", PermanentFailure, "5.1.10"),
            ("nowhere.test", PermanentFailure, "5.1.2"),
            ("dangling.test", PermanentFailure, "5.4.4"),
            ("ns.test", PermanentFailure, "5.4.6"),
            ("refused.example", TransientFailure, "4.4.3"),
        ]:
            failure = await self.locate(domain)
            assert not isinstance(failure, Site), failure
            self.assertEqual((type(failure), failure.cause.enhanced), (kind, enhanced))
