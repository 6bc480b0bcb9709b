"""Mail for a fleet of failing hosts, from the door to its fates, through restarts and full disks.

Everything between door and transport is the real thing, over a spool in memory and a clock that is
turned here.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, FirstError, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address, domain_of
from protege_mta.model.envelope import Envelope, Notify, Origin, Recipient
from protege_mta.model.hop import Host, NextHop, Site
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.outcome import Contact, Delivered, Outcome, PermanentFailure, Scope
from protege_mta.model.outcome import TransientFailure as Transient
from protege_mta.model.ports import Attempt, Recovered, SpoolFailed, SpoolFull
from protege_mta.model.reply import Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.schedule.backoff import Backoff, RetrySchedule
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
from protege_mta.testing.transports import TAKEN

START: Final = 1_700_000_000.0
RETRY: Final = RetrySchedule(
    first_s=300,
    max_interval_s=1800,
    jitter=0.1,
    max_age_s=9000,
    delay_warning_s=1500,
    bounce_max_age_s=5000,
)
FINAL: Final = {"delivered", "relayed", "bounced", "expired", "removed"}
HOST: Final = Contact("mx.test", "192.0.2.1")
LATER: Final = Reply(450, "4.2.0", ("not now",))
DEAD: Final = Reply(421, "4.4.1", ("no answer",))
NOBODY: Final = Reply(550, "5.1.1", ("nobody of that name",))
NO_DNS: Final = Transient(Scope.SITE, Reply(451, "4.4.3", ("name lookup failed",)))
NO_DOMAIN: Final = PermanentFailure(Scope.SITE, Reply(550, "5.1.2", ("no such domain",)))

Mood = Literal["good", "mixed", "refusing", "dead", "sick", "slow", "broken"]
MOODS: Final = st.sampled_from(
    ["good", "mixed", "mixed", "mixed", "refusing", "dead", "sick", "slow", "slow", "broken"]
)
DOMAINS: Final = ("a.test", "b.test", "c.test", "d.test")
Key = tuple[str, int]
"""A message's id and a recipient's index."""


@attrs.define(eq=False)
class Fleet:
    """Hosts with moods, as one transport.

    :ivar moods: by domain; ``slow`` ones answer when they are told to.
    :ivar at_work: attempts that slow hosts have in hand.
    :ivar told: how often each recipient's message was said to be delivered.
    :ivar may_double: recipients of whom that may have been lost since.
    :ivar in_hand: recipients of the attempts at work.
    :ivar releases: when messages may be tried that their senders have put off, without those that
        a person wants now.
    """

    now: Callable[[], float]

    rng: random.Random
    moods: dict[str, Mood] = attrs.field(factory=dict)
    at_work: list[tuple[Attempt, Deferred[Sequence[tuple[int, Outcome]]]]] = attrs.field(
        factory=list
    )
    told: Counter[Key] = attrs.field(factory=Counter)
    may_double: set[Key] = attrs.field(factory=set)
    in_hand: Counter[Key] = attrs.field(factory=Counter)
    releases: dict[QueueId, float] = attrs.field(factory=dict)

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        release = self.releases.get(attempt.content.message.id, 0.0)
        assert release <= self.now(), "tried before its release"
        for index in attempt.recipients:
            key = (attempt.content.message.id, index)
            assert not self.in_hand[key], "tried twice at once"
            assert not self.told[key] or key in self.may_double, "tried after it was delivered"
            self.in_hand[key] += 1
        answer: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.at_work.append((attempt, answer))
        if self.moods.get(attempt.domain, "good") != "slow":
            self.answer(len(self.at_work) - 1)
        return answer

    def close(self) -> Deferred[None]:
        return succeed(None)

    def answer(self, which: int) -> None:
        attempt, answer = self.at_work.pop(which)
        keys = [(attempt.content.message.id, index) for index in attempt.recipients]
        self.in_hand.subtract(keys)
        mood = self.moods.get(attempt.domain, "good")
        if mood == "broken":
            answer.errback(RuntimeError("bug in a transport"))
            return
        outcomes = [(index, self._outcome(mood)) for index in attempt.recipients]
        for key, (_, outcome) in zip(keys, outcomes, strict=True):
            self.told[key] += isinstance(outcome, Delivered)
        answer.callback(outcomes)

    def _outcome(self, mood: Mood) -> Outcome:
        match mood:
            case "dead":
                return Transient(Scope.SITE, DEAD)
            case "sick":
                return Transient(Scope.HOST, DEAD, HOST)
            case "refusing":
                return PermanentFailure(Scope.MESSAGE, NOBODY, HOST)
            case "mixed" | "slow":
                refused = PermanentFailure(Scope.RECIPIENT, NOBODY, HOST)
                later = Transient(Scope.RECIPIENT, LATER, HOST)
                relayed = attrs.evolve(TAKEN, is_relayed=True)
                some: list[Outcome] = [TAKEN, TAKEN, relayed, later, later, refused]
                return self.rng.choice(some)
            case _:
                return TAKEN

    def crash(self) -> None:
        """We are gone; some of what the hosts have in hand, they take all the same."""
        for attempt, _ in self.at_work:
            self.may_double.update((attempt.content.message.id, n) for n in attempt.recipients)
        self.at_work.clear()
        self.in_hand.clear()


class FlowMachine(RuleBasedStateMachine):
    """Mail comes in; hosts, name servers and the disk fail; people meddle; we die and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(START)
        self.rng = random.Random(0)
        self.fleet = Fleet(self.clock.seconds, self.rng)
        self.locations: dict[str, Transient | PermanentFailure] = {}
        self.accepted: dict[QueueId, Envelope] = {}
        self.lines: list[dict[str, Any]] = []
        self.has_bad_disk = False
        self.had_trouble = False
        self.spool = MemorySpool(journal=self)
        self.new_id = IdSource(self.clock.seconds, bytes)
        self.start()

    # The journal's side of things.

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
        enrolment = Enrolment(self.spool, now=now)
        overdue = Overdue(ledger)
        dispatcher = Dispatcher(
            self.spool,
            events,
            ledger,
            enrolment,
            transports={"mx": self.fleet},
            locate=self.locate,
            now=now,
            rng=self.rng,
        )
        dispatcher.route_by(lambda address, message: NextHop("mx", domain_of(address)))
        enrolment.retry = RETRY
        dispatcher.preparer = Preparer({}, lambda work: succeed(work()))
        self.scheduler = Scheduler(
            clock=self.clock,
            now=now,
            rng=self.rng,
            locate=self.locate,
            start=dispatcher.start,
            unlocated=dispatcher.unlocated,
            expired=overdue.expired,
            late=overdue.late,
            settings=SchedulerSettings(
                concurrency=5,
                windows={"mx": WindowSettings(2, 4)},
                backoff=Backoff(first_s=30, max_interval_s=600, jitter=0.1),
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

    def locate(self, hop: NextHop) -> Deferred[Site | Transient | PermanentFailure]:
        # c.test and d.test are served by one host.
        host = "c.test" if hop.name == "d.test" else hop.name
        site = Site(f"mx:{host}", "mx", (Host(host, ("192.0.2.1",), 25),))
        return succeed(self.locations.get(hop.name) or site)

    # --- what happens ---

    @initialize(
        moods=st.tuples(MOODS, MOODS, MOODS, MOODS),
        seed=st.integers(0, 1000),
        has_bad_disk=st.sampled_from([False, False, True]),
    )
    def begin(self, moods: tuple[Mood, ...], seed: int, has_bad_disk: bool) -> None:
        self.fleet.moods.update(zip(DOMAINS, moods, strict=True))
        self.rng.seed(seed)
        self.has_bad_disk = has_bad_disk

    @rule(
        recipients=st.lists(
            st.tuples(
                st.sampled_from(["b.test", "c.test", "d.test"]),
                st.sampled_from([Notify.UNSET, Notify.UNSET, Notify.NEVER, Notify.SUCCESS]),
            ),
            min_size=1,
            max_size=4,
        ),
        sender=st.sampled_from(["a@a.test", "a@a.test", "b@b.test", ""]),
        hold_s=st.sampled_from([0, 0, 0, 0.5, 100, 3000, 9000]),
    )
    def send(self, recipients: list[tuple[str, Notify]], sender: str, hold_s: float) -> None:
        hold_until = self.clock.seconds() + hold_s if hold_s else 0.0
        envelope = Envelope(
            Address(sender),
            tuple(
                Recipient(Address(f"r{n}@{domain}"), notify)
                for n, (domain, notify) in enumerate(recipients)
            ),
            hold_until=hold_until,
        )
        arriving = self.acceptance.begin(envelope, Origin("smtp"), lambda id, at: b"X: y\r\n")
        if isinstance(arriving, Reply):
            assert arriving.code // 100 == 4
            assert self.spool.is_full or self.spool.is_failed
            return
        assert isinstance(arriving, Arriving)
        arriving.write(b"Message-ID: <1@a.test>\r\nSubject: Hi\r\n\r\nHello.\r\n")
        said: list[Reply] = []
        # It may be delivered before the sender hears of it.
        self.accepted[arriving.id] = envelope
        self.fleet.releases[arriving.id] = hold_until
        arriving.finish().addCallback(said.append)
        (reply,) = said
        if reply.code != 250:
            assert reply.code // 100 == 4
            assert self.spool.is_full or self.spool.is_failed
            del self.accepted[arriving.id]

    @rule(domain=st.sampled_from(DOMAINS), mood=MOODS)
    def mood(self, domain: str, mood: Mood) -> None:
        self.fleet.moods[domain] = mood

    @rule(
        domain=st.sampled_from(DOMAINS),
        location=st.sampled_from([None, None, NO_DNS, NO_DOMAIN]),
    )
    def relocate(self, domain: str, location: Transient | PermanentFailure | None) -> None:
        self.locations.pop(domain, None)
        if location is not None:
            self.locations[domain] = location

    @precondition(lambda self: self.fleet.at_work)
    @rule(which=st.integers(0, 5))
    def answer(self, which: int) -> None:
        self.fleet.answer(which % len(self.fleet.at_work))

    @rule(seconds=st.sampled_from([5, 60, 300, 1000, 3000, 10_000]))
    def wait(self, seconds: int) -> None:
        self.clock.pump([seconds / 20] * 20)

    @precondition(lambda self: self.spool.ids())
    @rule(
        which=st.integers(0, 20),
        what=st.sampled_from(
            ["hold", "hold", "release", "retry", "retry_released", "remove", "bounce"]
        ),
    )
    def meddle(self, which: int, what: str) -> None:
        id = self.spool.ids()[which % len(self.spool.ids())]
        if what == "retry":
            self.fleet.releases.pop(id, None)
        hand: Callable[[Recovered], Deferred[bool]] = getattr(self.desk, what)
        self.spool.statuses(id).addCallback(hand).addErrback(self._trouble)

    def _trouble(self, failure: Failure) -> None:
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        failure.trap(SpoolFull, SpoolFailed)

    @precondition(lambda self: self.has_bad_disk)
    @rule(is_full=st.booleans())
    def fill(self, is_full: bool) -> None:
        self.spool.is_full = is_full
        self.had_trouble |= is_full

    @precondition(lambda self: self.has_bad_disk)
    @rule()
    def break_disk(self) -> None:
        """Until a restart; what is delivered from now on may be delivered again after it."""
        self.spool.is_failed = self.had_trouble = True

    @rule()
    def restart(self) -> None:
        """The process dies at work, and another one finds the spool."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        if self.spool.is_failed:
            open_ones = {
                (id, n)
                for id in self.spool.ids()
                for n in range(len(self.accepted.get(id, _ALONE).recipients))
            }
            self.fleet.may_double |= open_ones
        self.fleet.crash()
        self.spool.is_failed = False
        self.spool.close()
        self.start()

    # --- what must hold ---

    def stories(self) -> dict[Key, list[dict[str, Any]]]:
        """What the journal tells of each recipient, in order."""
        found: dict[Key, list[dict[str, Any]]] = defaultdict(list)
        for line in self.lines:
            message, index, _ = line["id"].split(".")
            found[message, int(index)].append(line)
        return found

    @invariant()
    def stories_are_whole(self) -> None:
        """Received first, transitions that count up, one fate at most and at the end, and who has
        none is in the spool."""
        queued = set(self.spool.ids())
        for (id, index), story in self.stories().items():
            numbers = [int(line["id"].split(".")[2]) for line in story]
            assert numbers == sorted(set(numbers)), numbers
            assert numbers[0] == 0
            if not self.had_trouble:
                assert numbers == list(range(len(numbers))), numbers
            assert [line["event"] for line in story].count("received") == 1
            fates = [line for line in story if line["event"] in FINAL]
            assert len(fates) <= 1, story
            assert not fates or story[-1] is fates[0], story
            assert fates or id in queued, f"recipient {index} of {id} is lost"

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every recipient of every 250 has its story."""
        stories = self.stories()
        for id, envelope in self.accepted.items():
            for index in range(len(envelope.recipients)):
                assert (id, index) in stories, f"nothing is told of {index} of {id}"

    @invariant()
    def everything_is_somewhere(self) -> None:
        """Who waits in the spool is known to the scheduler, unless the disk was in the way."""
        if not self.had_trouble:
            for id in self.spool.ids():
                assert self.scheduler.entries(id), f"{id} is not on the schedule"

    @invariant()
    def nobody_is_old_before_his_release(self) -> None:
        for line in self.lines:
            envelope = self.accepted.get(line["message_id"], _ALONE)
            if line["event"] == "expired" and envelope.hold_until:
                age_s = RETRY.max_age_s if envelope.sender else RETRY.bounce_max_age_s
                assert line["queued_s"] >= age_s, line

    @invariant()
    def one_timer(self) -> None:
        assert len(self.clock.getDelayedCalls()) <= 1

    def told_of_bounces(self) -> None:
        """Each bounce is named by the events it tells of, each was received once, and whoever is
        to be told is told."""
        received = Counter(line["message_id"] for line in self.lines if line["id"].endswith(".0.0"))
        named: set[str] = set()
        for line in self.lines:
            dsn = line.get("dsn", "")
            if dsn not in ("", "none"):
                named.add(dsn)
                assert received[dsn] == 1, f"{received[dsn]} bounces {dsn}"
            if line["event"] in ("bounced", "expired"):
                envelope = self.accepted.get(line["message_id"], _ALONE)
                recipient = envelope.recipients[int(line["id"].split(".")[1])]
                is_due = envelope.sender != NULL and recipient.notify not in (
                    Notify.NEVER,
                    Notify.SUCCESS,
                )
                assert (dsn != "none") == is_due, line
        for id, count in received.items():
            assert count == 1
            assert id in self.accepted or id in named, f"{id} tells of nothing"

    def teardown(self) -> None:
        """The world recovers: everything comes to its end."""
        if self.spool.is_failed:
            self.restart()
        self.spool.is_full = False
        self.locations.clear()
        self.fleet.moods.clear()
        self.drain()
        if self.had_trouble and self.spool.ids():
            self.restart()  # which tells what could not be written down
            self.drain()
        assert self.spool.ids() == [], self.scheduler.depth()
        depth = self.scheduler.depth()
        assert (depth.scheduled, depth.deferred, depth.active, depth.held) == (0, 0, 0, 0)
        for key, story in self.stories().items():
            fate = story[-1]["event"]
            assert fate in FINAL, story
            if fate in ("delivered", "relayed"):
                assert self.fleet.told[key], "delivered, says the journal"
            elif key not in self.fleet.may_double:
                assert not self.fleet.told[key], f"{fate}, says the journal of what was delivered"
        self.nothing_is_lost()
        self.stories_are_whole()
        self.told_of_bounces()

    def drain(self) -> None:
        for _ in range(40):
            while self.fleet.at_work:
                self.fleet.answer(0)
            for id in self.spool.ids():
                self.spool.statuses(id).addCallback(self.desk.release).addErrback(self._trouble)
            if not self.spool.ids():
                return
            self.clock.pump([50] * 10)


_ALONE: Final = Envelope(NULL, (Recipient(Address("a@a.test")),))
"""What bounces have for an envelope."""


class FlowMachineTests(SynchronousTestCase):
    """The promises of the class above."""

    def test_nothing_lost_doubled_or_untold(self) -> None:
        run_state_machine_as_test(
            FlowMachine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
        )
        for failure in self.flushLoggedErrors():
            failure.trap(SpoolFull, SpoolFailed, RuntimeError)
