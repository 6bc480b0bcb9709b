"""The checks of a message's sender with real threads and a real name server.

SenderChecks -- Crew (two threads)
     |
DnsResolver  <-- UDP, and TCP for what is too big -->  nsd on 127.0.0.1, the whole DNS
"""

from __future__ import annotations

import random
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from protege_mta.dkim.sign import sign
from protege_mta.model.address import Address
from protege_mta.model.ports import Peer
from protege_mta.model.verdicts import Verdicts
from protege_mta.policy.authentication.checks import SenderChecks
from protege_mta.policy.authentication.organisation import organisation
from protege_mta.spool.content import MemoryOctets
from protege_mta.testing.nameserver import NameServer
from protege_mta.transport.crew import Crew
from protege_mta.transport.dns import DnsResolver
from protege_mta.transport.dns_exchange import Reactor
from tests.unit.test_dkim_verify import AT, RSA
from tests.unit.test_sender_checks import PLAIN, ZONE

SOA = (
    ". 60 SOA ns.test. admin.test. 1 3600 600 86400 60\n. 60 NS ns.test.\nns.test. 60 A 127.0.0.1\n"
)
LONG = "long.example. TXT " + " ".join(f'"{text}"' for text in ["v=spf1 "] + ["ip4:198.51.100.1 "] * 200 + ["ip4:192.0.2.0/24"]) + "\n"  # fmt: skip


class NsdTests(TestCase):
    def setUp(self) -> None:
        reactor: Any = _reactor
        server = NameServer(SOA + ZONE + LONG)
        self.addCleanup(server.stop)
        crew = Crew(2, reactor.callFromThread, "test")
        self.addCleanup(crew.stop)
        self.checks = SenderChecks(
            DnsResolver(
                cast(Reactor, reactor), [(server.address, server.port)], rng=random.SystemRandom()
            ),
            hostname="mx.local.test",
            clock=reactor,
            now=lambda: float(AT),
            chance=lambda: 0.0,
            in_thread=crew,
            organisation=organisation,
            counted=lambda verdicts: None,
            skipped=lambda: None,
        )

    async def verdicts(self, address: str, sender: str, octets: bytes) -> Verdicts:
        peer = Peer(address, 40_000, "smtp", "s-1", helo="client.test")
        found = await self.checks.check(peer, Address(sender), MemoryOctets((octets,)))
        return found.verdicts

    async def test_verdicts(self) -> None:
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        for address, sender, octets, expected in (
            ("192.0.2.25", "a@example.org", PLAIN, ("pass", "none", "pass")),
            ("198.51.100.1", "a@example.org", PLAIN, ("fail", "none", "fail")),
            ("198.51.100.1", "a@free.example", signed, ("none", "pass", "pass")),
            ("192.0.2.9", "a@long.example", signed + b"More.", ("pass", "fail", "fail")),
            ("192.0.2.9", "a@nowhere.example", PLAIN, ("none", "none", "fail")),
        ):
            found = await self.verdicts(address, sender, octets)
            self.assertEqual((found.spf, found.dkim, found.dmarc), expected, sender)

    async def test_many_at_once(self) -> None:
        """Each has its own result."""
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        peers = [
            Peer(f"192.0.2.{n % 50}", 40_000, "smtp", "s-1", helo="x.test") for n in range(200)
        ]
        found = await gatherResults(
            [
                self.checks.check(peer, Address("a@example.org"), MemoryOctets((signed,)))
                for peer in peers
            ]
        )
        for peer, one in zip(peers, found, strict=True):
            spf = "pass" if peer.address == "192.0.2.25" else "fail"
            self.assertEqual(one.verdicts, Verdicts(spf, "pass", "pass"))  # type: ignore[arg-type]
