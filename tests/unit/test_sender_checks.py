"""The checks of one message: what is asked, what is made of the answers, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim.sign import sign
from protege_mta.model.address import NULL, Address
from protege_mta.model.ports import Answer, Authentication, Octets, Peer, RecordKind
from protege_mta.model.verdicts import Verdicts
from protege_mta.policy.authentication.checks import DEADLINE_S, LOOKUPS, SenderChecks
from protege_mta.policy.authentication.organisation import organisation
from protege_mta.spool.content import MemoryOctets
from protege_mta.testing.spools import at_once
from protege_mta.testing.zones import ZoneResolver
from tests.unit.test_dkim_verify import AT, RECORDS, RSA

ZONE: Final = """
$TTL 60
example.org. TXT "v=spf1 include:hosts.example.net -all"
hosts.example.net. TXT "v=spf1 a:out.example.net ~all"
out.example.net. A 192.0.2.25
_dmarc.example.org. TXT "v=DMARC1; p=reject; sp=quarantine"
part.example. TXT "v=spf1 -all"
_dmarc.part.example. TXT "v=DMARC1; p=reject; pct=50"
free.example. TXT "nothing"
mx.helo.example. TXT "v=spf1 ip4:192.0.2.25 -all"
""" + "".join(f'{name}. TXT "{text[:200]}" "{text[200:]}"\n' for name, text in RECORDS.items())

PLAIN: Final = b"From: a@example.org\r\nSubject: hi\r\n\r\nA word.\r\n"
TEMPERROR: Final = Verdicts("temperror", "temperror", "temperror")


class SlowResolver:
    """Answers to nobody, and sees who gives up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    def lookup(self, name: str, kind: RecordKind) -> Deferred[Answer]:
        self.asked.append(name)
        return Deferred(lambda _: self.cancelled.append(name))


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver: Any = ZoneResolver(ZONE)
        self.counted: list[Verdicts] = []
        self.skipped = 0
        self.chance = 0.0

    def checks(self, **rest: Any) -> SenderChecks:
        def skipped() -> None:
            self.skipped += 1

        return SenderChecks(
            self.resolver,
            hostname="mx.local.test",
            clock=self.clock,
            now=lambda: float(AT),
            chance=lambda: self.chance,
            organisation=organisation,
            counted=self.counted.append,
            skipped=skipped,
            **{"in_thread": at_once, **rest},
        )

    def begin(
        self,
        octets: bytes | Octets = PLAIN,
        sender: str = "a@example.org",
        address: str = "192.0.2.25",
        helo: str = "mx.helo.example",
        checks: SenderChecks | None = None,
    ) -> Deferred[Authentication]:
        peer = Peer(address, 40_000, "smtp", "s-1", helo=helo)
        content = MemoryOctets((octets,)) if isinstance(octets, bytes) else octets
        return (checks or self.checks()).check(peer, Address(sender), content)

    def check(self, *arguments: Any, **rest: Any) -> Authentication:
        return self.successResultOf(self.begin(*arguments, **rest))

    def words(self, found: Authentication) -> str:
        return " ".join(found.field.decode().split())

    # --- results ---------------------------------------------------------------------------------

    def test_from_the_right_host(self) -> None:
        found = self.check()
        self.assertEqual(found.verdicts, Verdicts("pass", "none", "pass"))
        self.assertEqual(found.policy, "none")
        self.assertEqual(
            self.words(found),
            "Authentication-Results: mx.local.test; spf=pass smtp.mailfrom=a@example.org; "
            "dkim=none; dmarc=pass header.from=example.org",
        )
        self.assertEqual(self.counted, [found.verdicts])

    def test_forged(self) -> None:
        found = self.check(address="198.51.100.1")
        self.assertEqual(found.verdicts, Verdicts("fail", "none", "fail"))
        self.assertEqual(found.policy, "reject")
        self.assertIn("dmarc=fail policy.dmarc=reject header.from=example.org", self.words(found))

    def test_signed(self) -> None:
        found = self.check(sign(PLAIN, [RSA], AT) + PLAIN, sender="x@free.example")
        self.assertEqual(found.verdicts, Verdicts("none", "pass", "pass"))
        self.assertIn(" dkim=pass header.d=example.org header.s=rsa header.b=", self.words(found))

    def test_signed_and_changed(self) -> None:
        found = self.check(sign(PLAIN, [RSA], AT) + PLAIN + b"More.\r\n", sender="x@free.example")
        self.assertEqual(found.verdicts, Verdicts("none", "fail", "fail"))
        self.assertEqual(found.policy, "reject")

    def test_subdomain(self) -> None:
        """The organisation's policy for subdomains (RFC 7489, 6.6.3)."""
        found = self.check(PLAIN.replace(b"a@", b"a@m."), sender="x@free.example")
        self.assertEqual((found.verdicts.dmarc, found.policy), ("fail", "quarantine"))

    def test_no_policy(self) -> None:
        found = self.check(b"From: a@free.example\r\n\r\n", sender="a@free.example")
        self.assertEqual(found.verdicts, Verdicts("none", "none", "none"))
        self.assertIn("dmarc=none header.from=free.example", self.words(found))

    def test_a_part_of_the_mail(self) -> None:
        octets = b"From: a@part.example\r\n\r\n"
        for chance, policy in ((0.1, "reject"), (0.9, "quarantine")):
            self.chance = chance
            self.assertEqual(self.check(octets, sender="a@part.example").policy, policy)

    def test_null_reverse_path(self) -> None:
        """SPF is about HELO's name."""
        found = self.check(sender=NULL)
        self.assertEqual(found.verdicts.spf, "pass")
        self.assertIn("spf=pass smtp.helo=mx.helo.example;", self.words(found))
        self.assertEqual(found.verdicts.dmarc, "fail")

    def test_senders_that_are_not_repeated(self) -> None:
        for sender in ('"a;dkim=pass"@example.org', "jürgen@example.org"):
            found = self.check(sender=sender)
            self.assertIn("smtp.mailfrom=example.org;", self.words(found))

    def test_several_authors(self) -> None:
        """A domain that stands behind its part does not stand for the others."""
        octets = b"From: a@example.org, b@part.example\r\n\r\n"
        found = self.check(octets)
        self.assertEqual((found.verdicts.dmarc, found.policy), ("fail", "reject"))
        self.assertIn("header.from=part.example", self.words(found))

    def test_very_many_authors(self) -> None:
        octets = b"From: %b\r\n\r\n" % b", ".join(b"a@d%d.example" % n for n in range(50))
        found = self.check(octets)
        self.assertEqual((found.verdicts.dmarc, found.policy), ("fail", "reject"))
        self.assertLess(len(self.resolver.asked), 10)

    def test_no_author(self) -> None:
        found = self.check(b"Subject: hi\r\n\r\n")
        self.assertEqual((found.verdicts.dmarc, found.policy), ("permerror", "none"))

    def test_a_header_without_end(self) -> None:
        found = self.check(b"X: y\r\n" * 60_000)
        self.assertEqual(found.verdicts, Verdicts("pass", "permerror", "permerror"))

    # --- trouble ---------------------------------------------------------------------------------

    def test_names_that_cannot_be_looked_up(self) -> None:
        """Nothing is held against the sender."""
        self.resolver = ZoneResolver(ZONE, broken=["hosts.example.net"])
        found = self.check()
        self.assertEqual(found.verdicts, Verdicts("temperror", "none", "temperror"))
        self.assertEqual(found.policy, "none")
        self.resolver = ZoneResolver(ZONE, broken=["_dmarc.example.org"])
        found = self.check(address="198.51.100.1")
        self.assertEqual(found.verdicts, Verdicts("fail", "none", "temperror"))
        self.resolver = ZoneResolver(ZONE, broken=["rsa._domainkey.example.org"])
        found = self.check(sign(PLAIN, [RSA], AT) + PLAIN, sender="x@free.example")
        self.assertEqual(found.verdicts, Verdicts("none", "temperror", "temperror"))

    def test_deadline(self) -> None:
        """One for all questions together; nobody waits for an answer any more."""
        self.resolver = slow = SlowResolver()
        waiting = self.begin(sign(PLAIN, [RSA], AT) + PLAIN)
        self.clock.advance(DEADLINE_S - 0.1)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        found = self.successResultOf(waiting)
        self.assertEqual(found.verdicts, TEMPERROR)
        self.assertEqual(found.policy, "none")
        self.assertEqual(sorted(slow.asked), sorted(slow.cancelled))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asked_together(self) -> None:
        """What is known to be needed is asked for at once."""
        self.resolver.is_held = True
        waiting = self.begin(sign(PLAIN, [RSA], AT) + PLAIN)
        self.assertEqual(
            sorted(name for name, _ in self.resolver.asked),
            ["_dmarc.example.org", "example.org", "rsa._domainkey.example.org"],
        )
        self.resolver.is_held = False
        self.resolver.release()
        self.assertEqual(self.successResultOf(waiting).verdicts, Verdicts("pass", "pass", "pass"))

    def test_no_room(self) -> None:
        """Who comes when too many are being checked is not kept waiting."""
        self.resolver = SlowResolver()
        checks = self.checks(most=2)
        waiting = [self.begin(checks=checks) for _ in range(2)]
        found = self.check(checks=checks)
        self.assertEqual((found.verdicts, found.policy), (TEMPERROR, "none"))
        self.assertIn(b"spf=temperror", found.field)
        self.assertEqual((self.skipped, self.counted), (1, []))
        self.clock.advance(DEADLINE_S)
        for one in waiting:
            self.successResultOf(one)
        again = self.begin(checks=checks)  # there is room again
        self.assertNoResult(again)
        self.clock.advance(DEADLINE_S)
        self.successResultOf(again)

    def test_busy_threads(self) -> None:
        """Who has waited for one until time was up is not read any more."""

        def later(work: Callable[[], Any]) -> Deferred[Any]:
            self.clock.advance(DEADLINE_S)
            return at_once(work)

        found = self.check(checks=self.checks(in_thread=later))
        self.assertEqual((found.verdicts, found.policy), (TEMPERROR, "none"))
        self.assertEqual(self.skipped, 1)

    def test_not_all_of_the_resolver(self) -> None:
        """However many are checked, lookups of routing find room."""
        self.resolver = slow = SlowResolver()
        checks = self.checks()
        waiting = [self.begin(checks=checks, sender=f"a@d{n}.example") for n in range(LOOKUPS)]
        self.assertEqual(len(slow.asked), LOOKUPS)
        self.clock.advance(DEADLINE_S)
        for one in waiting:
            self.assertEqual(self.successResultOf(one).verdicts.spf, "temperror")

    def test_a_bug(self) -> None:
        """It is told, and mail comes in."""

        class Broken:
            size_octets = 10

            def read(self, offset: int = 0, size: int = -1) -> bytes:
                raise OSError("the disk")

        found = self.check(Broken())
        self.assertEqual(found.verdicts, TEMPERROR)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
