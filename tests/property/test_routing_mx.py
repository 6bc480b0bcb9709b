"""Routing through any zone at all."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.hop import NextHop, Site
from protege_mta.model.outcome import PermanentFailure, TransientFailure
from protege_mta.routing.mx import MxRouter
from protege_mta.routing.networks import OwnListeners, Prohibited
from protege_mta.routing.site import Located
from protege_mta.testing.zones import ZoneResolver

NAMES = st.sampled_from("abcdefgh")
ADDRESSES = st.sampled_from(["10.0.0.1", "192.0.2.1", "192.0.2.2", "192.0.2.99"])


@st.composite
def zones(draw: st.DrawFn) -> tuple[str, list[tuple[int, str]]]:
    """A zone, and the MX records of its ``domain.test``."""
    records = draw(st.lists(st.tuples(st.integers(0, 3), NAMES), max_size=6, unique=True))
    lines = ["domain.test. 300 TXT here"]
    lines += [f"domain.test. 300 MX {preference} {name}.test." for preference, name in records]
    for name in "abcdefgh":
        lines += [f"{name}.test. 300 A {each}" for each in draw(st.sets(ADDRESSES, max_size=2))]
    return "\n".join(lines), records


class MxTests(SynchronousTestCase):
    def locate(self, zone: str, broken: set[str], seed: int) -> Located:
        own = OwnListeners(is_local=lambda address: False)
        own.add("192.0.2.99", 25)
        router = MxRouter(
            ZoneResolver(zone, broken=[f"{name}.test" for name in broken]),
            own_names=["h.test"],
            own=own,
            prohibited=Prohibited(["10.0.0.0/8"]),
            port=25,
            rng=random.Random(seed),
            prefers_ipv6=lambda: True,
        )
        return self.successResultOf(router(NextHop("mx", "domain.test")))

    @settings(max_examples=150, deadline=None)
    @given(zone=zones(), broken=st.sets(NAMES, max_size=2))
    def test_rules(self, zone: tuple[str, list[tuple[int, str]]], broken: set[str]) -> None:
        text, records = zone
        located = self.locate(text, broken, 1)
        best: dict[str, int] = {}
        for preference, name in records:
            best[f"{name}.test"] = min(preference, best.get(f"{name}.test", 99))
        match located:
            case Site(hosts=hosts):
                preferences = [best[host.name] for host in hosts]
                self.assertEqual(preferences, sorted(preferences))
                used = {address for host in hosts for address in host.addresses}
                self.assertLessEqual(used, {"192.0.2.1", "192.0.2.2"})
                self.assertTrue(all(host.addresses for host in hosts))
                if "h.test" in best:  # ourselves
                    self.assertTrue(all(each < best["h.test"] for each in preferences))
                again = self.locate(text, broken, 2)
                assert isinstance(again, Site)
                self.assertEqual(again.key, located.key)
                self.assertEqual(
                    {(host.name, frozenset(host.addresses)) for host in again.hosts},
                    {(host.name, frozenset(host.addresses)) for host in hosts},
                )
            case TransientFailure():
                self.assertTrue(broken, "only a failing DNS makes mail wait")
            case PermanentFailure(cause=cause):
                self.assertIn(cause.enhanced, ("5.4.4", "5.4.6"))
