"""Whatever a client sends, and however it is cut, the server keeps its head."""

from __future__ import annotations

import base64
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.envelope import Envelope
from protege_mta.model.ports import Proof
from protege_mta.model.reply import TABLE
from protege_mta.testing.doors import FakeDoor
from protege_mta.testing.smtp_dialog import Client, reply_codes
from protege_mta.wire.dotstuff import Stuffer, Unstuffer
from protege_mta.wire.settings import ServerSettings

SETTINGS = ServerSettings(
    "mx.test",
    message_octets=200,
    recipients=2,
    bad_commands=6,
    mechanisms=("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"),
)

# Halves of exchanges: RFC 7677, 3, and a user whose password is ``pencil``.
RESPONSES = (
    b"AHVzZXIAcGVuY2ls\r\n",
    b"dXNlcg==\r\n",
    b"cGVuY2ls\r\n",
    base64.b64encode(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") + b"\r\n",
    base64.b64encode(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    + b"\r\n",
    b"=\r\n",
    b"*\r\n",
    b"A" * 12_400 + b"\r\n",
)
# Octets that mean something to an SMTP server, in an order that mostly does not.
WORDS = st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b".",
        b"\r\n.\r\n",
        b"\n.\n",
        b"\r\n.\n",
        b"\0",
        b"\xff",
        b"x" * 300,
        b"y" * 2100,
        b"EHLO c.example\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<a@b.example> SIZE=300 BODY=8BITMIME\r\n",
        b"RCPT TO:<c@d.example>\r\n",
        b"RCPT TO:<c@refused.example>\r\n",
        b"DATA\r\n",
        b"BDAT 5\r\n",
        b"BDAT 3 LAST\r\n",
        b"BDAT 150\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH CRAM-MD5\r\n",
        b"AUTH PLAIN ",
        b"AUTH LOGIN ",
        b"AUTH SCRAM-SHA-256 ",
        *RESPONSES,
    ]
)
START = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
STREAMS = st.one_of(
    st.binary(max_size=200),
    st.lists(WORDS, max_size=25).map(b"".join),
    st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=25).map(
        lambda words: START + b"".join(words)
    ),
    st.tuples(
        st.sampled_from([b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256"]),
        st.sampled_from([b" ", b"\r\n"]),
        st.lists(st.sampled_from(RESPONSES), max_size=4),
        st.lists(WORDS, max_size=5),
    ).map(
        lambda parts: b"".join(
            (b"EHLO c.example\r\nAUTH ", parts[0], parts[1], *parts[2], *parts[3])
        )
    ),
)
CONTENTS = st.lists(
    st.sampled_from([b"\r\n", b".", b"a", b"\r\n.", b"\r\n..", b"\r\n.\r\n", b"long line"]),
    max_size=20,
).map(b"".join)


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(octets) + 1) for place in places), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


def outcome(
    pieces: list[bytes],
) -> tuple[bytes, list[tuple[str, bytes, Envelope]], str, list[Proof]]:
    """What the server says to a stream, what becomes of its messages, who it came from at last and
    by which proofs."""
    door = FakeDoor()
    client = Client(door, SETTINGS)
    said = b"".join(map(client.say, pieces))
    fates = [
        # How much of a message that failed was handed on before, nobody promises.
        (intake.ended, intake.content if intake.ended == "finished" else b"", intake.envelope)
        for intake in door.intakes
    ]
    return said, fates, door.peers[0].identity, door.proofs


class HostileStreamTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=250)
    @given(stream=STREAMS, places=PLACES)
    def test_chunking_is_invisible_and_nothing_breaks(
        self, stream: bytes, places: list[int]
    ) -> None:
        whole = outcome([stream])
        self.assertEqual(outcome(cut(stream, places)), whole)
        self.assertEqual(self.flushLoggedErrors(), [])
        said, fates, identity, proofs = whole
        codes = reply_codes(said)
        self.assertEqual(codes.count(235), 1 if identity else 0)
        self.assertLessEqual(len(proofs), 4)  # three may fail, and one not
        # The door has no trouble of its own, so neither may the server.
        self.assertNotIn(451, codes)
        self.assertNotIn(421, codes[:-1])
        for _, content, _ in fates:
            self.assertNotIn(b"\n", content.replace(b"\r\n", b""))
            self.assertNotIn(b"\r", content.replace(b"\r\n", b""))
            self.assertTrue(content.endswith(b"\r\n") or not content)

    @settings(deadline=None, max_examples=150)
    @given(
        lines=st.lists(
            st.one_of(
                st.binary(max_size=30).map(lambda line: line.replace(b"\r\n", b"")),
                st.sampled_from(
                    [b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"x" * 3000]
                ),
            ).filter(
                # DATA and BDAT change what follows, a CR at the end would be half of ours.
                lambda line: (
                    line.strip(b" ").upper()[:4] not in (b"DATA", b"BDAT", b"QUIT")
                    and not line.endswith(b"\r")
                )
            ),
            max_size=15,
        )
    )
    def test_each_command_line_has_one_reply_until_421(self, lines: list[bytes]) -> None:
        client = Client(settings=SETTINGS)
        client.hear()
        codes = client.codes(b"".join(line + b"\r\n" for line in lines))
        if 421 in codes:
            self.assertEqual(codes.index(421), len(codes) - 1)
            self.assertLessEqual(len(codes), len(lines))
        else:
            self.assertEqual(len(codes), len(lines))

    @settings(deadline=None, max_examples=150)
    @given(
        mechanism=st.sampled_from(SETTINGS.mechanisms),
        lines=st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.binary(max_size=40).map(base64.b64encode),
                st.sampled_from([line[:-2] for line in RESPONSES]),
            ).filter(lambda line: b"\r" not in line),
            max_size=5,
        ),
    )
    def test_each_response_has_one_reply_whatever_it_is(
        self, mechanism: str, lines: list[bytes]
    ) -> None:
        client = Client(settings=SETTINGS)
        client.say(b"EHLO c.example\r\n")
        codes = client.codes(b"AUTH " + mechanism.encode() + b"\r\n")
        for line in lines:
            if codes[-1] != 334:
                break
            codes += client.codes(line + b"\r\n")
            self.assertIn(codes[-1], (235, 334, 500, 501, 535))
        self.assertLessEqual(codes.count(334), 3)
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(deadline=None, max_examples=100)
    @given(octets=st.binary(max_size=60))
    def test_no_reply_carries_the_clients_octets(self, octets: bytes) -> None:
        known = {reply.octets() for reply in TABLE.values()}
        for greeting in (b"EHLO c.example\r\n", b"HELO c.example\r\n"):
            known.update(Client(settings=SETTINGS).say(greeting).splitlines(keepends=True))
        for before in (b"", b"VRFY ", b"MAIL FROM:<", b"NOOP ", b"RCPT TO:", b"BDAT "):
            client = Client(settings=SETTINGS)
            client.say(b"HELO c.example\r\n")
            for line in client.say(before + octets + b"\r\n").splitlines(keepends=True):
                self.assertIn(line, known)


class ContentTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=200)
    @given(content=CONTENTS, places=PLACES, other_places=PLACES)
    def test_what_is_stuffed_is_unstuffed(
        self, content: bytes, places: list[int], other_places: list[int]
    ) -> None:
        stuffer = Stuffer()
        sent = b"".join(map(stuffer.feed, cut(content, places))) + stuffer.finish()
        unstuffer = Unstuffer()
        got = b""
        unused = b""
        for piece in cut(sent + b"QUIT\r\n", other_places):
            if unstuffer.rest is None:
                got += unstuffer.feed(piece)
                unused = unstuffer.rest or b""
            else:
                unused += piece
        self.assertEqual(unused, b"QUIT\r\n")
        complete = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
        self.assertEqual(got, complete)

    @settings(deadline=None, max_examples=150)
    @given(content=CONTENTS, places=PLACES, wire_places=PLACES)
    def test_chunks_carry_content_as_it_is(
        self, content: bytes, places: list[int], wire_places: list[int]
    ) -> None:
        chunks = cut(content, places)
        stream = START + b"".join(b"BDAT %d\r\n%b" % (len(each), each) for each in chunks)
        door = FakeDoor()
        client = Client(door, ServerSettings("mx.test"))
        for piece in cut(stream + b"BDAT 0 LAST\r\nQUIT\r\n", wire_places):
            client.say(piece)
        complete = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
        self.assertEqual([message.content for message in door.messages], [complete])
        self.assertTrue(client.transport.disconnecting)
