"""Signatures that dkimpy verifies, and that an attacker can add nothing to."""

from __future__ import annotations

import re

import dkim  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim import keys, record
from protege_mta.dkim.canonical import BodyHash
from protege_mta.dkim.sign import Signer, sign, sign_header
from protege_mta.message.headers import from_domain, header_end
from tests.corpora import message, messages

AT = 1_700_000_000
RSA = Signer("example.org", "rsa", keys.load(keys.generate_rsa(1024)))
ED25519 = Signer("example.org", "ed", keys.load(keys.generate_ed25519()))


def dns(name: bytes, timeout: int = 5) -> bytes | None:
    """The TXT records of both signers, as dkimpy asks for them."""
    for signer in (RSA, ED25519):
        if name.decode("ascii") == f"{record.dns_name(signer.selector, signer.domain)}.":
            return record.dns_record(signer.key).encode("ascii")
    return None


def is_valid(octets: bytes) -> bool:
    """Whether dkimpy finds the topmost signature good, at any strictness it knows."""
    return bool(dkim.verify(octets, minkey=1024, dnsfunc=dns))


def as_sent(octets: bytes) -> bytes:
    """DATA ends every message in CRLF (RFC 5321, 4.1.1.4)."""
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def tag(field: bytes, name: str) -> str:
    match = re.search(rf"[\s;]{name}=([^;]*)", field.decode("ascii"))
    assert match is not None, name
    return re.sub(r"\s", "", match[1])


class VerifyTests(SynchronousTestCase):
    """Sign here, verify there."""

    def test_corpus(self) -> None:
        """Every message whose author's domain is clear, however it is laid out."""
        signed = []
        for name, octets in messages().items():
            if from_domain(octets[: header_end(octets)]) != "example.org":
                continue
            signed.append(name)
            for signer in (RSA, ED25519):
                fields = sign(octets, [signer], AT)
                self.assertTrue(is_valid(fields + as_sent(octets)), (name, signer.selector))
        self.assertGreaterEqual(len(signed), 19)

    def test_a_megabyte(self) -> None:
        line = b"word \xc3\xa4  and\tmore \r\n"
        octets = b"From: a@example.org\r\n\r\n" + line * (1_048_576 // len(line)) + b"\r\n" * 1000
        self.assertTrue(is_valid(sign(octets, [ED25519], AT) + octets))

    def test_two_signers(self) -> None:
        octets = message("ordinary")
        fields = sign(octets, [RSA, ED25519], AT)
        self.assertEqual(fields.count(b"DKIM-Signature: "), 2)
        for index in (0, 1):
            self.assertTrue(
                dkim.DKIM(fields + octets, minkey=1024).verify(idx=index, dnsfunc=dns), index
            )

    def test_same_input_same_octets(self) -> None:
        """So that a second attempt, after a restart too, sends what the first one sent."""
        octets = message("ordinary")
        self.assertEqual(sign(octets, [RSA, ED25519], AT), sign(octets, [RSA, ED25519], AT))

    def test_streamed_body(self) -> None:
        octets = message("folded-header")
        end = header_end(octets)
        body = BodyHash()
        for at in range(end, len(octets), 7):
            body.update(octets[at : at + 7])
        self.assertEqual(
            sign_header(octets[:end], body.digest(), [ED25519], AT), sign(octets, [ED25519], AT)
        )

    def test_what_relays_may_do(self) -> None:
        """Trace fields on top, other folds, white space at line ends: still good."""
        octets = message("ordinary")
        fields = sign(octets, [RSA], AT)
        for changed in (
            b"Received: from x by y; now\r\n" + fields + octets,
            fields + octets.replace(b"Subject: The minutes", b"SUBJECT:   The\r\n\t minutes"),
            fields + octets.replace(b"below.\r\n", b"below.  \t\r\n") + b"\r\n\r\n",
        ):
            self.assertTrue(is_valid(changed))


class TamperTests(SynchronousTestCase):
    """What a signature has to notice."""

    def test_changes(self) -> None:
        octets = message("ordinary")
        fields = sign(octets, [ED25519], AT)
        for changed in (
            fields + octets.replace(b"Dear Bo", b"Dear Eve"),
            fields + octets + b"P.S.\r\n",
            fields + octets.replace(b"Subject: The", b"Subject: No"),
            fields + octets.replace(b"text/plain", b"text/html"),
            fields.replace(b"t=17", b"t=18") + octets,
        ):
            self.assertFalse(is_valid(changed))

    def test_nobody_adds_a_field(self) -> None:
        """One more of those that a reader believes, wherever it is put (RFC 6376, 8.15)."""
        octets = message("ordinary")
        fields = sign(octets, [ED25519], AT)
        end = header_end(octets) - 2
        for name in (
            b"From", b"To", b"Cc", b"Subject", b"Reply-To", b"Date", b"Message-ID",
            b"MIME-Version", b"Content-Type",
        ):  # fmt: skip
            added = name + b": eve@example.com\r\n"
            self.assertFalse(is_valid(fields + added + octets), name)
            self.assertFalse(is_valid(fields + octets[:end] + added + octets[end:]), name)

    def test_relays_may_add_the_rest(self) -> None:
        """A mailing list's fields, or a Date that was missing, break nothing."""
        octets = message("ordinary").replace(b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n", b"")
        fields = sign(octets, [ED25519], AT)
        for added in (b"Date: now\r\n", b"List-Id: <x>\r\n", b"Sender: list@example.com\r\n"):
            self.assertTrue(is_valid(fields + added + octets), added)


class FieldTests(SynchronousTestCase):
    """The field itself (RFC 6376, 3.5)."""

    def test_tags(self) -> None:
        field = sign(message("ordinary"), [RSA], AT)
        self.assertTrue(
            field.startswith(
                b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
                b" d=example.org; s=rsa; t=1700000000;\r\n"
                b" h="
            )
        )
        self.assertEqual(
            tag(field, "h"),
            "from:from:to:to:subject:subject:date:date:message-id:message-id:mime-version:"
            "mime-version:content-type:content-type:cc:reply-to",
        )
        self.assertEqual(field.count(b";"), 8)
        self.assertTrue(field.endswith(b"\r\n"))

    def test_every_instance_is_signed(self) -> None:
        field = sign(message("repeated-fields"), [ED25519], AT)
        names = tag(field, "h").split(":")
        self.assertEqual(
            [names.count(name) for name in ("subject", "to", "reply-to", "resent-from")],
            [3, 3, 3, 1],
        )
        self.assertEqual(
            [
                names.count(name)
                for name in ("list-unsubscribe", "list-unsubscribe-post", "x-empty")
            ],
            [2, 2, 0],
        )

    def test_lines_are_short(self) -> None:
        signers = [RSA, ED25519, Signer("example.org", "big", keys.load(keys.generate_rsa()))]
        for octets in messages().values():
            lines = sign(octets, signers, AT).split(b"\r\n")
            self.assertLessEqual(max(map(len, lines)), 78)

    def test_no_from_no_signature(self) -> None:
        """RFC 6376, 3.5: From must be signed."""
        self.assertEqual(sign(b"To: a@b.test\r\n\r\nx\r\n", [RSA], AT), b"")
        self.assertEqual(sign(message("no-header"), [RSA], AT), b"")

    def test_no_signers(self) -> None:
        self.assertEqual(sign(message("ordinary"), [], AT), b"")
