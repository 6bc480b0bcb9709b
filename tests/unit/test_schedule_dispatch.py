"""A message's way from the door to its fates, over a spool in memory and a clock that we turn."""

from __future__ import annotations

import email
import json
import random
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address, domain_of
from protege_mta.model.envelope import Envelope, Message, Notify, Origin, Recipient
from protege_mta.model.hop import HopKind, NextHop, Site
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.outcome import (
    Contact,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import SpoolFull, Transport
from protege_mta.model.reply import TABLE, Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.schedule import desk
from protege_mta.schedule.backoff import Backoff, RetrySchedule
from protege_mta.schedule.bounces import Bounces
from protege_mta.schedule.desk import Chosen, Desk, NotFound
from protege_mta.schedule.dispatch import Dispatcher
from protege_mta.schedule.enrolment import Enrolment
from protege_mta.schedule.intake import Acceptance, Arriving
from protege_mta.schedule.ledger import Ledger
from protege_mta.schedule.overdue import Overdue
from protege_mta.schedule.prepare import Preparer
from protege_mta.schedule.scheduler import Scheduler
from protege_mta.schedule.settings import SchedulerSettings
from protege_mta.spool.memory import MemorySpool
from protege_mta.testing.requests import MemoryRequests
from protege_mta.testing.transports import TAKEN, ScriptedTransport

START = 1_700_000_000.0
RETRY = RetrySchedule(
    first_s=300, max_interval_s=14_400, jitter=0, max_age_s=86_400, delay_warning_s=3600
)
SMTP = Origin("smtp")
HOST = Contact("mx.b.test", "192.0.2.1")
GREYLISTED = TransientFailure(Scope.RECIPIENT, Reply(450, "4.7.1", ("greylisted",)), HOST)
UNKNOWN = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.1.1", ("no such user",)), HOST)
DOWN = TransientFailure(Scope.SITE, Reply(421, "4.4.1", ("no answer",)))


class FlowCase(SynchronousTestCase):
    """The parts between door and transport, as ``compose`` puts them together."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.transport = ScriptedTransport()
        self.missing: dict[str, PermanentFailure | TransientFailure] = {}
        self.authentic: set[str] = set()
        self.lines: list[bytes] = []
        self.spool = MemorySpool(journal=self)
        self.spool.acquire()
        self.build()

    def publish(self, lines: Sequence[bytes], position: tuple[int, int]) -> None:
        self.lines += lines

    def synced(self) -> tuple[int, int]:
        return (0, 0)

    def build(self) -> None:
        """A process: everything but the spool is new."""
        now, rng = self.clock.seconds, random.Random(1)
        events = EventLines(now, self.lines.append, Counts())
        bounces = Bounces(events, hostname="us.test", now=now, first_s=lambda: RETRY.first_s)
        self.ledger = Ledger(self.spool, events, bounces)
        self.enrolment = Enrolment(self.spool, now=now)
        overdue = Overdue(self.ledger)
        self.dispatcher = Dispatcher(
            self.spool,
            events,
            self.ledger,
            self.enrolment,
            transports=self.transports(),
            locate=self.locate,
            now=now,
            rng=rng,
        )
        self.dispatcher.route_by(self.hop)
        self.enrolment.retry = RETRY
        self.dispatcher.preparer = Preparer({}, lambda work: succeed(work()))
        self.scheduler = Scheduler(
            clock=self.clock,
            now=now,
            rng=rng,
            locate=self.locate,
            start=self.dispatcher.start,
            unlocated=self.dispatcher.unlocated,
            expired=overdue.expired,
            late=overdue.late,
            settings=SchedulerSettings(backoff=Backoff(first_s=30, jitter=0)),
        )
        self.enrolment.scheduler = self.dispatcher.scheduler = self.scheduler
        self.ledger.accepted = self.enrolment.accepted
        self.acceptance = Acceptance(
            self.spool,
            events,
            requests=MemoryRequests(),
            now=now,
            new_id=IdSource(now, lambda count: bytes(count)),
            first_s=lambda: RETRY.first_s,
            accepted=self.enrolment.accepted,
            took=lambda seconds: None,
        )
        self.desk = Desk(self.spool, self.ledger, now, self.scheduler)

    def transports(self) -> dict[HopKind, Transport]:
        return {"mx": self.transport}

    def hop(self, address: Address, message: Message) -> NextHop:
        return NextHop("mx", domain_of(address))

    def locate(self, hop: NextHop) -> Deferred[Site | TransientFailure | PermanentFailure]:
        missing = self.missing.get(hop.name)
        return succeed(
            missing or Site(f"mx:{hop.name}", "mx", is_authentic=hop.name in self.authentic)
        )

    def restart(self) -> None:
        """The process dies; another one finds the spool."""
        self.successResultOf(self.spool.close())
        self.spool.acquire()
        self.build()
        for found in self.spool.recover():
            self.enrolment.recovered(found)

    def send(
        self,
        *recipients: str | Recipient,
        sender: str = "a@a.test",
        content: bytes = b"Message-ID: <1@a.test>\r\nSubject: Hi\r\n\r\nHello.\r\n",
        hold_s: float = 0.0,
        requires_tls: bool = False,
        origin: Origin = SMTP,
    ) -> QueueId:
        """:param hold_s: for how long the sender would have it held."""
        envelope = Envelope(
            Address(sender),
            tuple(
                one if isinstance(one, Recipient) else Recipient(Address(one)) for one in recipients
            ),
            hold_until=self.clock.seconds() + hold_s if hold_s else 0.0,
            future_release=f"for;{hold_s:.0f}" if hold_s else "",
            requires_tls=requires_tls,
        )
        arriving = self.acceptance.begin(envelope, origin, lambda id, at: b"X: y\r\n")
        assert isinstance(arriving, Arriving)
        arriving.write(content)
        reply = self.successResultOf(arriving.finish())
        self.assertEqual(reply.code, 250)
        self.assertEqual(reply.text, f"ok, queued as {arriving.id}")
        return arriving.id

    def turn(self, seconds: float) -> None:
        """Time passes, finely enough for every timer."""
        self.clock.pump([seconds / 100] * 100)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def events(self, id: QueueId) -> list[tuple[str, str]]:
        """Event and recipient, of one message, in order."""
        return [(e["event"], e["recipient"]) for e in self.told if e["message_id"] == id]


class AcceptanceTests(FlowCase):
    def finish(self) -> Reply:
        envelope = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))
        arriving = self.acceptance.begin(envelope, Origin("smtp"), lambda id, at: b"X: y\r\n")
        assert isinstance(arriving, Arriving)
        return self.successResultOf(arriving.finish())

    def test_a_commit_that_fails_is_told_and_no_error(self) -> None:
        self.patch(self.spool, "commit", lambda batch: fail(SpoolFull("no room")))
        self.assertEqual(self.finish(), TABLE["spool-full"])

    def test_what_breaks_behind_the_commit_is_a_local_fault_to_the_sender(self) -> None:
        self.patch(self.acceptance, "_accepted", lambda message, status: 1 / 0)
        self.assertEqual(self.finish(), TABLE["spool-failed"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DeliveryTests(FlowCase):
    """What attempts lead to."""

    def test_delivered_at_once(self) -> None:
        """Taken by the hop while the sender still waits for nothing more; the spool is empty."""
        id = self.send("b@b.test")
        self.assertEqual(
            self.transport.sent,
            [b"X: y\r\nMessage-ID: <1@a.test>\r\nSubject: Hi\r\n\r\nHello.\r\n"],
        )
        self.assertEqual(self.events(id), [("received", "b@b.test"), ("delivered", "b@b.test")])
        self.assertEqual(self.spool.ids(), [])
        self.assertEqual(self.told[0]["subject"], "Hi")
        self.assertEqual(self.told[0]["header_message_id"], "<1@a.test>")

    def test_a_success_writes_only_its_end(self) -> None:
        """The first attempt stores nothing before it starts, and its end is lazy."""
        self.send("b@b.test")
        self.assertEqual([batch.is_lazy for batch in self.spool.batches], [False, True])

    def test_recipients_of_one_hop_share_a_transaction(self) -> None:
        self.send("b@b.test", "c@c.test", "d@b.test")
        self.assertEqual(
            [(one.domain, one.recipients) for one in self.transport.attempts],
            [("b.test", (0, 2)), ("c.test", (1,))],
        )

    def test_a_recipient_named_twice_gets_one_copy(self) -> None:
        id = self.send("b@b.test", "c@b.test", "b@b.test")
        self.assertEqual(self.events(id)[:2], [("received", "b@b.test"), ("received", "c@b.test")])
        self.assertEqual([one.recipients for one in self.transport.attempts], [(0, 1)])

    def test_deferred_and_tried_again(self) -> None:
        """300 s, then twice as long each time; the next due time is stored before each retry."""
        self.transport.script += [{0: GREYLISTED}] * 3
        id = self.send("b@b.test")
        due = []
        for _ in range(3):
            recovered = self.successResultOf(self.spool.statuses(id)).statuses[0]
            assert recovered is not None
            due.append(recovered.due_at - self.clock.seconds())
            self.turn(recovered.due_at - self.clock.seconds() + 1)
        self.assertEqual([round(wait) for wait in due], [300, 600, 1200])
        self.assertEqual(
            [event for event, _ in self.events(id)],
            ["received", "deferred", "deferred", "deferred", "delivered"],
        )
        self.assertEqual(
            [e["id"].split(".")[1:] for e in self.told], [["0", str(n)] for n in range(5)]
        )
        self.assertEqual(self.told[1]["next_attempt_at"], "2023-11-14T22:18:20.000Z")

    def test_recipients_meet_different_fates(self) -> None:
        """One is delivered, one bounces, one waits; each is told of by itself."""
        self.transport.script.append({1: UNKNOWN, 2: GREYLISTED})
        id = self.send("b@b.test", "c@b.test", "d@b.test")
        self.assertEqual(
            sorted(self.events(id)[3:]),
            [("bounced", "c@b.test"), ("deferred", "d@b.test"), ("delivered", "b@b.test")],
        )
        self.turn(310)
        self.assertEqual(self.transport.attempts[-1].recipients, (2,))
        self.assertEqual(self.events(id)[-1], ("delivered", "d@b.test"))

    def test_no_such_domain(self) -> None:
        """What routing says for good is a bounce with its code."""
        reply = Reply(550, "5.1.2", ("no such domain",))
        self.missing["c.test"] = PermanentFailure(Scope.SITE, reply)
        id = self.send("b@c.test")
        bounced = next(e for e in self.told if e["event"] == "bounced")
        self.assertEqual((bounced["message_id"], bounced["reply"]["enhanced"]), (id, "5.1.2"))

    def test_a_dead_site_rewrites_nothing(self) -> None:
        """Its queue waits in memory; only what was really tried is recorded."""
        self.transport.script.append({0: DOWN})
        first = self.send("b@b.test")
        written = len(self.spool.batches)
        second = self.send("c@b.test")
        self.turn(20)
        self.assertEqual(len(self.spool.batches), written + 1)
        self.assertEqual(self.events(second), [("received", "c@b.test")])
        self.turn(20)
        self.assertEqual(self.events(second)[-1], ("delivered", "c@b.test"))
        self.assertEqual(self.events(first)[-1], ("deferred", "b@b.test"))

    def test_a_broken_transport_is_a_transient_failure(self) -> None:
        broken: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.transport.script.append(broken)
        id = self.send("b@b.test")
        broken.errback(RuntimeError("bug"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.events(id)[-1], ("deferred", "b@b.test"))


class FutureReleaseTests(FlowCase):
    """What a sender would have sent later (RFC 4865)."""

    DAY_S = 86_400.0

    def attempts_after(self, seconds: float) -> int:
        self.turn(seconds)
        return len(self.transport.attempts)

    def test_not_before_its_time(self) -> None:
        id = self.send("b@b.test", "c@c.test", hold_s=1000)
        self.assertEqual(
            self.events(id),
            [
                ("received", "b@b.test"),
                ("received", "c@c.test"),
                ("scheduled", "b@b.test"),
                ("scheduled", "c@c.test"),
            ],
        )
        self.assertEqual(self.told[2]["next_attempt_at"], "2023-11-14T22:30:00.000Z")
        self.assertEqual(self.attempts_after(990), 0)
        self.assertEqual(self.attempts_after(20), 2)
        self.assertEqual([e["event"] for e in self.told[4:]], ["delivered", "delivered"])
        self.assertEqual(
            sorted(e["id"][-3:] for e in self.told), ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
        )
        self.assertLess(self.told[-1]["queued_s"], 20)

    def test_not_before_its_time_whatever_dies(self) -> None:
        self.send("b@b.test", hold_s=1000)
        for _ in range(4):
            self.assertEqual(self.attempts_after(200), 0)
            self.restart()
        self.successResultOf(self.enrolment.leave())
        self.restart()
        self.assertEqual(self.attempts_after(190), 0)
        self.assertEqual(self.attempts_after(20), 1)

    def test_a_crash_behind_its_time(self) -> None:
        """It waits, as what has just come in does: it may be what brought us down."""
        self.send("b@b.test", hold_s=1000)
        self.successResultOf(self.scheduler.stop())
        self.clock.advance(1001)
        self.restart()
        self.assertEqual(self.attempts_after(290), 0)
        self.assertEqual(self.attempts_after(20), 1)

    def test_an_orderly_end_behind_its_time(self) -> None:
        self.send("b@b.test", hold_s=1000)
        self.turn(990)
        self.successResultOf(self.scheduler.stop())
        self.clock.advance(30)
        self.successResultOf(self.enrolment.leave())
        self.restart()
        self.assertEqual(self.attempts_after(2), 1)

    def test_its_age_counts_from_its_release(self) -> None:
        """Warnings and the end come as if it had come in then."""
        self.transport.script.extend({0: GREYLISTED} for _ in range(100))
        id = self.send("b@b.test", hold_s=10 * self.DAY_S)
        self.turn(10 * self.DAY_S + 3500)
        self.assertNotIn(("delayed", "b@b.test"), self.events(id))
        self.turn(400)
        self.assertIn(("delayed", "b@b.test"), self.events(id))
        self.turn(self.DAY_S - 4500)
        self.assertNotIn(("expired", "b@b.test"), self.events(id))
        self.turn(700)
        self.assertIn(("expired", "b@b.test"), self.events(id))
        report = next(one for one in self.transport.sent if b"Action: failed" in one)
        self.assertIn(b"\r\nFuture-Release-Request: for;864000\r\n", report)

    def test_its_age_counts_from_its_release_after_a_restart(self) -> None:
        self.send("b@b.test", hold_s=10 * self.DAY_S)
        self.turn(5 * self.DAY_S)
        self.restart()
        [entry] = self.scheduler.entries(self.spool.ids()[0])
        release = START + 10 * self.DAY_S
        self.assertEqual(
            (entry.due_at, entry.expires_at, entry.warn_at),
            (release, release + RETRY.max_age_s, release + 3600),
        )

    def test_a_release_that_has_passed_by_the_end_of_the_data(self) -> None:
        id = self.send("b@b.test", hold_s=-1)
        self.assertEqual(self.events(id)[-1][0], "delivered")

    def test_it_does_not_make_the_queue_old(self) -> None:
        self.send("b@b.test", hold_s=1000)
        self.assertEqual(self.scheduler.depth().oldest_arrived_at, 0.0)
        self.transport.script.append({0: GREYLISTED})
        self.turn(100)
        self.send("b@b.test")
        self.assertEqual(self.scheduler.depth().oldest_arrived_at, START + 100)

    def test_what_people_see(self) -> None:
        id = self.send("b@b.test", hold_s=1000)
        found = self.successResultOf(self.spool.statuses(id))
        alone = Desk(self.spool, self.ledger, self.clock.seconds, None)
        for here in (self.desk, alone):
            row = here.row(found)
            self.assertEqual(row["state"], "scheduled")
            self.assertEqual(row["recipients"][0]["next_attempt_at"], START + 1000)
        [standing] = self.desk.standing(found)
        self.assertEqual(standing["why"], "scheduled for 2023-11-14 22:30:00Z")

    def test_people_may_be_quicker(self) -> None:
        """Who names the message; not who tries all that waits, nor another routing."""
        id = self.send("b@b.test", hold_s=1000)
        found = self.successResultOf(self.spool.statuses(id))
        self.assertFalse(self.successResultOf(self.desk.retry_released(found)))
        slices = self.desk.retry_all()
        assert slices is not None
        self.assertEqual(sum(slices), 0)
        self.assertEqual(self.attempts_after(1), 0)
        self.assertTrue(self.successResultOf(self.desk.retry(found)))
        self.assertEqual(self.attempts_after(1), 1)

    def test_held_and_released(self) -> None:
        """A person's hand on it does not make it earlier."""
        id = self.send("b@b.test", hold_s=1000)
        for _ in range(2):
            found = self.successResultOf(self.spool.statuses(id))
            self.successResultOf(self.desk.hold(found))
            self.assertEqual(self.attempts_after(100), 0)
            self.assertTrue(self.successResultOf(self.desk.release(found)))
            self.assertEqual(self.attempts_after(100), 0)
            self.restart()
        self.assertEqual(self.attempts_after(590), 0)
        self.assertEqual(self.attempts_after(20), 1)


class RequireTlsTests(FlowCase):
    """Mail that requires TLS (RFC 8689)."""

    def test_what_its_own_domain_says_counts(self) -> None:
        """Two domains of one site, one of them without proof."""
        for authentic in ({"b.test"}, set[str]()):
            self.authentic = authentic
            self.send("b@b.test", requires_tls=True)
        self.assertEqual([one.site.is_authentic for one in self.transport.attempts], [True, False])

    def test_a_lookup_that_fails_by_then(self) -> None:
        self.transport.script.append({0: GREYLISTED})
        id = self.send("b@b.test", requires_tls=True)
        asked: list[NextHop] = []
        no_dns = TransientFailure(Scope.SITE, TABLE["dns-failed"])

        def locate(hop: NextHop) -> Deferred[Site | TransientFailure | PermanentFailure]:
            asked.append(hop)
            return succeed(no_dns)

        self.patch(self.dispatcher, "_locate", locate)
        self.turn(310)
        self.assertEqual(len(asked), 1)
        self.assertEqual(self.events(id)[-1], ("deferred", "b@b.test"))
        self.assertEqual(self.told[-1]["reply"]["enhanced"], "4.4.3")

    def test_a_lookup_that_breaks(self) -> None:
        self.patch(self.dispatcher, "_locate", lambda hop: 1 / 0)
        id = self.send("b@b.test", requires_tls=True)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events(id), [("received", "b@b.test")])
        self.patch(self.dispatcher, "_locate", self.locate)
        self.turn(310)
        self.assertEqual(self.events(id)[-1], ("delivered", "b@b.test"))

    def test_a_bounce_requires_what_its_parent_did(self) -> None:
        """Its body stays here (RFC 8689, 5)."""
        self.transport.script.append({0: UNKNOWN})
        self.send("b@b.test", requires_tls=True)
        envelope = self.transport.attempts[-1].content.message.envelope
        self.assertEqual((envelope.sender, envelope.requires_tls), (NULL, True))
        self.transport.script.append({0: UNKNOWN})
        self.send("b@b.test")
        envelope = self.transport.attempts[-1].content.message.envelope
        self.assertEqual((envelope.sender, envelope.requires_tls), (NULL, False))


class RoutingTests(FlowCase):
    """A routing table that changes while mail waits."""

    def test_waiting_mail_takes_the_new_way(self) -> None:
        """At its next attempt, and each recipient by itself."""
        self.transport.script.append({0: GREYLISTED, 1: GREYLISTED})
        id = self.send("b@b.test", "c@b.test")
        hops = {"b@b.test": NextHop("mx", "new.test"), "c@b.test": NextHop("mx", "b.test")}
        self.dispatcher.route_by(lambda address, message: hops[address])
        self.turn(310)
        self.assertEqual(
            sorted((one.domain, one.recipients) for one in self.transport.attempts[1:]),
            [("b.test", (1,)), ("new.test", (0,))],
        )
        self.assertEqual(sorted(e["id"] for e in self.told[-2:]), [f"{id}.0.2", f"{id}.1.2"])


class BounceTests(FlowCase):
    """DSNs, and when there are none."""

    def dsn(self) -> Any:
        return email.message_from_bytes(self.transport.sent[-1])

    def test_the_sender_is_told(self) -> None:
        """From the null reverse-path, about the original; it is a message like any other."""
        self.transport.script.append({0: UNKNOWN})
        id = self.send("b@b.test")
        attempt = self.transport.attempts[-1]
        envelope = attempt.content.message.envelope
        self.assertEqual(envelope.sender, NULL)
        self.assertEqual([one.address for one in envelope.recipients], ["a@a.test"])
        report = self.dsn()
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report["In-Reply-To"], "<1@a.test>")
        bounced = next(e for e in self.told if e["event"] == "bounced")
        self.assertEqual(bounced["dsn"], attempt.content.message.id)
        self.assertEqual(bounced["message_id"], id)
        self.assertEqual(self.spool.ids(), [])

    def test_the_end_and_the_bounce_are_one_batch(self) -> None:
        """Nothing lies between them for a crash to fall into."""
        self.transport.script.append({0: UNKNOWN})
        self.send("b@b.test")
        names = [[type(one).__name__ for one in b.operations] for b in self.spool.batches]
        self.assertEqual(names, [["Append"], ["End", "Append"], ["End"]])

    def test_never_about_a_bounce(self) -> None:
        self.transport.script.append({0: UNKNOWN})
        id = self.send("b@b.test", sender="")
        self.assertEqual(self.told[-1]["event"], "bounced")
        self.assertEqual(self.told[-1]["dsn"], "none")
        self.assertEqual(self.told[-1]["message_id"], id)
        self.assertEqual(self.spool.ids(), [])

    def test_never_where_nobody_wants_it(self) -> None:
        self.transport.script.append({0: UNKNOWN})
        self.send(Recipient(Address("b@b.test"), Notify.NEVER))
        self.assertEqual((self.told[-1]["event"], self.told[-1]["dsn"]), ("bounced", "none"))

    def test_success_where_it_is_asked_for(self) -> None:
        """The next hop does not know DSNs, so that ours says relayed (RFC 3461, 5.2.2)."""
        self.send(Recipient(Address("b@b.test"), Notify.SUCCESS))
        self.assertIn(b"Action: relayed", self.transport.sent[-1])

    def test_expired(self) -> None:
        """The last attempt is made at the greatest age, and then the message is returned."""
        self.transport.script += [{0: GREYLISTED}] * 100
        id = self.send("b@b.test")
        self.turn(86_390)
        self.assertEqual(self.events(id)[-1][0], "deferred")
        self.transport.script.clear()
        self.transport.script.append({0: GREYLISTED})
        self.turn(30)
        self.assertEqual(self.events(id)[-1][0], "expired")
        self.assertIn(b"Status: 5.4.7", self.transport.sent[-1])

    def test_expired_behind_a_dead_site(self) -> None:
        """Age is looked at in every state, not only after an attempt."""
        down = TransientFailure(Scope.SITE, Reply(451, "4.4.3", ("no DNS",)))
        self.missing["b.test"] = down
        id = self.send("b@b.test")
        self.turn(86_500)
        self.assertEqual(self.events(id)[-1][0], "expired")

    def test_no_room_for_a_dsn(self) -> None:
        """What was delivered is told all the same, and not sent again; what failed waits until its
        sender can be told."""
        never: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.transport.script.append(never)
        id = self.send("b@b.test", "c@b.test")
        self.spool.is_full = True
        never.callback([(0, TAKEN), (1, UNKNOWN)])
        self.assertEqual(len(self.flushLoggedErrors(SpoolFull)), 1)
        self.assertEqual(self.events(id)[2:], [("delivered", "b@b.test")])
        self.spool.is_full = False
        self.transport.script.append({1: UNKNOWN})
        self.turn(310)
        self.assertEqual(self.transport.attempts[1].recipients, (1,))
        self.assertEqual(self.events(id)[3:], [("bounced", "c@b.test")])

    def test_no_delay_is_told_after_a_fate(self) -> None:
        """Mail that is due and late at once, as after the machine has slept, is tried first."""
        self.transport.script += [
            {0: GREYLISTED},
            {1: GREYLISTED},
            {1: GREYLISTED},
            {1: GREYLISTED},
        ]
        id = self.send("b@b.test", "c@c.test")
        self.clock.advance(3700)
        self.assertEqual(
            [event for event, recipient in self.events(id) if recipient == "b@b.test"],
            ["received", "deferred", "delivered"],
        )
        self.assertEqual(
            [event for event, recipient in self.events(id) if recipient == "c@c.test"],
            ["received", "deferred", "deferred", "delayed"],
        )

    def test_delay_is_told_once(self) -> None:
        self.transport.script += [{0: GREYLISTED}] * 5
        id = self.send("b@b.test")
        self.turn(3650)
        self.assertEqual([event for event, _ in self.events(id)].count("delayed"), 1)
        self.assertIn(b"Action: delayed", self.transport.sent[-1])
        self.restart()
        self.turn(3650)
        self.assertEqual([event for event, _ in self.events(id)].count("delayed"), 1)


class RestartTests(FlowCase):
    """What a process finds that another one left."""

    def test_what_waited_waits_on(self) -> None:
        self.transport.script.append({0: GREYLISTED})
        id = self.send("b@b.test")
        self.restart()
        self.turn(290)
        self.assertEqual(len(self.transport.attempts), 1)
        self.turn(20)
        self.assertEqual(self.events(id)[-1], ("delivered", "b@b.test"))
        self.assertEqual(self.told[-1]["id"], f"{id}.0.2")

    def test_an_attempt_cut_off_is_not_repeated_at_once(self) -> None:
        """A crash loop does not hammer a peer: the next due time was stored first."""
        never: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.transport.script += [{0: GREYLISTED}, never]
        self.send("b@b.test")
        self.turn(310)
        self.assertEqual(len(self.transport.attempts), 2)
        self.restart()
        self.turn(200)
        self.assertEqual(len(self.transport.attempts), 2)
        self.turn(500)
        self.assertEqual(len(self.transport.attempts), 3)

    def test_untried_after_a_crash(self) -> None:
        """It waits, since it may be what brought us down; after an orderly end it need not."""
        self.successResultOf(self.scheduler.stop())
        self.send("b@b.test")
        self.restart()
        self.turn(200)
        self.assertEqual(self.transport.attempts, [])
        self.turn(110)
        self.assertEqual(len(self.transport.attempts), 1)

    def test_untried_after_an_orderly_end(self) -> None:
        self.successResultOf(self.scheduler.stop())
        self.send("b@b.test")
        self.successResultOf(self.enrolment.leave())
        self.restart()
        self.turn(2)
        self.assertEqual(len(self.transport.attempts), 1)

    def test_recipients_keep_their_own_fates(self) -> None:
        self.transport.script.append({1: GREYLISTED})
        self.send("b@b.test", "c@b.test")
        self.restart()
        self.turn(310)
        self.assertEqual(self.transport.attempts[-1].recipients, (1,))


class DoorTests(FlowCase):
    """What is said to senders when the house cannot take a message."""

    def reply(self, *, content: bytes = b"Subject: x\r\n\r\n") -> Reply:
        envelope = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))
        arriving = self.acceptance.begin(envelope, Origin("smtp"), lambda id, at: b"")
        if isinstance(arriving, Reply):
            return arriving
        arriving.write(content)
        return self.successResultOf(arriving.finish())

    def test_full(self) -> None:
        self.spool.is_full = True
        self.assertEqual(self.reply(), TABLE["spool-full"])

    def test_failed(self) -> None:
        self.spool.is_failed = True
        self.assertEqual(self.reply(), TABLE["spool-failed"])
        self.assertEqual(self.lines, [])

    def test_loop(self) -> None:
        """A hundred Received fields are a loop (RFC 5321, 6.3)."""
        hop = b"Received: by x.test\r\n"
        self.assertEqual(self.reply(content=hop * 100 + b"\r\n"), TABLE["routing-loop"])
        self.assertEqual(self.reply(content=hop * 98 + b"\r\n").code, 250)


class DeskTests(FlowCase):
    """Hands in the queue, each durable before it is said to be done."""

    def setUp(self) -> None:
        super().setUp()
        self.transport.script.append({0: GREYLISTED})
        self.sent_id = self.send("b@b.test")

    def found(self, choice: Chosen = Chosen()) -> list[Any]:  # noqa: B008
        looked = [self.successResultOf(each) for each in self.desk.chosen(choice)]
        return [one for one in looked if one is not None]

    def row(self) -> dict[str, Any]:
        [found] = self.found()
        return self.desk.row(found)

    def test_listed(self) -> None:
        row = self.row()
        self.assertEqual(
            (row["id"], row["state"], row["sender"]), (self.sent_id, "deferred", "a@a.test")
        )
        self.assertEqual(
            row["recipients"],
            [
                {
                    "address": "b@b.test",
                    "state": "deferred",
                    "attempts": 1,
                    "next_attempt_at": START + 300,
                    "cause": "450 4.7.1 greylisted",
                }
            ],
        )

    def test_chosen(self) -> None:
        """By id, by domain of an open recipient, by state."""
        for choice, count in [
            (Chosen((self.sent_id,)), 1),
            (Chosen(domain="B.test"), 1),
            (Chosen(domain="c.test"), 0),
            (Chosen(state="deferred"), 1),
            (Chosen(state="held"), 0),
        ]:
            self.assertEqual(len(self.found(choice)), count, choice)

    def test_unknown(self) -> None:
        self.assertRaises(NotFound, list, self.desk.chosen(Chosen(("nonsense",))))
        other = QueueId("0" * 26)
        [looking] = self.desk.chosen(Chosen((other,)))
        self.failureResultOf(looking, NotFound)

    def test_no_attempt_is_promised_of_what_is_held(self) -> None:
        """Whether the service runs or not; nor of what is set aside."""
        alone = Desk(self.spool, self.ledger, self.clock.seconds, None)

        def told() -> list[tuple[str, float | None]]:
            [found] = self.found()
            said = []
            for here in (self.desk, alone):
                [recipient], [part] = here.row(found)["recipients"], here.standing(found)
                self.assertEqual(part["recipients"], [recipient["address"]])
                said += [(one["state"], one["next_attempt_at"]) for one in (recipient, part)]
            return said

        self.assertEqual(told(), [("deferred", START + 300)] * 4)
        self.successResultOf(self.desk.hold(self.found()[0]))
        self.assertEqual(told(), [("held", None)] * 4)
        self.spool.damage(self.sent_id)
        self.assertEqual(told(), [("corrupt", None)] * 4)

    def test_why_it_stands_still(self) -> None:
        """In the same form whether the service runs or not, and in the same words where that is not
        what it waits for."""
        alone = Desk(self.spool, self.ledger, self.clock.seconds, None)

        def told() -> list[str]:
            [found] = self.found()
            [running], [still] = self.desk.standing(found), alone.standing(found)
            self.assertEqual(list(running), list(still))
            return [running["why"], still["why"]]

        self.assertEqual(told()[1], "the service is not running")
        self.successResultOf(self.desk.hold(self.found()[0]))
        self.assertEqual(told(), ["held until it is released"] * 2)
        self.spool.damage(self.sent_id)
        self.assertEqual(told(), ["damaged on the disk, and set aside"] * 2)

    def test_held_and_released(self) -> None:
        """Held mail is not tried, over a restart too; released, it goes at once."""
        [found] = self.found()
        self.assertTrue(self.successResultOf(self.desk.hold(found)))
        self.turn(400)
        self.assertEqual(len(self.transport.attempts), 1)
        self.restart()
        self.turn(400)
        self.assertEqual(self.row()["state"], "held")
        [found] = self.found()
        self.assertTrue(self.successResultOf(self.desk.release(found)))
        self.turn(1)
        self.assertEqual(
            [event for event, _ in self.events(self.sent_id)],
            ["received", "deferred", "held", "released", "delivered"],
        )
        self.assertEqual([e["id"][-1] for e in self.told], ["0", "1", "2", "3", "4"])

    def test_retried(self) -> None:
        [found] = self.found()
        self.assertTrue(self.successResultOf(self.desk.retry(found)))
        self.turn(1)
        self.assertEqual(self.events(self.sent_id)[-1][0], "delivered")

    def test_all_retried(self) -> None:
        """In slices, so that nobody waits for a long queue to be gone through."""
        self.transport.script.extend({0: GREYLISTED} for _ in range(6))
        for _ in range(6):
            self.send("b@b.test")
        [first, *_] = self.found()
        self.successResultOf(self.desk.hold(first))
        self.patch(desk, "SLICE", 3)
        slices = self.desk.retry_all()
        assert slices is not None
        self.assertEqual(next(slices), 2)  # and the held one
        self.turn(1)
        self.assertEqual(len(self.spool.ids()), 5)
        self.assertEqual(list(slices), [3, 1])
        self.turn(1)
        self.assertEqual(list(self.spool.ids()), [first.message.id])

    def test_all_retried_while_nothing_runs(self) -> None:
        alone = Desk(self.spool, self.desk._ledger, self.clock.seconds, None)
        self.assertIsNone(alone.retry_all())

    def test_removed(self) -> None:
        """Nobody is told but the journal."""
        [found] = self.found()
        self.assertTrue(self.successResultOf(self.desk.remove(found)))
        self.assertEqual(self.told[-1]["event"], "removed")
        self.assertNotIn("dsn", self.told[-1])
        self.assertEqual(self.spool.ids(), [])
        self.turn(400)
        self.assertEqual(len(self.transport.attempts), 1)

    def test_bounced(self) -> None:
        [found] = self.found()
        self.assertTrue(self.successResultOf(self.desk.bounce(found)))
        self.assertIn(b"Status: 5.7.0", self.transport.sent[-1])
        self.assertEqual(self.spool.ids(), [])

    def test_removed_while_it_is_tried(self) -> None:
        """What the attempt delivers is delivered, what it leaves is gone."""
        at_work: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.transport.script.append(at_work)
        id = self.send("c@b.test", "d@b.test")
        [found] = self.found(Chosen((id,)))
        self.successResultOf(self.desk.remove(found))
        at_work.callback([(0, TAKEN), (1, GREYLISTED)])
        self.assertEqual(
            sorted(self.events(id)[2:]), [("delivered", "c@b.test"), ("removed", "d@b.test")]
        )

    def test_held_while_it_is_tried(self) -> None:
        at_work: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.transport.script.append(at_work)
        id = self.send("c@b.test")
        [found] = self.found(Chosen((id,)))
        self.successResultOf(self.desk.hold(found))
        at_work.callback([(0, GREYLISTED)])
        self.turn(400)
        self.assertEqual([event for event, _ in self.events(id)], ["received", "deferred", "held"])
        self.restart()
        self.turn(400)
        self.assertEqual(self.desk.row(self.found(Chosen((id,)))[0])["state"], "held")

    def test_damaged(self) -> None:
        """Shown as corrupt, tried and returned no more; a person can end it."""
        self.spool.damage(self.sent_id)
        self.turn(400)
        self.assertEqual(len(self.transport.attempts), 1)
        self.assertEqual(self.row()["state"], "corrupt")
        [found] = self.found(Chosen(state="corrupt"))
        self.assertFalse(self.successResultOf(self.desk.bounce(found)))
        self.assertTrue(self.successResultOf(self.desk.remove(found)))
        self.assertEqual(self.told[-1]["event"], "removed")
        self.assertEqual(self.spool.ids(), [])
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_incoming(self) -> None:
        """What a client is sending is shown, and gone when the client is."""
        envelope = Envelope(Address("x@a.test"), (Recipient(Address("y@b.test")),))
        arriving = self.acceptance.begin(envelope, Origin("smtp"), lambda id, at: b"X: y\r\n")
        assert isinstance(arriving, Arriving)
        self.desk = Desk(
            self.spool,
            self.ledger,
            self.clock.seconds,
            self.scheduler,
            lambda: self.acceptance.arriving,
        )
        arriving.write(b"Subject:")
        [row] = self.desk.incoming()
        self.assertEqual(
            (row["id"], row["state"], row["sender"], row["size_octets"]),
            (arriving.id, "incoming", "x@a.test", 14),
        )
        arriving.abort()
        self.assertEqual(self.desk.incoming(), [])

    def test_without_a_service(self) -> None:
        """The same hands, on a spool that nobody else has open."""
        self.desk = Desk(self.spool, self.ledger, self.clock.seconds, None)
        self.ledger.accepted = lambda message, status: None
        [found] = self.found()
        self.successResultOf(self.desk.hold(found))
        self.assertEqual(self.row()["state"], "held")
        [found] = self.found()
        self.successResultOf(self.desk.release(found))
        self.assertEqual(self.row()["state"], "deferred")
        [found] = self.found()
        self.successResultOf(self.desk.bounce(found))
        self.assertEqual([row["sender"] for row in map(self.desk.row, self.found())], [""])
