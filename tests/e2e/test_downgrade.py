"""Hops that cannot take what we have.

client  -- 8-bit, SMTPUTF8 -->  protege-mta  -- smarthost -->  smtp-sink without 8BITMIME
                                     |                            |--> OpenDKIM, dkimpy
                                     |--> DSNs to local.test
"""

from __future__ import annotations

import email
import email.policy
from typing import Final

from . import dsns
from .service import send
from .test_dkim import BODY, SigningTestCase

ANOTHERS_SIGNATURE: Final = (
    "DKIM-Signature: v=1; a=rsa-sha256; d=far.test; s=s; c=simple/simple; h=from;\r\n"
    " bh=AAAA; b=AAAA\r\n"
)


class NoEightBitTests(SigningTestCase):
    flags = ("-8",)

    def test_quoted_printable(self) -> None:
        """The content says the same, in seven bits, and is signed in that form."""
        octets = self.sent("a@signed.test", "a@signed.test", "qp")
        self.assertTrue(octets.isascii())
        self.assertEqual(self.findings(octets), self.all_pass())
        found = email.message_from_bytes(octets, policy=email.policy.SMTP)
        self.assertEqual(found["Content-Transfer-Encoding"], "quoted-printable")
        self.assertEqual(found.get_payload(decode=True), BODY)
        self.assertNotIn(b"BODY=8BITMIME", self.sink.captured()[-1])

    def test_seven_bits_stay(self) -> None:
        """A message without an octet above 127 is not touched."""
        content = b"From: a@signed.test\r\nSubject: ascii\r\n\r\n.plain =20\r\n"
        send(self.service.port("relay"), "a@signed.test", "b@far.test", content)
        octets = self.kept("ascii")
        self.assertTrue(octets.endswith(content))
        self.assertEqual(self.findings(octets), self.all_pass())

    def test_parts(self) -> None:
        """Of a multipart those that need it are recoded, the others stay as they are."""
        content = (
            "From: a@signed.test\r\nSubject: parts\r\nMIME-Version: 1.0\r\n"
            'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
            "--b\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\ngrüße\r\n"
            "--b\r\nContent-Type: text/plain\r\n\r\nplain = plain\r\n--b--\r\n"
        )
        send(
            self.service.port("relay"),
            "a@signed.test",
            "b@far.test",
            content.encode(),
            mail_options=["BODY=8BITMIME"],
        )
        octets = self.kept("parts")
        self.assertTrue(octets.isascii())
        self.assertEqual(self.findings(octets), self.all_pass())
        self.assertIn(b"\r\n\r\nplain = plain\r\n--b--\r\n", octets)
        parts = list(email.message_from_bytes(octets).walk())
        self.assertEqual(parts[1].get_payload(decode=True), "grüße".encode())

    def test_anothers_signature(self) -> None:
        """Recoding would break it: returned with 5.6.3."""
        content = f"{ANOTHERS_SIGNATURE}From: a@far.test\r\nSubject: kept\r\n\r\ngrüße\r\n"
        send(
            self.service.port("relay"),
            "eight@local.test",
            "b@far.test",
            content.encode(),
            mail_options=["BODY=8BITMIME"],
        )
        self.assertEqual(self.returned_as("eight"), "5.6.3")

    def test_a_wide_address(self) -> None:
        """There is no other form of it: returned with 5.6.7, to a sender who can be reached."""
        content = "From: a@far.test\r\nSubject: wide\r\n\r\nhello\r\n"
        send(
            self.service.port("relay"),
            "wide@local.test",
            "jörg@far.test",
            content.encode(),
            mail_options=["SMTPUTF8"],
        )
        event = self.service.fate("jörg@far.test")
        self.assertEqual((event["event"], event["reply"]["enhanced"]), ("bounced", "5.6.7"))
        self.assertEqual(self.returned_as("wide"), "5.6.7")

    def test_a_wide_header(self) -> None:
        """Likewise where only the header needs SMTPUTF8."""
        content = "From: Jörg <a@far.test>\r\nSubject: ö\r\n\r\nhello\r\n"
        send(
            self.service.port("relay"),
            "header@local.test",
            "b@far.test",
            content.encode(),
            mail_options=["SMTPUTF8", "BODY=8BITMIME"],
        )
        self.assertEqual(self.returned_as("header"), "5.6.7")

    def returned_as(self, sender: str) -> str:
        """The status in the DSN that the sender got."""
        [octets] = self.service.wait_for_mail(sender)
        return dsns.read(octets).status


class WideMailboxTests(SigningTestCase):
    def test_delivered_here(self) -> None:
        """A Maildir takes any mailbox, its name written in ASCII."""
        content = "From: a@far.test\r\nSubject: für dich\r\n\r\nhello\r\n"
        send(
            self.service.port("smtp"),
            "wide@far.test",
            "jörg@local.test",
            content.encode(),
            mail_options=["SMTPUTF8"],
        )
        [octets] = self.service.wait_for_mail("j%C3%B6rg")
        self.assertIn("Subject: für dich\n".encode(), octets)
        self.assertIn(b"with UTF8SMTP", octets)
