"""Whatever comes from the network is an answer, a reason to try again, or nothing."""

from __future__ import annotations

import random
from typing import Final

import dns.flags
import dns.rcode
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Answer, Found, NoSuchName, NoSuchRecord, TryAgain
from protege_mta.testing.nameserver_script import ScriptedServers, reply
from protege_mta.transport.dns import DnsResolver
from protege_mta.transport.dns_cache import Cache
from protege_mta.transport.dns_messages import ask, read, to_name, to_text

SERVER: Final = ("192.0.2.1", 53)
SOA: Final = "test. 600 IN SOA ns.test. hostmaster.test. 1 3600 600 86400 60"

ROOT: Final = to_name("a.test")
assert ROOT is not None
QUESTION: Final = ask(ROOT, "MX", 4711, trust_ad=False)

GOOD: Final = st.sampled_from(
    [
        reply(QUESTION.octets, ["a.test. 300 IN MX 10 b.test.", "a.test. 300 IN MX 20 c.test."]),
        reply(QUESTION.octets, ["a.test. 5 IN CNAME b.test.", "b.test. 300 IN MX 0 ."]),
        reply(QUESTION.octets, ["a.test. 5 IN CNAME b.other."]),
        reply(QUESTION.octets, authority=[SOA], rcode=dns.rcode.NXDOMAIN),
        reply(QUESTION.octets, flags=dns.flags.TC),
    ]
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good response with some octets changed, lost, doubled or put in; the id may stay."""
    octets = bytearray(draw(GOOD))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(2, max(len(octets), 2)))
        match draw(st.sampled_from(["change", "cut", "insert", "double"])):
            case "change" if at < len(octets):
                octets[at] = draw(st.integers(0, 255))
            case "cut":
                del octets[at:]
            case "insert":
                octets[at:at] = draw(st.binary(max_size=8))
            case _:
                octets[at:at] = octets[at : at + 40]
    return bytes(octets)


RESPONSES: Final = broken() | st.binary(max_size=80).map(lambda tail: QUESTION.octets[:2] + tail)


class ReadTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(octets=RESPONSES | st.binary(max_size=40))
    def test_never_raises(self, octets: bytes) -> None:
        reading = read(octets, QUESTION, trust_ad=False)
        self.assertIn(
            type(reading).__name__, ("Settled", "Elsewhere", "Truncated", "Useless", "NoneType")
        )

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(max_size=70))
    def test_names(self, text: str) -> None:
        """A name that can be is the same when it is read from its own text."""
        name = to_name(text)
        if name is not None:
            self.assertEqual(to_name(to_text(name)), name)
            self.assertTrue(to_text(name).isascii())


class ResolverTests(SynchronousTestCase):
    @settings(max_examples=100, deadline=None)
    @given(datagrams=st.lists(RESPONSES, max_size=5), streams=st.lists(RESPONSES, max_size=2))
    def test_always_an_answer(self, datagrams: list[bytes], streams: list[bytes]) -> None:
        """Within fifteen seconds, and nothing is left open."""
        servers = ScriptedServers()
        servers.datagrams[SERVER] = lambda query: [query[:2] + each[2:] for each in datagrams]
        servers.streams[SERVER] = lambda query: [query[:2] + each[2:] for each in streams]
        resolver = DnsResolver(
            servers, [SERVER], rng=random.Random(1), open_socket=servers.open_socket
        )
        waiting = resolver.lookup("a.test", "MX")
        for _ in range(60):
            servers.deliver()
            servers.advance(0.25)
        self.assertIsInstance(
            self.successResultOf(waiting), (Found, NoSuchName, NoSuchRecord, TryAgain)
        )
        self.assertEqual((servers.sockets, servers.getDelayedCalls()), ({}, []))


class CacheTests(SynchronousTestCase):
    @settings(max_examples=100, deadline=None)
    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from("abcdef"),
                st.integers(0, 40),  # the TTL
                st.integers(0, 500),  # the size
                st.integers(0, 30),  # seconds that pass
            ),
            max_size=40,
        )
    )
    def test_what_it_has_is_fresh_and_bounded(self, steps: list[tuple[str, int, int, int]]) -> None:
        """Against the plainest model; it may forget, and never makes up or outlives."""
        now = 0.0
        cache = Cache(lambda: now, limit_octets=1500)
        model: dict[str, tuple[Answer, float]] = {}
        for number, (name, ttl_s, size_octets, passed) in enumerate(steps):
            answer = Found((str(number),))
            cache.put((name, "A"), answer, ttl_s, size_octets)
            model[name] = (answer, now + ttl_s)
            now += passed
            for each in "abcdef":
                found = cache.get((each, "A"))
                if found is not None:
                    expected, expires_at = model[each]
                    self.assertEqual(found, expected)
                    self.assertLess(now, expires_at)
            self.assertLessEqual(len(cache), 5)

    def test_the_one_not_used_goes(self) -> None:
        cache = Cache(lambda: 0.0, limit_octets=1000)
        for name in ("a", "b", "c"):
            cache.put((name, "A"), NoSuchName(), 60, 0)
        cache.get(("a", "A"))
        cache.put(("d", "A"), NoSuchName(), 60, 0)
        kept = [name for name in "abcd" if cache.get((name, "A")) is not None]
        self.assertEqual(kept, ["a", "c", "d"])
