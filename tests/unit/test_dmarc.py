"""DMARC: whose a message says it is, what its domain has published, and what follows."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.verdicts import Result
from protege_mta.policy.authentication.dmarc import (
    Evidence,
    Record,
    Ruling,
    author_domains,
    read,
    ruled,
    together,
)
from protege_mta.policy.authentication.organisation import organisation


class AuthorTests(SynchronousTestCase):
    def domains(self, *values: bytes) -> tuple[str, ...]:
        return author_domains(b"".join(b"From: %b\r\n" % value for value in values))

    def test_one(self) -> None:
        for value in (
            b"a@Example.ORG",
            b"A Name <a@example.org>",
            b'"boss@bank.test" <a@example.org>',
            b"=?utf-8?q?boss?= <a@example.org>",
            b"=?utf-8?q?boss=40bank.test?= <a@example.org>",
            b"=?odd?q?boss@bank.test?= <a@example.org>",
            b"a@example.org, b@example.org",
            b"<@relay.test:a@example.org>",
        ):
            self.assertIn("example.org", self.domains(value), value)
            self.assertNotIn("bank.test", self.domains(value), value)

    def test_beyond_ascii(self) -> None:
        self.assertEqual(self.domains("a@bücher.example".encode()), ("xn--bcher-kva.example",))

    def test_doubt(self) -> None:
        """Each domain that some reader may show."""
        self.assertEqual(
            self.domains(b"a@one.example, b@two.example"), ("one.example", "two.example")
        )
        self.assertEqual(self.domains(b"a@one.example", b"b@two.example"), ("one.example", "two.example"))  # fmt: skip
        self.assertEqual(
            self.domains(b"boss@bank.example <a@one.example>"), ("bank.example", "one.example")
        )
        for value in (
            b"(boss@bank.example) a@one.example",
            b'"open <boss@bank.example>, a@one.example',
            b"(" + b"x" * 20_000 + b") a@one.example, <boss@bank.example>",
            b'"a\\b" <boss@bank.example> x@one.example',
            b"a@one.example <boss@bank.example",
        ):
            self.assertEqual(set(self.domains(value)), {"bank.example", "one.example"}, value)

    def test_none(self) -> None:
        self.assertEqual(author_domains(b"Subject: x\r\n"), ())
        for value in (b"", b"nobody", b"undisclosed:;", b"a@localhost", b"a@[192.0.2.1]"):
            self.assertEqual(self.domains(value), (), value)


class RecordTests(SynchronousTestCase):
    def test_tags(self) -> None:
        for text, expected in (
            ("v=DMARC1; p=reject", Record("reject", "reject")),
            ("v=DMARC1;p=none;sp=quarantine", Record("none", "quarantine")),
            ("v=DMARC1; p=Reject; pct=20; adkim=s; aspf=S;", Record("reject", "reject", 20, True, True)),
            ("v = DMARC1 ; p = quarantine ; np=reject; x=y", Record("quarantine", "quarantine")),
            ("v=DMARC1; p=reject; pct=many", Record("reject", "reject", 100)),
            ("v=DMARC1; p=reject; pct=999", Record("reject", "reject", 100)),
            ("v=DMARC1; p=odd; rua=mailto:a@b.test", Record("none", "none")),
            ("v=DMARC1; p=reject; sp=odd; rua=mailto:a@b.test", Record("none", "none")),
            ("v=DMARC1; rua=mailto:a@b.test", Record("none", "none")),
            ("v=DMARC1; p=odd", None),
            ("v=DMARC1", None),
            ("v=DMARC2; p=reject", None),
            ("p=reject; v=DMARC1", None),
            ("", None),
        ):  # fmt: skip
            self.assertEqual(read([text]), expected, text)

    def test_among_others(self) -> None:
        """Others do not matter; two of them are as good as none (RFC 7489, 6.6.3)."""
        one = "v=DMARC1; p=reject"
        self.assertEqual(read(["v=spf1 -all", one]), Record("reject", "reject"))
        self.assertIsNone(read([one, "v=DMARC1; p=none"]))


class RulingTests(SynchronousTestCase):
    def ruled(
        self,
        spf: tuple[Result, str] = ("none", ""),
        *dkim: tuple[Result, str],
        record: Record = Record("reject", "quarantine"),  # noqa: B008
        domain: str = "example.org",
        **rest: Any,
    ) -> Ruling:
        given: dict[str, Any] = {"is_subdomain": False, "chance": 0.0, **rest}
        return ruled(
            domain, record, evidence=Evidence(*spf, dkim), organisation=organisation, **given
        )

    def test_either_will_do(self) -> None:
        good = Ruling("pass", "example.org")
        self.assertEqual(self.ruled(("pass", "example.org")), good)
        self.assertEqual(self.ruled(("fail", "x.test"), ("pass", "example.org")), good)
        several: list[tuple[Result, str]] = [("fail", "example.org"), ("pass", "example.org")]
        self.assertEqual(self.ruled(("none", ""), *several), good)

    def test_another_domains_pass_is_nothing(self) -> None:
        bad = Ruling("fail", "example.org", "reject")
        self.assertEqual(self.ruled(("pass", "other.org"), ("pass", "other.example")), bad)
        self.assertEqual(self.ruled(("pass", "notexample.org")), bad)
        self.assertEqual(self.ruled(("pass", "org")), bad)
        self.assertEqual(self.ruled(), bad)

    def test_relaxed_and_strict(self) -> None:
        strict = Record("reject", "reject", 100, True, True)
        self.assertEqual(self.ruled(("pass", "m.example.org")).result, "pass")
        self.assertEqual(self.ruled(("none", ""), ("pass", "m.example.org")).result, "pass")
        self.assertEqual(self.ruled(("pass", "m.example.org"), record=strict).result, "fail")
        one = self.ruled(("none", ""), ("pass", "m.example.org"), record=strict)
        self.assertEqual(one.result, "fail")
        self.assertEqual(self.ruled(("pass", "example.org"), record=strict).result, "pass")
        below = self.ruled(("pass", "example.org"), domain="m.example.org")
        self.assertEqual(below.result, "pass")

    def test_public_suffixes(self) -> None:
        """Two customers of one registry are not one organisation."""
        one = self.ruled(("pass", "a.co.uk"), domain="b.co.uk")
        self.assertEqual(one.result, "fail")
        self.assertEqual(organisation("www.a.co.uk"), "a.co.uk")
        self.assertEqual(organisation("co.uk"), "co.uk")
        self.assertEqual(organisation("a.b.local.test"), "local.test")

    def test_subdomains(self) -> None:
        self.assertEqual(self.ruled(is_subdomain=True).wish, "quarantine")

    def test_a_part_of_the_mail(self) -> None:
        """The others get the next milder policy (RFC 7489, 6.6.4)."""
        for wish, milder in (("reject", "quarantine"), ("quarantine", "none"), ("none", "none")):
            record = Record(wish, wish, 20)  # type: ignore[arg-type]
            self.assertEqual(self.ruled(record=record, chance=0.19).wish, wish)
            self.assertEqual(self.ruled(record=record, chance=0.2).wish, milder)

    def test_what_cannot_be_known(self) -> None:
        """No harm comes of it, unless it is of no account."""
        self.assertEqual(self.ruled(("temperror", "example.org")).result, "temperror")
        self.assertEqual(self.ruled(("temperror", "example.org")).wish, "none")
        self.assertEqual(self.ruled(("none", ""), ("temperror", "m.example.org")).result, "temperror")  # fmt: skip
        self.assertEqual(self.ruled(("temperror", "other.org")).result, "fail")
        passes = self.ruled(("temperror", "example.org"), ("pass", "example.org"))
        self.assertEqual(passes.result, "pass")

    def test_several_authors(self) -> None:
        """The strictest that fails (RFC 7489, 6.6.1)."""
        one, two = Ruling("fail", "a.test", "quarantine"), Ruling("fail", "b.test", "reject")
        self.assertEqual(together([Ruling("pass", "c.test"), one, two]), two)
        self.assertEqual(together([Ruling("none", "c.test"), one]), one)
        self.assertEqual(together([]).result, "permerror")
        self.assertEqual(together([]).wish, "none")
