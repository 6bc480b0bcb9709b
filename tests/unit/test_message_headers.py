"""Headers are read as far as anybody asks, and never raise."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.headers import (
    Glance,
    decoded,
    encoded_words,
    from_domain,
    glance,
    header_end,
    is_well_formed,
    simplified,
    values,
)
from tests.corpora import message, messages


class HeaderEndTests(SynchronousTestCase):
    """Where the body starts."""

    def test_behind_the_blank_line(self) -> None:
        self.assertEqual(header_end(b"A: b\r\n\r\nbody\r\n\r\n"), 8)

    def test_no_header(self) -> None:
        self.assertEqual(header_end(b"\r\nbody\r\n\r\n"), 2)

    def test_no_blank_line(self) -> None:
        """Then all of it is header."""
        self.assertEqual(header_end(b"A: b\r\nC: d"), 10)

    def test_line_of_white_space_is_a_fold(self) -> None:
        self.assertEqual(header_end(b"A: b\r\n \r\n c\r\n\r\nx"), 15)


class FieldsTests(SynchronousTestCase):
    """Fields by name, and headers as a whole."""

    def test_values_by_name(self) -> None:
        header = b"To: a,\r\n\tb\r\nTo-Do: no\r\nX-To: no\r\nTO : c\r\n\r\n"
        self.assertEqual(values(header, b"to"), [b"a,\tb", b"c"])
        self.assertEqual(values(b"A: b\r\n c", b"a"), [b"b c"])

    def test_well_formed(self) -> None:
        self.assertTrue(is_well_formed(b"A: b\r\n c\r\nD:\r\n\r\n"))
        self.assertTrue(is_well_formed(b"A: b\r\n"))
        self.assertFalse(is_well_formed(b"A: b\r\nno field\r\n\r\n"))
        self.assertFalse(is_well_formed(b"A : b\r\n\r\n"))
        self.assertFalse(is_well_formed(b" a: b\r\n\r\n"))


class GlanceTests(SynchronousTestCase):
    """What the queue and the log want to know of a message."""

    def test_ordinary(self) -> None:
        self.assertEqual(
            glance(message("ordinary")),
            Glance("<ordinary@example.org>", "The minutes of Monday", 1),
        )

    def test_folded_and_shouted(self) -> None:
        seen = glance(message("folded-header"))
        self.assertEqual(seen.message_id, "<folded-header@example.org>")
        self.assertEqual(seen.subject, "a subject   that is   folded  over a line of white space")

    def test_space_before_the_colon(self) -> None:
        """RFC 5322, 4.5: obsolete and to be read, but verifiers differ, so nobody signs it."""
        octets = message("obsolete-colon")
        seen = glance(octets)
        self.assertEqual(
            (seen.message_id, seen.subject),
            ("<obsolete-colon@example.org>", "The minutes of Monday"),
        )
        self.assertEqual(from_domain(octets[: header_end(octets)]), "")

    def test_body_is_not_looked_at(self) -> None:
        seen = glance(b"From: a\r\n\r\nSubject: no\r\nDate: no\r\nReceived: no\r\n\xff")
        self.assertEqual(seen, Glance("", "", 0))

    def test_first_of_several(self) -> None:
        seen = glance(message("repeated-fields"))
        self.assertEqual((seen.subject, seen.received_count), ("first", 6))

    def test_raw_utf8(self) -> None:
        self.assertEqual(glance(message("raw-utf8-header")).subject, "Grüße 你好")

    def test_no_control_gets_into_the_log(self) -> None:
        self.assertEqual(glance(message("nul-and-controls")).subject, "bell   escape  [31m nul")

    def test_subject_is_cut(self) -> None:
        self.assertEqual(glance(b"Subject: " + b"x" * 5000).subject, "x" * 200)

    def test_only_what_follows_a_line_end_is_a_field(self) -> None:
        seen = glance(b"X: y\r\n\tReceived: no\r\nX-Received: no\r\nReceived\t: yes\r\n\r\n")
        self.assertEqual(seen.received_count, 1)


class DecodedTests(SynchronousTestCase):
    """Encoded words (RFC 2047)."""

    def test_character_split_over_two_words(self) -> None:
        self.assertEqual(
            glance(message("encoded-subject")).subject, "äöü plain café x =?utf-8?q?no_end"
        )

    def test_white_space_between_words_is_none(self) -> None:
        self.assertEqual(decoded(b"=?utf-8?q?a?= \t =?iso-8859-1?q?=E4?= b"), "aä b")

    def test_language(self) -> None:
        """RFC 2231, section 5."""
        self.assertEqual(decoded(b"=?us-ascii*en-us?Q?Keith?="), "Keith")

    def test_unknown_charset_and_broken_base64(self) -> None:
        self.assertEqual(decoded(b"=?x-none?q?=E4b?="), "\ufffdb")
        self.assertEqual(decoded(b"=?iso-8859-12?q?=E4b?="), "\ufffdb")
        self.assertEqual(decoded(b"=?utf-8?b?Y?="), "?")

    def test_codecs_that_are_no_charsets_are_not_tried(self) -> None:
        for charset in (b"idna", b"punycode", b"unicode_escape", b"rot13", b"zlib", b"undefined"):
            self.assertEqual(decoded(b"=?%b?q?abc=5C-?=" % charset), "abc\\-")

    def test_words_by_themselves(self) -> None:
        self.assertEqual(
            encoded_words(b'a =?utf-8?q?b=40?= "=?x-none?q?c?=" =?utf-8?q?d'),
            (b'a  "" =?utf-8?q?d', ["b@", None]),
        )

    def test_smuggled_line_end(self) -> None:
        self.assertEqual(decoded(b"=?utf-8?q?a=0D=0ABcc:_eve?="), "a Bcc: eve")


class SimplifiedTests(SynchronousTestCase):
    """Comments and quoted strings (RFC 5322, 3.2)."""

    def test_quotes_in_comments_and_comments_in_quotes(self) -> None:
        value, quoted = simplified(rb'a "b (c\" d)" (e "f (g) \) h")i "j')
        self.assertEqual((value, quoted), (b'a "   i "', [b'b (c" d)', b"j"]))

    def test_depth_costs_nothing(self) -> None:
        """A hundred thousand brackets are read once, not once a level."""
        self.assertEqual(simplified(b"(" * 100_000 + b")" * 100_000 + b"x")[0].strip(), b"x")


class FromDomainTests(SynchronousTestCase):
    """Whose key may sign: where there is a doubt, nobody's."""

    def of(self, *values: bytes) -> str:
        return from_domain(b"".join(b"From: %b\r\n" % value for value in values) + b"\r\n")

    def test_the_ways_to_write_a_mailbox(self) -> None:
        for value in (
            b"ada@Example.ORG",
            b"<ada@example.org>",
            b"Ada Lovelace <ada@example.org>",
            b'"Lovelace, Ada; <eve@example.com>" <ada@example.org>',
            b"Ada (of: x, <y@z>) <ada@example.org> (really)",
            b'"ada @ home"@example.org',
            b"=?utf-8?q?=22=2C?= <ada@example.org>",
            b"Ada\r\n <ada@example.org>",
            b"ada@example.com <ada@example.org>",
        ):
            self.assertEqual(self.of(value), "example.org", value)

    def test_corpus(self) -> None:
        self.assertEqual(from_domain(message("folded-header")[:600] + b"\r\n\r\n"), "example.org")

    def test_doubts(self) -> None:
        for value in (
            b"",
            b"Ada",
            b"<>",
            b"a@x.test, b@y.test",
            b"A <a@x.test>, B <b@y.test>",
            b"A <a@x.test> <b@y.test>",
            b"a@x.test <b@y.test",
            b"board: a@x.test;",
            b"<@x.test:a@y.test>",
            b"a@b@x.test",
            b"a@[192.0.2.1]",
            b"a@x.test b@y.test",
            b'"a@x.test',
            b"a@x..test/",
            b"a@\xff",
        ):
            self.assertEqual(self.of(value), "", value)

    def test_several_fields(self) -> None:
        self.assertEqual(self.of(b"a@x.test", b"a@x.test"), "")
        self.assertEqual(from_domain(b"From: a@x.test\r\nfrom : b@y.test\r\n\r\n"), "")

    def test_header_that_readers_may_disagree_about(self) -> None:
        self.assertEqual(from_domain(message("not-a-header")), "")

    def test_u_labels(self) -> None:
        self.assertEqual(self.of("ada@BÜCHER.example".encode()), "bücher.example")


class CorpusTests(SynchronousTestCase):
    """Messages as they come."""

    def test_nothing_raises(self) -> None:
        for name, octets in messages().items():
            seen = glance(octets)
            self.assertTrue(seen.subject.isprintable(), name)
            self.assertIsInstance(from_domain(octets[: header_end(octets)]), str)
