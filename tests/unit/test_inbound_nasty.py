"""Messages that are made to break who reads them, and what programs get of them."""

from __future__ import annotations

import base64
import time
from typing import Any, Final

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.html_text import as_text
from protege_mta.message.inbound_json import ALL_INLINE_OCTETS, TEXT_OCTETS, compose
from protege_mta.message.parts import parameters

from .test_inbound_json import InMemory, message_of

HEADER: Final = b"From: a@x.test\r\nTo: b@y.test\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
MIXED: Final = HEADER + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def nested(depth: int) -> bytes:
    opening = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(depth)
    )
    closing = b"".join(b"--b%d--\r\n" % n for n in reversed(range(depth)))
    return HEADER + opening + b"Content-Type: text/plain\r\n\r\nhi\r\n" + closing


def text(kind: bytes, body: bytes, encoding: bytes = b"8bit") -> bytes:
    field = b"Content-Type: %b\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (kind, encoding)
    return HEADER + field + body


def read(octets: bytes) -> dict[str, Any]:
    written = compose(InMemory(octets), message_of(octets[:2000]))(0)
    found: dict[str, Any] = msgspec.json.decode(written)
    return found


NASTY: Final = {
    "nested": nested(100),
    "many": MIXED + b"".join(b"--b\r\nContent-Type: a/x\r\n\r\nx\r\n" for _ in range(10_000)),
    "delimiters": MIXED + b"--b\r\n" * 100_000,
    "lookalikes": MIXED + b"--c\r\n" * 100_000,
    "itself": MIXED + (b"--b\r\n" + MIXED) * 500,
    "no boundary": text(b"multipart/mixed", b"--\r\n"),
    "empty boundary": text(b'multipart/mixed; boundary=""', b"--\r\n\r\nx"),
    "empty": b"",
    "nothing but line ends": b"\r\n" * 1000,
    "one line": b"x" * 100_000,
    "bad base64": text(b"a/x", b"!" * 500_000 + b"QQ", b"base64"),
    "cut base64": text(b"a/x", b"Q", b"base64"),
    "bad qp": text(b"text/plain", b"=" * 500_000, b"quoted-printable"),
    "no such encoding": text(b"text/plain", b"x", b"x-uuencode"),
    "no such charset": text(b"text/plain; charset=nope", bytes(range(256)) * 400),
    "slow charset": text(b"text/plain; charset=punycode", b"a" * 50_000 + b"-" + b"z" * 9000),
    "half a character": text(b"text/plain; charset=utf-7", b"+2AA-" * 1000),
    "no utf-8": text(b"text/plain", b"\xff" * 100_000),
    "nul": text(b"text/html", b"<p>\0a\0<b\0>c"),
    "words": b"Subject: " + b"=?utf-8?q?=ff?= " * 5000 + b"\r\n\r\nx",
    "brackets": b"From: " + b"<" * 30_000 + b"\r\n\r\nx",
    "quotes": b"From: " + b'"' * 30_001 + b"\r\n\r\nx",
    "comments": b"From: " + b"(" * 30_000 + b"\r\n\r\nx",
    "ids": b"References: " + b"<a@b> " * 10_000 + b"\r\n\r\nx",
    "tags": text(b"text/html", b"<a b=c>x" * 50_000),
    "angles": text(b"text/html", b"<" * 500_000),
    "open": text(b"text/html", b"<b " * 100_000),
    "attributes": text(b"text/html", b"<p " + b"a=b " * 50_000 + b">"),
    "references": text(b"text/html", b"&" * 500_000),
    "sheets": text(b"text/html", b"<style>a{}</style>" * 20_000),
    "unclosed": text(b"text/html", b"<!--" * 100_000),
    "depth": text(b"text/html", b"<div hidden>" * 40_000),
    "quoted": text(b"text/plain", b"> \r\n" * 100_000),
    "who wrote": text(b"text/plain", b"on " * 100_000 + b"\r\n> x\r\n"),
    "continued": HEADER
    + b"Content-Type: a/x"
    + b"".join(b";\r\n name*%d*=%%41" % n for n in range(900))
    + b"\r\n\r\nx",
    "date": b"Date: Thu, 99 Foo 99999 99:99:99 +9999\r\n\r\nx",
}


class NastyTests(SynchronousTestCase):
    def test_nothing_raises(self) -> None:
        """What comes of it is JSON, no longer than it may be, and there before anybody waits."""
        for name, octets in NASTY.items():
            began = time.thread_time()
            found = read(octets)
            self.assertLess(time.thread_time() - began, 2.0, name)
            self.assertLessEqual(len(found["text"].encode()), 3 * TEXT_OCTETS, name)
            inline = sum(len(one.get("content_base64") or "") for one in found["attachments"])
            self.assertLessEqual(inline, ALL_INLINE_OCTETS * 4 / 3 + 4 * 500, name)
            self.assertLessEqual(len(found["attachments"]), 500, name)

    def test_deep_and_wide(self) -> None:
        """What lies beyond the bounds is told of as cut, and is there raw."""
        deep, wide = read(NASTY["nested"]), read(NASTY["many"])
        self.assertEqual((deep["flags"], len(deep["attachments"])), (["cut"], 1))
        self.assertEqual((wide["flags"], len(wide["attachments"])), (["cut"], 500))

    def test_parameters_without_end(self) -> None:
        """Each part of a message may have a thousand; reading them takes time by their number, and
        not by its square."""
        part = b"--b\r\nContent-Type: text/plain" + b'; a="b"' * 9000 + b"\r\n\r\nx\r\n"
        began = time.thread_time()
        found = read(MIXED + part * 20)
        self.assertLess(time.thread_time() - began, 3.0)
        self.assertEqual(found["text"].split(), ["x"] * 20)
        value = b"a/x" + b"".join(b'; n%d="%d"' % (n, n) for n in range(2000))
        self.assertEqual(parameters(value)["n999"], "999")
        self.assertNotIn("n1000", parameters(value))

    def test_names(self) -> None:
        """RFC 2231 in pieces and charsets, RFC 2047 in quotes, raw UTF-8, and paths."""
        for field, name in (
            ("filename*=utf-8''%e2%82%ac.txt", "€.txt"),
            ("filename*0*=iso-8859-1'en'%a3; filename*1=a; filename*2*=%2eb", "£a.b"),
            ("filename*1=b; filename*0=a", "ab"),
            ('filename="=?utf-8?b?4oKs?="', "€"),
            ('filename="€.txt"', "€.txt"),
            ("filename*=nope''%ff", "\ufffd"),
            ("filename*=broken", "broken"),
            ('filename="../../etc/passwd"', ".._.._etc_passwd"),
            ('filename="c:\\\\x\\\\y.exe"', "c:_x_y.exe"),
            ('filename="a\\"b"', 'a"b'),
            ("filename*=utf-8''a%00b%0d%0a", "a b"),
        ):
            octets = f"Content-Type: a/x\r\nContent-Disposition: attachment; {field}\r\n\r\nx"
            [found] = read(octets.encode())["attachments"]
            self.assertEqual(found["filename"], name, field)

    def test_kinds(self) -> None:
        """Calendars, reports and TNEF are attachments, whole; of a report the text is the body."""
        report = MIXED.replace(
            b"multipart/mixed;", b"multipart/report; report-type=delivery-status;"
        )
        report += b"--b\r\n\r\nIt failed.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        report += b"Status: 5.1.1\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nA: b\r\n--b--\r\n"
        found = read(report)
        self.assertEqual(found["text"], "It failed.")
        kinds = [one["content_type"] for one in found["attachments"]]
        self.assertEqual(kinds, ["message/delivery-status", "text/rfc822-headers"])
        invited = text(b"text/calendar; method=REQUEST; charset=utf-8", b"BEGIN:VCALENDAR\r\n")
        [one] = read(invited)["attachments"]
        self.assertEqual(one["content_type"], "text/calendar")
        self.assertEqual(base64.b64decode(one["content_base64"]), b"BEGIN:VCALENDAR\r\n")
        tnef = b"\x78\x9f\x3e\x22" + bytes(100)
        octets = text(b"application/ms-tnef; name=winmail.dat", base64.encodebytes(tnef), b"base64")
        [one] = read(octets)["attachments"]
        self.assertEqual(base64.b64decode(one["content_base64"]), tnef)
        self.assertEqual(one["filename"], "winmail.dat")

    def test_headers_in_utf8(self) -> None:
        """RFC 6532."""
        found = read("From: Jörg <jörg@bücher.test>\r\nSubject: Grüße\r\n\r\nx".encode())
        self.assertEqual(found["from"], [{"address": "jörg@bücher.test", "name": "Jörg"}])
        self.assertEqual(found["subject"], "Grüße")

    def test_less_than(self) -> None:
        """Where no tag begins it is a character."""
        self.assertEqual(as_text("1 < 2 <3 << 4 <").text, "1 < 2 <3 << 4 <")
        self.assertEqual(as_text("a<?x?>b<!x>c</ x>d<").text, "abcd<")
