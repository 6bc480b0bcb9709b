"""Recipients whose mail is passed through and others, at the doors that both come to."""

from __future__ import annotations

from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import AccountLimits
from protege_mta.model.address import NULL, Address
from protege_mta.model.caller import Caller
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.identity import identity_of
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import Contact, Delivered
from protege_mta.model.ports import MailCommand, Peer
from protege_mta.model.reply import TABLE, Reply, name_of
from protege_mta.model.tally import Tally
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.policy.door import SmtpDoor
from protege_mta.policy.greylist import Greylist, GreylistSettings
from protege_mta.policy.guard import Guard
from protege_mta.policy.limits import Limits, LimitSettings
from protege_mta.policy.pass_through import PassThrough, PassThroughSettings
from protege_mta.policy.relaying import AgentMailboxes, Mailboxes, Relaying
from protege_mta.policy.sending import SendingPolicy
from protege_mta.policy.submission import SubmissionDoor
from protege_mta.policy.tarpit import Tarpit
from protege_mta.policy.usage import Usage
from protege_mta.testing.contacts import MemoryContacts
from protege_mta.testing.sessions import FakeAgents, FakeSession, FakeSessions
from protege_mta.testing.smtp_dialog import Client
from protege_mta.testing.zones import ZoneResolver
from protege_mta.transport.agent import stream_to_agent

ANNA: Final = identity_of(b"\1" * 32)
TO_ANNA: Final = f"{ANNA}@pass.test"
NOTHING: Final = cast(Any, None)


class Case(SynchronousTestCase):
    """``TO_ANNA`` is passed through, ``x@box.test`` is queued."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(6000)
        now = self.clock.seconds
        self.sessions = FakeSessions({ANNA: FakeSession(ANNA)})
        self.relaying = Relaying(
            {
                "pass.test": AgentMailboxes(FakeAgents({TO_ANNA: ANNA}), self.sessions, False),
                "box.test": Mailboxes(frozenset({"x"})),
            },
            {},
            NULL,
        )
        self.lines: list[bytes] = []
        self.events = EventLines(now, self.lines.append, Counts())
        self.limits = Limits(LimitSettings(), now)
        self.pass_through = PassThrough(
            NOTHING,
            NOTHING,
            self.events,
            PassThroughSettings(room_octets=1, message_octets=1),
            clock=self.clock,
            now=now,
            new_id=NOTHING,
            stream=NOTHING,
            told=NOTHING,
        )

    def answer(self, answer: Reply | Deferred[Reply]) -> str:
        return name_of(self.successResultOf(answer) if isinstance(answer, Deferred) else answer)


class SmtpDoorTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.door = SmtpDoor(
            self.relaying,
            self.limits,
            self.events,
            NOTHING,
            tarpit=Tarpit(5, self.clock, Tally()),
        )
        self.door.pass_through = self.pass_through
        self.peer = Peer("198.51.100.7", 40000, "mx", "s-1")

    def rcpt(self, *recipients: str) -> list[str]:
        """One transaction."""
        mail = MailCommand(Envelope(Address("a@a.test"), ()))
        return [
            self.answer(self.door.recipient(self.peer, mail, Recipient(Address(one))))
            for one in recipients
        ]

    def test_the_later_one_comes_by_itself(self) -> None:
        self.assertEqual(
            self.rcpt(TO_ANNA, "x@box.test", TO_ANNA),
            ["recipient-ok", "comes-by-itself", "recipient-ok"],
        )
        self.assertEqual(
            self.rcpt("x@box.test", TO_ANNA, "x@box.test"),
            ["recipient-ok", "comes-by-itself", "recipient-ok"],
        )
        self.assertEqual(len(self.lines), 2)

    def test_who_was_not_accepted_decides_nothing(self) -> None:
        self.assertEqual(self.rcpt("y@box.test", TO_ANNA), ["no-such-user", "recipient-ok"])
        self.sessions.there.clear()
        self.assertEqual(self.rcpt(TO_ANNA, "x@box.test"), ["agent-away", "recipient-ok"])

    def test_nor_who_was_put_off(self) -> None:
        """A greylisted recipient is not in the transaction."""
        resolver = ZoneResolver("$ORIGIN test.\n$TTL 300\n")
        greylist = Greylist(GreylistSettings(), self.clock.seconds)
        self.door.guard = Guard(resolver, self.clock, helo="off", lists=None, greylist=greylist)
        self.door.opened(self.peer)
        self.assertEqual(self.rcpt(TO_ANNA, "x@box.test"), ["greylisted", "greylisted"])
        self.clock.advance(400)
        self.assertEqual(self.rcpt("x@box.test", TO_ANNA), ["recipient-ok", "comes-by-itself"])
        self.assertEqual(self.rcpt(TO_ANNA, "x@box.test"), ["recipient-ok", "comes-by-itself"])

    def test_nothing_is_remembered_of_who_has_gone(self) -> None:
        self.door.opened(self.peer)
        self.rcpt(TO_ANNA)
        self.door.closed(self.peer)
        self.assertEqual(self.pass_through._ways, {})


class SubmissionDoorTests(Case):
    def test_the_later_one_comes_by_itself(self) -> None:
        """And does not count for the account."""
        caller = Caller(
            identity="bot", scopes=frozenset({"send"}), limits=AccountLimits(recipients=2)
        )
        seconds = self.clock.seconds
        door = SubmissionDoor(
            self.relaying,
            self.limits,
            self.events,
            NOTHING,
            caller={"bot": caller}.get,
            logins=NOTHING,
            sending=SendingPolicy(Usage(seconds), MemoryContacts(seconds), seconds),
            now=self.clock.seconds,
            new_message_id=NOTHING,
        )
        door.pass_through = self.pass_through
        peer = Peer("198.51.100.7", 40000, "submission", "s-1", identity="bot")
        door.opened(peer)
        mail = MailCommand(Envelope(Address("a@a.test"), ()))
        self.assertEqual(door.sender(peer, mail), TABLE["sender-ok"])
        self.assertEqual(
            [
                name_of(door.recipient(peer, mail, Recipient(Address(one))))
                for one in ("a@else.test", TO_ANNA, "b@else.test", "c@else.test")
            ],
            ["recipient-ok", "comes-by-itself", "recipient-ok", "too-many-recipients"],
        )
        door.closed(peer)
        self.assertEqual(self.pass_through._ways, {})


class ConversationTests(SynchronousTestCase):
    """What a client of the public door hears of mail that is passed through."""

    def setUp(self) -> None:
        self.clock = Clock()
        now = self.clock.seconds
        self.session = FakeSession(ANNA)
        agents, sessions = FakeAgents({TO_ANNA: ANNA}), FakeSessions({ANNA: self.session})
        events = EventLines(now, lambda line: None, Counts())
        pass_through = PassThrough(
            agents,
            sessions,
            events,
            PassThroughSettings(room_octets=1000, message_octets=1000),
            clock=self.clock,
            now=now,
            new_id=lambda: QueueId("01hzzzzzzz0000000000000001"),
            stream=lambda message, index, size: stream_to_agent(message, index, size, None),
            told=lambda content, done: None,
        )
        door = SmtpDoor(
            Relaying({"pass.test": AgentMailboxes(agents, sessions, False)}, {}, NULL),
            Limits(LimitSettings(), now),
            events,
            lambda peer, envelope, origin: pass_through.begin(
                peer, envelope, origin, lambda id, at: b""
            ),
            tarpit=Tarpit(5, self.clock, Tally()),
        )
        door.pass_through = pass_through
        self.client = Client(door)
        self.client.say(
            b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\n"
            b"RCPT TO:<%b>\r\nDATA\r\n" % TO_ANNA.encode()
        )

    def test_nothing_until_the_agent_has_it(self) -> None:
        self.assertEqual(self.client.say(b"Subject: Hi\r\n\r\nHello.\r\n.\r\n"), b"")
        (sent,) = self.session.sent
        self.assertEqual(sent.content, b"Subject: Hi\r\n\r\nHello.\r\n")
        sent.outcome.callback(Delivered(Contact("agent"), TABLE["ok"]))
        self.assertEqual(
            self.client.hear(), b"250 2.0.0 ok, passed on as 01hzzzzzzz0000000000000001\r\n"
        )

    def test_who_hangs_up_while_the_agent_takes_it_comes_again(self) -> None:
        """So that the stream is given up."""
        self.client.say(b"Subject: Hi\r\n\r\nHello.\r\n.\r\n")
        self.assertFalse(self.session.sent[0].outcome.called)
        self.client.connection.connectionLost()
        self.assertTrue(self.session.sent[0].outcome.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_breaks_off_leaves_nothing(self) -> None:
        self.client.say(b"Subject: Hi\r\n")
        self.client.connection.connectionLost()
        self.assertEqual(self.session.sent, [])
