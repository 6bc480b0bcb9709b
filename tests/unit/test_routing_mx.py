"""Whom a domain's mail goes to (RFC 5321, section 5; RFC 7505)."""

from __future__ import annotations

import random
from collections.abc import Collection

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.hop import Host, NextHop, Site
from protege_mta.model.outcome import PermanentFailure, Scope, TransientFailure
from protege_mta.routing.mx import MxRouter
from protege_mta.routing.networks import OwnListeners, Prohibited
from protege_mta.routing.site import Located
from protege_mta.testing.zones import ZoneResolver

ZONE = """\
$ORIGIN test.
$TTL 300
ordered      MX     20 b.hosts
             MX     10 a.hosts
             MX     30 c.hosts
equal        MX     10 a.hosts
             MX     10 b.hosts
             MX     20 c.hosts
equal-too    MX     5  b.hosts
             MX     5  a.hosts
             MX     99 c.hosts
forged       MX     10 a.hosts.test\\;b.hosts.test\\032c.hosts
a.hosts.test\\;b.hosts.test\\032c.hosts A 192.0.2.66
twice        MX     10 a.hosts
             MX     20 a.hosts
a.hosts      A      192.0.2.1
b.hosts      A      192.0.2.2
             AAAA   2001:db8::2
c.hosts      A      192.0.2.3
null         MX     0 .
null-and-one MX     0 .
             MX     10 a.hosts
implicit     A      192.0.2.4
alias        CNAME  ordered
alias-host   MX     10 alias-a.hosts
alias-a.hosts CNAME a.hosts
only-ipv6    MX     10 six.hosts
six.hosts    AAAA   2001:db8::6
nothing      TXT    "no mail here"
dead-ends    MX     10 nowhere
             MX     20 nothing
half-dead    MX     10 nowhere
             MX     20 a.hosts
half-broken  MX     10 broken.hosts
             MX     20 a.hosts
broken-host  MX     10 broken.hosts
             MX     20 nowhere
literal-host MX     10 192.0.2.1.
private      MX     10 private.hosts
private.hosts A     10.0.0.1
some-private MX     10 private.hosts
             MX     20 mixed.hosts
mixed.hosts  A      10.0.0.1
             A      192.0.2.5
we-are-second MX    10 a.hosts
             MX     20 mx.ours
             MX     20 b.hosts
             MX     30 c.hosts
we-are-first MX     10 MX.ours
             MX     20 a.hosts
we-are-equal MX     10 a.hosts
             MX     10 mx.ours
mx.ours      A      192.0.2.98
by-address   MX     10 a.hosts
             MX     20 unknown-name.ours
unknown-name.ours A 192.0.2.99
at-our-place A      192.0.2.99
broken-first MX     10 broken.hosts
             MX     20 mx.ours
crowd        MX     10 crowd.hosts
""" + "".join(
    f"many MX 10 n{number:02}.many\nn{number:02}.many A 192.0.2.{number}\n"
    f"crowd.hosts A 192.0.2.{number}\ncrowd.hosts AAAA 2001:db8::{number}\n"
    for number in range(10, 40)
)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.resolver = ZoneResolver(ZONE, broken=["broken.test", "broken.hosts.test"])

    def router(
        self,
        *,
        prohibited: Collection[str] = (),
        prefers_ipv6: bool = False,
        seed: int = 1,
    ) -> MxRouter:
        own = OwnListeners(is_local=lambda address: False)
        own.add("192.0.2.99", 2525)
        own.add("192.0.2.1", 25)  # another port than that of MX hosts here
        return MxRouter(
            self.resolver,
            own_names=["MX.ours.test"],
            own=own,
            prohibited=Prohibited(prohibited),
            port=2525,
            rng=random.Random(seed),
            prefers_ipv6=lambda: prefers_ipv6,
        )

    def locate(self, domain: str, router: MxRouter | None = None) -> Located:
        return self.successResultOf((router or self.router())(NextHop("mx", domain)))

    def site(self, domain: str, router: MxRouter | None = None) -> Site:
        located = self.locate(domain, router)
        assert isinstance(located, Site), located
        return located

    def hosts(self, domain: str, router: MxRouter | None = None) -> list[str]:
        return [host.name for host in self.site(domain, router).hosts]

    def cause(self, domain: str, router: MxRouter | None = None) -> tuple[type, str]:
        """The kind of failure, and its reply as text."""
        located = self.locate(domain, router)
        assert not isinstance(located, Site), located
        self.assertIs(located.scope, Scope.SITE)
        return type(located), str(located.cause)


class OrderTests(Case):
    """Preferences, equals, addresses."""

    def test_best_first(self) -> None:
        self.assertEqual(
            self.site("ordered.test"),
            Site(
                "mx:a.hosts.test;b.hosts.test;c.hosts.test",
                "mx",
                (
                    Host("a.hosts.test", ("192.0.2.1",), 2525),
                    Host("b.hosts.test", ("192.0.2.2", "2001:db8::2"), 2525),
                    Host("c.hosts.test", ("192.0.2.3",), 2525),
                ),
            ),
        )

    def test_equals_take_turns(self) -> None:
        """By chance, while the site's key stays."""
        router = self.router()
        sites = [self.site("equal.test", router) for _ in range(50)]
        orders = {tuple(host.name for host in site.hosts) for site in sites}
        self.assertEqual(
            orders,
            {
                ("a.hosts.test", "b.hosts.test", "c.hosts.test"),
                ("b.hosts.test", "a.hosts.test", "c.hosts.test"),
            },
        )
        self.assertEqual(
            {site.key for site in sites}, {"mx:a.hosts.test b.hosts.test;c.hosts.test"}
        )

    def test_domains_with_the_same_hosts_are_one_site(self) -> None:
        """Whatever numbers their preferences are; another order is another site."""
        self.assertEqual(self.site("equal-too.test").key, self.site("equal.test").key)
        self.assertNotEqual(self.site("ordered.test").key, self.site("equal.test").key)

    def test_no_host_name_looks_like_two(self) -> None:
        """Else a name that somebody made for it would draw in the mail of others."""
        self.assertEqual(
            self.site("forged.test").key, "mx:a.hosts.test\\;b.hosts.test\\032c.hosts.test"
        )

    def test_host_named_twice_counts_once(self) -> None:
        self.assertEqual(self.hosts("twice.test"), ["a.hosts.test"])

    def test_family_of_choice_first(self) -> None:
        [_, host, _] = self.site("ordered.test", self.router(prefers_ipv6=True)).hosts
        self.assertEqual(host.addresses, ("2001:db8::2", "192.0.2.2"))

    def test_twenty_hosts_at_most(self) -> None:
        """Always the same twenty, or the key would change."""
        sites = [self.site("many.test", self.router(seed=seed)) for seed in range(5)]
        self.assertEqual({len(site.hosts) for site in sites}, {20})
        self.assertEqual(len({site.key for site in sites}), 1)

    def test_ten_addresses_of_a_family_at_most(self) -> None:
        [host] = self.site("crowd.test").hosts
        self.assertEqual(len(host.addresses), 20)
        self.assertEqual(len(set(host.addresses)), 20)
        self.assertTrue(all(":" not in address for address in host.addresses[:10]))


class RecordTests(Case):
    """What stands in the DNS."""

    def test_null_mx(self) -> None:
        self.assertEqual(
            self.cause("null.test"),
            (
                PermanentFailure,
                "556 5.1.10 the domain accepts no mail (null MX): null.test",
            ),
        )

    def test_null_among_others_is_no_host(self) -> None:
        self.assertEqual(self.hosts("null-and-one.test"), ["a.hosts.test"])

    def test_implicit_mx(self) -> None:
        self.assertEqual(
            self.site("implicit.test"),
            Site(
                "mx:implicit.test",
                "mx",
                (Host("implicit.test", ("192.0.2.4",), 2525),),
                is_authentic=True,
            ),
        )

    def test_who_can_have_named_the_hosts(self) -> None:
        """MX records need DNSSEC; a host that bears the domain's own name does not."""
        self.assertFalse(self.site("ordered.test").is_authentic)
        self.assertTrue(self.site("implicit.test").is_authentic)
        self.resolver.is_authentic = True
        self.assertTrue(self.site("ordered.test").is_authentic)
        self.assertFalse(self.site("[192.0.2.7]").is_authentic)

    def test_no_such_domain(self) -> None:
        self.assertEqual(
            self.cause("nowhere.test"),
            (PermanentFailure, "550 5.1.2 no such domain: nowhere.test"),
        )

    def test_name_that_cannot_be(self) -> None:
        self.assertEqual(
            self.cause("x" * 64 + ".test"),
            (PermanentFailure, "550 5.1.2 no such domain: " + "x" * 64 + ".test"),
        )

    def test_aliases(self) -> None:
        """Of the domain, and, though RFC 2181, 10.3 forbids it, of a host."""
        self.assertEqual(self.hosts("alias.test"), ["a.hosts.test", "b.hosts.test", "c.hosts.test"])
        self.assertEqual(
            self.site("alias-host.test").hosts,
            (Host("alias-a.hosts.test", ("192.0.2.1",), 2525),),
        )

    def test_only_ipv6(self) -> None:
        self.assertEqual(
            self.site("only-ipv6.test").hosts, (Host("six.hosts.test", ("2001:db8::6",), 2525),)
        )

    def test_domain_without_mail(self) -> None:
        """It exists, and has neither MX nor address."""
        self.assertEqual(
            self.cause("nothing.test"),
            (PermanentFailure, "550 5.4.4 no mail host of the domain has an address: nothing.test"),
        )

    def test_hosts_without_addresses(self) -> None:
        self.assertEqual(
            self.cause("dead-ends.test"),
            (
                PermanentFailure,
                "550 5.4.4 no mail host of the domain has an address: dead-ends.test",
            ),
        )
        self.assertEqual(self.cause("literal-host.test")[0], PermanentFailure)

    def test_one_host_without_addresses(self) -> None:
        """It is passed over, and stays in the key."""
        site = self.site("half-dead.test")
        self.assertEqual([host.name for host in site.hosts], ["a.hosts.test"])
        self.assertEqual(site.key, "mx:nowhere.test;a.hosts.test")

    def test_address_literal(self) -> None:
        """Straight to that address, with no question asked (RFC 5321, 4.1.3)."""
        for literal, address in [
            ("[192.0.2.7]", "192.0.2.7"),
            ("[ipv6:2001:db8::7]", "2001:db8::7"),
        ]:
            self.assertEqual(
                self.site(literal),
                Site(f"mx:{literal}", "mx", (Host(literal, (address,), 2525),)),
            )
        self.assertEqual(self.resolver.asked, [])


class TroubleTests(Case):
    """When the DNS fails, mail waits."""

    def test_domain_cannot_be_looked_up(self) -> None:
        self.assertEqual(
            self.cause("broken.test"),
            (
                TransientFailure,
                "451 4.4.3 name lookup failed, try again later: broken.test: SERVFAIL",
            ),
        )

    def test_a_host_that_may_exist(self) -> None:
        """One that does not, beside it, changes nothing."""
        self.assertEqual(
            self.cause("broken-host.test"),
            (
                TransientFailure,
                "451 4.4.3 name lookup failed, try again later: "
                "broken-host.test: broken.hosts.test: SERVFAIL",
            ),
        )

    def test_the_next_host_serves(self) -> None:
        self.assertEqual(self.hosts("half-broken.test"), ["a.hosts.test"])

    def test_lookups_at_once_and_owned(self) -> None:
        """All hosts are asked for together; giving up gives all of it up."""
        self.resolver.is_held = True
        waiting = self.router()(NextHop("mx", "ordered.test"))
        self.resolver.release()
        self.assertEqual(
            self.resolver.asked,
            [
                ("ordered.test", "MX"),
                ("a.hosts.test", "AAAA"),
                ("a.hosts.test", "A"),
                ("b.hosts.test", "AAAA"),
                ("b.hosts.test", "A"),
                ("c.hosts.test", "AAAA"),
                ("c.hosts.test", "A"),
            ],
        )
        self.assertNoResult(waiting)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.resolver.release()


class OwnHostTests(Case):
    """Mail never comes back to ourselves (RFC 5321, 5.1)."""

    def test_only_better_hosts_are_used(self) -> None:
        self.assertEqual(self.hosts("we-are-second.test"), ["a.hosts.test"])

    def test_nobody_is_better(self) -> None:
        for domain in ("we-are-first.test", "we-are-equal.test", "mx.ours.test"):
            self.assertEqual(
                self.cause(domain),
                (
                    PermanentFailure,
                    f"554 5.4.6 mail for the domain loops back to this server: {domain}",
                ),
            )

    def test_known_by_our_listener(self) -> None:
        self.assertEqual(self.hosts("by-address.test"), ["a.hosts.test"])
        self.assertEqual(
            self.cause("at-our-place.test"),
            (
                PermanentFailure,
                "554 5.4.6 mail for the domain loops back to this server: at-our-place.test",
            ),
        )
        self.assertEqual(self.cause("[192.0.2.99]")[0], PermanentFailure)

    def test_better_host_in_trouble(self) -> None:
        """It may come back; we are no replacement for it."""
        self.assertEqual(self.cause("broken-first.test")[0], TransientFailure)


class ProhibitedTests(Case):
    """Addresses that are not used."""

    def test_nothing_else_is_left(self) -> None:
        router = self.router(prohibited=["10.0.0.0/8"])
        self.assertEqual(
            self.cause("private.test", router),
            (
                PermanentFailure,
                "550 5.4.4 no mail host has an address that may be used: private.test",
            ),
        )
        self.assertEqual(self.cause("[10.1.1.1]", router)[0], PermanentFailure)

    def test_others_are_used(self) -> None:
        router = self.router(prohibited=["10.0.0.0/8"])
        self.assertEqual(
            self.site("some-private.test", router).hosts,
            (Host("mixed.hosts.test", ("192.0.2.5",), 2525),),
        )
