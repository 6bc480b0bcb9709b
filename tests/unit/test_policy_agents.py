"""What agents may send through their tunnels: as nobody but themselves, and no more than they may."""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.identity import Agent, Identity, identity_of
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import Contact, Delivered, PermanentFailure, Scope, TransientFailure
from protege_mta.model.ports import Intake, Peer
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import DeliveryState, Stream
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.policy.agents import COMING, COMING_OF_ALL, AgentsDoor
from protege_mta.policy.relaying import Mailboxes, Relaying
from protege_mta.policy.stream_intake import ANSWER_S
from protege_mta.policy.usage import Usage
from protege_mta.testing.doors import FakeIntake
from protege_mta.testing.sessions import FakeSession
from protege_mta.tunnel.identities import Identities, IdentitySettings
from protege_mta.tunnel.sessions import Registry

NOON: Final = 1_790_000_000.0
ANN: Final = identity_of(b"\1" * 32)
BOB: Final = identity_of(b"\2" * 32)
EVE: Final = identity_of(b"\3" * 32)
ANN_AT: Final = f"{ANN}@agents.test"
MESSAGE: Final = f"From: {ANN_AT}\r\nSubject: x\r\n\r\nbody\r\n".encode()
NAMES: Final = {reply: name for name, reply in TABLE.items()}
CONTACT: Final = Contact("mx.else.test", "198.51.100.9")


class Case(SynchronousTestCase):
    """A door, and a reliable session of Ann, who has an alias; so has Bob."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[bytes] = []
        self.agents = Identities(
            set(), IdentitySettings(domains=("agents.test", "bots.test"), send_per_hour=3)
        )
        self.agents.use(
            [
                Agent(ANN, ("ann", "sales@shop.test"), tenant="acme"),
                Agent(BOB, ("bob",), send_per_hour=0),
            ]
        )
        self.usage = Usage(lambda: NOON + self.clock.seconds())
        self.sessions = Registry()
        self.intakes: list[FakeIntake] = []
        self.origins: list[Origin] = []
        self.answer: Reply | None = None
        self.ended: list[int | None] = []
        self.door = AgentsDoor(
            self.agents,
            self.sessions,
            Relaying(
                domains={"ours.test": Mailboxes(frozenset({"desk"}))},
                relay_hosts={},
                postmaster=Address(""),
            ),
            EventLines(lambda: NOON, self.lines.append, Counts()),
            self.begin,
            usage=self.usage,
            clock=self.clock,
            now=lambda: NOON,
            monotonic=self.clock.seconds,
            new_message_id=lambda: "<new@mx.test>",
            new_session_id=lambda: "t-1",
            ended=lambda reply, octets: self.ended.append(None if reply is None else reply.code),
            message_octets=1000,
        )
        self.session = self.open(ANN)

    def open(self, identity: Identity, *, is_reliable: bool = True) -> FakeSession:
        session = FakeSession(identity, is_reliable=is_reliable)
        self.door.opened(session)
        return session

    def begin(self, peer: Peer, envelope: Envelope, origin: Origin) -> Intake | Reply:
        self.assertEqual(peer.address, "192.0.2.1")
        self.origins.append(origin)
        if self.answer is not None:
            return self.answer
        self.intakes.append(FakeIntake(envelope))
        return self.intakes[-1]

    def receive(
        self,
        sender: str = ANN_AT,
        recipient: str = "a@else.test",
        session: FakeSession | None = None,
        *,
        request_id: str = "",
        size: int | None = None,
    ) -> Intake | Reply:
        stream = Stream(sender, recipient, request_id=request_id, size_octets=size)
        return self.door.receive(session or self.session, stream)

    def send(
        self,
        content: bytes = MESSAGE,
        sender: str = ANN_AT,
        recipient: str = "a@else.test",
        session: FakeSession | None = None,
    ) -> str:
        """Send a message octet by octet; the name of the reply that it ended with."""
        intake = self.receive(sender, recipient, session)
        if isinstance(intake, Reply):
            return NAMES[intake]
        for at in range(len(content)):
            self.assertIsNone(intake.write(content[at : at + 1]))
        return NAMES[self.successResultOf(intake.finish())]


class RoomTests(Case):
    """What has begun and not come holds memory and files: an agent has so much of it, in however
    many sessions."""

    def begun(self, session: FakeSession | None = None) -> Any:
        return self.receive(ANN_AT, session=session)

    def setUp(self) -> None:
        super().setUp()
        self.agents.use([Agent(ANN, send_per_hour=0), Agent(BOB, send_per_hour=0)])

    def test_of_one_agent(self) -> None:
        sessions = [self.session, self.open(ANN)]
        begun = [self.begun(sessions[n % 2]) for n in range(COMING)]
        for session in sessions:
            self.assertIs(self.begun(session), TABLE["too-many-streams"])
        bob = self.open(BOB)
        self.assertNotIsInstance(self.receive(f"{BOB}@agents.test", session=bob), Reply)
        begun[0].abort()
        again = self.begun()
        self.assertNotIsInstance(again, Reply)
        self.assertIs(self.begun(), TABLE["too-many-streams"])

    def test_what_is_being_stored_has_come(self) -> None:
        begun = [self.begun() for _ in range(COMING)]
        begun[0].write(MESSAGE)
        self.intakes[0].fate = Deferred()
        self.assertNoResult(begun[0].finish())
        self.assertNotIsInstance(self.begun(), Reply)

    def test_of_all(self) -> None:
        agents = [Agent(identity_of(bytes([n]) * 32), send_per_hour=0) for n in range(4, 30)]
        self.agents.use(agents)
        answers = []
        for agent in agents:
            session = self.open(agent.identity)
            address = f"{agent.identity}@agents.test"
            answers += [self.receive(address, session=session) for _ in range(COMING)]
        taken = [not isinstance(answer, Reply) for answer in answers]
        self.assertEqual(taken, [n < COMING_OF_ALL for n in range(len(answers))])


class SendingTests(Case):
    def test_message(self) -> None:
        self.assertEqual(
            self.send(b"From: %b\r\nBcc: s@x.test\r\n\r\nbody" % ANN_AT.encode()), "ok"
        )
        [intake] = self.intakes
        self.assertEqual(
            intake.content,
            f"From: {ANN_AT}\r\nDate: Mon, 21 Sep 2026 14:13:20 +0000\r\n"
            "Message-ID: <new@mx.test>\r\n\r\nbody\r\n".encode(),
        )
        self.assertEqual(intake.envelope.sender, ANN_AT)
        self.assertEqual(intake.envelope.recipients, (Recipient(Address("a@else.test")),))
        self.assertEqual(
            self.origins, [Origin("tunnel", ANN, "192.0.2.1", may_sign=True, tenant="acme")]
        )
        self.assertEqual(self.ended, [250])

    def test_line_ends(self) -> None:
        """A bare LF ends a line, as it does for the original; a bare CR is refused."""
        self.assertEqual(self.send(MESSAGE.replace(b"\r\n", b"\n")), "ok")
        self.assertTrue(self.intakes[0].content.endswith(b"\r\n\r\nbody\r\n"))
        self.assertNotIn(b"\n", self.intakes[0].content.replace(b"\r\n", b""))
        for end in (b"a\rb\r\n", b"a\r", b"\r\r\n"):
            self.assertEqual(self.send(MESSAGE + end), "line-endings")
            self.assertEqual(self.intakes[-1].ended, "aborted")
        self.assertEqual(self.ended, [250, 550, 550, 550])

    def test_smuggled_end_of_data(self) -> None:
        """What would end the data for a lax server is a line with a dot for everybody behind us."""
        self.assertEqual(self.send(MESSAGE + b"\n.\nMAIL FROM:<a@else.test>\n"), "ok")
        self.assertTrue(
            self.intakes[0].content.endswith(b"\r\n\r\n.\r\nMAIL FROM:<a@else.test>\r\n")
        )

    def test_nothing_at_all(self) -> None:
        """Is a message without a body, from whom the envelope says."""
        self.assertEqual(self.send(b""), "ok")
        self.assertIn(f"From: {ANN_AT}\r\n".encode(), self.intakes[0].content)

    def test_size(self) -> None:
        self.assertEqual(self.receive(size=1001), TABLE["message-too-big"])
        self.assertEqual(self.send(MESSAGE.ljust(1000, b"x")), "message-too-big")  # and its CRLF
        self.assertEqual(self.send(MESSAGE.ljust(998, b"x")), "ok")

    def test_request_id_is_the_origins(self) -> None:
        self.receive(request_id="r-1")
        self.assertEqual(self.origins[0].request_id, "r-1")

    def test_names_that_an_original_gives(self) -> None:
        for stream_id, name in {
            "0c4f7d2e-3a5b-4c6d-8e9f-001122334455": "0c4f7d2e-3a5b-4c6d-8e9f-001122334455",
            "769j4i23i7lump30:a@else.test": "",
        }.items():
            stream = Stream(ANN_AT, "a@else.test", stream_id=stream_id)
            self.door.receive(self.open(ANN, is_reliable=False), stream)
            self.assertEqual(self.origins[-1].request_id, name)

    def test_what_is_here_already(self) -> None:
        """Is no further message of the hour."""
        self.answer = Reply(250, "2.0.0", ("ok, queued as x",))
        for _ in range(5):
            self.assertIs(self.receive(request_id="r-1"), self.answer)
        self.assertEqual(self.usage.rows(), [])

    def test_limit_of_an_hour(self) -> None:
        """What is refused counts for nothing; another agent has its own."""
        self.send(b"From: a@else.test\r\n\r\n")
        intake = self.receive()
        assert not isinstance(intake, Reply)
        intake.abort()
        self.assertEqual([self.send() for _ in range(4)], ["ok"] * 3 + ["rate-limited"])
        self.assertEqual(self.intakes[-1].ended, "aborted")
        self.clock.advance(3600)
        self.assertEqual(self.send(), "ok")
        bob = self.open(BOB)
        message = MESSAGE.replace(ANN.encode(), BOB.encode())
        said = [self.send(message, f"{BOB}@bots.test", session=bob) for _ in range(9)]
        self.assertEqual(said, ["ok"] * 9)

    def test_recipients(self) -> None:
        for recipient, said in {
            "desk@ours.test": "ok",
            "nobody@ours.test": "no-such-user",
            "a@else.test": "ok",
            "": "bad-recipient",
            "a": "bad-recipient",
            "<a@else.test>": "bad-recipient",
            "@relay.test:a@else.test": "bad-recipient",
            "a@else.test,b@else.test": "bad-recipient",
            "a@else.test\r\nRCPT TO:<b@else.test>": "bad-recipient",
            "a%else.test@ours.test": "no-such-user",
            "else.test!a@ours.test": "no-such-user",
            '"a@else.test"@ours.test': "no-such-user",
        }.items():
            self.clock.advance(3600)
            self.assertEqual(self.send(recipient=recipient), said, recipient)

    def test_agent_that_is_revoked_under_way(self) -> None:
        self.agents.use([])
        self.assertEqual(self.send(), "sender-not-allowed")

    def test_service_that_stops(self) -> None:
        self.door.is_closing = True
        self.assertEqual(self.send(), "shutting-down")

    def test_refusals_are_events(self) -> None:
        self.send(sender="a@else.test")
        self.send(b"From: a@else.test\r\n\r\n")
        self.send(MESSAGE + b"\r")
        events = [json.loads(line) for line in self.lines]
        self.assertEqual(
            [(e["identity"], e["sender"], e["recipient"], e["reply"]["enhanced"]) for e in events],
            [
                (ANN, "a@else.test", "a@else.test", "5.7.1"),
                (ANN, ANN_AT, "a@else.test", "5.7.1"),
                (ANN, ANN_AT, "a@else.test", "5.6.11"),
            ],
        )
        self.assertEqual({(e["source"], e["tenant"]) for e in events}, {("tunnel", "acme")})

    def test_long_nonsense_is_told_in_part(self) -> None:
        self.send(sender="x" * 60_000, recipient="y" * 60_000)
        self.assertLess(len(self.lines[0]), 2000)

    def test_flood_of_refusals(self) -> None:
        """Does not fill the journal; another agent's are still told."""
        for _ in range(500):
            self.send(sender="a@else.test")
        self.assertEqual(len(self.lines), 60)
        self.send(sender="a@else.test", session=self.open(BOB))
        self.assertEqual(len(self.lines), 61)
        self.clock.advance(60)
        self.send(sender="a@else.test")
        self.assertEqual(len(self.lines), 62)
        self.assertEqual(len(self.ended), 502)


class OpenRelayTests(Case):
    """Whatever is written where a sender stands: nothing of it leaves as somebody else."""

    def setUp(self) -> None:
        super().setUp()
        self.agents.settings = IdentitySettings(domains=("agents.test", "bots.test"))

    def test_own_senders(self) -> None:
        for sender in (
            ANN_AT,
            f"{ANN}@bots.test",
            f"{ANN.upper()}@Agents.TEST",
            "ann@agents.test",
            "Ann@bots.test",
            "sales@shop.test",
            "",
        ):
            self.assertEqual(self.send(sender=sender), "ok", sender)

    def test_other_senders(self) -> None:
        for sender, said in {
            "ceo@bank.test": "sender-not-allowed",
            f"{BOB}@agents.test": "sender-not-allowed",
            f"{EVE}@agents.test": "sender-not-allowed",
            "bob@agents.test": "sender-not-allowed",
            f"{ANN}@else.test": "sender-not-allowed",
            f"{ANN}@sub.agents.test": "sender-not-allowed",
            "ann@shop.test": "sender-not-allowed",
            "sales@agents.test": "sender-not-allowed",
            f"{ANN}+tag@agents.test": "sender-not-allowed",
            "ann+tag@agents.test": "sender-not-allowed",
            f"ceo%bank.test@{ANN}.agents.test": "sender-not-allowed",
            "ceo%bank.test@agents.test": "sender-not-allowed",
            "bank.test!ceo@agents.test": "sender-not-allowed",
            '"ceo@bank.test"@agents.test': "sender-not-allowed",
            '" ann"@agents.test': "sender-not-allowed",
            "\u212ann@agents.test": "sender-not-allowed",
            f"@agents.test:{ANN_AT}": "bad-sender",
            f"<{ANN_AT}>": "bad-sender",
            f"{ANN_AT},ceo@bank.test": "bad-sender",
            f"{ANN_AT}\n": "bad-sender",
            f" {ANN_AT}": "bad-sender",
            "ann": "bad-sender",
            "<>": "bad-sender",
            "postmaster": "bad-sender",
        }.items():
            self.assertEqual(self.send(sender=sender), said, sender)
        self.assertEqual(self.intakes, [])

    def test_own_authors(self) -> None:
        for author in (
            ANN_AT,
            f"Ann <{ANN.upper()}@bots.test>",
            "ann@agents.test, sales@shop.test",
            '"ceo@bank.test" <ann@agents.test>',
        ):
            self.assertEqual(self.send(f"From: {author}\r\n\r\n".encode()), "ok", author)

    def test_other_authors(self) -> None:
        """With an envelope of its own, and with the null reverse-path."""
        for sender in (ANN_AT, "ann@bots.test", ""):
            for fields in (
                "From: ceo@bank.test",
                f"From: {BOB}@agents.test",
                "From: bob@agents.test",
                f"From: {ANN_AT}, ceo@bank.test",
                f"From: ceo@bank.test <{ANN_AT}>",
                f"From: {ANN_AT} <ceo@bank.test>",
                f"From: <{ANN_AT}> <ceo@bank.test>",
                f"From: {ANN_AT}\r\nFrom: ceo@bank.test",
                f"From: ceo@bank.test\r\nFrom: {ANN_AT}",
                f"From: {ANN_AT}\r\nFrom : ceo@bank.test",
                f"From: all: {ANN_AT};",
                f"From: all: {ANN_AT}, ceo@bank.test;",
                "From: undisclosed-recipients:;",
                f"From: <@bank.test:{ANN_AT}>",
                f"From: {ANN_AT}@bank.test",
                "From: ceo%bank.test@agents.test",
                "From: bank.test!ceo@agents.test",
                'From: "ceo@bank.test"@agents.test',
                f"From: (ceo@bank.test) {BOB}@agents.test",
                "From: =?utf-8?q?ceo=40bank=2Etest?= <ann@agents.test>",
                f"From: {ANN_AT}\r\nSender: ceo@bank.test",
                f"From: {ANN_AT}\r\nSender: bob@agents.test",
                f"From: {ANN_AT}\r\nResent-From: ceo@bank.test",
                f"From: {ANN_AT}\r\n .bank.test",
                "From:",
            ):
                for end in ("\r\n", "\n"):
                    content = f"{fields}\r\nTo: a@else.test\r\n\r\nbody\r\n".replace("\r\n", end)
                    said = self.send(content.encode(), sender)
                    self.assertEqual(said, "from-not-allowed", (sender, fields))
                    self.assertEqual(self.intakes[-1].ended, "aborted")

    def test_bare_cr_in_the_header(self) -> None:
        """Is no line end for us, and might be one for others."""
        for fields in (f"From: {ANN_AT}\rFrom: ceo@bank.test\r\n", f"X: y\rFrom: {ANN_AT}\r\n"):
            self.assertEqual(self.send(fields.encode() + b"\r\n"), "line-endings")

    def test_no_from_and_no_sender(self) -> None:
        self.assertEqual(self.send(b"Subject: x\r\n\r\n", ""), "no-author")

    def test_agent_without_domains(self) -> None:
        """Has no address, and so may send as nobody."""
        self.agents.settings = IdentitySettings()
        self.agents.use([Agent(ANN)])
        for sender in (ANN_AT, "ceo@bank.test"):
            self.assertEqual(self.send(sender=sender), "sender-not-allowed")
        self.assertEqual(self.send(sender=""), "from-not-allowed")

    def test_any_key(self) -> None:
        """Is held to the same rule."""
        eve = self.open(EVE)
        eve_at = f"{EVE}@agents.test"
        message = f"From: {eve_at}\r\n\r\n".encode()
        self.assertEqual(self.send(message, eve_at, session=eve), "sender-not-allowed")
        self.agents.settings = IdentitySettings(takes_any=True, domains=("agents.test",))
        self.assertEqual(self.send(message, eve_at, session=eve), "ok")
        self.assertEqual(self.send(MESSAGE, eve_at, session=eve), "from-not-allowed")
        self.assertEqual(self.send(message, ANN_AT, session=eve), "sender-not-allowed")


class AnswerTests(Case):
    """An original gateway hears in time that we could not take its message."""

    def setUp(self) -> None:
        super().setUp()
        self.session = self.open(ANN, is_reliable=False)

    def intake(self) -> Intake:
        intake = self.receive()
        assert not isinstance(intake, Reply)
        return intake

    def test_disk_that_is_stuck_at_the_end(self) -> None:
        intake = self.intake()
        fate: Deferred[Reply] = Deferred()
        self.intakes[0].fate = fate
        intake.write(MESSAGE)
        answer = intake.finish()
        self.clock.advance(ANSWER_S - 1)
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(answer), TABLE["spool-failed"])
        fate.callback(TABLE["ok"])  # after all; it counts, for it is there
        self.assertEqual(self.usage.rows()[0].messages, 1)
        self.assertEqual(self.ended, [451])

    def test_disk_that_is_stuck_before(self) -> None:
        intake = self.intake()
        waiting = intake.write(MESSAGE[:-4])
        self.assertIsNone(waiting)
        self.intakes[0].pauses.append(Deferred())
        waiting = intake.write(MESSAGE[-4:])
        assert waiting is not None
        self.clock.advance(ANSWER_S)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual(self.intakes[0].ended, "aborted")
        self.assertIsNone(intake.write(b"more"))
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["spool-failed"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pause_that_ends(self) -> None:
        intake = self.intake()
        pause: Deferred[None] = Deferred()
        self.intakes[0].pauses.append(pause)
        waiting = intake.write(MESSAGE)
        assert waiting is not None
        pause.callback(None)
        self.successResultOf(waiting)
        self.assertEqual(self.successResultOf(intake.finish()), TABLE["ok"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sender_that_goes_away_in_a_pause(self) -> None:
        intake = self.intake()
        self.intakes[0].pauses.append(Deferred())
        waiting = intake.write(MESSAGE)
        assert waiting is not None
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        intake.abort()
        self.assertEqual(self.intakes[0].ended, "aborted")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.ended, [None])

    def test_reliable_session_waits(self) -> None:
        """It would only come again for what is being stored."""
        self.session = self.open(ANN)
        intake = self.intake()
        self.intakes[0].fate = Deferred()
        intake.write(MESSAGE)
        answer = intake.finish()
        self.clock.advance(3600)
        self.assertNoResult(answer)


class StateTests(Case):
    """An agent that is there hears what became of its messages."""

    def message(self) -> Message:
        origin = Origin("tunnel", ANN, request_id="r-1")
        return Message(
            QueueId("m-1"),
            Envelope(Address(ANN_AT), (Recipient(Address("a@else.test")),)),
            origin,
            NOON,
            100,
        )

    def test_states(self) -> None:
        settled = self.door.settled
        message = self.message()
        refused = Reply(550, "5.1.1", ("unknown",))
        settled(message, "relayed", Delivered(CONTACT, Reply(250, "2.0.0", ("ok",))), None)
        wait = TransientFailure(Scope.HOST, Reply(421, "", ("busy",)), CONTACT)
        settled(message, "deferred", wait, NOON + 300)
        settled(message, "bounced", PermanentFailure(Scope.RECIPIENT, refused, CONTACT), None)
        settled(message, "expired", None, None)
        settled(message, "removed", None, None)
        self.assertEqual(
            self.session.told,
            [
                DeliveryState("r-1", "sent", "2.0.0", "250 2.0.0 ok"),
                DeliveryState("r-1", "deferred", "4.0.0", "421 busy", NOON + 300),
                DeliveryState("r-1", "failed", "5.1.1", "550 5.1.1 unknown"),
                DeliveryState("r-1", "failed", "4.4.7", "not delivered in time"),
                DeliveryState("r-1", "failed", "5.7.1", "taken out of the queue"),
            ],
        )

    def test_only_reliable_sessions_of_the_agent(self) -> None:
        bob, old = self.open(BOB), self.open(ANN, is_reliable=False)
        self.door.closed(self.session)
        self.door.settled(self.message(), "expired", None, None)
        self.assertEqual([bob.told, old.told, self.session.told], [[], [], []])

    def test_events_tell(self) -> None:
        """Each fate, and each attempt that failed; whatever goes wrong here is only logged."""
        events = EventLines(lambda: NOON, self.lines.append, Counts())
        events.settled = self.door.settled
        failure = TransientFailure(Scope.HOST, Reply(421, "4.3.2", ("busy",)), CONTACT)
        events.deferred(self.message(), 0, 1, 1, None, failure, NOON + 60)
        events.ended(self.message(), 0, 2, "expired", 1, None, failure, "")
        self.assertEqual([told.state for told in self.session.told], ["deferred", "failed"])

        def broken(session: FakeSession, state: DeliveryState) -> None:
            raise OSError("gone")

        self.patch(FakeSession, "tell", broken)
        self.assertTrue(events.ended(self.message(), 0, 2, "expired", 1, None, failure, ""))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
