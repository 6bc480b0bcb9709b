"""Mail that agents are handed while its sender waits, and that nobody keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Notify, Origin, Recipient
from protege_mta.model.identity import identity_of
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Arrival, Content, MailCommand, Octets, Peer
from protege_mta.model.reply import TABLE, Reply, name_of
from protege_mta.model.stream import Stream
from protege_mta.model.verdicts import Verdicts
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.policy.pass_through import Passing, PassThrough, PassThroughSettings
from protege_mta.policy.relaying import AgentMailboxes, Mailboxes, Relaying
from protege_mta.schedule.bounces import Bounces
from protege_mta.schedule.ledger import Ledger
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.sessions import FakeAgents, FakeSession, FakeSessions
from protege_mta.transport.agent import stream_to_agent

ANNA: Final = identity_of(b"\1" * 32)
BERT: Final = identity_of(bytes([7]) * 32)
TO_ANNA: Final = f"{ANNA}@pass.test"
TO_BERT: Final = f"{BERT}@pass.test"
TAKEN: Final = Delivered(Contact("agent", "192.0.2.1"), Reply(250, "2.0.0", ("queued",)))
LATER: Final = TransientFailure(Scope.RECIPIENT, Reply(451, "4.3.0", ("later",)))
NEVER: Final = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.7.1", ("not from you",)))
TRACE: Final = b"Received: by us\r\n"
MESSAGE: Final = b"Message-ID: <1@a.test>\r\nSubject: Hi\r\n\r\nHello.\r\n"


class Unsteady(FakeSession):
    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        raise ZeroDivisionError


class Case(SynchronousTestCase):
    """Anna and Bert are connected."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.lines: list[bytes] = []
        self.agents = FakeAgents({TO_ANNA: ANNA, TO_BERT: BERT}, {ANNA, BERT})
        self.anna, self.bert = FakeSession(ANNA), FakeSession(BERT)
        self.sessions = FakeSessions({ANNA: self.anna, BERT: self.bert})
        self.spool = MemorySpool()
        self.spool.acquire()
        now = self.clock.seconds
        events = EventLines(now, self.lines.append, Counts())
        self.ledger = Ledger(
            self.spool,
            events,
            Bounces(events, hostname="us.test", now=now, first_s=lambda: 300.0),
        )
        ids = iter(range(1, 1000))
        self.house = PassThrough(
            self.agents,
            self.sessions,
            events,
            PassThroughSettings(room_octets=10_000, message_octets=5000),
            clock=self.clock,
            now=now,
            new_id=lambda: QueueId(f"01hzzzzzzz{next(ids):016}"),
            stream=lambda message, index, size: stream_to_agent(message, index, size, None),
            told=self.tell,
        )
        self.peer = Peer("198.51.100.7", 40000, "mx", "s-1")

    def tell(self, content: Content, done: Sequence[tuple[int, Outcome]]) -> None:
        self.ledger.passed_on(content, done, self.lines.append)

    def begin(
        self, *recipients: str | Recipient, hold_until: float = 0.0, requires_tls: bool = False
    ) -> Any:
        envelope = Envelope(
            Address("a@a.test"),
            tuple(
                one if isinstance(one, Recipient) else Recipient(Address(one))
                for one in recipients or (TO_ANNA,)
            ),
            hold_until=hold_until,
            requires_tls=requires_tls,
        )
        origin = Origin("smtp", peer_address="198.51.100.7")
        return self.house.begin(self.peer, envelope, origin, lambda id, at: TRACE)

    def send(self, *recipients: str | Recipient, message: bytes = MESSAGE) -> Deferred[Reply]:
        passing = self.begin(*recipients)
        assert isinstance(passing, Passing)
        passing.write(message)
        return passing.finish()

    def name(self, answer: Deferred[Reply]) -> str:
        reply = self.successResultOf(answer)
        return "passed" if reply.code == 250 else name_of(reply)

    def events(self) -> list[tuple[str, str]]:
        return [(e["event"], e["recipient"]) for e in map(json.loads, self.lines)]


class HandingOnTests(Case):
    def test_250_when_all_have_it_and_not_before(self) -> None:
        answer = self.send(TO_ANNA, TO_BERT)
        self.anna.sent[0].outcome.callback(TAKEN)
        self.assertNoResult(answer)
        self.bert.sent[0].outcome.callback(TAKEN)
        reply = self.successResultOf(answer)
        self.assertEqual(str(reply), "250 2.0.0 ok, passed on as 01hzzzzzzz0000000000000001")
        self.assertEqual(self.anna.sent[0].content, TRACE + MESSAGE)
        self.assertEqual(
            self.anna.sent[0].stream,
            Stream(
                "a@a.test",
                TO_ANNA,
                None,
                "01hzzzzzzz0000000000000001.0",
                len(TRACE + MESSAGE),
                "01hzzzzzzz0000000000000001.0",
            ),
        )
        self.assertEqual(
            self.events(),
            [
                ("received", TO_ANNA),
                ("received", TO_BERT),
                ("delivered", TO_ANNA),
                ("delivered", TO_BERT),
            ],
        )
        self.assertEqual(json.loads(self.lines[0])["subject"], "Hi")
        self.assertEqual(json.loads(self.lines[2])["route"], "agent")

    def test_nothing_is_kept(self) -> None:
        """Neither in the spool nor, at the end, in memory."""
        answer = self.send()
        self.assertEqual(self.house.used_octets, len(TRACE + MESSAGE))
        self.anna.sent[0].outcome.callback(TAKEN)
        self.successResultOf(answer)
        self.assertEqual((self.house.used_octets, self.spool.batches), (0, []))

    def test_one_who_has_gone_since_RCPT(self) -> None:
        """Nobody is handed anything, and the sender comes again."""
        del self.sessions.there[BERT]
        self.assertEqual(self.name(self.send(TO_ANNA, TO_BERT)), "not-passed-on")
        self.assertEqual(self.anna.sent, [])
        self.assertEqual(self.events(), [("rejected", TO_ANNA), ("rejected", TO_BERT)])

    def test_one_whom_nobody_knows_any_more(self) -> None:
        self.agents.mailboxes.clear()
        self.assertEqual(self.name(self.send()), "no-such-user")

    def test_one_that_has_it_does_not_get_it_again(self) -> None:
        """Bert could not take it, so that the sender comes again with both."""
        answer = self.send(TO_ANNA, TO_BERT)
        self.anna.sent[0].outcome.callback(TAKEN)
        self.bert.sent[0].outcome.callback(LATER)
        self.assertEqual(self.name(answer), "not-passed-on")
        self.assertEqual(
            self.events(), [("received", TO_ANNA), ("delivered", TO_ANNA), ("rejected", TO_BERT)]
        )
        again = self.send(TO_ANNA, TO_BERT)
        self.bert.sent[1].outcome.callback(TAKEN)
        self.assertEqual(self.name(again), "passed")
        self.assertEqual(len(self.anna.sent), 1)
        # What the sender has been answered 250 to and sends once more is another message.
        self.send(TO_ANNA, TO_BERT)
        self.assertEqual(len(self.anna.sent), 2)

    def test_a_request_that_has_a_name(self) -> None:
        """An agent that hands it in again has it recognised by who has it: one name, always."""
        names = []
        for identity in ("x", "x", "y"):
            passing = self.house.begin(
                self.peer,
                Envelope(Address("a@a.test"), (Recipient(Address(TO_ANNA)),)),
                Origin("tunnel", identity, request_id="r-1"),
                lambda id, at: TRACE,
            )
            assert isinstance(passing, Passing)
            passing.finish()
            names.append(self.anna.sent[-1].stream.request_id)
        self.assertEqual(len(names[0]), 64)
        self.assertEqual(names[0], names[1])
        self.assertNotEqual(names[0], names[2])

    def test_another_message_to_one_that_has_it_is_another(self) -> None:
        answer = self.send(TO_ANNA, TO_BERT)
        self.anna.sent[0].outcome.callback(TAKEN)
        self.bert.sent[0].outcome.callback(LATER)
        self.successResultOf(answer)
        self.send(TO_ANNA, message=MESSAGE + b"More.\r\n")
        self.assertEqual(len(self.anna.sent), 2)

    def test_a_refusal_for_good(self) -> None:
        """With its codes, and no word of the agent's; of two, one that may come later counts."""
        answer = self.send()
        self.anna.sent[0].outcome.callback(NEVER)
        self.assertEqual(str(self.successResultOf(answer)), "550 5.7.1 refused by the agent")
        answer = self.send(TO_ANNA, TO_BERT)
        self.anna.sent[1].outcome.callback(NEVER)
        self.bert.sent[0].outcome.callback(LATER)
        self.assertEqual(self.name(answer), "not-passed-on")

    def test_codes_that_are_none(self) -> None:
        for cause in (Reply(250, "", ("",)), Reply(450, "5.1.1\r\n", ("x",))):
            answer = self.send()
            self.anna.sent[-1].outcome.callback(PermanentFailure(Scope.RECIPIENT, cause))
            self.assertEqual(str(self.successResultOf(answer)), "554 5.0.0 refused by the agent")

    def test_a_session_that_breaks(self) -> None:
        self.sessions.there[ANNA] = Unsteady(ANNA)
        self.assertEqual(self.name(self.send()), "not-passed-on")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.house.used_octets, 0)

    def test_nobody_waits_for_ever(self) -> None:
        """A minute; what an agent says after that comes too late."""
        answer = self.send()
        self.clock.advance(59)
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.assertEqual(self.name(answer), "not-passed-on")
        self.anna.sent[0].outcome.callback(TAKEN)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_peer_that_hangs_up(self) -> None:
        """The sessions give up what they have not taken: the sender has heard nothing."""
        answer = self.send(TO_ANNA, TO_BERT)
        self.anna.sent[0].outcome.callback(TAKEN)
        self.house.closed(Peer("198.51.100.8", 40000, "mx", "s-2"))
        self.assertNoResult(answer)
        self.house.closed(self.peer)
        self.assertEqual(self.name(answer), "not-passed-on")
        self.assertTrue(self.bert.sent[0].outcome.called)
        self.assertEqual(self.house.used_octets, 0)

    def test_a_success_that_was_to_be_told(self) -> None:
        """The DSN is a message of our own, and is queued."""
        answer = self.send(Recipient(Address(TO_ANNA), Notify.SUCCESS))
        self.anna.sent[0].outcome.callback(TAKEN)
        self.successResultOf(answer)
        (id,) = self.spool.ids()
        dsn = self.successResultOf(self.spool.open(id)).read()
        self.assertIn(b"Action: relayed", dsn)
        self.assertEqual(json.loads(self.lines[-1])["dsn"], id)

    def test_telling_that_breaks(self) -> None:
        """The agent has it, so that the sender must not come again."""
        self.patch(self.house, "_told", lambda content, done: 1 / 0)
        answer = self.send()
        self.anna.sent[0].outcome.callback(TAKEN)
        self.assertEqual(self.name(answer), "passed")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_users_of_this_machine_have_no_connection(self) -> None:
        passing = self.house.begin(
            None,
            Envelope(Address("a@a.test"), (Recipient(Address(TO_ANNA)),)),
            Origin("sendmail"),
            lambda id, at: TRACE,
        )
        assert isinstance(passing, Passing)
        self.sessions.there.clear()
        self.assertEqual(self.name(passing.finish()), "not-passed-on")
        self.assertEqual(self.lines, [])


class ArrivalTests(Case):
    def test_looked_at_and_marked(self) -> None:
        """What is said of the sender comes first, and goes with the message."""
        seen: list[Message] = []

        def stream(message: Message, index: int, size_octets: int) -> Stream:
            seen.append(message)
            return stream_to_agent(message, index, size_octets, None)

        self.patch(self.house, "_stream", stream)
        arrival: Arrival = self.begin()
        arrival.write(MESSAGE)
        held = self.successResultOf(arrival.look())
        assert not isinstance(held, Reply)
        self.assertEqual(held.read(), TRACE + MESSAGE)
        held.close()
        arrival.mark(b"Authentication-Results: us\r\n", Verdicts(spf="pass"))
        answer = arrival.finish()
        (sent,) = self.anna.sent
        self.assertEqual(sent.content, b"Authentication-Results: us\r\n" + TRACE + MESSAGE)
        self.assertEqual(sent.stream.size_octets, len(sent.content))
        self.assertEqual(seen[0].verdicts, Verdicts(spf="pass"))
        sent.outcome.callback(TAKEN)
        self.successResultOf(answer)
        self.assertEqual(self.house.used_octets, 0)

    def test_pieces(self) -> None:
        passing = self.begin()
        for octet in MESSAGE:
            passing.write(bytes([octet]))
        passing.mark(b"A: b\r\n", Verdicts())
        whole = b"A: b\r\n" + TRACE + MESSAGE
        for offset in range(len(whole) + 2):
            self.assertEqual(passing.read(offset), whole[offset:])
            for size in (0, 1, 3, 8, 50, 500):
                self.assertEqual(passing.read(offset, size), whole[offset : offset + size])

    def test_no_more_than_the_room(self) -> None:
        """All transactions share it; one that is refused gives back its part at once."""
        first = self.begin()
        first.write(b"x" * 4900)
        second = self.begin()
        second.write(b"x" * 4900)
        third = self.begin()
        third.write(b"x" * 400)
        self.assertEqual(self.house.used_octets, 2 * (4900 + len(TRACE)))
        third.write(b"x" * 10)
        held = self.successResultOf(third.look())
        self.assertEqual(held, TABLE["pass-through-full"])
        self.assertEqual(self.name(third.finish()), "pass-through-full")
        first.abort()
        self.assertEqual(self.house.used_octets, 4900 + len(TRACE))
        second.abort()
        self.assertEqual(self.house.used_octets, 0)

    def test_what_never_fits_is_too_big(self) -> None:
        for settings, octets in (((10_000, 5000), 5001), ((1000, 5000), 1001)):
            self.house.settings = PassThroughSettings(
                room_octets=settings[0], message_octets=settings[1]
            )
            passing = self.begin()
            passing.write(b"x" * octets)
            self.assertEqual(self.name(passing.finish()), "message-too-big")
            self.assertEqual(self.house.used_octets, 0)

    def test_loops(self) -> None:
        answer = self.send(message=b"Received: x\r\n" * 100 + b"\r\n")
        self.assertEqual(self.name(answer), "routing-loop")
        self.assertEqual((self.anna.sent, self.house.used_octets), ([], 0))

    def test_what_is_never_kept_cannot_be_held(self) -> None:
        """FUTURERELEASE (RFC 4865)."""
        self.assertEqual(self.begin(hold_until=2e9), TABLE["release-too-late"])

    def test_what_is_to_be_kept_secret(self) -> None:
        """A stream has no word for REQUIRETLS (RFC 8689)."""
        self.assertEqual(self.begin(requires_tls=True), TABLE["tunnel-requiretls"])


class ApartTests(Case):
    def test_one_way_a_transaction(self) -> None:
        """Whichever came first; another MAIL begins anew."""
        first = MailCommand(Envelope(Address("a@a.test"), ()))
        second = MailCommand(Envelope(Address("a@a.test"), ()))
        self.assertIsNone(self.house.refusal(self.peer, first, True))
        self.house.accepted(self.peer, first, True)
        self.assertIsNone(self.house.refusal(self.peer, first, True))
        self.assertEqual(self.house.refusal(self.peer, first, False), TABLE["comes-by-itself"])
        self.assertIsNone(self.house.refusal(self.peer, second, False))
        self.house.accepted(self.peer, second, False)
        self.assertEqual(self.house.refusal(self.peer, second, True), TABLE["comes-by-itself"])
        self.house.closed(self.peer)
        self.assertIsNone(self.house.refusal(self.peer, second, True))


class AgentMailboxTests(Case):
    """Which recipients are there, and which way their mail goes."""

    def relaying(self, postmaster: str = "") -> Relaying:
        return Relaying(
            {
                "pass.test": AgentMailboxes(self.agents, self.sessions, is_kept=False),
                "kept.test": AgentMailboxes(self.agents, self.sessions, is_kept=True),
                "box.test": Mailboxes(frozenset({"x"})),
            },
            {},
            Address(postmaster),
        )

    def setUp(self) -> None:
        super().setUp()
        self.agents.mailboxes |= {f"{ANNA}@kept.test": ANNA, f"{BERT}@kept.test": BERT}

    def judge(self, address: str) -> str:
        return name_of(self.relaying().judge(self.peer, Address(address)))

    def test_connected(self) -> None:
        self.agents.known.clear()
        for address in (TO_ANNA, f"{ANNA}@kept.test", TO_ANNA.upper()):
            self.assertEqual(self.judge(address), "recipient-ok")

    def test_away(self) -> None:
        """Mail is kept for those that are known, where any is; the original's word is in the text."""
        self.sessions.there.clear()
        self.agents.known = {ANNA}
        self.assertEqual(self.judge(f"{ANNA}@kept.test"), "recipient-ok")
        self.assertEqual(self.judge(f"{BERT}@kept.test"), "agent-away")
        self.assertEqual(self.judge(TO_ANNA), "agent-away")
        self.assertIn("relay_rejected_recipient_not_connected", TABLE["agent-away"].text)
        self.assertIn("relay_rejected_no_deliverable_recipients", TABLE["not-passed-on"].text)

    def test_nobody(self) -> None:
        for address in ("x@pass.test", "x@kept.test"):
            self.assertEqual(self.judge(address), "no-such-user")

    def test_postmaster(self) -> None:
        """Is always there, and has another mailbox unless it is an agent's alias."""
        relaying = self.relaying("x@box.test")
        boss = Recipient(Address("Postmaster@pass.test"))
        self.assertEqual(self.judge(boss.address), "recipient-ok")
        self.assertEqual(relaying.redirected(boss).address, "x@box.test")
        self.assertFalse(relaying.is_passed_through(boss))
        self.assertFalse(self.relaying().is_passed_through(boss))
        self.agents.mailboxes["postmaster@pass.test"] = ANNA
        self.assertEqual(relaying.redirected(boss), boss)
        self.assertTrue(relaying.is_passed_through(boss))

    def test_a_postmaster_who_is_an_agent_elsewhere(self) -> None:
        boss = Recipient(Address("postmaster@box.test"))
        self.assertTrue(self.relaying(TO_ANNA).is_passed_through(boss))

    def way(self, *recipients: str) -> str:
        envelope = Envelope(
            Address("a@a.test"), tuple(Recipient(Address(one)) for one in recipients)
        )
        return self.relaying().way(envelope)

    def test_ways(self) -> None:
        self.assertEqual(self.way(f"{ANNA}@kept.test", "x@else.test"), "queue")
        self.assertEqual(self.way(TO_ANNA, TO_BERT), "through")
        self.assertEqual(self.way(TO_ANNA, "x@else.test"), "both")
        # Known or not: nothing of it is kept.
        self.assertEqual(self.way("nobody@pass.test"), "through")
        self.assertEqual(
            attrs.evolve(self.relaying(), domains={}).way(
                Envelope(Address("a@a.test"), (Recipient(Address(TO_ANNA)),))
            ),
            "queue",
        )

    def test_a_mailbox_once(self) -> None:
        """Agents' have no case, others may."""
        envelope = Envelope(
            Address("a@a.test"),
            tuple(
                Recipient(Address(one))
                for one in (
                    TO_ANNA,
                    TO_ANNA.upper(),
                    f"{ANNA}@kept.test",
                    "X@box.test",
                    "x@box.test",
                )
            ),
        )
        self.assertEqual(
            [one.address for one in self.relaying().readdressed(envelope).recipients],
            [TO_ANNA, f"{ANNA}@kept.test", "X@box.test", "x@box.test"],
        )
