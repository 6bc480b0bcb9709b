"""A message for a hop that lacks 8BITMIME or SMTPUTF8: the same to its reader, or returned."""

from __future__ import annotations

import email.policy
from collections.abc import Sequence
from email import message_from_bytes
from email.message import EmailMessage

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.downgrade import (
    CANNOT_RECODE,
    NEEDS_SMTPUTF8,
    Form,
    Recoded,
    Refused,
    Unchanged,
    for_hop,
    is_fit,
)
from protege_mta.message.mime import ContentType, content_type, transfer_encoding
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import HopAbilities
from tests.corpora import message, messages

SEVEN_BIT = HopAbilities(has_8bitmime=False, has_smtputf8=False)
NO_UTF8 = HopAbilities(has_8bitmime=True, has_smtputf8=False)
EVERYTHING = HopAbilities()


def envelope(
    sender: str = "ada@example.org",
    recipients: Sequence[str] = ("bo@example.net",),
    *,
    is_smtputf8: bool = False,
) -> Envelope:
    return Envelope(
        Address(sender),
        tuple(Recipient(Address(address)) for address in recipients),
        is_smtputf8=is_smtputf8,
    )


def to_seven_bit(octets: bytes) -> Form:
    return for_hop(octets, envelope(), [0], SEVEN_BIT)


def leaves(octets: bytes) -> list[tuple[str, bytes]]:
    """Types and decoded contents of all parts that have one."""
    found = []
    for part in message_from_bytes(octets, policy=email.policy.SMTP).walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((part.get_content_type(), content))
    return found


class MimeTests(SynchronousTestCase):
    """MIME's fields as they are found."""

    def test_content_type(self) -> None:
        for value, expected in (
            (b"text/plain", ContentType("text", "plain")),
            (b" TEXT / HTML;charset=x", ContentType("text", "html")),
            (b'multipart/mixed; boundary="a b;c"', ContentType("multipart", "mixed", b"a b;c")),
            (b'multipart/x; a="; boundary=no"; BOUNDARY=b', ContentType("multipart", "x", b"b")),
            (
                b'(c) multipart/x (d; "e); boundary="a\\"b" (f)',
                ContentType("multipart", "x", b'a"b'),
            ),
            (b"multipart/x; boundary = b ; x", ContentType("multipart", "x", b"b")),
            (b"multipart/mixed; boundary*0=a", ContentType("multipart", "mixed")),
            (b"text", None),
            (b"", None),
            (b"t\xe4xt/plain", None),
        ):
            self.assertEqual(content_type(value), expected, value)

    def test_transfer_encoding(self) -> None:
        self.assertEqual(transfer_encoding(b" (really) 8Bit "), "8bit")
        self.assertEqual(transfer_encoding(b"quoted printable"), "quoted printable")


class SmtpUtf8Tests(SynchronousTestCase):
    """A hop without SMTPUTF8 (RFC 6531, 3.2)."""

    def test_addresses(self) -> None:
        octets = message("ordinary")
        for one in (
            envelope("ä@example.org"),
            envelope(recipients=["bo@example.net", "bö@example.net"]),
        ):
            self.assertEqual(for_hop(octets, one, [0, -1], NO_UTF8), Refused(NEEDS_SMTPUTF8))
            self.assertEqual(for_hop(octets, one, [0, -1], EVERYTHING), Unchanged())

    def test_only_the_hop_s_own_recipients_count(self) -> None:
        one = envelope(recipients=["bö@example.net", "bo@example.net"], is_smtputf8=True)
        self.assertEqual(for_hop(message("ordinary"), one, [1], SEVEN_BIT), Unchanged())

    def test_header_of_declared_mail(self) -> None:
        octets = message("raw-utf8-header")
        self.assertEqual(
            for_hop(octets, envelope(is_smtputf8=True), [0], NO_UTF8), Refused(NEEDS_SMTPUTF8)
        )

    def test_sloppy_header_passes_to_an_8_bit_hop(self) -> None:
        octets = message("raw-utf8-header")
        self.assertEqual(for_hop(octets, envelope(), [0], NO_UTF8), Unchanged())
        self.assertEqual(for_hop(octets, envelope(), [0], SEVEN_BIT), Refused(CANNOT_RECODE))


class FitTests(SynchronousTestCase):
    """Most mail fits, which is told without reading it."""

    def fit(self, one: Envelope, abilities: HopAbilities, *, is_eight_bit: bool = False) -> bool:
        queued = Message(QueueId("0" * 26), one, Origin("smtp"), 0.0, 0, is_eight_bit=is_eight_bit)
        return is_fit(queued, [0], abilities)

    def test_table(self) -> None:
        plain, wide = envelope(), envelope(is_smtputf8=True)
        self.assertTrue(self.fit(wide, EVERYTHING, is_eight_bit=True))
        self.assertTrue(self.fit(plain, SEVEN_BIT))
        self.assertTrue(self.fit(wide, SEVEN_BIT))
        self.assertTrue(self.fit(plain, NO_UTF8, is_eight_bit=True))
        self.assertFalse(self.fit(wide, NO_UTF8, is_eight_bit=True))
        self.assertFalse(self.fit(plain, SEVEN_BIT, is_eight_bit=True))
        self.assertFalse(self.fit(envelope("ä@example.org"), NO_UTF8))

    def test_agrees_with_the_full_look(self) -> None:
        """What is said to fit is unchanged by the full look too."""
        for octets in messages().values():
            for one in (envelope(), envelope(is_smtputf8=True), envelope("ä@example.org")):
                for abilities in (SEVEN_BIT, NO_UTF8, EVERYTHING):
                    if self.fit(one, abilities, is_eight_bit=not octets.isascii()):
                        self.assertEqual(for_hop(octets, one, [0], abilities), Unchanged())


class RecodeTests(SynchronousTestCase):
    """A hop without 8BITMIME (RFC 6152, section 3)."""

    def recoded(self, octets: bytes) -> bytes:
        form = to_seven_bit(octets)
        assert isinstance(form, Recoded), form
        self.assertTrue(form.octets.isascii())
        self.assertTrue(form.octets.endswith(b"\r\n"))
        return form.octets

    def test_text_with_mime_fields(self) -> None:
        octets = (
            b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"CONTENT-transfer-encoding:\r\n 8bit\r\nMime-Version: 1.0\r\n\r\n"
            b"Gr\xc3\xbc\xc3\x9fe = x  \r\n\r\n.\r\n"
        )
        self.assertEqual(
            self.recoded(octets),
            b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\nMime-Version: 1.0\r\n\r\n"
            b"Gr=C3=BC=C3=9Fe =3D x =20\r\n\r\n=2E\r\n",
        )

    def test_text_without_mime_fields(self) -> None:
        """RFC 1428, section 3."""
        self.assertEqual(
            self.recoded(b"Subject: x\r\n\r\n\xe4\r\n"),
            b"Subject: x\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: text/plain; charset=unknown-8bit\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n",
        )

    def test_no_header_at_all(self) -> None:
        self.assertEqual(
            self.recoded(b"\r\n\xe4"),
            b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n",
        )

    def test_long_lines_without_an_end(self) -> None:
        octets = self.recoded(b"Subject: x\r\n\r\n" + b"\xe4" * 500)
        self.assertLessEqual(max(map(len, octets.split(b"\r\n"))), 76)
        self.assertEqual(leaves(octets)[0][1].rstrip(b"\r\n"), b"\xe4" * 500)

    def test_every_leaf_keeps_its_octets(self) -> None:
        before = message("mixed-eight-bit")
        after = self.recoded(before)
        self.assertEqual(len(leaves(before)), 6)
        self.assertEqual(leaves(after), leaves(before))

    def test_all_else_stays_as_it_is(self) -> None:
        """Lines of parts that had nothing to change are in the result, in order."""
        before = message("mixed-eight-bit").split(b"\r\n")
        after = self.recoded(message("mixed-eight-bit")).split(b"\r\n")
        lost = [line for line in before if line not in after]
        self.assertEqual(
            [line for line in lost if line.isascii()],
            [
                b"Content-Transfer-Encoding: 8bit",
                b"content-transfer-encoding:",
                b" 8bit",
                b"-- ",
                b"Content-Transfer-Encoding: 8BIT",
                b"raw\x00",
                b"Content-Transfer-Encoding: 8bit",
            ],
        )
        kept = [line for line in before if line and line in after]
        remaining = iter(after)
        self.assertTrue(all(line in remaining for line in kept))

    def test_labels_of_what_holds_the_leaves(self) -> None:
        after = message_from_bytes(
            self.recoded(message("mixed-eight-bit")), EmailMessage, policy=email.policy.SMTP
        )
        self.assertEqual(
            [(part.get_content_type(), part["content-transfer-encoding"]) for part in after.walk()],
            [
                ("multipart/mixed", "7bit"),
                ("multipart/alternative", None),
                ("text/plain", "quoted-printable"),
                ("text/html", "quoted-printable"),
                ("application/octet-stream", "base64"),
                ("text/plain", None),
                ("text/plain", "quoted-printable"),
                ("message/rfc822", "7bit"),
                ("text/plain", "quoted-printable"),
            ],
        )

    def test_part_that_nothing_closes(self) -> None:
        octets = message("multipart-never-closed")
        after = leaves(self.recoded(octets))
        self.assertEqual(after[0], leaves(octets)[0])
        self.assertEqual(after[1][1].rstrip(b"\r\n"), "und mehr Grüße".encode())

    def test_recoding_twice_is_recoding_once(self) -> None:
        for name, octets in messages().items():
            form = to_seven_bit(octets)
            if isinstance(form, Recoded):
                self.assertEqual(to_seven_bit(form.octets), Unchanged(), name)

    def test_corpus(self) -> None:
        """Each message is left alone, recoded, or refused: which one is a promise."""
        forms: dict[str, list[str]] = {}
        for name, octets in messages().items():
            forms.setdefault(type(to_seven_bit(octets)).__name__, []).append(name)
        self.assertEqual(
            forms["Recoded"], ["latin1-without-mime", "mixed-eight-bit", "multipart-never-closed"]
        )
        self.assertEqual(
            forms["Refused"],
            [
                "dkim-signed",
                "lying-base64",
                "multipart-without-delimiter",
                "nul-and-controls",
                "raw-utf8-header",
                "signed-eight-bit",
                "utf8-part-header",
            ],
        )


class RefuseTests(SynchronousTestCase):
    """What cannot be recoded without breaking it is returned with 5.6.3."""

    def refused(self, header: bytes, body: bytes = b"\xe4\r\n") -> None:
        self.assertEqual(to_seven_bit(header + b"\r\n" + body), Refused(CANNOT_RECODE), header)

    def test_reply(self) -> None:
        self.assertEqual((CANNOT_RECODE.code, CANNOT_RECODE.enhanced), (554, "5.6.3"))
        self.assertEqual((NEEDS_SMTPUTF8.code, NEEDS_SMTPUTF8.enhanced), (553, "5.6.7"))

    def test_another_s_signature(self) -> None:
        self.assertEqual(to_seven_bit(message("dkim-signed")), Refused(CANNOT_RECODE))
        self.assertEqual(to_seven_bit(message("signed-eight-bit")), Refused(CANNOT_RECODE))

    def test_fields_that_contradict(self) -> None:
        self.refused(b"Content-Type: text/plain\r\nContent-Type: text/html\r\n")
        self.refused(b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n")
        self.refused(b"Content-Transfer-Encoding: x-own\r\n")
        self.refused(b"Content-Type: nonsense\r\n")

    def test_types_that_allow_no_encoding(self) -> None:
        self.refused(b"Content-Type: message/partial\r\n")
        self.refused(b"Content-Type: message/delivery-status\r\n")

    def test_octets_outside_of_the_parts(self) -> None:
        header = b"Content-Type: multipart/mixed; boundary=b\r\n"
        self.refused(header, b"\xe4\r\n--b\r\n\r\nx\r\n--b--\r\n")
        self.refused(header, b"--b\r\n\r\nx\r\n--b--\r\n\xe4\r\n")

    def test_too_deep(self) -> None:
        """Parts within parts for ever cost no stack."""
        header = b"Content-Type: message/rfc822\r\n\r\n"
        self.refused(b"MIME-Version: 1.0\r\n" + header * 5000, b"\xe4\r\n")

    def test_global_message_may_be_encoded(self) -> None:
        """RFC 6532, 3.7: alone of its kind."""
        octets = b"Content-Type: message/global\r\n\r\nSubject: \xc3\xa4\r\n\r\nx\r\n"
        form = to_seven_bit(octets)
        assert isinstance(form, Recoded)
        self.assertIn(b"Content-Transfer-Encoding: base64\r\n", form.octets)
