"""Agents that come and go as they please, lose their sessions and are slow, and a relay that is killed.

Everything between door and session is the real thing, over a spool in memory and a clock that is
turned here.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Origin, Recipient
from protege_mta.model.hop import NextHop
from protege_mta.model.identity import Identity, identity_of
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.outcome import Contact, Delivered, Outcome, PermanentFailure, Scope
from protege_mta.model.outcome import TransientFailure as Transient
from protege_mta.model.ports import Octets
from protege_mta.model.reply import Reply
from protege_mta.model.stream import DeliveryState, Stream
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.routing.agents import AgentRouter
from protege_mta.routing.table import RoutingTable, agent_hop
from protege_mta.schedule.backoff import RetrySchedule
from protege_mta.schedule.bounces import Bounces
from protege_mta.schedule.desk import Desk
from protege_mta.schedule.dispatch import Dispatcher
from protege_mta.schedule.enrolment import Enrolment
from protege_mta.schedule.intake import Acceptance, Arriving
from protege_mta.schedule.ledger import Ledger
from protege_mta.schedule.overdue import Overdue
from protege_mta.schedule.prepare import Preparer
from protege_mta.schedule.scheduler import Scheduler
from protege_mta.schedule.settings import SchedulerSettings
from protege_mta.schedule.window import WindowSettings
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.requests import MemoryRequests
from protege_mta.testing.sessions import FakeAgents, FakeSessions
from protege_mta.transport.agent import AgentTransport

START: Final = 1_700_000_000.0
HOLD_S: Final = 20_000.0
RETRY: Final = RetrySchedule(first_s=300, max_age_s=5000, delay_warning_s=1500)
IDENTITIES: Final = [identity_of(bytes([n]) * 32) for n in range(3)]
AGENTS: Final = st.sampled_from(IDENTITIES)
FINAL: Final = {"delivered", "bounced", "expired", "removed"}
CONTACT: Final = Contact("agent", "192.0.2.1")
QUEUED: Final = Delivered(CONTACT, Reply(250, "2.0.0", ("queued",)))
LOST: Final = Transient(Scope.HOST, Reply(451, "4.4.2", ("session lost",)), CONTACT)
REFUSALS: Final = st.sampled_from(
    [
        Transient(Scope.RECIPIENT, Reply(451, "4.7.1", ("later",)), CONTACT),
        Transient(Scope.RECIPIENT, Reply(451, "4.3.1", ("disk full",)), CONTACT),
        PermanentFailure(Scope.RECIPIENT, Reply(550, "5.7.1", ("never",)), CONTACT),
    ]
)


@attrs.define(eq=False)
class Gateway:
    """An agent's own machine, which outlives its sessions.

    :ivar kept: what it has stored, by the request's id: that is how it knows repeats.
    """

    kept: Counter[str] = attrs.field(factory=Counter)

    def store(self, request_id: str) -> None:
        if not self.kept[request_id]:
            self.kept[request_id] += 1


@attrs.define(eq=False)
class AcknowledgingSession:
    """A reliable session to a gateway.

    :ivar sending: streams without an answer, in order.
    """

    identity: Identity
    gateway: Gateway
    in_flight: Counter[str]
    sending: list[tuple[Stream, Deferred[Outcome]]] = attrs.field(factory=list)
    is_over: bool = False
    peer_address: str = "192.0.2.1"
    is_reliable: bool = True
    takes_mail: bool = True

    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        assert not self.is_over, "sent by a session that is over"
        assert not self.in_flight[stream.request_id], "two streams for one recipient at once"
        assert octets.size_octets == stream.size_octets == len(octets.read())
        self.in_flight[stream.request_id] += 1
        answer: Deferred[Outcome] = Deferred()
        self.sending.append((stream, answer))
        return answer

    def answer(self, which: int, outcome: Outcome, *, is_stored: bool) -> None:
        stream, answer = self.sending.pop(which)
        self.in_flight[stream.request_id] -= 1
        if is_stored:
            self.gateway.store(stream.request_id)
        answer.callback(outcome)

    def tell(self, state: DeliveryState) -> None:
        raise AssertionError("nobody tells agents of mail for them")

    def close(self, code: int, reason: str) -> None:
        raise AssertionError("sessions are not the transport's to close")


class AgentsMachine(RuleBasedStateMachine):
    """Mail for three agents."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(START)
        self.rng = random.Random(0)
        self.lines: list[dict[str, Any]] = []
        self.accepted: dict[QueueId, Envelope] = {}
        self.gateways = {identity: Gateway() for identity in IDENTITIES}
        self.in_flight: Counter[str] = Counter()
        self.agents = FakeAgents(
            {f"{one}@{domain}": one for one in IDENTITIES for domain in ("a.test", "b.test")},
            set(IDENTITIES),
        )
        self.sessions = FakeSessions()
        self.live: dict[Identity, AcknowledgingSession] = {}
        self.replaced: list[AcknowledgingSession] = []
        self.spool = MemorySpool(journal=self)
        self.new_id = IdSource(self.clock.seconds, bytes)
        self.start()

    def publish(self, lines: Sequence[bytes], position: tuple[int, int]) -> None:
        self.lines += map(json.loads, lines)

    def synced(self) -> tuple[int, int]:
        return (0, 0)

    def start(self) -> None:
        """A process: everything but the spool is new."""
        self.spool.acquire()
        now = self.clock.seconds
        events = EventLines(now, lambda line: None, Counts())
        bounces = Bounces(events, hostname="us.test", now=now, first_s=lambda: RETRY.first_s)
        ledger = Ledger(self.spool, events, bounces)
        router = AgentRouter(self.agents, self.sessions)
        enrolment = Enrolment(self.spool, now=now)
        overdue = Overdue(ledger)
        dispatcher = Dispatcher(
            self.spool,
            events,
            ledger,
            enrolment,
            transports={"agent": AgentTransport(self.sessions)},
            locate=router,
            now=now,
            rng=self.rng,
        )
        domains: dict[str, Literal["tunnel"]] = {"a.test": "tunnel", "b.test": "tunnel"}
        table = RoutingTable(domains, NextHop("mx", ""), self.agents)
        dispatcher.route_by(lambda address, message: table.hop(address))
        enrolment.retry = RETRY
        enrolment.hold_s = lambda address: HOLD_S
        dispatcher.preparer = Preparer({}, lambda work: succeed(work()))
        self.scheduler = Scheduler(
            clock=self.clock,
            now=now,
            rng=self.rng,
            locate=router,
            start=dispatcher.start,
            unlocated=dispatcher.unlocated,
            expired=overdue.expired,
            late=overdue.late,
            settings=SchedulerSettings(
                agent_concurrency=5, windows={"agent": WindowSettings(2, 4)}
            ),
        )
        enrolment.scheduler = dispatcher.scheduler = self.scheduler
        ledger.accepted = enrolment.accepted
        self.acceptance = Acceptance(
            self.spool,
            events,
            requests=MemoryRequests(),
            now=now,
            new_id=self.new_id,
            first_s=lambda: RETRY.first_s,
            accepted=enrolment.accepted,
            took=lambda seconds: None,
        )
        self.desk = Desk(self.spool, ledger, now, self.scheduler)
        for found in self.spool.recover():
            enrolment.recovered(found)

    # --- what happens ----------------------------------------------------------------------------

    @rule(who=st.lists(AGENTS, min_size=1, max_size=3), count=st.integers(1, 8))
    def send(self, who: list[Identity], count: int) -> None:
        for number in range(count):
            domain = "ab"[number % 2] + ".test"
            envelope = Envelope(
                Address(""), tuple(Recipient(Address(f"{one}@{domain}")) for one in set(who))
            )
            arriving = self.acceptance.begin(envelope, Origin("smtp"), lambda id, at: b"X: y\r\n")
            assert isinstance(arriving, Arriving)
            self.accepted[arriving.id] = envelope
            arriving.write(b"Subject: Hi\r\n\r\nHello.\r\n")
            said: list[Reply] = []
            arriving.finish().addCallback(said.append)
            assert said[0].code == 250

    @rule(who=AGENTS, is_told=st.sampled_from([True, True, False]))
    def come(self, who: Identity, is_told: bool) -> None:
        """In the place of an older session, if there is one."""
        older = self.live.get(who)
        if older is not None:
            self.replaced.append(older)
        session = AcknowledgingSession(who, self.gateways[who], self.in_flight)
        self.live[who] = session
        self.sessions.there[who] = session  # type: ignore[assignment]
        if is_told:
            self.scheduler.changed(agent_hop(who))

    @rule(
        who=AGENTS,
        told=st.sampled_from(["before", "after", "never"]),
        fate=st.integers(0, 3),
    )
    def go(self, who: Identity, told: str, fate: int) -> None:
        session = self.live.pop(who, None)
        if session is None:
            return
        del self.sessions.there[who]
        if told == "before":
            self.scheduler.changed(agent_hop(who))
        self.cut(session, fate)
        if told == "after":
            self.scheduler.changed(agent_hop(who))

    @rule(fate=st.integers(0, 3))
    def end_of_the_older(self, fate: int) -> None:
        for session in self.replaced:
            self.cut(session, fate)
            self.scheduler.changed(agent_hop(session.identity))
        self.replaced.clear()

    def cut(self, session: AcknowledgingSession, fate: int) -> None:
        """The first ``fate`` streams had been stored, though nobody has heard of it."""
        session.is_over = True
        while session.sending:
            session.answer(0, LOST, is_stored=fate > 0)
            fate -= 1

    @rule(who=AGENTS, count=st.integers(1, 10))
    def take(self, who: Identity, count: int) -> None:
        session = self.live.get(who)
        while session is not None and session.sending and count:
            session.answer(0, QUEUED, is_stored=True)
            count -= 1

    @rule(who=AGENTS, outcome=REFUSALS, which=st.integers(0, 5))
    def refuse(self, who: Identity, outcome: Outcome, which: int) -> None:
        session = self.live.get(who)
        if session is None or not session.sending:
            return
        which %= len(session.sending)
        if not self.gateways[who].kept[session.sending[which][0].request_id]:
            session.answer(which, outcome, is_stored=False)

    @rule(seconds=st.sampled_from([0.3, 2.0, 60.0, 400.0, 3000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.pump([seconds / 10] * 10)

    @rule(how=st.sampled_from(["hold", "release", "retry", "remove"]), which=st.integers(0, 30))
    def meddle(self, how: str, which: int) -> None:
        ids = self.spool.ids()
        if ids:
            found = self.spool.statuses(ids[which % len(ids)])
            found.addCallback(getattr(self.desk, how))

    @rule(fate=st.integers(0, 3))
    def die(self, fate: int) -> None:
        """Killed: no session outlives it, and gateways may have more than it knew."""
        for session in [*self.live.values(), *self.replaced]:
            for stream, _ in session.sending[:fate]:
                session.gateway.store(stream.request_id)
            session.sending.clear()
            session.is_over = True
        self.live.clear()
        self.replaced.clear()
        self.sessions.there.clear()
        self.in_flight.clear()
        self.scheduler.stop()
        self.spool.close()
        self.start()

    # --- what holds ------------------------------------------------------------------------------

    def fates(self) -> dict[str, str]:
        """By request id; two for one fail."""
        found: dict[str, str] = {}
        for line in self.lines:
            if line["event"] in FINAL:
                key = line["id"].rsplit(".", 1)[0]
                assert key not in found, f"{key} was {found[key]} and is {line['event']}"
                found[key] = line["event"]
        return found

    @invariant()
    def never_doubled_and_never_said_without_cause(self) -> None:
        kept = Counter[str]()
        for gateway in self.gateways.values():
            kept.update(gateway.kept)
        assert not kept or max(kept.values()) <= 1
        for key, fate in self.fates().items():
            if fate == "delivered":
                assert kept[key] == 1, f"{key} is said to be delivered"
            elif fate == "bounced":
                assert not kept[key], f"{key} was refused"

    @invariant()
    def never_lost(self) -> None:
        fates, queued = self.fates(), set(self.spool.ids())
        for id, envelope in self.accepted.items():
            for index in range(len(envelope.recipients)):
                assert id in queued or f"{id}.{index}" in fates, f"{id}.{index} is lost"

    @invariant()
    def held_for_its_time(self) -> None:
        for line in self.lines:
            assert line["event"] != "expired" or line["queued_s"] >= HOLD_S
            assert line["event"] != "delayed"

    @invariant()
    def attempts_are_those_that_were_made(self) -> None:
        """Only a stream that began, and failed, brings a ``deferred``."""
        for line in self.lines:
            assert line["event"] != "deferred" or line["reply"]["enhanced"] != "4.4.1", line

    @invariant()
    def one_timer(self) -> None:
        assert len(self.clock.getDelayedCalls()) <= 1

    def teardown(self) -> None:
        """Everybody comes, stays and takes: what is left is delivered."""
        for who in IDENTITIES:
            self.go(who, "before", 0)
        self.end_of_the_older(0)
        for id in self.spool.ids():
            self.spool.statuses(id).addCallback(self.desk.release)
        for who in IDENTITIES:
            self.come(who, True)
        for _ in range(1000):
            for who in IDENTITIES:
                self.take(who, 1000)
            if not self.spool.ids():
                break
            self.clock.advance(1)
        assert self.spool.ids() == [], self.scheduler.sites()
        self.never_lost()
        self.never_doubled_and_never_said_without_cause()
        self.held_for_its_time()


class AgentsMachineTests(SynchronousTestCase):
    """The promises of the class above."""

    def test_never_lost_never_doubled_never_twice_at_once(self) -> None:
        run_state_machine_as_test(
            AgentsMachine,
            settings=settings(max_examples=100, stateful_step_count=40, deadline=None),
        )
