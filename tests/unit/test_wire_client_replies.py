"""Replies of peers, careless and hostile ones included."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.reply import Reply
from protege_mta.wire.abilities import Abilities, parse
from protege_mta.wire.replies import Fault, ReplyParser


def replies_of(stream: bytes) -> list[Reply | Fault]:
    parser = ReplyParser()
    replies = parser.feed(stream)
    return [*replies, *filter(None, [parser.fault])]


class ReplyParserTests(SynchronousTestCase):
    def test_one_line(self) -> None:
        self.assertEqual(
            replies_of(b"250 2.1.0 sender ok\r\n"), [Reply(250, "2.1.0", ("sender ok",))]
        )

    def test_several_lines(self) -> None:
        """The enhanced code is taken off each line and said once."""
        self.assertEqual(
            replies_of(b"550-5.1.1 no such\r\n550 5.1.1 mailbox\r\n"),
            [Reply(550, "5.1.1", ("no such", "mailbox"))],
        )

    def test_several_replies_in_order(self) -> None:
        self.assertEqual(
            [str(reply) for reply in replies_of(b"250 a\r\n354 b\r\n421 c\r\n")],
            ["250 a", "354 b", "421 c"],
        )

    def test_code_alone(self) -> None:
        for line in (b"250\r\n", b"250 \r\n"):
            self.assertEqual(replies_of(line), [Reply(250, "", ("",))])

    def test_bare_line_feed_ends_a_line(self) -> None:
        self.assertEqual(replies_of(b"250-a\n250 b\n"), [Reply(250, "", ("a", "b"))])

    def test_enhanced_code_of_another_class_is_text(self) -> None:
        self.assertEqual(replies_of(b"250 5.0.0 odd\r\n"), [Reply(250, "", ("5.0.0 odd",))])

    def test_an_address_is_no_enhanced_code(self) -> None:
        self.assertEqual(
            replies_of(b"550 5.6.7.8 is listed\r\n"), [Reply(550, "", ("5.6.7.8 is listed",))]
        )

    def test_texts_are_printable_ascii(self) -> None:
        """Nothing that a terminal, a log or a DSN could stumble over."""
        self.assertEqual(
            replies_of(b"550 a\tb\x1b[31m\x00 \xc3\xa9\rc\r\n"),
            [Reply(550, "", ("a b?[31m? ???c",))],
        )

    def test_long_text_is_cut(self) -> None:
        [reply] = replies_of(b"250 " + b"x" * 2000 + b"\r\n")
        assert isinstance(reply, Reply)
        self.assertEqual(reply.lines, ("x" * 512,))

    def test_faults(self) -> None:
        for stream, reason in (
            (b"hello\r\n", "a reply line without a reply code"),
            (b"\r\n", "a reply line without a reply code"),
            (b"99 short\r\n", "a reply line without a reply code"),
            (b"2500 long\r\n", "a reply line without a reply code"),
            (b"150 no such class\r\n", "a reply line without a reply code"),
            (b"650 no such class\r\n", "a reply line without a reply code"),
            (b"250_text\r\n", "a reply line without a reply code"),
            (b"\xff\xfe\xfd\r\n", "a reply line without a reply code"),
            (b"250-a\r\n550 b\r\n", "the lines of a reply have different codes"),
            (b"250-a\r\n" * 128, "a reply has too many lines"),
            (b"250 " + b"x" * 2048 + b"\r\n", "a reply line is too long"),
            (b"x" * 2048, "a reply line is too long"),
        ):
            self.assertEqual(replies_of(stream), [Fault(reason)], stream[:20])

    def test_nothing_after_a_fault(self) -> None:
        parser = ReplyParser()
        self.assertEqual(parser.feed(b"250 a\r\nnonsense\r\n250 b\r\n"), [Reply(250, "", ("a",))])
        self.assertEqual(parser.fault, Fault("a reply line without a reply code"))
        self.assertEqual(parser.feed(b"250 c\r\n"), [])
        self.assertTrue(parser.is_midway)

    def test_midway(self) -> None:
        parser = ReplyParser()
        for chunk, is_midway in ((b"250-a\r\n", True), (b"250 b", True), (b"\r\n", False)):
            parser.feed(chunk)
            self.assertIs(parser.is_midway, is_midway)


class AbilitiesTests(SynchronousTestCase):
    def test_everything(self) -> None:
        lines = (
            "mx.test greets you",
            "PIPELINING",
            "size 1000",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "STARTTLS",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
            "AUTH plain LOGIN",
            "X-UNKNOWN 1 2 3",
            "",
        )
        self.assertEqual(
            parse(Reply(250, "", lines)),
            Abilities(
                has_pipelining=True,
                size_octets=1000,
                has_8bitmime=True,
                has_smtputf8=True,
                has_dsn=True,
                has_starttls=True,
                has_chunking=True,
                has_enhanced_codes=True,
                auth=frozenset({"PLAIN", "LOGIN"}),
            ),
        )

    def test_first_line_offers_nothing(self) -> None:
        self.assertEqual(parse(Reply(250, "", ("PIPELINING",))), Abilities())

    def test_old_way_of_offering_auth(self) -> None:
        self.assertEqual(
            parse(Reply(250, "", ("h", "AUTH=LOGIN PLAIN"))).auth, frozenset({"LOGIN", "PLAIN"})
        )

    def test_sizes(self) -> None:
        for line, size in (
            ("SIZE", 0),
            ("SIZE 0", 0),
            ("SIZE 52428800", 52428800),
            ("SIZE -1", 0),
            ("SIZE many", 0),
            ("SIZE " + "9" * 21, 0),
        ):
            self.assertEqual(parse(Reply(250, "", ("h", line))).size_octets, size, line)

    def test_smtputf8_needs_8bitmime(self) -> None:
        """RFC 6531, 3.1, item 8."""
        self.assertFalse(parse(Reply(250, "", ("h", "SMTPUTF8"))).has_smtputf8)
