"""Our end of a reliable session, and at the other who asked for it and does not keep to it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.reply import TABLE
from protege_mta.model.stream import Stream
from protege_mta.testing.strangers import TERMS, agent, chunk, end, start
from protege_mta.testing.tunnels import Net, OctetsInMemory
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.wire.tunnel.bodies import format_start
from protege_mta.wire.tunnel.frames import Kind, Piece, encode
from protege_mta.wire.tunnel.messages import (
    AuthError,
    Credit,
    StreamResult,
    StreamResume,
    format_message,
)

STREAM = Stream("a@b.test", "c@d.test", request_id="r-1")
CONTENT = bytes(range(256)) * 1000
SMALL = TunnelLimits(window_octets=65_536, message_octets=1_000_000)
BROKEN = [AuthError("invalid_tunnel_frame"), (4401, "invalid_tunnel_frame")]


class BrokenReliableTests(SynchronousTestCase):
    """Who asked for the extension and does not keep to it."""

    def setUp(self) -> None:
        self.net = Net(limits=SMALL)
        self.agent = agent(self.net, TERMS)
        self.house = self.net.relay_house

    def assertBroken(self, code: str) -> None:
        self.assertEqual(self.agent.heard()[-2:], [AuthError(code), (4401, code)])

    def test_credit_is_given_by_the_quarter(self) -> None:
        self.agent.binary(start("s", "r", 40_000), chunk("s", bytes(16_383)))
        self.assertEqual(self.agent.heard(), [])
        self.agent.binary(chunk("s", b"\0"))
        self.assertEqual(self.agent.heard(), [Credit(16_384)])

    def test_more_than_the_window(self) -> None:
        self.house.on_write = lambda intake: Deferred()
        self.agent.binary(start("s", "r", 100_000), chunk("s", bytes(65_537)))
        self.assertBroken("window_exceeded")

    def test_content_that_nobody_asked_for_counts(self) -> None:
        """And is credited, since nobody keeps it."""
        for _ in range(100):
            self.agent.binary(chunk("s", bytes(16_384)))
        self.assertEqual(self.agent.heard(), [Credit(16_384)] * 100)

    def test_another_digest(self) -> None:
        for ending in (end("s", b"other"), end("s"), encode(Kind.END, "s", b"x")):
            self.agent.binary(start("s", "r", 1), chunk("s", b"x"), ending)
            [result] = self.agent.heard()
            self.assertEqual(
                result,
                StreamResult("s", "r", False, "4.3.0", TABLE["stream-damaged"].text),
            )
        self.assertEqual((self.house.open, self.house.taken), ([], []))

    def test_another_size(self) -> None:
        self.agent.binary(start("s", "r", 1), chunk("s", b"xy"))
        [result] = self.agent.heard()
        self.assertFalse(result.is_queued or result.is_permanent)
        self.agent.binary(start("s", "r", 3), chunk("s", b"xy"), end("s", b"xy"))
        [result] = self.agent.heard()
        self.assertFalse(result.is_queued or result.is_permanent)
        self.assertEqual((self.house.open, self.house.taken), ([], []))

    def test_too_big(self) -> None:
        self.agent.binary(start("s", "r", 1_000_001))
        [result] = self.agent.heard()
        self.assertEqual((result.code, result.is_permanent), ("5.3.4", True))

    def test_no_request_id(self) -> None:
        body = format_start(Stream("", "c", None, "a b", 1), is_reliable=True)
        self.agent.binary(encode(Kind.START, "s", body))
        [result] = self.agent.heard()
        self.assertEqual((result.code, result.is_permanent), ("5.5.4", True))

    def test_messages_without_sense(self) -> None:
        for text in (b"", b'{"type":"credit","octets":"1"}', format_message(Credit(1))):
            stranger = agent(Net(), TERMS)
            stranger.text(text)
            said = stranger.heard()
            self.assertEqual(said, [AuthError("invalid_message"), (4401, "invalid_message")])

    def test_messages_of_the_future(self) -> None:
        self.agent.text(b'{"type":"new","x":1}')
        self.agent.text(format_message(StreamResult("unknown", "r", True, "2.0.0", "")))
        self.assertEqual(self.agent.heard(), [])

    def test_a_text_without_end(self) -> None:
        connection = self.agent.connection
        connection.message_began(False)
        for _ in range(100):
            connection.message_data(bytes(1000))
        self.assertBroken("invalid_message")

    def test_going_on_where_nothing_was_asked(self) -> None:
        self.agent.session.send(STREAM, OctetsInMemory(b"x"))
        stream_id = self.agent.heard()[0].stream_id
        self.agent.text(format_message(StreamResume(stream_id, 0)))
        self.assertBroken("invalid_message")

    def test_going_on_behind_the_end(self) -> None:
        outcome = self.agent.session.send(STREAM, OctetsInMemory(b"x"))
        self.agent.heard()
        outcome.addErrback(lambda failure: None)
        outcome.cancel()
        self.agent.heard()
        self.agent.session.send(STREAM, OctetsInMemory(b"x"))
        [begun] = self.agent.heard()
        self.assertIn(b'"resume":true', begun.body)
        self.agent.text(format_message(StreamResume(begun.stream_id, 2)))
        self.assertBroken("invalid_message")

    def test_a_resumed_stream_that_nobody_has(self) -> None:
        self.agent.binary(start("s", "r", 1, resume=True))
        self.assertEqual(self.agent.heard(), [StreamResume("s", 0)])
        self.agent.binary(chunk("s", b"x"), end("s", b"x"))
        self.assertEqual(self.agent.heard(), [StreamResult("s", "r", True, "2.0.0", "ok")])

    def test_no_more_than_the_window_is_sent(self) -> None:
        self.agent.session.send(STREAM, OctetsInMemory(CONTENT))
        self.agent.session.send(Stream("", "x"), OctetsInMemory(CONTENT))
        sent = sum(len(part.octets) for part in self.agent.heard() if isinstance(part, Piece))
        self.assertEqual(sent, 65_536)
        self.agent.text(format_message(Credit(10)))
        sent = sum(len(part.octets) for part in self.agent.heard() if isinstance(part, Piece))
        self.assertEqual(sent, 10)

    def test_contents_are_kept_within_bounds(self) -> None:
        """Sixteen of one agent, and the oldest has to go."""
        intakes = []
        for number in range(20):
            stranger = agent(self.net, TERMS)
            stranger.binary(start("s", f"r-{number}", 10), chunk("s", b"x"))
            intakes.append(self.house.open[-1])
            stranger.connection.gone(1006, "")
        self.assertEqual([intake.ended for intake in intakes], ["aborted"] * 4 + [""] * 16)
