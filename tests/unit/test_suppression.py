"""Who is not written to: the list, what is learnt, and what mail on its way makes of it."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.bounce_rules import classifier
from protege_mta.model.address import Address, domain_of
from protege_mta.model.envelope import Envelope, Message, Notify, Origin, Recipient, Source
from protege_mta.model.hop import HopKind, NextHop, Site
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import Contact, Outcome, PermanentFailure, Scope, TransientFailure
from protege_mta.model.ports import StateFailed, Suppressed, Transport
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.suppression import Chosen, normalised, place_of
from protege_mta.model.suppression_file import Form, read, write
from protege_mta.policy.suppression import Suppression
from protege_mta.schedule.intake import Arriving
from protege_mta.state.suppression import StoredSuppressions
from protege_mta.testing.states import HeldDatabase
from protege_mta.testing.transports import ScriptedTransport

from .test_schedule_dispatch import DOWN, GREYLISTED, UNKNOWN, FlowCase

HOST = Contact("mx.b.test", "192.0.2.1")
BLOCKED = PermanentFailure(
    Scope.RECIPIENT, Reply(550, "5.7.1", ("blocked using zen.spamhaus.org",)), HOST
)


FORMS: tuple[Form, ...] = ("csv", "jsonl")


class NormalisedTests(SynchronousTestCase):
    """One spelling for what is one mailbox."""

    def test_spellings(self) -> None:
        for given, wanted in (
            ("Bob@Example.COM", "bob@example.com"),
            (' "bob"@example.com ', "bob@example.com"),
            ("bob+tag@example.com", "bob+tag@example.com"),
            ("bob@bücher.example", "bob@xn--bcher-kva.example"),
            ("JÖRG@xn--bcher-kva.example", "jörg@xn--bcher-kva.example"),
            ("jo\u0308rg@b.example", "jörg@b.example"),
            ("bob", None),
            ("", None),
            ("a b@c.example", None),
        ):
            self.assertEqual(normalised(given), wanted)


class StoredCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.database = HeldDatabase(Path(self.mktemp()), lambda: self.now)
        self.database.open()
        self.addCleanup(self.database.close)
        self.list = StoredSuppressions(self.database, lambda: self.now)

    def add(self, address: str, reason: str = "manual", **more: object) -> None:
        entry = Suppressed(address, reason, **more)  # type: ignore[arg-type]
        self.successResultOf(self.list.add(entry))


class StoredSuppressionsTests(StoredCase):
    """The rows, and the service's view of them."""

    def test_an_empty_list_suppresses_nobody(self) -> None:
        self.assertIsNone(self.list.find("a@b.test", ""))

    def test_what_holds_for_everybody_holds_for_each_tenant(self) -> None:
        self.add("a@b.test")
        self.add("c@b.test", tenant="t")
        found = [
            [self.list.find(address, tenant) is not None for tenant in ("", "t", "u")]
            for address in ("A@B.test", "c@b.test")
        ]
        self.assertEqual(found, [[True, True, True], [False, True, False]])

    def test_what_is_over_holds_no_more(self) -> None:
        self.add("a@b.test", until=1100.0)
        self.now = 1099.0
        self.assertIsNotNone(self.list.find("a@b.test", ""))
        self.now = 1100.0
        self.assertIsNone(self.list.find("a@b.test", ""))
        self.list.start()
        self.assertEqual(self.list.page(Chosen(), None, 10), [])

    def test_what_ends_does_not_take_the_place_of_what_does_not(self) -> None:
        """Who has unsubscribed stays so, whatever bounces behind it."""
        self.add("a@b.test", "unsubscribe")
        self.add("a@b.test", "hard_bounce", until=1100.0)
        self.now = 2000.0
        found = self.list.find("a@b.test", "")
        self.assertEqual(found and found.reason, "unsubscribe")

    def test_another_process_adds(self) -> None:
        """The command line writes to the file while the service runs."""
        self.assertIsNone(self.list.find("a@b.test", ""))
        other = HeldDatabase(self.database._folder, lambda: self.now)
        self.addCleanup(other.close)
        StoredSuppressions(other, lambda: self.now).add(Suppressed("a@b.test", "manual"))
        self.now += 1
        self.assertIsNotNone(self.list.find("a@b.test", ""))

    def test_pages(self) -> None:
        for number in range(5):
            self.add(f"{number}@b.test")
        self.add("1@c.test", tenant="t")
        first = self.list.page(Chosen(domain="b.test"), None, 3)
        rest = self.list.page(Chosen(domain="b.test"), place_of(first[-1]), 3)
        self.assertEqual([one.address[0] for one in first + rest], ["0", "1", "2", "3", "4"])
        self.assertEqual(len(self.list.page(Chosen(tenants=("t",)), None, 9)), 1)
        self.assertEqual(self.successResultOf(self.list.remove(Chosen(address="1@c.test"))), 1)
        self.assertEqual(self.list.page(Chosen(tenants=("t",)), None, 9), [])


class WithheldCase(FlowCase):
    """A dispatcher that asks the list."""

    def setUp(self) -> None:
        self.maildirs = ScriptedTransport()
        self.folder = Path(self.mktemp())
        super().setUp()

    def build(self) -> None:
        super().build()
        now = self.clock.seconds
        self.database = HeldDatabase(self.folder, now)
        self.database.open()
        self.addCleanup(self.database.close)
        self.list = StoredSuppressions(self.database, now)
        self.suppression = Suppression(
            self.list,
            is_own=lambda address: domain_of(address) == "ours.test",
            now=now,
            classify=classifier([]),
            hard_bounce_s=1000.0,
        )
        self.dispatcher.withholding = self.suppression

    def transports(self) -> dict[HopKind, Transport]:
        return {"mx": self.transport, "maildir": self.maildirs}

    def hop(self, address: Address, message: Message) -> NextHop:
        domain = domain_of(address)
        return NextHop("maildir" if domain == "ours.test" else "mx", domain)

    def locate(self, hop: NextHop) -> Deferred[object]:  # type: ignore[override]
        if hop.kind != "mx":
            found: Deferred[object] = Deferred()
            found.callback(Site(f"{hop.kind}:", hop.kind))
            return found
        return super().locate(hop)  # type: ignore[return-value]

    def hand_in(
        self,
        *recipients: str,
        source: Source = "http",
        may_sign: bool = True,
        tenant: str = "t",
        notify: Notify = Notify.UNSET,
    ) -> QueueId:
        envelope = Envelope(
            Address("a@ours.test"), tuple(Recipient(Address(one), notify) for one in recipients)
        )
        origin = Origin(source, may_sign=may_sign, tenant=tenant)
        arriving = self.acceptance.begin(envelope, origin, lambda id, at: b"X: y\r\n")
        assert isinstance(arriving, Arriving)
        arriving.write(b"Subject: Hi\r\n\r\nHello.\r\n")
        self.assertEqual(self.successResultOf(arriving.finish()).code, 250)
        return arriving.id

    def add(self, address: str, reason: str = "manual", tenant: str = "") -> None:
        self.successResultOf(self.list.add(Suppressed(address, reason, tenant)))

    def listed(self) -> list[tuple[str, str, str]]:
        return [place_of(one) for one in self.list.page(Chosen(), None, 10)]


class WithheldTests(WithheldCase):
    """Asked again before each attempt."""

    def test_a_suppressed_recipient_is_not_written_to(self) -> None:
        self.add("b@b.test", "complaint")
        id = self.hand_in("b@b.test")
        self.assertEqual(self.events(id), [("received", "b@b.test"), ("suppressed", "b@b.test")])
        self.assertEqual(self.transport.attempts, [])
        self.assertEqual(self.spool.ids(), [])
        event = self.told[-1]
        self.assertEqual((event["reason"], event["reply"]["code"]), ("complaint", 550))
        self.assertNotIn("dsn", event)
        self.assertNotIn("bounce_class", event)

    def test_whose_host_cannot_be_found_is_not_looked_for(self) -> None:
        self.missing["b.test"] = DOWN
        self.add("b@b.test")
        id = self.hand_in("b@b.test")
        self.assertEqual(self.events(id)[-1], ("suppressed", "b@b.test"))
        self.assertEqual(self.spool.ids(), [])

    def test_the_others_get_it(self) -> None:
        self.add("b@b.test")
        id = self.hand_in("a@b.test", "b@b.test", "c@b.test")
        self.assertEqual([one.recipients for one in self.transport.attempts], [(0, 2)])
        self.assertEqual(
            self.events(id)[3:],
            [("suppressed", "b@b.test"), ("delivered", "a@b.test"), ("delivered", "c@b.test")],
        )

    def test_suppressed_while_it_waited(self) -> None:
        self.transport.script += [{0: GREYLISTED}]
        id = self.hand_in("b@b.test")
        self.add("b@b.test", "unsubscribe")
        self.turn(400)
        self.assertEqual(
            self.events(id)[1:], [("deferred", "b@b.test"), ("suppressed", "b@b.test")]
        )

    def test_another_tenant_s_list_is_its_own(self) -> None:
        self.add("b@b.test", tenant="u")
        id = self.hand_in("b@b.test")
        self.assertEqual(self.events(id)[-1], ("delivered", "b@b.test"))

    def test_our_own_mailboxes_are_written_to(self) -> None:
        for reason in ("hard_bounce", "complaint"):
            self.add("b@ours.test", reason)
        id = self.hand_in("b@ours.test")
        self.assertEqual(self.events(id)[-1], ("delivered", "b@ours.test"))

    def test_but_not_where_a_person_has_said_so(self) -> None:
        for reason in ("manual", "policy", "unsubscribe"):
            self.add(f"{reason}@ours.test", "complaint")
            self.add(f"{reason}@ours.test", reason)
            id = self.hand_in(f"{reason}@ours.test")
            self.assertEqual(self.events(id)[-1], ("suppressed", f"{reason}@ours.test"))
            self.assertEqual(self.told[-1]["reason"], reason)
        self.assertEqual(self.maildirs.sent, [])
        id = self.hand_in("manual@ours.test", source="smtp", may_sign=False)
        self.assertEqual(self.events(id)[-1], ("delivered", "manual@ours.test"))

    def test_a_stranger_s_mail_is_not_withheld(self) -> None:
        """It is for a mailbox of ours that is elsewhere."""
        self.add("b@b.test")
        id = self.hand_in("b@b.test", source="smtp", may_sign=False)
        self.assertEqual(self.events(id)[-1], ("delivered", "b@b.test"))

    def test_who_sends_by_smtp_is_told_by_a_report(self) -> None:
        """RFC 5321, 6.1; and NOTIFY=NEVER says that it is not wanted (RFC 3461, 4.1)."""
        self.add("b@b.test")
        self.hand_in("b@b.test", source="sendmail")
        told = [one for one in self.told if one["event"] == "suppressed"]
        self.assertEqual(told[0]["dsn"], self.told[-2]["message_id"])
        self.assertIn(b"Action: failed", self.maildirs.sent[0])
        self.hand_in("b@b.test", source="sendmail", notify=Notify.NEVER)
        self.assertEqual(self.told[-1]["dsn"], "none")

    def test_a_list_that_cannot_be_read(self) -> None:
        """Nobody is written to who may be on it; the mail waits."""

        def broken(*arguments: object, **more: object) -> None:
            raise StateFailed("no disk")

        self.patch(self.list, "find", broken)
        id = self.hand_in("b@b.test")
        self.assertEqual(len(self.flushLoggedErrors(StateFailed)), 1)
        self.assertEqual(self.events(id), [("received", "b@b.test")])
        self.assertEqual(self.transport.attempts, [])
        self.assertEqual(self.suppression.refusal(Address("b@b.test"), ""), TABLE["local-error"])

    def test_the_door_s_answer(self) -> None:
        self.add("b@b.test", "unsubscribe")
        self.add("b@ours.test", "complaint")
        self.add("c@ours.test")
        refusal = self.suppression.refusal
        self.assertEqual(refusal(Address("B@b.test"), "t"), TABLE["suppressed-unsubscribe"])
        self.assertIsNone(refusal(Address("c@b.test"), "t"))
        self.assertIsNone(refusal(Address("b@ours.test"), "t"))
        self.assertEqual(refusal(Address("c@ours.test"), "t"), TABLE["suppressed-manual"])


class LearnedTests(WithheldCase):
    """What a bounce teaches."""

    def bounced(self, failure: Outcome, *recipients: str) -> QueueId:
        self.transport.script.append({0: failure})
        return self.hand_in(*recipients or ("b@b.test",))

    def test_a_mailbox_that_is_not_there(self) -> None:
        id = self.bounced(UNKNOWN)
        [entry] = self.list.page(Chosen(), None, 10)
        self.assertEqual(place_of(entry), ("b@b.test", "t", "hard_bounce"))
        self.assertEqual(entry.until, self.clock.seconds() + 1000)
        self.assertEqual((entry.message_id, entry.detail), (id, "550 5.1.1 no such user"))
        again = self.hand_in("b@b.test")
        self.assertEqual(self.events(again)[-1], ("suppressed", "b@b.test"))

    def test_a_block_suppresses_nobody(self) -> None:
        """That a host does not like us says nothing of who lives there."""
        self.bounced(BLOCKED)
        self.assertEqual(self.listed(), [])

    def test_a_message_that_is_refused_as_a_whole(self) -> None:
        """A reply to the data is about one recipient only where there is but one."""
        failure = PermanentFailure(Scope.MESSAGE, Reply(550, "5.1.1", ("unknown user",)), HOST)
        self.bounced(failure, "a@b.test", "b@b.test")
        self.assertEqual(self.listed(), [])
        self.bounced(failure, "a@b.test")
        self.assertEqual(self.listed(), [("a@b.test", "t", "hard_bounce")])

    def test_a_domain_that_is_not_there(self) -> None:
        self.missing["b.test"] = PermanentFailure(Scope.SITE, TABLE["no-such-domain"])
        self.hand_in("b@b.test")
        self.assertEqual(self.listed(), [("b@b.test", "t", "hard_bounce")])

    def test_our_own_fault_teaches_nothing(self) -> None:
        self.missing["b.test"] = PermanentFailure(Scope.SITE, TABLE["loops-back"])
        self.hand_in("b@b.test")
        self.assertEqual(self.listed(), [])

    def test_a_mailbox_of_ours_teaches_nothing(self) -> None:
        self.maildirs.script.append({0: UNKNOWN})
        self.hand_in("b@ours.test")
        self.assertEqual(self.listed(), [])

    def test_it_can_be_switched_off(self) -> None:
        self.suppression.hard_bounce_s = 0
        self.bounced(UNKNOWN)
        self.assertEqual(self.listed(), [])

    def test_known_before_the_fate_is_written_down(self) -> None:
        self.database.is_holding = True
        id = self.bounced(UNKNOWN)
        self.assertEqual(self.events(id), [("received", "b@b.test")])
        self.database.turn()
        self.assertEqual(self.events(id)[-1], ("bounced", "b@b.test"))

    def test_killed_between_the_list_and_the_fate(self) -> None:
        """The message is tried once more, and comes to the fate that it had: it is not withheld for
        what it has taught itself."""
        self.database.is_holding = True
        id = self.bounced(UNKNOWN)
        committed: list[object] = []

        def commit(page: object, **more: object) -> Deferred[None]:
            committed.append(page)
            return Deferred()

        self.patch(self.ledger, "commit", commit)
        self.database.turn()
        self.assertEqual((len(committed), self.listed()), (1, [("b@b.test", "t", "hard_bounce")]))
        self.transport.script.append({0: UNKNOWN})
        self.restart()
        self.turn(400)
        self.assertEqual([one for one, _ in self.events(id)], ["received", "bounced"])
        self.assertEqual(self.listed(), [("b@b.test", "t", "hard_bounce")])

    def test_killed_there_and_delivered_then(self) -> None:
        """Whoever has got it in the end is not on the list for it."""
        self.database.is_holding = True
        id = self.bounced(UNKNOWN)
        self.patch(self.ledger, "commit", lambda page, **more: Deferred())
        self.database.turn()
        self.database.is_holding = False
        self.transport.script.clear()
        self.restart()
        self.turn(400)
        self.assertEqual([one for one, _ in self.events(id)], ["received", "delivered"])
        self.assertEqual(self.listed(), [])

    def test_who_complains_of_it_does_not_get_it_again(self) -> None:
        later = TransientFailure(Scope.MESSAGE, Reply(451, "4.3.0", ("later",)), HOST)
        self.transport.script.append({0: later})
        id = self.hand_in("b@b.test")
        self.suppression.complained(Address("b@b.test"), "t", id)
        self.turn(400)
        self.assertEqual(self.events(id)[-1], ("suppressed", "b@b.test"))

    def test_a_refusal_of_the_sender(self) -> None:
        """Says nothing of the recipient, though there is but one, and whatever its words are."""
        self.bounced(PermanentFailure(Scope.SENDER, Reply(550, "5.1.1", ("no such user",)), HOST))
        self.assertEqual(self.listed(), [])

    def test_what_a_host_says_goes_out_and_comes_in_again(self) -> None:
        said = ("no such user", "go\x07 away\u2028", "j\udcfcrg")
        self.bounced(PermanentFailure(Scope.RECIPIENT, Reply(550, "5.1.1", said), HOST))
        [entry] = self.list.page(Chosen(), None, 10)
        self.assertTrue(entry.detail.isprintable())
        for form in FORMS:
            text = write([entry], form, is_first=True)
            [again] = read(text.splitlines(keepends=True), form, 0.0)
            assert isinstance(again, Suppressed)
            self.assertEqual((again.detail, again.message_id), (entry.detail, entry.message_id))

    def test_a_list_that_cannot_be_written(self) -> None:
        """The fate is not held up by it."""
        self.database.is_failed = True
        id = self.bounced(UNKNOWN)
        self.assertEqual(len(self.flushLoggedErrors(StateFailed)), 1)
        self.assertEqual(self.events(id)[-1], ("bounced", "b@b.test"))
