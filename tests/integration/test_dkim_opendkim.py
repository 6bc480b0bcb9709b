"""OpenDKIM verifies what we sign, and we what it signs.

    dkim.sign -> message files -> opendkim -t (keys from a file in place of DNS) -> its findings
    message files -> opendkim -t (signing) -> dkim.verify

No port is opened and no DNS is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim import keys, record
from protege_mta.dkim.sign import Signer, sign
from protege_mta.message.downgrade import Recoded, for_hop
from protege_mta.message.headers import from_domain, header_end
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.ports import HopAbilities
from protege_mta.testing.opendkim import OpenDkim, OpenDkimSigner
from tests.corpora import message, messages
from tests.unit.test_dkim_verify import findings

AT: Final = 1_700_000_000
RSA: Final = Signer("example.org", "rsa", keys.load(keys.generate_rsa()))
ED25519: Final = Signer("example.org", "ed", keys.load(keys.generate_ed25519()))
THEIR_PEM: Final = keys.generate_rsa()


class OpenDkimTests(SynchronousTestCase):
    """Both algorithms, whatever the message looks like."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        opendkim = OpenDkim(
            {
                record.dns_name(one.selector, one.domain): record.dns_record(one.key)
                for one in (RSA, ED25519)
            },
            folder,
        )
        self.findings = opendkim.findings
        self.signers = [RSA, ED25519] if opendkim.knows_ed25519 else [RSA]

    def expected(self, result: str) -> dict[str, str]:
        return dict.fromkeys([signer.selector for signer in self.signers], result)

    def test_corpus(self) -> None:
        checked = 0
        for name, octets in messages().items():
            header = octets[: header_end(octets)]
            # OpenDKIM's file reader, unlike a milter, ends a line at NUL.
            if from_domain(header) != "example.org" or b"\0" in octets:
                continue
            if b"dkim-signature" in header.lower():
                continue  # another's, whose key nobody has
            sent = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
            findings = self.findings(sign(octets, self.signers, AT) + sent)
            self.assertEqual(findings, self.expected("pass"), name)
            checked += 1
        self.assertGreaterEqual(checked, 15)

    def test_a_megabyte(self) -> None:
        line = b"word \xc3\xa4  and\tmore \r\n"
        octets = b"From: a@example.org\r\n\r\n" + line * (1_048_576 // len(line)) + b"\r\n" * 99
        self.assertEqual(
            self.findings(sign(octets, self.signers, AT) + octets), self.expected("pass")
        )

    def test_recoded_message_is_signed_in_its_new_form(self) -> None:
        envelope = Envelope(Address("a@example.org"), (Recipient(Address("b@example.net")),))
        form = for_hop(message("mixed-eight-bit"), envelope, [0], HopAbilities(has_8bitmime=False))
        assert isinstance(form, Recoded)
        self.assertEqual(
            self.findings(sign(form.octets, self.signers, AT) + form.octets),
            self.expected("pass"),
        )

    def test_changed_message_fails(self) -> None:
        """The verifier is awake."""
        octets = message("ordinary")
        fields = sign(octets, self.signers, AT)
        self.assertEqual(self.findings(fields + octets + b"P.S.\r\n"), self.expected("fail"))
        self.assertEqual(
            self.findings(fields + b"Subject: added\r\n" + octets), self.expected("fail")
        )


class VerifyTests(SynchronousTestCase):
    """Another's signatures are found to be what they are."""

    def signer(self, canonical: str) -> OpenDkimSigner:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        return OpenDkimSigner("example.org", "their", THEIR_PEM, canonical, folder)

    def results(self, octets: bytes) -> list[tuple[str, str]]:
        records = {"their._domainkey.example.org": record.dns_record(keys.load(THEIR_PEM))}
        return [(one.result, one.reason) for one in findings(octets, records)]

    def test_corpus(self) -> None:
        """Whatever the message looks like, in each form of the body."""
        for canonical in ("relaxed/simple", "relaxed/relaxed"):
            signer = self.signer(canonical)
            checked = 0
            for name, octets in messages().items():
                header = octets[: header_end(octets)]
                if from_domain(header) != "example.org" or b"\0" in octets:
                    continue
                if b"dkim-signature" in header.lower():
                    continue
                sent = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
                signed = signer.field(sent) + sent
                self.assertEqual(self.results(signed), [("pass", "")], (canonical, name))
                [(result, _)] = self.results(signed + b"More.\r\n")
                self.assertIn(result, ("fail", "permerror"), name)
                checked += 1
            self.assertGreaterEqual(checked, 15)

    def test_simple_header(self) -> None:
        """One message will do: OpenDKIM's file reader changes the white space of odd fields."""
        for canonical in ("simple/simple", "simple/relaxed"):
            octets = message("ordinary")
            signed = self.signer(canonical).field(octets) + octets
            self.assertEqual(self.results(signed), [("pass", "")])
            [changed] = self.results(signed.replace(b"\nFrom: ", b"\nFrom:  ", 1))
            self.assertEqual(changed, ("fail", "signature did not verify"))
