"""One end of a tunnel and a stranger at the other: original programs, and who breaks the rules."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import (
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Session
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import DeliveryState, Stream
from protege_mta.testing.tunnels import Net, OctetsInMemory, StrangeSocket, Watch
from protege_mta.tunnel.connection import Connection
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.tunnel.socket_client import Agent, AgentConnection
from protege_mta.wire.tunnel.frames import End, FrameReader, Kind, Piece, Start, encode
from protege_mta.wire.tunnel.messages import (
    AuthError,
    AuthOk,
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Credit,
    DeliveryResult,
    StreamResult,
    StreamResume,
    Terms,
    format_end,
    format_message,
    format_start,
    parse,
)
from protege_mta.wire.tunnel.outgoing import Refused, read_error

from .test_tunnel_handshake import KEY, ME

STREAM = Stream("a@b.test", "c@d.test", request_id="r-1")
CONTENT = bytes(range(256)) * 1000
SMALL = TunnelLimits(window_octets=65_536, message_octets=1_000_000)
TERMS = Terms(65_536, 1_000_000)
BROKEN = [AuthError("invalid_tunnel_frame"), (4401, "invalid_tunnel_frame")]


class Stranger:
    """The other side of a connection, played by the test.

    :ivar connection: ours.
    """

    connection: Connection

    def __init__(self, net: Net) -> None:
        self.net = net
        self.socket = StrangeSocket()

    def meet_relay(self) -> None:
        """Connect to our relay."""
        self.connection = self.net.relay.connection(self.socket)
        self.connection.opened()

    def meet_agent(self) -> None:
        """Let our agent connect."""
        who = Agent(ME, KEY.sign)
        self.connection = AgentConnection(self.socket, self.net.agents, who, Watch())
        self.connection.opened()

    @property
    def session(self) -> Session:
        """Ours."""
        session = self.connection.session
        assert session is not None
        return session

    def text(self, octets: bytes) -> None:
        self._say(octets, is_binary=False)

    def binary(self, *frames: bytes) -> None:
        for frame in frames:
            self._say(frame, is_binary=True)

    def _say(self, octets: bytes, *, is_binary: bool) -> None:
        self.connection.heard()
        self.connection.message_began(is_binary)
        self.connection.message_data(octets)
        self.connection.message_ended()

    def heard(self) -> list[Any]:
        """What was said since it was asked last: messages, parts of frames, pings, closes."""
        said, self.socket.said = self.socket.said, []
        found: list[Any] = []
        for kind, what in said:
            match what:
                case bytes() if kind == "text":
                    found.append(parse(what))
                case bytes() if kind == "binary":
                    reader = FrameReader()
                    found += [*reader.feed(what), *reader.finish()]
                case _:
                    found.append(what)
        return found


def agent(net: Net, terms: Terms | None = None) -> Stranger:
    """Log in at the relay.  :param terms: None for an original gateway."""
    stranger = Stranger(net)
    stranger.meet_relay()
    stranger.text(format_message(ChallengeRequest(ME)))
    [challenge] = stranger.heard()
    assert isinstance(challenge, Challenge)
    signature = base64.b64encode(KEY.sign(challenge.text.encode())).decode()
    response = ChallengeResponse(ME, challenge.challenge_id, signature, "inbound", terms)
    stranger.text(format_message(response))
    [ok] = stranger.heard()
    assert isinstance(ok, AuthOk)
    return stranger


def original_relay(net: Net) -> Stranger:
    """Let our agent in, and offer nothing."""
    return _relay(net, Challenge(ME, "c", "t", 0), AuthOk(ME, "inbound"))


def reliable_relay(net: Net) -> Stranger:
    ok = AuthOk(ME, "inbound", None, (1,), TERMS, TERMS)
    return _relay(net, Challenge(ME, "c", "t", 0, (1,)), ok)


def _relay(net: Net, challenge: Challenge, ok: AuthOk) -> Stranger:
    stranger = Stranger(net)
    stranger.meet_agent()
    stranger.text(format_message(challenge))
    stranger.text(format_message(ok))
    stranger.heard()
    return stranger


def start(stream_id: str, request_id: str = "", size: int | None = None, **more: bool) -> bytes:
    stream = Stream("a@b.test", "c@d.test", None, request_id, size, stream_id)
    is_reliable = bool(request_id)
    body = format_start(stream, is_reliable=is_reliable, is_resume=more.get("resume", False))
    return encode(Kind.START, stream_id, body)


def chunk(stream_id: str, octets: bytes) -> bytes:
    return encode(Kind.CHUNK, stream_id, octets)


def end(stream_id: str, content: bytes | None = None) -> bytes:
    if content is None:
        return encode(Kind.END, stream_id)
    return encode(Kind.END, stream_id, format_end(hashlib.sha256(content).hexdigest()))


class OriginalAgentTests(SynchronousTestCase):
    """An unchanged gateway at our relay."""

    def setUp(self) -> None:
        self.net = Net(limits=SMALL)
        self.agent = agent(self.net)
        self.house = self.net.relay_house

    def test_mail_from_it(self) -> None:
        """Is answered by what the original relay says, once it is stored."""
        self.agent.binary(start("s"), chunk("s", b"one "), chunk("s", b""), chunk("s", b"two"))
        self.assertEqual(self.agent.heard(), [])
        self.agent.binary(end("s"))
        self.assertEqual(self.agent.heard(), [DeliveryResult("s")])
        [(_, stream, content)] = self.house.taken
        self.assertEqual((stream.request_id, content), ("", b"one two"))

    def test_what_becomes_of_it(self) -> None:
        """A refusal of either kind is told with its reply, after the end of the stream."""
        for reply in (Reply(550, "5.7.1", ("no",)), Reply(451, "4.3.0", ("later",))):
            self.house.on_finish = lambda intake, reply=reply: succeed(reply)  # type: ignore[misc]
            self.agent.binary(start("s"), chunk("s", b"x"), end("s"))
            self.assertEqual(self.agent.heard(), [DeliveryResult("s", str(reply))])
            self.house.on_receive = lambda stream, reply=reply: reply  # type: ignore[misc]
            self.agent.binary(start("s"), chunk("s", b"x"))
            self.assertEqual(self.agent.heard(), [])
            self.agent.binary(end("s"))
            self.assertEqual(self.agent.heard(), [DeliveryResult("s", str(reply))])
            self.house.on_receive = lambda stream: None

    def test_a_stream_without_content(self) -> None:
        """Brings nothing down."""
        self.agent.binary(start("s"), end("s"))
        self.assertEqual(self.agent.heard(), [DeliveryResult("s")])

    def test_streams_side_by_side_and_one_after_another(self) -> None:
        self.agent.binary(
            start("s"), start("t"), chunk("s", b"1"), chunk("t", b"2"), chunk("s", b"3"), end("s"),
            start("s"), chunk("s", b"4"), end("t"), end("s"),
        )  # fmt: skip
        self.assertEqual([content for _, _, content in self.house.taken], [b"13", b"2", b"4"])

    def test_a_new_start_forgets_the_old_stream(self) -> None:
        self.agent.binary(start("s"), chunk("s", b"old"), start("s"), chunk("s", b"new"), end("s"))
        self.assertEqual([content for _, _, content in self.house.taken], [b"new"])
        self.assertEqual(self.house.open, [])

    def test_strays_are_passed_over(self) -> None:
        self.agent.binary(chunk("s", b"x"), end("s"))
        self.assertEqual(self.agent.heard(), [])

    def test_too_big(self) -> None:
        self.agent.binary(start("s"), *[chunk("s", bytes(65_536))] * 20, end("s"))
        self.assertEqual(self.agent.heard(), [DeliveryResult("s", str(TABLE["message-too-big"]))])
        self.assertEqual((self.house.open, self.house.taken), ([], []))

    def test_mail_to_it(self) -> None:
        """Counts as delivered once it has answered a ping after the end."""
        outcome = self.agent.session.send(STREAM, OctetsInMemory(CONTENT[:100_000]))
        [begun, *pieces, ended, ping] = self.agent.heard()
        stream_id = begun.stream_id
        self.assertEqual(begun, Start(stream_id, b'{"mailFrom":"a@b.test","rcptTo":"c@d.test"}'))
        self.assertEqual(
            pieces, [Piece(stream_id, CONTENT[:65_536]), Piece(stream_id, CONTENT[65_536:100_000])]
        )
        self.assertEqual(ended, End(stream_id, b""))
        self.assertNoResult(outcome)
        self.agent.connection.ponged(b"other")
        self.assertNoResult(outcome)
        self.agent.connection.ponged(ping)
        self.assertIsInstance(self.successResultOf(outcome), Delivered)

    def test_an_answer_to_a_later_ping_will_do(self) -> None:
        """RFC 6455, 5.5.3."""
        outcomes = [self.agent.session.send(STREAM, OctetsInMemory(b"x")) for _ in range(3)]
        pings = [what for what in self.agent.heard() if isinstance(what, bytes)]
        self.agent.connection.ponged(pings[1])
        self.assertIsInstance(self.successResultOf(outcomes[0]), Delivered)
        self.assertIsInstance(self.successResultOf(outcomes[1]), Delivered)
        self.assertNoResult(outcomes[2])
        self.agent.connection.gone(1006, "")
        self.assertIsInstance(self.successResultOf(outcomes[2]), TransientFailure)

    def test_text_after_login(self) -> None:
        self.agent.text(b'{"type":"ping"}')
        self.assertEqual(self.agent.heard(), BROKEN)
        self.assertEqual(self.house.sessions, [])

    def test_frames_that_are_none(self) -> None:
        for octets in (b"", b"\2", b'{"type":"auth_error"}', chunk("s", b"x") + b"y",
                       encode(Kind.START, "s", b"x")):  # fmt: skip
            stranger = agent(Net())
            stranger.binary(octets)
            self.assertEqual(stranger.heard(), BROKEN)

    def test_it_is_told_nothing_it_does_not_know(self) -> None:
        self.agent.session.tell(DeliveryState("r", "sent", "2.0.0", "ok"))
        self.assertEqual(self.agent.heard(), [])

    def test_starts_without_ends(self) -> None:
        """Are refused above a number, and broken off above another."""
        for number in range(300):
            self.agent.binary(start(f"s-{number}"))
        self.assertLessEqual(len(self.house.open), 64)
        self.assertEqual(
            self.agent.heard(), [AuthError("too_many_streams"), (4401, "too_many_streams")]
        )
        self.assertEqual(self.house.open, [])

    def test_ends_that_take_their_time(self) -> None:
        """Above a number of messages that are being stored nothing more is read."""
        stored: list[Deferred[Reply]] = []

        def on_finish(intake: object) -> Deferred[Reply]:
            stored.append(Deferred())
            return stored[-1]

        self.house.on_finish = on_finish
        for number in range(300):
            self.agent.binary(start(f"s-{number}"), end(f"s-{number}"))
        self.assertEqual(len(stored), 256)
        self.assertTrue(self.agent.socket.is_paused)
        stored[0].callback(TABLE["ok"])
        self.assertEqual(len(stored), 257)
        for deferred in stored[1:]:
            deferred.callback(TABLE["ok"])
        self.assertFalse(self.agent.socket.is_paused)
        for deferred in stored[257:]:
            deferred.callback(TABLE["ok"])
        self.assertEqual(len(self.agent.heard()), 300)

    def test_what_was_whole_goes_its_way(self) -> None:
        """Though the agent is gone before the house has looked at it."""
        answer: Deferred[Any] = Deferred()
        self.house.on_receive = lambda stream: answer
        self.agent.binary(start("s"))
        self.house.on_receive = lambda stream: None
        self.agent.binary(chunk("s", b"whole"), end("s"))
        answer.callback(self.house.intake(self.agent.session, STREAM))
        self.agent.connection.gone(1006, "")
        self.assertEqual([content for _, _, content in self.house.taken], [b"whole"])

    def test_what_was_not_whole_is_given_up(self) -> None:
        self.agent.binary(start("s"), chunk("s", b"half"))
        [intake] = self.house.open
        self.agent.connection.gone(1006, "")
        self.assertEqual(intake.ended, "aborted")


class OriginalRelayTests(SynchronousTestCase):
    """Our gateway at an unchanged relay."""

    def setUp(self) -> None:
        self.net = Net(limits=SMALL)
        self.relay = original_relay(self.net)
        self.house = self.net.agent_house

    def test_mail_to_us(self) -> None:
        """As one chunk, and nothing is said of it."""
        frame = chunk("s", CONTENT)
        self.relay.binary(start("s"))
        connection = self.relay.connection
        connection.message_began(True)
        for at in range(0, len(frame), 1000):
            connection.message_data(frame[at : at + 1000])
        connection.message_ended()
        self.relay.binary(end("s"))
        self.assertEqual([content for _, _, content in self.house.taken], [CONTENT])
        self.assertEqual(self.relay.heard(), [])

    def test_mail_from_us(self) -> None:
        """No text, no ping, and nothing that it would not know; delivered when it says so."""
        outcome = self.relay.session.send(STREAM, OctetsInMemory(b"x"))
        [begun, *rest] = self.relay.heard()
        self.assertEqual(
            [begun, *rest],
            [
                Start(begun.stream_id, b'{"mailFrom":"a@b.test","rcptTo":"c@d.test"}'),
                Piece(begun.stream_id, b"x"),
                End(begun.stream_id, b""),
            ],
        )
        self.assertNoResult(outcome)
        self.relay.text(format_message(DeliveryResult(begun.stream_id, message_id="<x@y>")))
        self.assertIsInstance(self.successResultOf(outcome), Delivered)

    def _failed(self, error: str) -> Outcome:
        outcome = self.relay.session.send(STREAM, OctetsInMemory(b"x"))
        stream_id = self.relay.heard()[0].stream_id
        self.relay.text(format_message(DeliveryResult(stream_id, error)))
        return self.successResultOf(outcome)

    def test_failures_are_for_good_where_a_reply_shows_it(self) -> None:
        failure = self._failed("Message failed: 550 5.1.1 no such user")
        assert isinstance(failure, PermanentFailure)
        self.assertEqual(
            failure.cause, Reply(550, "5.1.1", ("Message failed: 550 5.1.1 no such user",))
        )
        failure = self._failed("getaddrinfo ENOTFOUND mx.example.net")
        assert isinstance(failure, TransientFailure)
        self.assertEqual(failure.scope, Scope.RECIPIENT)

    def test_what_error_texts_show(self) -> None:
        for text, code, is_permanent in (
            (
                "Can't send mail - all recipients were rejected: 550 5.1.1 <a@b>: unknown",
                "5.1.1",
                True,
            ),
            ("554 no", "", True),
            ("550-no such\n550 user", "", True),
            ("5.7.1 blocked", "5.7.1", True),
            ("Greylisted: 451 4.7.1 come back in 550 seconds", "4.7.1", False),
            ("450 5.1.1 odd", "5.1.1", False),
            ("connect ECONNREFUSED 192.0.2.1:587", "", False),
            ("connect ETIMEDOUT 10.5.5.1", "", False),
            ("self-signed certificate", "", False),
            ("No MX or A/AAAA records found for recipient domain 5.5.5.example.", "", False),
            ("", "", False),
        ):
            self.assertEqual(read_error(text), Refused(code, text, is_permanent), text)

    def test_no_answer_for_a_minute(self) -> None:
        outcome = self.relay.session.send(STREAM, OctetsInMemory(b"x"))
        for _ in range(59):
            self.net.clock.advance(1)
            self.relay.connection.heard()
        self.assertNoResult(outcome)
        for _ in range(4):
            self.net.clock.advance(1)
        failure = self.successResultOf(outcome)
        assert isinstance(failure, TransientFailure)
        self.assertEqual(failure.cause, TABLE["no-answer"])
        texts = [kind for kind, _ in self.relay.socket.said if kind == "text"]
        self.assertEqual(texts, [])

    def test_control_messages_in_binary(self) -> None:
        outcome = self.relay.session.send(STREAM, OctetsInMemory(b"x"))
        stream_id = self.relay.heard()[0].stream_id
        self.relay.binary(format_message(DeliveryResult(stream_id)))
        self.assertIsInstance(self.successResultOf(outcome), Delivered)

    def test_what_it_may_say_besides(self) -> None:
        for text in (b"", b"[]", b'{"type":"new"}', b'{"type":"relay_delivery_result"}',
                     format_message(Credit(5)), format_message(DeliveryResult("other"))):  # fmt: skip
            self.relay.text(text)
        self.assertEqual(self.relay.heard(), [])
        self.assertEqual(len(self.house.sessions), 1)

    def test_broken_frames_end_the_session(self) -> None:
        """Without a text, which it would not understand."""
        self.relay.binary(b"\2")
        self.assertEqual(self.relay.heard(), [(4401, "invalid_tunnel_frame")])


class SilenceTests(SynchronousTestCase):
    def test_who_is_silent_is_asked_and_who_stays_silent_is_gone(self) -> None:
        net = Net(limits=TunnelLimits(ping_s=30, idle_s=120))
        stranger = agent(net)
        net.clock.pump([1] * 33)
        self.assertEqual([len(ping) for ping in stranger.heard()], [8])
        net.clock.pump([1] * 80)
        self.assertEqual(stranger.heard(), [])
        self.assertFalse(stranger.socket.is_aborted)
        net.clock.pump([1] * 10)
        self.assertTrue(stranger.socket.is_aborted)

    def test_who_answers_stays(self) -> None:
        net = Net(limits=TunnelLimits(ping_s=30, idle_s=120))
        pair = net.connect(KEY)
        for _ in range(1000):
            net.clock.advance(1)
            net.flow()
        self.assertEqual(pair.watch.ends, [])

    def test_who_sends_and_never_reads_is_gone(self) -> None:
        net = Net(limits=TunnelLimits(ping_s=30, idle_s=120))
        stranger = agent(net)
        outcome = stranger.session.send(STREAM, OctetsInMemory(CONTENT))
        stranger.connection.stuck(True)
        for _ in range(122):
            net.clock.advance(1)
            stranger.connection.heard()
        self.assertTrue(stranger.socket.is_aborted)
        stranger.connection.gone(1006, "")
        self.assertIsInstance(self.successResultOf(outcome), TransientFailure)

    def test_a_paused_session_is_not_a_silent_one(self) -> None:
        net = Net(limits=TunnelLimits(ping_s=30, idle_s=120))
        stranger = agent(net)
        net.relay_house.on_receive = lambda stream: Deferred()
        stranger.binary(start("s"))
        net.clock.pump([1] * 300)
        self.assertFalse(stranger.socket.is_aborted)

    def test_nobody_waits_for_a_close_for_ever(self) -> None:
        net = Net()
        stranger = agent(net)
        stranger.session.close(4400, "x")
        self.assertIsNone(net.relay.to(ME))
        net.clock.pump([1] * 7)
        self.assertTrue(stranger.socket.is_aborted)


class StuckTests(SynchronousTestCase):
    """Who does not read what is said to it."""

    def test_content_waits(self) -> None:
        net = Net()
        stranger = agent(net)
        stranger.connection.stuck(True)
        stranger.session.send(STREAM, OctetsInMemory(CONTENT))
        self.assertEqual(stranger.heard(), [])
        stranger.connection.stuck(False)
        self.assertEqual(len(stranger.heard()), 7)

    def test_answers_do_not_pile_up(self) -> None:
        """Then nothing more is read of it."""
        net = Net()
        stranger = agent(net)
        stranger.connection.stuck(True)
        for number in range(5000):
            stranger.binary(start(f"{number}"), end(f"{number}"))
        self.assertTrue(stranger.socket.is_paused)
        octets = sum(len(what) for _, what in stranger.socket.said)
        self.assertLess(octets, 70_000)
        for _ in range(5000):
            stranger.connection.pinged(bytes(125))
        stranger.connection.stuck(False)
        self.assertFalse(stranger.socket.is_paused)
        self.assertEqual(len(net.relay_house.taken), 5000)

    def test_a_long_message_lets_others_in_between(self) -> None:
        """A turn sends a megabyte at most."""
        net = Net()
        stranger = agent(net)
        stranger.session.send(STREAM, OctetsInMemory(bytes(10_000_000)))
        self.assertEqual(len(stranger.heard()), 16)
        net.clock.advance(0)
        self.assertEqual(len(stranger.heard()), 140)


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
