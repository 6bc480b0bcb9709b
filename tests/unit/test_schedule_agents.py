"""Mail for agents: held while they are away, at once with them when they come, on a clock that we
turn."""

from __future__ import annotations

import email
from typing import Any, Final

from twisted.internet.defer import Deferred

from protege_mta.model.address import NULL, Address, domain_of
from protege_mta.model.envelope import Message, Notify, Recipient
from protege_mta.model.hop import HopKind, NextHop, Site
from protege_mta.model.identity import Identity, identity_of
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Octets, Recovered, Transport
from protege_mta.model.reply import Reply
from protege_mta.model.stream import Stream
from protege_mta.routing.agents import AgentRouter
from protege_mta.routing.table import RoutingTable, agent_hop
from protege_mta.schedule.desk import Chosen
from protege_mta.schedule.locator import SLICE
from protege_mta.testing.sessions import FakeAgents, FakeSession, FakeSessions, Sent
from protege_mta.transport.agent import AgentTransport

from .test_schedule_dispatch import FlowCase

ANNA: Final = identity_of(b"\1" * 32)
BERT: Final = identity_of(bytes([7]) * 32)
TO_ANNA: Final = f"{ANNA}@agents.test"
CONTACT: Final = Contact("agent", "192.0.2.1")
QUEUED: Final = Delivered(CONTACT, Reply(250, "2.0.0", ("queued",)))
LOST: Final = TransientFailure(Scope.HOST, Reply(451, "4.4.2", ("session lost",)), CONTACT)
FULL: Final = TransientFailure(Scope.RECIPIENT, Reply(451, "4.3.1", ("disk full",)), CONTACT)
REFUSED: Final = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.7.1", ("not from you",)), CONTACT)
HOLD_S: Final = 43_200.0


class BrokenSession(FakeSession):
    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        raise ZeroDivisionError


class AgentCase(FlowCase):
    """A relay server with two agents, Anna and Bert."""

    def setUp(self) -> None:
        self.agents = FakeAgents(
            {
                TO_ANNA: ANNA,
                "anna@agents.test": ANNA,
                f"{ANNA}@other.test": ANNA,
                f"{BERT}@agents.test": BERT,
            },
            {ANNA, BERT},
        )
        self.sessions = FakeSessions()
        self.table = RoutingTable(
            {"agents.test": "tunnel", "other.test": "tunnel"}, NextHop("mx", ""), self.agents
        )
        super().setUp()

    def build(self) -> None:
        super().build()
        self.enrolment.hold_s = lambda address: (
            HOLD_S if domain_of(address) == "agents.test" else HOLD_S / 2
        )

    def transports(self) -> dict[HopKind, Transport]:
        return {**super().transports(), "agent": AgentTransport(self.sessions)}

    def hop(self, address: Address, message: Message) -> NextHop:
        return self.table.hop(address)

    def locate(self, hop: NextHop) -> Deferred[Site | TransientFailure | PermanentFailure]:
        if hop.kind == "agent":
            return AgentRouter(self.agents, self.sessions)(hop)
        return super().locate(hop)

    def come(self, identity: Identity = ANNA) -> FakeSession:
        """An agent logs in."""
        session = self.sessions.there[identity] = FakeSession(identity)
        self.scheduler.changed(agent_hop(identity))
        self.clock.advance(0)
        return session

    def go(self, identity: Identity = ANNA) -> None:
        """Its session ends, and with it what was under way."""
        session = self.sessions.there.pop(identity)
        self.scheduler.changed(agent_hop(identity))
        for sent in session.sent:
            if not sent.outcome.called:
                sent.outcome.callback(LOST)

    def answer(self, sent: Sent, outcome: Outcome = QUEUED) -> None:
        sent.outcome.callback(outcome)
        self.clock.advance(0)

    def why(self, id: QueueId) -> str:
        (standing,) = self.scheduler.standing(id)
        return standing.why

    def found(self, id: QueueId) -> Recovered:
        (looking,) = self.desk.chosen(Chosen(ids=(id,)))
        recovered = self.successResultOf(looking)
        assert recovered is not None
        return recovered

    def dsns(self) -> list[Any]:
        return [email.message_from_bytes(octets) for octets in self.transport.sent]


class ManyTests(AgentCase):
    """More than move from the line of a hop to its site in one go."""

    def test_agent_that_goes_while_they_are_on_their_way(self) -> None:
        """All are there for it when it comes again, whatever happens in which order."""
        ids = {self.send(TO_ANNA) for _ in range(3 * SLICE)}
        self.sessions.there[ANNA] = FakeSession(ANNA)
        self.scheduler.changed(agent_hop(ANNA))
        self.go()
        self.clock.pump([0.0] * 10)
        anna = self.come()
        for _ in range(20):
            for sent in anna.sent:
                if not sent.outcome.called:
                    self.answer(sent)
            self.clock.advance(1)
        self.assertEqual({QueueId(sent.stream.request_id[:-2]) for sent in anna.sent}, ids)
        self.assertEqual(list(self.spool.ids()), [])

    def test_agent_that_is_back_before_all_have_moved(self) -> None:
        ids = {self.send(TO_ANNA) for _ in range(3 * SLICE)}
        self.sessions.there[ANNA] = FakeSession(ANNA)
        self.scheduler.changed(agent_hop(ANNA))
        self.go()
        anna = self.come()
        for _ in range(20):
            for sent in anna.sent:
                if not sent.outcome.called:
                    self.answer(sent)
            self.clock.advance(1)
        self.assertEqual({QueueId(sent.stream.request_id[:-2]) for sent in anna.sent}, ids)


class DeliveryTests(AgentCase):
    def test_an_agent_that_is_there_has_it_at_once(self) -> None:
        anna = self.come()
        id = self.send(TO_ANNA)
        (sent,) = anna.sent
        self.assertEqual(sent.stream.request_id, f"{id}.0")
        self.assertEqual((sent.stream.sender, sent.stream.recipient), ("a@a.test", TO_ANNA))
        self.assertEqual(
            sent.content, b"X: y\r\nMessage-ID: <1@a.test>\r\nSubject: Hi\r\n\r\nHello.\r\n"
        )
        self.assertEqual(len(self.spool.ids()), 1)
        self.answer(sent)
        self.assertEqual(self.events(id), [("received", TO_ANNA), ("delivered", TO_ANNA)])
        self.assertEqual(self.spool.ids(), [])

    def test_one_agent_under_several_addresses_is_one_hop(self) -> None:
        """Each address is a stream, as it was written; all at the same time."""
        anna = self.come()
        self.send(TO_ANNA, "Anna@Agents.test", f"{ANNA}@other.test")
        self.assertEqual(
            [one.stream.recipient for one in anna.sent],
            [TO_ANNA, "Anna@Agents.test", f"{ANNA}@other.test"],
        )

    def test_a_refusal_for_good_is_a_bounce_with_its_words(self) -> None:
        anna = self.come()
        id = self.send(TO_ANNA)
        self.answer(anna.sent[0], REFUSED)
        self.assertEqual(self.events(id)[-1], ("bounced", TO_ANNA))
        (dsn,) = self.dsns()
        self.assertIn("550 5.7.1 not from you", dsn.as_string())

    def test_a_success_that_was_to_be_told_is_told_as_relayed(self) -> None:
        """What lies behind the agent's end of the tunnel nobody here knows (RFC 3464, 2.3.3)."""
        anna = self.come()
        self.send(Recipient(Address(TO_ANNA), Notify.SUCCESS))
        self.answer(anna.sent[0], Delivered(CONTACT, QUEUED.reply, is_final=True))
        (dsn,) = self.dsns()
        self.assertIn("Action: relayed", dsn.as_string())

    def test_whom_we_do_not_know_any_more_gets_nothing(self) -> None:
        """The agent's key is revoked while mail waits: 5.1.1, within a minute."""
        id = self.send(TO_ANNA)
        self.agents.known.clear()
        self.agents.mailboxes.clear()
        self.turn(130)
        bounced = next(e for e in self.told if e["event"] == "bounced")
        self.assertEqual((bounced["message_id"], bounced["reply"]["enhanced"]), (id, "5.1.1"))

    def test_whom_we_do_not_know_when_it_is_queued(self) -> None:
        id = self.send("nobody@agents.test")
        bounced = next(e for e in self.told if e["event"] == "bounced")
        self.assertEqual((bounced["message_id"], bounced["reply"]["enhanced"]), (id, "5.1.1"))


class AwayTests(AgentCase):
    def test_waiting_costs_nothing(self) -> None:
        """Ten hours: no attempt, no event, nothing written, no word to the sender."""
        id = self.send(TO_ANNA)
        written = len(self.spool.batches)
        self.turn(36_000)
        self.assertEqual(self.events(id), [("received", TO_ANNA)])
        self.assertEqual(len(self.spool.batches), written)
        self.assertEqual(self.transport.sent, [])

    def test_who_comes_has_it_at_once(self) -> None:
        """All of it in the order of its arrival, without another look at any clock."""
        ids = [self.send(TO_ANNA) for _ in range(3)]
        self.turn(36_000)
        anna = self.come()
        self.assertEqual([one.stream.request_id for one in anna.sent], [f"{id}.0" for id in ids])
        for sent in anna.sent:
            self.answer(sent)
        self.assertEqual(self.spool.ids(), [])

    def test_each_waits_for_its_own_agent(self) -> None:
        self.send(TO_ANNA)
        self.send(f"{BERT}@agents.test")
        bert = self.come(BERT)
        self.assertEqual([one.stream.recipient for one in bert.sent], [f"{BERT}@agents.test"])

    def test_a_coming_that_nobody_told_of_is_found_within_a_minute(self) -> None:
        self.send(TO_ANNA)
        anna = self.sessions.there[ANNA] = FakeSession(ANNA)
        self.turn(61)
        self.assertEqual(len(anna.sent), 1)

    def test_a_going_that_nobody_told_of(self) -> None:
        """It was no attempt, and leaves no trace."""
        self.come()
        self.send(TO_ANNA)
        self.answer(self.sessions.there[ANNA].sent[0])
        del self.sessions.there[ANNA]
        id = self.send(TO_ANNA)
        self.turn(60)
        self.assertEqual(self.events(id), [("received", TO_ANNA)])
        self.assertEqual([entry.attempts for entry in self.scheduler.entries(id)], [0])
        self.assertIn("not connected", self.why(id))
        self.assertEqual(len(self.come().sent), 1)

    def test_it_is_said_where_it_stands(self) -> None:
        id = self.send(TO_ANNA)
        self.assertEqual(
            self.why(id),
            "the agent is not connected, nor has it been since 2023-11-14 22:13:20Z; "
            "held until 2023-11-15 10:13:20Z",
        )
        (recipient,) = self.desk.row(self.found(id))["recipients"]
        self.assertEqual(
            (recipient["absence"], recipient["next_attempt_at"], recipient["cause"]),
            ("the agent is not connected", None, ""),
        )
        self.come()
        self.assertEqual(self.why(id), f"being delivered to agent:{ANNA}")

    def test_held_for_so_long_and_no_longer(self) -> None:
        """Then it is returned, and says why; the age is the domain's own."""
        first = self.send(TO_ANNA)
        second = self.send(f"{ANNA}@other.test")
        self.turn(HOLD_S / 2 + 10)
        self.assertEqual(self.events(second)[-1], ("expired", f"{ANNA}@other.test"))
        self.assertEqual(self.events(first), [("received", TO_ANNA)])
        self.turn(HOLD_S / 2)
        self.assertEqual(self.events(first)[-1], ("expired", TO_ANNA))
        dsn = self.dsns()[0].as_string()
        self.assertIn("Status: 5.4.7", dsn)
        self.assertIn("the agent has been away for as long as mail is held for it", dsn)

    def test_addresses_that_are_held_differently_and_share_an_agent(self) -> None:
        """One message to both is held as long as the more patient one says."""
        id = self.send(TO_ANNA, f"{ANNA}@other.test")
        self.turn(HOLD_S - 60)
        self.assertEqual([event for event, _ in self.events(id)], ["received"] * 2)

    def test_a_bounce_is_held_as_long_as_other_mail(self) -> None:
        id = self.send(TO_ANNA, sender=NULL)
        self.turn(HOLD_S - 60)
        self.assertEqual(self.events(id), [("received", TO_ANNA)])

    def test_a_delay_is_told_to_who_asked(self) -> None:
        """A sender that says nothing of delays hears of none."""
        id = self.send(Recipient(Address(TO_ANNA), Notify.DELAY | Notify.FAILURE))
        self.send(f"{BERT}@agents.test")
        self.turn(4000)
        (dsn,) = self.dsns()
        self.assertIn("Action: delayed", dsn.as_string())
        self.assertIn("held until the agent comes for it", dsn.as_string())
        self.assertEqual(self.events(id)[-1], ("delayed", TO_ANNA))
        self.turn(4000)
        self.assertEqual(len(self.dsns()), 1)

    def test_hold_release_remove(self) -> None:
        """A person may do with it what may be done with all mail."""
        id = self.send(TO_ANNA)
        for state in ("held", "scheduled"):
            recovered = self.found(id)
            move = self.desk.hold if state == "held" else self.desk.release
            self.assertTrue(self.successResultOf(move(recovered)))
            self.assertEqual([one.state for one in self.scheduler.entries(id)], [state])
        self.assertTrue(self.successResultOf(self.desk.retry(recovered)))
        self.clock.advance(1)
        self.assertIn("not connected", self.why(id))
        self.assertTrue(self.successResultOf(self.desk.remove(recovered)))
        self.assertEqual(self.events(id)[-1], ("removed", TO_ANNA))
        self.assertEqual(self.come().sent, [])

    def test_a_domain_that_is_delivered_otherwise_since(self) -> None:
        """What waits for agents goes the new way, whoever is away."""
        id = self.send(TO_ANNA)
        self.table = RoutingTable({}, NextHop("mx", ""), self.agents)
        self.dispatcher.route_by(self.hop)
        self.scheduler.retry_released(id)
        self.assertEqual(self.events(id)[-1], ("delivered", TO_ANNA))
        self.assertEqual(self.transport.attempts[-1].domain, "agents.test")

    def test_thousands_of_messages_for_an_agent_that_comes(self) -> None:
        """So many at a time as its window has, however many wait."""
        for _ in range(1000):
            self.send(TO_ANNA)
        anna = self.come()
        self.assertEqual(len(anna.sent), 5)
        answered = 0
        while answered < len(anna.sent):
            anna.sent[answered].outcome.callback(QUEUED)
            answered += 1
            self.assertLessEqual(len(anna.sent) - answered, 20)
            self.clock.advance(0)
        self.assertEqual((answered, self.spool.ids()), (1000, []))

    def test_a_thousand_agents_that_come_at_once(self) -> None:
        """No more streams at a time than all sites together may have attempts, until all is done."""
        identities = [identity_of(n.to_bytes(32, "big")) for n in range(1, 1001)]
        self.agents.known |= set(identities)
        for identity in identities:
            self.agents.mailboxes[f"{identity}@agents.test"] = identity
            for _ in range(2):
                self.send(f"{identity}@agents.test")
        sessions = [self.come(identity) for identity in identities]
        most = 0
        while self.spool.ids():
            at_work = [
                one for session in sessions for one in session.sent if not one.outcome.called
            ]
            most = max(most, len(at_work))
            for one in at_work:
                one.outcome.callback(QUEUED)
            self.clock.advance(0)
        self.assertEqual(most, 500)
        self.assertEqual({len(session.sent) for session in sessions}, {2})

    def test_agents_that_are_slow_keep_no_other_mail_waiting(self) -> None:
        """Their streams take all slots that agents have; a message for a host has its own."""
        identities = [identity_of(n.to_bytes(32, "big")) for n in range(1, 102)]
        self.agents.known |= set(identities)
        for identity in identities:
            self.agents.mailboxes[f"{identity}@agents.test"] = identity
            self.come(identity)
            ids = [self.send(f"{identity}@agents.test") for _ in range(5)]
        self.assertEqual(self.why(ids[-1]), "waits for one of 500 streams to all agents together")
        self.send("b@b.test")
        self.assertEqual(len(self.transport.attempts), 1)


class RestartTests(AgentCase):
    def test_what_waited_still_waits(self) -> None:
        """Nothing is tried, and when the agent comes it has it: the same name in every attempt."""
        id = self.send(TO_ANNA)
        self.turn(3600)
        self.restart()
        self.turn(60)
        self.assertEqual(self.events(id), [("received", TO_ANNA)])
        self.assertEqual(self.come().sent[0].stream.request_id, f"{id}.0")

    def test_killed_before_the_end_was_recorded(self) -> None:
        """The agent is asked again under the same name, and says that it has it."""
        anna = self.come()
        id = self.send(TO_ANNA)
        before = anna.sent[0].stream.request_id
        del self.sessions.there[ANNA]
        self.restart()
        self.turn(310)
        anna = self.come()
        self.clock.advance(1)
        (sent,) = anna.sent
        self.assertEqual(sent.stream.request_id, before)
        self.answer(sent)
        self.assertEqual(self.events(id)[-1], ("delivered", TO_ANNA))

    def test_agents_have_time_to_come_back(self) -> None:
        """We were down until it was too old: ten more minutes, since nobody could come for it."""
        id = self.send(TO_ANNA)
        self.successResultOf(self.scheduler.stop())
        self.clock.advance(2 * HOLD_S)
        self.restart()
        self.turn(500)
        self.assertEqual(self.events(id), [("received", TO_ANNA)])
        self.turn(200)
        self.assertEqual(self.events(id)[-1], ("expired", TO_ANNA))


class TroubleTests(AgentCase):
    def test_a_session_lost_in_the_middle(self) -> None:
        """It was an attempt; the next one is soon after the agent has come again."""
        self.come()
        id = self.send(TO_ANNA)
        self.go()
        self.assertEqual(self.events(id)[-1], ("deferred", TO_ANNA))
        anna = self.come()
        self.turn(2)
        self.assertEqual([one.stream.request_id for one in anna.sent], [f"{id}.0"])

    def test_away_after_a_loss_costs_nothing_either(self) -> None:
        self.come()
        id = self.send(TO_ANNA)
        self.go()
        self.turn(20_000)
        self.assertEqual([event for event, _ in self.events(id)], ["received", "deferred"])
        self.assertIn("not connected", self.why(id))
        self.assertEqual(len(self.come().sent), 1)

    def test_what_waited_for_its_turn_waits_for_the_agent(self) -> None:
        """Only what was under way has failed; the rest was not tried."""
        self.come()
        ids = [self.send(TO_ANNA) for _ in range(50)]
        self.go()
        self.turn(10)
        deferred = [id for id in ids if ("deferred", TO_ANNA) in self.events(id)]
        self.assertEqual(deferred, ids[:5])
        self.assertTrue(all("not connected" in self.why(id) for id in ids))

    def test_a_session_that_takes_the_place_of_another(self) -> None:
        """The new one gets what is left; what the old one had is sent again when that has ended."""
        old = self.come()
        ids = [self.send(TO_ANNA) for _ in range(8)]
        new = self.come()
        self.assertEqual((len(old.sent), len(new.sent)), (5, 0))
        for sent in old.sent:
            sent.outcome.callback(LOST)
        self.turn(3)
        while any(not sent.outcome.called for sent in new.sent):
            for sent in new.sent:
                if not sent.outcome.called:
                    self.answer(sent)
            self.turn(3)
        self.assertEqual(
            sorted(one.stream.request_id for one in new.sent), sorted(f"{id}.0" for id in ids)
        )
        self.assertEqual(self.spool.ids(), [])

    def test_an_agent_that_hangs_up_at_every_message(self) -> None:
        """It comes back at once each time, for an hour; each try waits longer, up to five minutes."""
        id = self.send(TO_ANNA)
        tries = 0
        for _ in range(3600):
            session = self.come()
            self.clock.advance(0.5)
            tries += len(session.sent)
            self.go()
            self.clock.advance(0.5)
        deferred = [one for one in self.events(id) if one[0] == "deferred"]
        self.assertEqual(len(deferred), tries)
        self.assertLess(tries, 25)
        self.assertGreater(tries, 12)

    def test_a_machine_without_room_is_left_alone(self) -> None:
        """One message finds out for all; the others are not sent in vain."""
        anna = self.come()
        for _ in range(30):
            self.send(TO_ANNA)
        for sent in list(anna.sent):
            sent.outcome.callback(FULL)
        sent_before = len(anna.sent)
        self.assertEqual(sent_before, 5)
        self.clock.advance(0.9)
        self.assertEqual(len(anna.sent), 5)
        self.turn(2)
        self.assertEqual(len(anna.sent), 6)

    def test_a_transport_that_breaks(self) -> None:
        """A session's bug is local trouble to the message, and is logged."""
        self.sessions.there[ANNA] = BrokenSession(ANNA)
        id = self.send(TO_ANNA)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events(id)[-1], ("deferred", TO_ANNA))

    def test_refused_for_now(self) -> None:
        """Tried again within seconds, since the agent is there."""
        anna = self.come()
        id = self.send(TO_ANNA)
        self.answer(
            anna.sent[0], TransientFailure(Scope.RECIPIENT, Reply(450, "4.7.1", ("later",)))
        )
        self.turn(2)
        self.answer(anna.sent[1])
        self.assertEqual(
            [event for event, _ in self.events(id)], ["received", "deferred", "delivered"]
        )
