"""The service's half of delivery by a process of its own: a child that is a list of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Notify, Recipient
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TlsFacts,
    TransientFailure,
)
from protege_mta.model.ports import Attempt
from protege_mta.model.reply import Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import CONTENT, make_attempt
from protege_mta.testing.transports import TAKEN, ScriptedTransport
from protege_mta.transport.delegate import LOST, MOST_OCTETS, Delegate, DelegatedTransport
from protege_mta.transport.link import (
    Counted,
    Done,
    Fated,
    FromChild,
    Job,
    Leave,
    Noted,
    Ready,
    Setup,
    ToChild,
    encode,
    to_child,
)

SETUP = Setup(b"settings", [("127.0.0.1", 25)])
NO = Reply(550, "5.1.1", ("no such user",))
LATER = Reply(451, "4.3.0", ("later",))


@attrs.define(eq=False)
class Child:
    """What was said to it, and its tongue."""

    received: Callable[[bytes], None]
    lost: Callable[[], None]
    heard: list[ToChild] = attrs.field(factory=list)
    is_dropped: bool = False

    def send(self, frame: bytes) -> None:
        self.heard.append(to_child(frame))

    def drop(self) -> None:
        self.is_dropped = True
        self.lost()

    def say(self, said: FromChild) -> None:
        self.received(encode(said))

    @property
    def jobs(self) -> list[Job]:
        return [one for one in self.heard if isinstance(one, Job)]


class DelegateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tally = Tally()
        self.children: list[Child] = []
        self.refusals = 0
        self.delegate = Delegate(self.spawn, clock=self.clock, tally=self.tally)
        self.own = ScriptedTransport()
        self.transport = DelegatedTransport(self.delegate, self.own)

    def spawn(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> Child:
        if self.refusals:
            self.refusals -= 1
            raise OSError("no processes left")
        self.children.append(Child(received, lost))
        return self.children[-1]

    @property
    def child(self) -> Child:
        return self.children[-1]

    def begin(self) -> Child:
        self.delegate.set_up(SETUP)
        self.child.say(Ready(1))
        return self.child

    def fate(self, *outcomes: Outcome) -> None:
        """The child's word for the last job."""
        fated = [Fated.of(index, outcome) for index, outcome in enumerate(outcomes)]
        self.child.say(Done(self.child.jobs[-1].number, fated))


class DeliveryTests(DelegateTestCase):
    def test_the_child_gets_the_message_and_its_outcomes_come_back(self) -> None:
        self.begin()
        attempt = make_attempt(("mx.b.test", ["192.0.2.1"]))
        done = self.transport.deliver(attempt)
        self.assertNoResult(done)
        self.assertEqual(self.child.heard[0], SETUP)
        [job] = self.child.jobs
        self.assertEqual((job.site, job.domain, job.octets), (attempt.site, "b.test", CONTENT))
        self.assertEqual(job.message, attempt.content.message)
        self.fate(TAKEN)
        self.assertEqual(self.successResultOf(done), [(0, TAKEN)])
        self.assertEqual(self.own.attempts, [])

    def test_every_kind_of_outcome_travels_as_it_is(self) -> None:
        self.begin()
        tls = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", is_verified=True)
        contact = Contact("mx.b.test", "192.0.2.1", tls)
        outcomes: Sequence[Outcome] = [
            Delivered(contact, Reply(250, "2.0.0", ("taken", "and gone")), is_relayed=True),
            TransientFailure(Scope.HOST, LATER, contact),
            PermanentFailure(Scope.RECIPIENT, NO),
        ]
        done = self.transport.deliver(make_attempt(recipients=["a@b.test", "b@b.test", "c@b.test"]))
        self.fate(*outcomes)
        self.assertEqual(self.successResultOf(done), list(enumerate(outcomes)))

    def test_what_its_sender_demands_travels(self) -> None:
        """Mail that requires TLS is such to the child too, and so is the proof of its hosts."""
        self.begin()
        envelope = Envelope(
            Address("a@a.test"),
            (Recipient(Address("b@b.test")),),
            hold_until=1000.5,
            future_release="for;60",
            requires_tls=True,
        )
        attempt = make_attempt(("mx.b.test", ["192.0.2.1"]), envelope=envelope, is_authentic=True)
        self.transport.deliver(attempt)
        [job] = self.child.jobs
        self.assertEqual((job.site, job.message), (attempt.site, attempt.content.message))
        self.assertTrue(job.site.is_authentic and job.message.envelope.requires_tls)

    def test_only_the_recipients_of_the_attempt_travel(self) -> None:
        """Each keeps its own number in the message."""
        self.begin()
        wishes = Recipient(Address("c@b.test"), Notify.SUCCESS | Notify.DELAY, "rfc822;c@b.test")
        whole = make_attempt(recipients=["a@b.test", "b@elsewhere.test", wishes])
        done = self.transport.deliver(attrs.evolve(whole, recipients=(0, 2)))
        [job] = self.child.jobs
        self.assertEqual(job.message.envelope.recipients, (Recipient(Address("a@b.test")), wishes))
        failure = TransientFailure(Scope.RECIPIENT, LATER)
        self.fate(TAKEN, failure)
        self.assertEqual(self.successResultOf(done), [(0, TAKEN), (2, failure)])

    def test_the_order_of_the_attempt_holds(self) -> None:
        """Those left of an earlier attempt need not come in the order of the envelope."""
        self.begin()
        whole = make_attempt(recipients=["a@b.test", "b@b.test", "c@b.test"])
        done = self.transport.deliver(attrs.evolve(whole, recipients=(1, 2, 0)))
        [job] = self.child.jobs
        self.assertEqual(
            [one.address for one in job.message.envelope.recipients],
            ["b@b.test", "c@b.test", "a@b.test"],
        )
        failure = TransientFailure(Scope.RECIPIENT, LATER)
        self.fate(TAKEN, TAKEN, failure)
        self.assertEqual(self.successResultOf(done), [(1, TAKEN), (2, TAKEN), (0, failure)])

    def test_jobs_are_told_apart(self) -> None:
        child = self.begin()
        first, second = (self.transport.deliver(make_attempt()) for _ in range(2))
        numbers = [job.number for job in child.jobs]
        child.say(Done(numbers[1], [Fated.of(0, TAKEN)]))
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), [(0, TAKEN)])
        child.say(Done(numbers[0], [Fated.of(0, TAKEN)]))
        self.assertEqual(self.successResultOf(first), [(0, TAKEN)])


class OwnDeliveryTests(DelegateTestCase):
    """What the child cannot have the service delivers by itself."""

    def delivered_here(self, attempt: Attempt) -> None:
        before = len(self.own.attempts)
        self.assertEqual(self.successResultOf(self.transport.deliver(attempt)), [(0, TAKEN)])
        self.assertEqual(self.own.attempts[before:], [attempt])

    def test_before_there_is_a_child(self) -> None:
        self.delivered_here(make_attempt())

    def test_before_the_child_is_ready(self) -> None:
        self.delegate.set_up(SETUP)
        self.delivered_here(make_attempt())
        self.assertEqual(self.child.heard, [SETUP])

    def test_big_content(self) -> None:
        self.begin()
        self.delivered_here(make_attempt(content=b"x" * (MOST_OCTETS + 1)))
        self.transport.deliver(make_attempt(content=b"x" * MOST_OCTETS))
        self.assertEqual(len(self.child.jobs), 1)

    def test_text_that_has_no_octets(self) -> None:
        self.begin()
        attempt = make_attempt()
        message = attrs.evolve(attempt.content.message, subject="\udcff")
        attempt.content.message = message  # type: ignore[misc]
        self.delivered_here(attempt)
        self.assertEqual(self.child.jobs, [])

    def test_while_the_child_is_gone(self) -> None:
        self.begin().lost()
        self.flushLoggedErrors()
        self.delivered_here(make_attempt())


class LifeTests(DelegateTestCase):
    def test_what_a_lost_child_had_in_hand_is_tried_again(self) -> None:
        self.begin()
        done = self.transport.deliver(make_attempt(recipients=["a@b.test", "b@b.test"]))
        with capturedLogs() as logs:
            self.child.lost()
        self.assertEqual(self.successResultOf(done), [(0, LOST), (1, LOST)])
        self.assertEqual([log["log_level"] for log in logs], [LogLevel.error])

    def test_a_lost_child_is_replaced(self) -> None:
        self.begin().lost()
        self.clock.advance(0.9)
        self.assertEqual(len(self.children), 1)
        self.clock.advance(0.1)
        self.assertEqual(len(self.children), 2)
        self.assertEqual(self.child.heard, [SETUP])
        self.child.say(Ready(2))
        self.transport.deliver(make_attempt())
        self.assertEqual(len(self.child.jobs), 1)

    def test_one_that_never_gets_ready_is_replaced_ever_later(self) -> None:
        self.delegate.set_up(SETUP)
        at = []
        for _ in range(9):
            self.child.lost()
            while self.clock.getDelayedCalls():
                self.clock.advance(1)
            at.append(self.clock.seconds())
        waits = [after - before for before, after in zip([0.0, *at], at, strict=False)]
        self.assertEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.child.say(Ready(9))
        self.child.lost()
        self.clock.advance(1)
        self.assertEqual(len(self.children), 11)

    def test_one_that_cannot_be_started_is_tried_again(self) -> None:
        self.refusals = 1
        self.delegate.set_up(SETUP)
        self.assertEqual(self.children, [])
        self.clock.advance(1)
        self.assertEqual(self.child.heard, [SETUP])

    def test_new_settings_reach_the_child_that_is_there(self) -> None:
        child = self.begin()
        fresh = Setup(b"other settings", [])
        self.delegate.set_up(fresh)
        self.assertEqual((self.children, child.heard), ([child], [SETUP, fresh]))

    def test_a_new_child_works_by_the_newest_settings(self) -> None:
        self.begin().lost()
        fresh = Setup(b"other settings", [])
        self.delegate.set_up(fresh)
        self.clock.advance(1)
        self.assertEqual((len(self.children), self.child.heard), (2, [fresh]))

    def test_it_goes_when_it_has_ended_its_work(self) -> None:
        child = self.begin()
        delivering = self.transport.deliver(make_attempt())
        closing = self.delegate.close()
        self.assertEqual(child.heard[-1], Leave())
        self.assertNoResult(closing)
        self.fate(TAKEN)
        self.assertEqual(self.successResultOf(delivering), [(0, TAKEN)])
        with capturedLogs() as logs:
            child.lost()
        self.successResultOf(closing)
        self.assertEqual(logs, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_does_not_go_is_left(self) -> None:
        child = self.begin()
        delivering = self.transport.deliver(make_attempt())
        closing: Deferred[None] = self.delegate.close().addErrback(lambda failure: None)
        closing.cancel()
        self.assertTrue(child.is_dropped)
        self.successResultOf(closing)
        self.assertEqual(self.successResultOf(delivering), [(0, LOST)])

    def test_nobody_is_started_any_more(self) -> None:
        self.begin().lost()
        self.successResultOf(self.delegate.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_child_that_has_not_begun_can_go(self) -> None:
        self.successResultOf(self.delegate.close())
        self.assertEqual(self.children, [])


class TellingTests(DelegateTestCase):
    def test_counts_are_added_to_ours(self) -> None:
        self.tally.connections_out = self.tally.connections_out_open = 10
        child = self.begin()
        said = Tally(connections_out=3, connections_out_open=2, connections_out_failed=1, tls_out=1)
        said.replies_out[2] = 7
        child.say(Counted(said))
        said.connections_out, said.connections_out_open, said.tls_failures_out = 4, 1, 1
        said.replies_out[2] = 9
        child.say(Counted(said))
        tally = self.tally
        self.assertEqual(
            (tally.connections_out, tally.connections_out_open, tally.connections_out_failed),
            (14, 11, 1),
        )
        self.assertEqual((tally.tls_out, tally.tls_failures_out), (1, 1))
        self.assertEqual(tally.replies_out, [0, 0, 9, 0, 0, 0])

    def test_a_lost_childs_connections_are_not_open_any_more(self) -> None:
        self.begin().say(Counted(Tally(connections_out=3, connections_out_open=2)))
        self.child.lost()
        self.assertEqual((self.tally.connections_out, self.tally.connections_out_open), (3, 0))
        self.clock.advance(1)
        self.child.say(Ready(2))
        self.child.say(Counted(Tally(connections_out=1, connections_out_open=1)))
        self.assertEqual((self.tally.connections_out, self.tally.connections_out_open), (4, 1))

    def test_its_log_is_ours(self) -> None:
        child = self.begin()
        with capturedLogs() as logs:
            child.say(Noted("warn", "protege_mta.transport.smtp_client", "{odd} text"))
        [log] = logs
        self.assertEqual(
            (log["log_level"], log["log_namespace"], log["log_format"].format(**log)),
            (LogLevel.warn, "protege_mta.transport.smtp_client", "{odd} text"),
        )
