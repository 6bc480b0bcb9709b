"""Streams between two real ends over sockets in memory: the reliable extension."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import (
    Contact,
    Delivered,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Attestation, DeliveryState, Stream
from protege_mta.testing.strangers import KEY, ME
from protege_mta.testing.tunnels import Net, OctetsInMemory, Pair
from protege_mta.tunnel.limits import TunnelLimits

STREAM = Stream("a@b.test", "c@d.test", request_id="r-1")
CONTENT = bytes(range(256)) * 1000
SMALL = TunnelLimits(window_octets=65_536, message_octets=1_000_000)
OK = TABLE["ok"]


class ReliableTests(SynchronousTestCase):
    def pair(self, **settings: Any) -> tuple[Net, Pair]:
        net = Net(**settings)
        return net, net.connect(KEY)

    def test_both_ways(self) -> None:
        """Content, envelope and attestation arrive as they were, and both sides know."""
        net, pair = self.pair(piece_octets=lambda: 1000)
        attested = Stream("a@b.test", "c@d.test", Attestation("k", b"{}", b"s"), "r-1")
        outcome = net.at_relay(pair).send(attested, OctetsInMemory(CONTENT))
        back = pair.session.send(STREAM, OctetsInMemory(CONTENT[:10]))
        net.flow()
        contact = Contact(ME, "192.0.2.1")
        self.assertEqual(
            self.successResultOf(outcome), Delivered(contact, Reply(250, "2.0.0", ("ok",)))
        )
        self.assertIsInstance(self.successResultOf(back), Delivered)
        [(identity, stream, content)] = net.agent_house.taken
        self.assertEqual((identity, content), (ME, CONTENT))
        self.assertEqual(
            (stream.sender, stream.recipient, stream.attestation, stream.request_id),
            ("a@b.test", "c@d.test", attested.attestation, "r-1"),
        )
        self.assertEqual((stream.size_octets, len(stream.stream_id)), (len(CONTENT), 36))
        self.assertEqual(net.relay_house.taken[0][2], CONTENT[:10])

    def test_empty_content(self) -> None:
        net, pair = self.pair()
        outcome = pair.session.send(STREAM, OctetsInMemory(b""))
        net.flow()
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        self.assertEqual(net.relay_house.taken[0][2], b"")

    def test_the_streams_id_is_the_senders_choice(self) -> None:
        """An attestation has to name it before."""
        net, pair = self.pair()
        net.at_relay(pair).send(Stream("", "c@d.test", stream_id="mine"), OctetsInMemory(b"x"))
        net.flow()
        stream = net.agent_house.taken[0][1]
        self.assertEqual((stream.stream_id, stream.request_id), ("mine", "mine"))

    def test_many_at_a_time(self) -> None:
        """Messages share the way, and each is whole at the other end."""
        net, pair = self.pair(limits=SMALL)
        contents = [bytes([n]) * (n * 3000) for n in range(100)]
        outcomes = [
            pair.session.send(Stream("", f"{n}@d.test"), OctetsInMemory(content))
            for n, content in enumerate(contents)
        ]
        net.flow()
        for outcome in outcomes:
            self.assertIsInstance(self.successResultOf(outcome), Delivered)
        taken = {stream.recipient: content for _, stream, content in net.relay_house.taken}
        self.assertEqual(taken, {f"{n}@d.test": content for n, content in enumerate(contents)})

    def test_what_the_house_refuses(self) -> None:
        """At the start, or once it has everything; for now, or for good."""
        for code, kind in ((550, PermanentFailure), (451, TransientFailure)):
            net, pair = self.pair()
            reply = Reply(code, f"{code // 100}.7.1", ("not this one",))
            net.relay_house.on_receive = lambda stream, reply=reply: reply  # type: ignore[misc]
            early = pair.session.send(STREAM, OctetsInMemory(CONTENT))
            net.flow()
            net.relay_house.on_receive = lambda stream: None
            net.relay_house.on_finish = lambda intake, reply=reply: succeed(reply)  # type: ignore[misc]
            late = pair.session.send(STREAM, OctetsInMemory(CONTENT))
            net.flow()
            said = Reply(550 if code == 550 else 450, reply.enhanced, reply.lines)
            expected = kind(Scope.RECIPIENT, said, Contact("relay.test", "198.51.100.1"))
            self.assertEqual(self.successResultOf(early), expected)
            self.assertEqual(self.successResultOf(late), expected)
            self.assertEqual(net.relay_house.taken, [])

    def test_what_is_here_already(self) -> None:
        """Is queued at once, and its content is not sent any further."""
        net, pair = self.pair(limits=SMALL)
        net.relay_house.on_receive = lambda stream: OK
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        net.flow()
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        more = pair.session.send(STREAM, OctetsInMemory(CONTENT * 3))
        net.flow()
        self.assertIsInstance(self.successResultOf(more), Delivered)

    def test_queued_means_stored(self) -> None:
        net, pair = self.pair()
        stored: Deferred[Reply] = Deferred()
        net.relay_house.on_finish = lambda intake: stored
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        net.flow()
        self.assertNoResult(outcome)
        stored.callback(OK)
        net.flow()
        self.assertIsInstance(self.successResultOf(outcome), Delivered)

    def test_a_house_that_thinks(self) -> None:
        """Nothing more is read before it has answered."""
        net, pair = self.pair()
        answer: Deferred[Any] = Deferred()
        net.relay_house.on_receive = lambda stream: answer
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        net.flow()
        self.assertTrue(pair.relay.is_paused)
        answer.callback(net.relay_house.intake(net.at_relay(pair), STREAM))
        net.flow()
        self.assertFalse(pair.relay.is_paused)
        self.assertIsInstance(self.successResultOf(outcome), Delivered)

    def test_a_house_that_writes_slowly(self) -> None:
        """Holds the sender up, and what it has not taken in stays in the window."""
        net, pair = self.pair(limits=SMALL)
        pauses: list[Deferred[None]] = []

        def on_write(intake: object) -> Deferred[None]:
            pauses.append(Deferred())
            return pauses[-1]

        net.relay_house.on_write = on_write
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(100):
            net.flow()
            in_flight = sum(len(octets) for _, octets, _ in pair.agent.line)
            self.assertLess(in_flight, 2 * 65_536)
            waiting = [pause for pause in pauses if not pause.called]
            self.assertLess(len(waiting), 2)
            if not waiting:
                break
            waiting[0].callback(None)
        self.assertIsInstance(self.successResultOf(outcome), Delivered)

    def test_faults_of_the_house_are_transient(self) -> None:
        def broken(*arguments: object) -> Any:
            raise OSError("no")

        for hook in ("on_receive", "on_write", "on_finish"):
            net, pair = self.pair()
            setattr(net.relay_house, hook, broken)
            outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
            net.flow()
            failure = self.successResultOf(outcome)
            assert isinstance(failure, TransientFailure), hook
            self.assertEqual(failure.cause.enhanced, "4.3.0")
            self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
            self.assertEqual(
                net.relay_house.open, [] if hook != "on_write" else net.relay_house.open
            )

    def test_content_that_cannot_be_read(self) -> None:
        """Costs its own message, not the session."""

        class Broken(OctetsInMemory):
            def read(self, offset: int = 0, size: int = -1) -> bytes:
                return b"" if offset else super().read(offset, size)

        net, pair = self.pair()
        bad = pair.session.send(STREAM, Broken(CONTENT))
        good = pair.session.send(Stream("", "x@y.test"), OctetsInMemory(b"good"))
        net.flow()
        self.assertEqual(
            self.successResultOf(bad), TransientFailure(Scope.MESSAGE, TABLE["local-error"])
        )
        self.assertIsInstance(self.successResultOf(good), Delivered)
        self.assertEqual(len(self.flushLoggedErrors(EOFError)), 1)
        self.assertEqual(net.relay_house.open, [])

    def test_a_cut_is_a_transient_failure(self) -> None:
        _, pair = self.pair()
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        pair.agent.cut()
        failure = self.successResultOf(outcome)
        assert isinstance(failure, TransientFailure)
        self.assertEqual((failure.scope, failure.cause), (Scope.HOST, TABLE["session-lost"]))
        late = self.successResultOf(pair.session.send(STREAM, OctetsInMemory(CONTENT)))
        self.assertEqual(late, failure)

    def test_it_goes_on_where_it_was_cut(self) -> None:
        """The octets that arrived are not sent again."""
        net, pair = self.pair(limits=SMALL)
        pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(9):
            pair.agent.flow()
            pair.relay.flow()
        there = len(net.relay_house.open[0].content)
        self.assertGreater(there, 65_000)
        pair.agent.cut()
        self.assertEqual(net.relay.unfinished.octets, there)
        again = net.connect(KEY)
        outcome = again.session.send(STREAM, OctetsInMemory(CONTENT))
        sent = 0
        while again.relay.flow() or again.agent.flow():
            sent = max(
                sent, sum(len(octets) for kind, octets, _ in again.agent.line if kind == "data")
            )
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        self.assertEqual([content for _, _, content in net.relay_house.taken], [CONTENT])
        self.assertEqual(net.relay_house.open, [])
        self.assertEqual(net.relay.unfinished.octets, 0)

    def test_another_message_does_not_go_on(self) -> None:
        """The same request with another recipient or size begins anew."""
        net, pair = self.pair(limits=SMALL)
        pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(9):
            pair.agent.flow()
        pair.agent.cut()
        again = net.connect(KEY)
        outcome = again.session.send(STREAM, OctetsInMemory(CONTENT[:-1]))
        net.flow()
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        self.assertEqual([content for _, _, content in net.relay_house.taken], [CONTENT[:-1]])
        self.assertEqual(net.relay_house.open, [])

    def test_a_second_session_takes_a_stream_over(self) -> None:
        """The first one is not known to be dead yet."""
        net, pair = self.pair(limits=SMALL)
        first = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(9):
            pair.agent.flow()
        pair.relay.is_frozen = True
        again = net.connect(KEY, "outbound")
        outcome = again.session.send(STREAM, OctetsInMemory(CONTENT))
        net.flow()
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        pair.relay.is_frozen = False
        net.flow()
        failure = self.successResultOf(first)
        assert isinstance(failure, TransientFailure)
        self.assertEqual([content for _, _, content in net.relay_house.taken], [CONTENT])
        self.assertEqual(net.relay_house.open, [])

    def test_a_message_that_is_being_stored_is_waited_for(self) -> None:
        net, pair = self.pair()
        stored: Deferred[Reply] = Deferred()
        keep = net.relay_house.on_finish
        net.relay_house.on_finish = lambda intake: stored.addCallback(
            lambda _: self.successResultOf(keep(intake))
        )
        pair.session.send(STREAM, OctetsInMemory(CONTENT))
        net.flow()
        pair.agent.cut()
        again = net.connect(KEY)
        outcome = again.session.send(STREAM, OctetsInMemory(CONTENT))
        net.flow()
        self.assertNoResult(outcome)
        stored.callback(OK)
        net.flow()
        self.assertIsInstance(self.successResultOf(outcome), Delivered)
        self.assertEqual(len(net.relay_house.taken), 1)

    def test_what_was_cut_is_kept_for_ten_minutes(self) -> None:
        net, pair = self.pair(limits=SMALL)
        pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(9):
            pair.agent.flow()
        pair.agent.cut()
        [intake] = net.relay_house.open
        net.clock.pump([1] * 590)
        self.assertEqual(intake.ended, "")
        net.clock.pump([1] * 15)
        self.assertEqual(intake.ended, "aborted")
        self.assertEqual(net.clock.getDelayedCalls(), [])

    def test_a_send_may_be_cancelled(self) -> None:
        net, pair = self.pair(limits=SMALL)
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(9):
            pair.agent.flow()
        outcome.cancel()
        self.failureResultOf(outcome)
        net.flow()
        self.assertEqual(net.relay_house.open, [])
        self.assertEqual(net.relay_house.taken, [])

    def test_a_session_without_answers(self) -> None:
        """A stream that does not get on for ten minutes is tried again later."""
        net, pair = self.pair()
        net.relay_house.on_finish = lambda intake: Deferred()
        outcome = pair.session.send(STREAM, OctetsInMemory(CONTENT))
        for _ in range(610):
            net.flow()
            net.clock.advance(1)
        failure = self.successResultOf(outcome)
        assert isinstance(failure, TransientFailure)
        self.assertEqual(failure.cause, TABLE["no-answer"])

    def test_states_are_told(self) -> None:
        net, pair = self.pair()
        state = DeliveryState("r-1", "deferred", "4.4.1", "later", 60.0)
        net.at_relay(pair).tell(state)
        net.flow()
        self.assertEqual(net.told, [state])

    def test_a_message_above_the_other_sides_limit(self) -> None:
        _, pair = self.pair(limits=SMALL)
        outcome = pair.session.send(STREAM, OctetsInMemory(bytes(1_000_001)))
        failure = self.successResultOf(outcome)
        assert isinstance(failure, PermanentFailure)
        self.assertEqual(failure.cause, TABLE["message-too-big"])

    def test_what_cannot_be_said(self) -> None:
        _, pair = self.pair()
        for stream in (Stream("\ud800", "c"), Stream("", "c", stream_id="x" * 256)):
            outcome = pair.session.send(stream, OctetsInMemory(b""))
            failure = self.successResultOf(outcome)
            assert isinstance(failure, PermanentFailure)
            self.assertEqual(failure.cause, TABLE["cannot-be-sent"])
