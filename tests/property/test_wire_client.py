"""The outbound client against any server there could be."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.outcome import Contact, Delivered, Outcome
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.hosts import HANG_UP, SILENCE, HostNet, Script
from protege_mta.transport.client_settings import ClientSettings
from protege_mta.transport.relay import SmtpTransport
from protege_mta.wire.abilities import Abilities
from protege_mta.wire.client import our_reply
from protege_mta.wire.replies import Fault, ReplyParser
from protege_mta.wire.transaction import Transaction, Turn

PIECES = st.sampled_from(
    [
        *(b"250", b"250-", b"250 ", b"550-5.1.1 ", b"354 ", b"2.0.0 ", b"x", b" ", b"-"),
        *(b"\r", b"\n", b"\r\n", b"\xff", b"\x00"),
        *(b"y" * 700, b"421 bye\r\n", b"250-a\r\n" * 40),
    ]
)
STREAMS = st.lists(PIECES, max_size=30).map(b"".join)
REPLIES = [
    Reply(250, "2.0.0", ("ok",)),
    Reply(354, "", ("go",)),
    Reply(450, "4.2.0", ("later",)),
    Reply(452, "4.5.3", ("too many",)),
    Reply(550, "5.1.1", ("no",)),
    Reply(421, "4.3.2", ("bye",)),
]


def pieces_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def events_of(pieces: list[bytes]) -> list[Reply | Fault]:
    parser = ReplyParser()
    replies = [reply for piece in pieces for reply in parser.feed(piece)]
    return [*replies, *filter(None, [parser.fault])]


class ReplyParserTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(stream=STREAMS, cuts=st.lists(st.integers(0, 3000), max_size=8))
    def test_chunking_is_invisible(self, stream: bytes, cuts: list[int]) -> None:
        self.assertEqual(events_of(pieces_of(stream, cuts)), events_of([stream]))

    @settings(max_examples=50, deadline=None)
    @given(stream=STREAMS)
    def test_octets_one_at_a_time(self, stream: bytes) -> None:
        octets = [stream[n : n + 1] for n in range(len(stream))]
        self.assertEqual(events_of(octets), events_of([stream]))

    @settings(max_examples=200, deadline=None)
    @given(stream=st.binary(max_size=200) | STREAMS)
    def test_what_comes_out_is_fit_to_print(self, stream: bytes) -> None:
        for event in ReplyParser().feed(stream):
            self.assertTrue(200 <= event.code <= 599)
            self.assertTrue(event.lines)
            for text in event.lines:
                self.assertTrue(text.isascii() and (text.isprintable() or not text))
                self.assertLessEqual(len(text), 512)

    def test_what_we_say_is_understood(self) -> None:
        """Our own replies come through unchanged."""
        for reply in TABLE.values():
            self.assertEqual(events_of([reply.octets()]), [reply])


class TransactionTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(
        recipients=st.integers(1, 4),
        is_pipelined=st.booleans(),
        is_lmtp=st.booleans(),
        needs_reset=st.booleans(),
        replies=st.lists(st.sampled_from(REPLIES), max_size=16),
    )
    def test_each_recipient_comes_out_once(
        self,
        recipients: int,
        is_pipelined: bool,
        is_lmtp: bool,
        needs_reset: bool,
        replies: list[Reply],
    ) -> None:
        """Whatever is said, in whatever order, and wherever it breaks off."""
        addresses = tuple(Recipient(Address(f"{n}@b.test")) for n in range(recipients))
        transaction = Transaction(
            Envelope(Address("a@a.test"), addresses),
            range(recipients),
            Abilities(has_pipelining=is_pipelined),
            100,
            Contact("mx"),
            is_lmtp=is_lmtp,
            needs_reset=needs_reset,
        )
        transaction.begin()
        is_sent = False
        for reply in replies:
            step = transaction.reply(reply)
            if step is Turn.END:
                break
            if step is Turn.CONTENT:
                transaction.content_sent()
                is_sent = True
        else:
            transaction.broken(our_reply("4.4.2", "connection lost"))
        indexes = (
            [index for index, _ in transaction.outcomes]
            + [index for index, _ in transaction.left_over]
            + transaction.unsettled
        )
        self.assertEqual(sorted(indexes), list(range(recipients)))
        if not is_sent:
            self.assertFalse(any(isinstance(o, Delivered) for _, o in transaction.outcomes))


VERBS = st.sampled_from(["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", ".", "RSET", "QUIT"])
WORDS = st.sampled_from(
    [
        b"250 ok\r\n",
        b"354 go\r\n",
        b"450 4.2.0 later\r\n",
        b"452 4.5.3 too many\r\n",
        b"550 5.1.1 no\r\n",
        b"421 4.3.2 bye\r\n",
        b"421 4.3.2 bye\r\n" + HANG_UP,
        b"250 ok\r\n250 ok\r\n",
        b"250 o",
        b"nonsense\r\n",
        b"25" + HANG_UP,
        HANG_UP,
        SILENCE,
    ]
)
ANSWERS = st.dictionaries(VERBS, st.lists(WORDS, min_size=1, max_size=3), max_size=4)


class TransportTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(
        tables=st.lists(ANSWERS, min_size=2, max_size=2),
        cut=st.sampled_from([0, 1, 7]),
        recipients=st.integers(1, 3),
        is_big=st.booleans(),
        messages=st.integers(1, 3),
    )
    @example(tables=[{}, {}], cut=1, recipients=3, is_big=False, messages=3)
    def test_every_attempt_ends(
        self,
        tables: list[dict[str, list[bytes]]],
        cut: int,
        recipients: int,
        is_big: bool,
        messages: int,
    ) -> None:
        """Two hosts that may do anything: each recipient gets one outcome, "delivered" only where
        a host has the whole content, and at the end no connection is left."""
        net, tally = HostNet(cut * 1000 if is_big else cut), Tally()
        scripts = [
            net.serve(f"192.0.2.{n}", Script(answers=table)) for n, table in enumerate(tables)
        ]
        transport = SmtpTransport(
            net,
            ClientSettings("me.test", tls="none"),
            clock=net,
            tally=tally,
            is_prohibited=lambda address, port: False,
        )
        content = b".x\r\n" * (100_000 if is_big else 10)
        for _ in range(messages):
            before = sum(len(script.contents) for script in scripts)
            attempt = make_attempt(
                ("mx1", ["192.0.2.0"]),
                ("mx2", ["192.0.2.1"]),
                recipients=[f"{n}@b.test" for n in range(recipients)],
                content=content,
            )
            results: list[tuple[int, Outcome]] = []
            transport.deliver(attempt).addCallback(results.extend)
            for _ in range(40):
                net.settle()
                if results:
                    break
                net.pump([100, 1, 1])
            self.assertEqual(sorted(index for index, _ in results), list(range(recipients)))
            taken = [octets for script in scripts for octets in script.contents]
            if any(isinstance(outcome, Delivered) for _, outcome in results):
                self.assertGreater(len(taken), before)
        stuffed = b".." + (content[1:]).replace(b"\r\n.", b"\r\n..")
        for script in scripts:
            for octets in script.contents:
                self.assertIn(octets, (stuffed, b""))
        closed = transport.close()
        for _ in range(10):
            net.settle()
            net.pump([1])
        self.successResultOf(closed)
        self.assertEqual(tally.connections_out_open, 0)
