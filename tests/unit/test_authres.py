"""The Authentication-Results field: ours is well-formed whatever strangers choose, and theirs never
goes by our name."""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.authres import ResInfo, field, without_foreign
from protege_mta.message.headers import is_well_formed

OURS: Final = "mx.local.test"


class FieldTests(SynchronousTestCase):
    def test_all_methods(self) -> None:
        made = field(
            OURS,
            [
                ResInfo("spf", "pass", "", (("smtp.mailfrom", "a@example.org"),)),
                ResInfo("dkim", "pass", "", (("header.d", "example.org"), ("header.s", "s1"), ("header.b", "abcdefgh"))),
                ResInfo("dkim", "fail", "body hash did not verify", (("header.d", "list.example"), ("header.s", "x"), ("header.b", "ab/c+d=="))),
                ResInfo("dmarc", "pass", "", (("policy.dmarc", ""), ("header.from", "example.org"))),
            ],
        )  # fmt: skip
        self.assertEqual(
            made,
            b"Authentication-Results: mx.local.test;\r\n"
            b"\tspf=pass smtp.mailfrom=a@example.org;\r\n"
            b"\tdkim=pass header.d=example.org header.s=s1 header.b=abcdefgh;\r\n"
            b'\tdkim=fail reason="body hash did not verify" header.d=list.example\r\n'
            b'\t header.s=x header.b="ab/c+d==";\r\n'
            b"\tdmarc=pass header.from=example.org\r\n",
        )

    def test_nothing_was_found(self) -> None:
        self.assertEqual(field(OURS, []), b"Authentication-Results: mx.local.test;\r\n\tnone\r\n")

    def test_verdicts_alone(self) -> None:
        self.assertEqual(
            field(OURS, [ResInfo("spf", "pass"), ResInfo("dmarc", "fail")]),
            b"Authentication-Results: mx.local.test;\r\n\tspf=pass;\r\n\tdmarc=fail\r\n",
        )

    def test_injection(self) -> None:
        """What is not safe to repeat is left out."""
        for hostile in (
            "a.test; dmarc=pass",
            "a.test\r\nX: y",
            'a"b@c.test',
            "a@b.test dkim=pass",
            "ü.test",
            "(a)",
            "x" * 300,
            "",
        ):
            made = field(OURS, [ResInfo("spf", "fail", "", (("smtp.mailfrom", hostile),))])
            self.assertEqual(made, b"Authentication-Results: mx.local.test;\r\n\tspf=fail\r\n")

    def test_the_longest_names(self) -> None:
        long = ".".join(["x" * 50] * 5)
        made = field(OURS, [ResInfo("dkim", "fail", "", (("header.d", long), ("header.s", long)))])
        self.assertTrue(is_well_formed(made))
        self.assertLess(max(map(len, made.split(b"\r\n"))), 300)


class ForeignTests(SynchronousTestCase):
    def kept(self, *fields: bytes) -> bytes:
        return without_foreign(b"".join(fields), OURS)

    def test_in_our_name(self) -> None:
        for value in (
            b"mx.local.test; spf=pass",
            b"MX.Local.Test;\r\n\tspf=pass",
            b"\r\n mx.local.test 1; spf=pass",
            b"(a comment; really) mx.local.test; none",
            b'"mx.local.test"; none',
            b"mx.local.test.; none",
            b"mx.local.test",
            b"mx.local.test/1; none",
            b"(open mx.local.test; spf=pass",
        ):
            for name in (b"Authentication-Results", b"AUTHENTICATION-results \t"):
                fields = (b"A: b\r\n", b"%b:%b\r\n" % (name, value), b"From: a@b.test\r\n")
                self.assertEqual(self.kept(*fields), b"A: b\r\nFrom: a@b.test\r\n", value)

    def test_in_others_names(self) -> None:
        """They stay as they are."""
        for value in (
            b"mx.other.test; spf=pass smtp.mailfrom=mx.local.test",
            b"(mx.local.test) mx.other.test; none",
            b"notmx.local.test; none",
            b"mx.local.test.other; none",
            b" x;\r\n  mx.local.test",
        ):
            fields = b"Authentication-Results:%b\r\nFrom: a@b.test\r\n" % value
            self.assertEqual(self.kept(fields), fields)

    def test_other_fields(self) -> None:
        fields = b"Subject: Authentication-Results: mx.local.test; x\r\nX-Authentication-Results: mx.local.test\r\n"
        self.assertEqual(self.kept(fields), fields)

    def test_marks(self) -> None:
        """Nobody else says what is quarantined, or is not."""
        kept = self.kept(b"A: b\r\n", b"x-protege-QUARANTINE: no\r\n\tfold\r\n", b"C: d\r\n")
        self.assertEqual(kept, b"A: b\r\nC: d\r\n")
