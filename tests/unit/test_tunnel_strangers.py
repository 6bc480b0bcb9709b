"""One end of a tunnel and a stranger at the other: original programs, and who breaks the rules."""

from __future__ import annotations

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
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import DeliveryState, Stream
from protege_mta.testing.strangers import (
    KEY,
    ME,
    Stranger,
    agent,
    chunk,
    end,
    original_relay,
    reliable_relay,
    start,
)
from protege_mta.testing.tunnels import Net, OctetsInMemory
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.wire.tunnel.frames import End, Kind, Piece, Start, encode
from protege_mta.wire.tunnel.messages import (
    AuthError,
    Credit,
    DeliveryResult,
    format_message,
)
from protege_mta.wire.tunnel.outgoing import Refused, read_error

STREAM = Stream("a@b.test", "c@d.test", request_id="r-1")
CONTENT = bytes(range(256)) * 1000
SMALL = TunnelLimits(window_octets=65_536, message_octets=1_000_000)
BROKEN = [AuthError("invalid_tunnel_frame"), (4401, "invalid_tunnel_frame")]


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

    def test_a_stream_of_which_nothing_more_comes(self) -> None:
        """Is given up, and so gives back what it holds; what the house waits for does not count."""
        self.agent.binary(start("s"), chunk("s", b"x"), start("t"))
        for _ in range(30):
            self.net.clock.pump([1.0] * 20)
            self.agent.binary(chunk("t", b"y"))
        self.net.clock.pump([1.0] * 3)
        self.assertEqual([one.stream.stream_id for one in self.house.open], ["t"])
        self.agent.heard()
        self.agent.binary(end("s"), end("t"))
        self.assertEqual(
            self.agent.heard(),
            [DeliveryResult("s", str(TABLE["stream-stalled"])), DeliveryResult("t")],
        )

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


class WordsTests(SynchronousTestCase):
    """What a relay says goes into logs, where it has one line, and nothing that a terminal obeys."""

    EVIL = "no\r\n2026 all is well\x1b[31m\x00\u2028" + "A" * 4000
    PLAIN = "no 2026 all is well [31m " + "A" * 475

    def test_reason_of_a_close(self) -> None:
        relay = reliable_relay(Net())
        relay.connection.closing(4000, self.EVIL)
        self.assertEqual(relay.watch.ends, [(4000, self.PLAIN)])

    def test_why_it_refuses_us(self) -> None:
        relay = Stranger(Net())
        relay.meet_agent()
        relay.text(format_message(AuthError(self.EVIL)))
        self.assertEqual(relay.watch.ends, [(4401, self.PLAIN)])
        self.assertEqual(relay.heard()[-1], (4401, self.PLAIN))

    def test_what_becomes_of_mail(self) -> None:
        net = Net()
        relay = reliable_relay(net)
        relay.text(format_message(DeliveryState(self.EVIL, "failed", self.EVIL, self.EVIL)))
        self.assertEqual(
            net.told, [DeliveryState(self.PLAIN, "failed", self.PLAIN, self.PLAIN, None)]
        )


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

    def test_who_reads_slowly_stays(self) -> None:
        net = Net(limits=TunnelLimits(ping_s=30, idle_s=120))
        stranger = agent(net)
        outcome = stranger.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(400):
            stranger.connection.stuck(True)
            net.clock.advance(1)
            stranger.connection.stuck(False)
        self.assertNoResult(outcome)
        self.assertFalse(stranger.socket.is_aborted)

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
        stranger.connection.stuck(False)
        self.assertFalse(stranger.socket.is_paused)
        self.assertEqual(len(net.relay_house.taken), 5000)

    def test_neither_do_pongs(self) -> None:
        """Before login either."""
        net = Net()
        newcomer = Stranger(net)
        newcomer.meet_relay()
        for stranger in (newcomer, agent(net)):
            stranger.connection.stuck(True)
            for _ in range(500):
                stranger.connection.pinged(bytes(125))
            self.assertFalse(stranger.socket.is_paused)
            for _ in range(50):
                stranger.connection.pinged(bytes(125))
            self.assertTrue(stranger.socket.is_paused)
            stranger.connection.stuck(False)
            self.assertFalse(stranger.socket.is_paused)

    def test_a_long_message_lets_others_in_between(self) -> None:
        """A turn sends a megabyte at most."""
        net = Net()
        stranger = agent(net)
        stranger.session.send(STREAM, OctetsInMemory(bytes(10_000_000)))
        self.assertEqual(len(stranger.heard()), 16)
        net.clock.advance(0)
        self.assertEqual(len(stranger.heard()), 140)
