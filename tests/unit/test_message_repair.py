"""What a submission server adds and takes away, and what it leaves alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.repair import HeaderReader, repaired, split
from tests.corpora import messages

DATE = "Thu, 26 Nov 2026 01:00:00 +0000"
WHOLE = (
    b"From: a@x.test\r\nDate: Wed, 25 Nov 2026 10:00:00 +0100 (CET)\r\nMessage-ID: <1@x.test>\r\n"
)


def repair(fields: bytes, author: str = "ada@x.test") -> bytes:
    return repaired(fields, date=DATE, author=author, message_id="<new@mx.test>")


class SplitTests(SynchronousTestCase):
    """Where the header section ends."""

    def test_blank_line(self) -> None:
        self.assertEqual(split(b"A: b\r\n c\r\n\r\nbody\r\n"), (b"A: b\r\n c\r\n", b"body\r\n"))
        self.assertEqual(split(b"A: b\r\n\r\n\r\nbody"), (b"A: b\r\n", b"\r\nbody"))

    def test_no_blank_line(self) -> None:
        """The first line that is no field is the body's; it would be read as either otherwise."""
        for body in (
            b"Hello\r\n\r\nFrom: b@x.test\r\n",
            b"no field\r\n",
            b": x\r\n",
            b"a b: c\r\n",
        ):
            self.assertEqual(split(b"A: b\r\n" + body), (b"A: b\r\n", body))

    def test_no_body(self) -> None:
        self.assertEqual(split(b"A: b\r\nC: d\r\n"), (b"A: b\r\nC: d\r\n", b""))
        self.assertEqual(split(b"A: b\r\n\r\n"), (b"A: b\r\n", b""))

    def test_no_line_end(self) -> None:
        self.assertEqual(split(b"A: b\r\nC: d"), (b"A: b\r\nC: d\r\n", b""))
        self.assertEqual(split(b"A: b\r\nhello"), (b"A: b\r\n", b"hello\r\n"))

    def test_no_header(self) -> None:
        for body in (b"Hello\r\nFrom: b@x.test\r\n", b" From: b@x.test\r\n", b"\tx\r\n\r\ny\r\n"):
            self.assertEqual(split(body), (b"", body))
        self.assertEqual(split(b"\r\nbody\r\n"), (b"", b"body\r\n"))

    def test_nothing(self) -> None:
        self.assertEqual(split(b""), (b"", b""))

    def test_line_of_white_space_is_a_fold(self) -> None:
        self.assertEqual(split(b"A: b\r\n \r\nC: d\r\n\r\nx"), (b"A: b\r\n \r\nC: d\r\n", b"x"))

    def test_white_space_before_the_colon(self) -> None:
        """Obsolete, and a field all the same (RFC 5322, 4.5.8)."""
        self.assertEqual(split(b"From : a\r\n\r\nx"), (b"From : a\r\n", b"x"))

    def test_line_of_a_mailbox_file(self) -> None:
        self.assertEqual(split(b"From a Sat Jan  1\r\nA: b\r\n\r\nx"), (b"A: b\r\n", b"x"))
        self.assertEqual(split(b"From a\r\nFrom b\r\n\r\nx"), (b"", b"From b\r\n\r\nx"))

    def test_bare_line_ends_end_nothing(self) -> None:
        self.assertEqual(split(b"A: b\nC: d\r\n\r\nx"), (b"", b"A: b\nC: d\r\n\r\nx"))
        self.assertEqual(split(b"A: b\r\nC: d\r\r\nx"), (b"A: b\r\n", b"C: d\r\r\nx"))


class HeaderReaderTests(SynchronousTestCase):
    """A message in pieces."""

    def test_held_back_until_the_end_shows(self) -> None:
        reader = HeaderReader(100)
        for piece in (b"Fr", b"om: a\r", b"\n", b" b\r\n"):
            self.assertIsNone(reader.feed(piece))
        self.assertEqual(reader.feed(b"\r\nbody"), (b"From: a\r\n b\r\n", b"body"))

    def test_end_has_to_show_in_time(self) -> None:
        """In so many octets, the blank line included, however they come."""
        message = b"A: b\r\nC: d\r\n\r\n"
        self.assertEqual(HeaderReader(14).feed(message + b"x" * 99)[1:], (b"x" * 99,))  # type: ignore[index]
        for pieces in ([message, b"x"], [message + b"x"], [message[:13], message[13:]]):
            reader = HeaderReader(13)
            self.assertEqual([reader.feed(piece) for piece in pieces], [None] * len(pieces))
            self.assertTrue(reader.is_too_long)

    def test_message_of_just_that_many_octets(self) -> None:
        reader = HeaderReader(12)
        self.assertIsNone(reader.feed(b"A: b\r\nC: d\r\n"))
        self.assertFalse(reader.is_too_long)
        self.assertEqual(reader.end(), (b"A: b\r\nC: d\r\n", b""))
        reader = HeaderReader(9)
        self.assertIsNone(reader.feed(b"A: b\r\ncde"))
        self.assertEqual(reader.end(), (b"A: b\r\n", b"cde\r\n"))


class RepairedTests(SynchronousTestCase):
    """RFC 6409, section 8."""

    def test_whole_header_stays_as_it_is(self) -> None:
        self.assertEqual(repair(WHOLE), WHOLE)

    def test_what_is_missing_is_added_behind(self) -> None:
        self.assertEqual(
            repair(b"Subject: x\r\n"),
            b"Subject: x\r\n"
            b"Date: Thu, 26 Nov 2026 01:00:00 +0000\r\n"
            b"From: ada@x.test\r\n"
            b"Message-ID: <new@mx.test>\r\n",
        )

    def test_no_author_to_add(self) -> None:
        self.assertNotIn(b"From:", repair(b"Subject: x\r\n", author=""))

    def test_author_beyond_ascii(self) -> None:
        self.assertIn("From: ädä@x.test\r\n".encode(), repair(b"", author="ädä@x.test"))

    def test_date_that_cannot_be_read(self) -> None:
        """Gives way to one that can; a second one would make two."""
        for bad in (b"now", b"", b"yesterday\r\n at noon", b"2026-11-25", b"\xff", b"1 " * 200):
            fields = repair(b"Date: %b\r\nFrom: a@x.test\r\nMessage-ID: <1@x.test>\r\n" % bad)
            self.assertEqual(
                fields,
                b"From: a@x.test\r\nMessage-ID: <1@x.test>\r\n"
                b"Date: Thu, 26 Nov 2026 01:00:00 +0000\r\n",
                bad,
            )

    def test_dates_that_can(self) -> None:
        for good in (
            b"Wed, 25 Nov 2026 10:00:00 +0100",
            b"25 Nov 2026 10:00 -0000",
            b"Wed, 25 Nov 2026\r\n\t10:00:00 GMT (UTC)",
            b"Wednesday, 25-Nov-26 10:00:00 UT",
        ):
            fields = WHOLE.replace(b"Wed, 25 Nov 2026 10:00:00 +0100 (CET)", good)
            self.assertEqual(repair(fields), fields, good)

    def test_empty_message_id(self) -> None:
        fields = repair(WHOLE.replace(b" <1@x.test>", b""))
        self.assertEqual(fields.lower().count(b"message-id"), 1)
        self.assertIn(b"Message-ID: <new@mx.test>\r\n", fields)

    def test_secret_recipients_and_traces_of_a_delivery(self) -> None:
        """In whatever case, with all their lines, each of them."""
        for field in (
            b"Bcc: a@b.test\r\n",
            b"bcc:\r\n",
            b"BCC : a@b.test,\r\n c@d.test,\r\n\te@f.test\r\n",
            b"Resent-Bcc: a@b.test\r\n \r\n Bcc: c\r\n",
            b"Return-Path: <a@b.test>\r\n",
        ):
            self.assertEqual(repair(field + WHOLE + field + field), WHOLE, field)

    def test_what_only_looks_like_it(self) -> None:
        fields = b"X-Bcc: a\r\nBcc-X: b\r\nSubject: x\r\n Bcc: c\r\nSender: s@x.test\r\n" + WHOLE
        self.assertEqual(repair(fields), fields)

    def test_corpus(self) -> None:
        """Fields of messages as they come stay octet for octet, and in order."""
        for name, octets in messages().items():
            fields, _ = split(octets)
            after = repair(fields)
            self.assertEqual(repair(after), after, name)
            for line in after.split(b"\r\n")[:-4]:
                self.assertIn(line, fields, name)
