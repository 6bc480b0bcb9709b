"""What signatures are worth: each result has its reason, and each refusal its test."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final

import attrs
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim import keys
from protege_mta.dkim.record import dns_record
from protege_mta.dkim.sign import Signer, sign
from protege_mta.dkim.verify import SIGNATURES, Claim, Finding, best, bodies, claims, judged
from protege_mta.message.headers import header_end
from protege_mta.model.ports import Answer, Found, NoSuchName, TryAgain
from protege_mta.spool.content import MemoryOctets

AT: Final = 1_700_000_000
RSA: Final = Signer("example.org", "rsa", keys.load(keys.generate_rsa()))
ED25519: Final = Signer("example.org", "ed", keys.load(keys.generate_ed25519()))
RECORDS: Final = {
    f"{one.selector}._domainkey.{one.domain}": dns_record(one.key) for one in (RSA, ED25519)
}
PLAIN: Final = b"From: a@example.org\r\nSubject: hi\r\n\r\nA word.\r\n"


def findings(octets: bytes, records: Mapping[str, str] = RECORDS, now: float = AT) -> list[Finding]:
    """What the signatures of a whole message come to."""

    def answer(name: str) -> Answer:
        return Found((records[name],)) if name in records else NoSuchName()

    return judge(octets, answer, now)


def judge(octets: bytes, answer: Callable[[str], Answer], now: float = AT) -> list[Finding]:
    end = header_end(octets)
    found = claims(octets[: end - 2], now)
    hashed = bodies(MemoryOctets((octets,)), end, found)
    return [
        judged(one, hashed[one.form], answer(one.key_name)) if isinstance(one, Claim) else one
        for one in found
    ]


def with_tags(**tags: str) -> bytes:
    """A signature with these tags changed or, where they are empty, left out."""
    given = {
        "v": "1",
        "a": "rsa-sha256",
        "c": "relaxed/relaxed",
        "d": "example.org",
        "s": "rsa",
        "h": "from",
        "bh": base64.b64encode(b"x" * 32).decode(),
        "b": "YWJj",
    } | tags
    text = "; ".join(f"{name}={value}" for name, value in given.items() if value)
    return f"DKIM-Signature: {text}\r\n".encode()


class VerifyTests(SynchronousTestCase):
    def test_ours(self) -> None:
        """Both algorithms, in the order of the header."""
        signed = sign(PLAIN, [RSA, ED25519], AT) + PLAIN
        first, second = findings(signed)
        self.assertEqual((first.result, first.selector), ("pass", "rsa"))
        self.assertEqual((second.result, second.selector), ("pass", "ed"))
        self.assertEqual(first.domain, "example.org")
        self.assertEqual(len(first.prefix), 8)
        self.assertIn(b"b=" + first.prefix.encode(), signed)

    def test_changed(self) -> None:
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        for old, new, reason in (
            (b"A word", b"A  ward", "body hash did not verify"),
            (b": hi", b": ho", "signature did not verify"),
            (b"From: a", b"From: b", "signature did not verify"),
            (b"Subject: hi", b"From: x@y.test\r\nSubject: hi", "signature did not verify"),
        ):
            [one] = findings(signed.replace(old, new))
            self.assertEqual((one.result, one.reason), ("fail", reason))

    def test_white_space_does_not_matter(self) -> None:
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        [one] = findings(signed.replace(b"A word.", b"A \t word.  ") + b"\r\n\r\n")
        self.assertEqual(one.result, "pass")

    def test_unsigned(self) -> None:
        self.assertEqual(findings(PLAIN), [])

    def test_no_more_than_five(self) -> None:
        self.assertEqual(len(findings(with_tags() * 20 + PLAIN)), SIGNATURES)

    def test_malformed(self) -> None:
        for tags in (
            {"v": "2"}, {"v": ""}, {"a": "rsa-md5"}, {"b": "!"}, {"bh": ""}, {"h": ""},
            {"d": ""}, {"s": ""}, {"c": "odd/simple"}, {"x": "soon"}, {"q": "http"},
            {"l": "-1"}, {"i": "example.org"}, {"i": "@example.com"}, {"x": "9" * 3000 + "x"},
            {"t": "99999999999999"},
        ):  # fmt: skip
            [one] = findings(with_tags(**tags) + PLAIN)
            self.assertEqual((one.result, one.domain), ("neutral", ""), tags)

    def test_names_that_are_none(self) -> None:
        """Nothing is asked about them, and they are not repeated."""
        for tags in ({"d": "a b.test"}, {"d": "-a.test"}, {"s": "a..b"}, {"s": "x" * 70}, {"d": "a.test\x00"}):  # fmt: skip
            [one] = findings(with_tags(**tags) + PLAIN)
            self.assertEqual(one.result, "neutral", tags)
            self.assertNotIn(tags.get("d", "none"), (one.domain, one.selector))

    def test_refused(self) -> None:
        for tags, result, reason in (
            ({"h": "subject"}, "permerror", "From is not signed"),
            ({"a": "rsa-sha1"}, "policy", "SHA-1 is not trusted"),
            ({"x": str(AT - 1)}, "policy", "signature has expired"),
            ({"h": "from:" + "a:" * 300 + "b"}, "policy", "too many fields are signed"),
        ):
            [one] = findings(with_tags(**tags) + PLAIN)
            self.assertEqual((one.result, one.reason), (result, reason))

    def test_too_long(self) -> None:
        """What would take long to read is not read."""
        for value in (" " * 100, "a" * 5000):
            [one] = findings(with_tags(z=value) + PLAIN)
            self.assertEqual((one.result, one.reason), ("neutral", "signature is too long"))
        [one] = findings(with_tags() + b"X: y\r\n" * 2000 + PLAIN)
        self.assertEqual((one.result, one.reason), ("permerror", "header section is too long"))

    def test_a_header_that_is_none(self) -> None:
        for start in (b" fold\r\n", b"no field\r\n"):
            [one] = findings(start + with_tags() + PLAIN)
            self.assertEqual(one.result, "permerror")

    def test_a_part_of_the_body(self) -> None:
        """l= is well where it says all there is, and else somebody else chose the rest."""
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        end = header_end(signed)
        [claim] = claims(signed[: end - 2], AT)
        assert isinstance(claim, Claim)
        body = bodies(MemoryOctets((signed,)), end, [claim])["relaxed"]
        self.assertEqual(body.size_octets, len(b"A word.\r\n"))
        key = Found((RECORDS[claim.key_name],))
        for size, result in ((9, "pass"), (8, "policy"), (0, "policy"), (10, "fail")):
            limited = attrs.evolve(claim, size_octets=size)
            self.assertEqual(judged(limited, body, key).result, result)


class KeyTests(SynchronousTestCase):
    def judge(self, *records: str, signer: Signer = RSA) -> tuple[str, str]:
        signed = sign(PLAIN, [signer], AT) + PLAIN
        [one] = judge(signed, lambda _: Found(records))
        return one.result, one.reason

    def test_records(self) -> None:
        good = dns_record(RSA.key)
        for record, expected in (
            (good, ("pass", "")),
            (good.replace("k=rsa; ", ""), ("pass", "")),
            (good.replace("v=DKIM1; ", "t=y:s; n=a note; "), ("pass", "")),
            (good + "; h=sha1:sha256; s=email:x", ("pass", "")),
            (good + "; s=*", ("pass", "")),
            (good.replace("DKIM1", "DKIM2"), ("permerror", "key record is malformed")),
            (good + "; p=again", ("permerror", "key record is malformed")),
            ("v=DKIM1; k=rsa", ("permerror", "key record is malformed")),
            ("nothing", ("permerror", "key record is malformed")),
            ("v=DKIM1; p=", ("permerror", "key is revoked")),
            ("v=DKIM1; p=AAAA", ("permerror", "key cannot be read")),
            (good + "; h=sha1", ("permerror", "key is for another purpose")),
            (good + "; s=tlsrpt", ("permerror", "key is for another purpose")),
            (dns_record(ED25519.key), ("permerror", "key is of another kind")),
        ):
            self.assertEqual(self.judge(record), expected, record)

    def test_ed25519_records(self) -> None:
        good = dns_record(ED25519.key)
        self.assertEqual(self.judge(good, signer=ED25519), ("pass", ""))
        self.assertEqual(
            self.judge("v=DKIM1; k=ed25519; p=AAAA", signer=ED25519),
            ("permerror", "key cannot be read"),
        )

    def test_several_records(self) -> None:
        """The first that reads as a key."""
        self.assertEqual(self.judge("spf2.0/pra", dns_record(RSA.key)), ("pass", ""))

    def test_weak_and_giant_keys(self) -> None:
        """Neither those that can be broken nor those that cost us (RFC 8301, 3.2)."""
        for bits in (768, 9216):
            numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) + 1)
            try:
                octets = numbers.public_key().public_bytes(
                    Encoding.DER, PublicFormat.SubjectPublicKeyInfo
                )
            except ValueError:
                continue  # cryptography makes no such key, and so reads none
            result, reason = self.judge(f"v=DKIM1; p={base64.b64encode(octets).decode()}")
            self.assertEqual(result, "policy", reason)

    def test_strict_identity(self) -> None:
        """t=s wants i= in the very domain (RFC 6376, 3.6.1)."""
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        [claim] = claims(signed[: header_end(signed) - 2], AT)
        assert isinstance(claim, Claim)
        self.assertFalse(claim.has_subdomain)
        body = bodies(MemoryOctets((signed,)), header_end(signed), [claim])["relaxed"]
        below = attrs.evolve(claim, has_subdomain=True)
        record = dns_record(RSA.key)
        self.assertEqual(judged(below, body, Found((record,))).result, "pass")
        one = judged(below, body, Found((record + "; t=s",)))
        self.assertEqual((one.result, one.reason), ("permerror", "key is not for subdomains"))

    def test_no_answer(self) -> None:
        signed = sign(PLAIN, [RSA], AT) + PLAIN
        [one] = judge(signed, lambda _: TryAgain("SERVFAIL"))
        self.assertEqual(one.result, "temperror")
        [one] = judge(signed, lambda _: NoSuchName())
        self.assertEqual((one.result, one.reason), ("permerror", "no key"))

    def test_best(self) -> None:
        for results, expected in (
            ([], "none"),
            (["fail", "pass"], "pass"),
            (["permerror", "temperror", "fail"], "temperror"),
            (["neutral", "fail"], "fail"),
        ):
            self.assertEqual(best(Finding(one) for one in results), expected)  # type: ignore[arg-type]
