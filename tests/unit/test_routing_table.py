"""Own domains, the way out, and the smarthost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.hop import Host, NextHop, Site
from protege_mta.model.outcome import Scope, TransientFailure
from protege_mta.routing.networks import OwnListeners
from protege_mta.routing.site import Located, Locator
from protege_mta.routing.smarthost import SmarthostRouter
from protege_mta.routing.table import RoutingTable
from protege_mta.testing.zones import ZoneResolver

ZONE = """\
$ORIGIN test.
$TTL 300
smart    A     192.0.2.7
         AAAA  2001:db8::7
         MX    10 elsewhere
cname    CNAME smart
listed   A     192.0.2.66
"""


class RoutingTableTests(SynchronousTestCase):
    def table(self, outbound: NextHop) -> RoutingTable:
        return RoutingTable(
            {"Local.test": "maildir", "lists.local.test": "lmtp", "bücher.test": "maildir"},
            outbound,
        )

    def test_own_domains(self) -> None:
        """In any case, as U-labels and as A-labels; what is below one is not one."""
        table = self.table(NextHop("mx", ""))
        for address, hop in [
            ("a@local.test", NextHop("maildir", "local.test")),
            ("a@LOCAL.test", NextHop("maildir", "local.test")),
            ('"a@b"@lists.local.test', NextHop("lmtp", "lists.local.test")),
            ("a@BÜCHER.test", NextHop("maildir", "xn--bcher-kva.test")),
            ("a@xn--bcher-KVA.test", NextHop("maildir", "xn--bcher-kva.test")),
            ("a@below.local.test", NextHop("mx", "below.local.test")),
        ]:
            self.assertEqual(table.hop(Address(address)), hop)
        self.assertTrue(table.is_own("LOCAL.test"))
        self.assertFalse(table.is_own("below.local.test"))

    def test_by_mx_each_domain_is_a_hop(self) -> None:
        table = self.table(NextHop("mx", ""))
        for address, name in [
            ("a@B.test", "b.test"),
            ("a@[192.0.2.1]", "[192.0.2.1]"),
            ("a@[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
            ("a@straße.test", "xn--strae-oqa.test"),
            ("a@\u00ad.test", "\u00ad.test"),  # no name; the lookup will say so
        ]:
            self.assertEqual(table.hop(Address(address)), NextHop("mx", name))

    def test_by_smarthost_all_is_one_hop(self) -> None:
        hop = NextHop("smarthost", "smart.test:587")
        table = self.table(hop)
        self.assertEqual(table.hop(Address("a@b.test")), hop)
        self.assertEqual(table.hop(Address("a@[192.0.2.1]")), hop)
        self.assertEqual(table.hop(Address("a@local.test")), NextHop("maildir", "local.test"))

    def test_shared_domain(self) -> None:
        """Local-parts that are not here go the way out, in whatever case."""
        hop = NextHop("tunnel", "")
        kinds: dict[str, Literal["maildir", "lmtp", "tunnel"]] = {
            "Local.test": "maildir",
            "bücher.test": "lmtp",
        }
        here = frozenset(("agent", "a@b"))
        table = RoutingTable(kinds, hop, shared={"Local.test": here, "bücher.test": here})
        for address, expected in [
            ("Agent@LOCAL.test", NextHop("maildir", "local.test")),
            ('"a@b"@local.test', NextHop("maildir", "local.test")),
            ("agent@BÜCHER.test", NextHop("lmtp", "xn--bcher-kva.test")),
            ("other@local.test", hop),
            ("other@xn--bcher-kva.test", hop),
            ("agent@far.test", hop),
        ]:
            self.assertEqual(table.hop(Address(address)), expected)
        by_mx = RoutingTable(kinds, NextHop("mx", ""), shared={"Local.test": here})
        self.assertEqual(by_mx.hop(Address("other@Local.test")), NextHop("mx", "local.test"))


class SmarthostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.resolver = ZoneResolver(ZONE, broken=["broken.test"])

    def locate(self, name: str) -> Located:
        own = OwnListeners(is_local=lambda address: False)
        own.add("127.0.0.1", 2525)
        router = SmarthostRouter(
            self.resolver,
            self.hosts_file,
            own,
            rng=random.Random(1),
            prefers_ipv6=lambda: False,
        )
        return self.successResultOf(router(NextHop("smarthost", name)))

    def hosts_file(self, name: str) -> Sequence[str]:
        return {"listed.test": ("192.0.2.8", "2001:db8::8")}.get(name, ())

    def site(self, name: str, host: str, addresses: tuple[str, ...], port: int) -> Site:
        return Site(f"smarthost:{name}", "smarthost", (Host(host, addresses, port),))

    def test_by_name(self) -> None:
        """Its addresses, never its MX."""
        self.assertEqual(
            self.locate("Smart.test:587"),
            self.site("Smart.test:587", "smart.test", ("192.0.2.7", "2001:db8::7"), 587),
        )
        self.assertEqual(
            self.locate("cname.test:25"),
            self.site("cname.test:25", "cname.test", ("192.0.2.7", "2001:db8::7"), 25),
        )

    def test_without_the_dns(self) -> None:
        """Addresses, what the hosts file lists, and localhost (RFC 6761, 6.3)."""
        for name, host, addresses, port in [
            ("127.0.0.1:2527", "127.0.0.1", ("127.0.0.1",), 2527),
            ("[::1]:2527", "::1", ("::1",), 2527),
            ("listed.test:25", "listed.test", ("192.0.2.8", "2001:db8::8"), 25),
            ("localhost:25", "localhost", ("127.0.0.1", "::1"), 25),
            ("a.localhost.:25", "a.localhost.", ("127.0.0.1", "::1"), 25),
        ]:
            self.assertEqual(self.locate(name), self.site(name, host, addresses, port))
        self.assertEqual(self.resolver.asked, [])

    def test_unknown_host_is_ours_to_mend(self) -> None:
        for name, cause in [
            (
                "nowhere.test:25",
                "451 4.4.4 the smarthost has no address, try again later: nowhere.test",
            ),
            (
                "broken.test:25",
                "451 4.4.4 the smarthost has no address, try again later: broken.test: SERVFAIL",
            ),
            (
                "127.0.0.1:2525",
                "451 4.4.6 the smarthost is this server itself: 127.0.0.1:2525",
            ),
        ]:
            located = self.locate(name)
            assert isinstance(located, TransientFailure)
            self.assertEqual((located.scope, str(located.cause)), (Scope.SITE, cause))


class LocatorTests(SynchronousTestCase):
    def test_by_kind(self) -> None:
        """Kinds without a network are their own site."""

        def locate(hop: NextHop) -> Deferred[Located]:
            return succeed(Site(f"found {hop.name}", hop.kind))

        locator = Locator({"mx": locate, "smarthost": locate})
        for hop, site in [
            (NextHop("mx", "b.test"), Site("found b.test", "mx")),
            (NextHop("smarthost", "s:25"), Site("found s:25", "smarthost")),
            (NextHop("maildir", "local.test"), Site("maildir:local.test", "maildir")),
        ]:
            self.assertEqual(self.successResultOf(locator(hop)), site)
