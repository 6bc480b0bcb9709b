"""A gateway's mail on its way to the relay."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.hop import Site
from protege_mta.model.identity import Identity
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Attempt, HopAbilities, Prepared
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Stream
from protege_mta.testing.sessions import FakeSession, FakeSessions
from protege_mta.transport.tunnel import AWAY, TunnelTransport

ID = QueueId("01k5vz4m00abcdefgh00000001")
KEY = Identity("a" * 51 + "q")
TAKEN = Delivered(Contact("relay.test", "192.0.2.1"), Reply(250, "2.0.0", ("queued",)))
CONTENT = b"Subject: x\r\n\r\nhello\r\n"


@attrs.define
class Content:
    message: Message
    octets: bytes = CONTENT

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        return self.octets[offset : len(self.octets) if size < 0 else offset + size]

    def close(self) -> None: ...


def message(recipients: int = 1, sender: str = "me@home.test", **more: Any) -> Message:
    envelope = Envelope(
        Address(sender),
        tuple(Recipient(Address(f"r{n}@b.test")) for n in range(recipients)),
        **more,
    )
    return Message(ID, envelope, Origin("submission"), 1000.0, len(CONTENT))


class TransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.session = FakeSession(KEY)
        self.sessions = FakeSessions({KEY: self.session})
        self.transport = TunnelTransport(self.sessions)
        self.asked: list[HopAbilities] = []
        self.prepared: Any = Prepared()

    def prepare(self, abilities: HopAbilities) -> Any:
        self.asked.append(abilities)
        return self.prepared

    def deliver(self, it: Message, *recipients: int) -> Any:
        site = Site(f"tunnel:{KEY}", "tunnel")
        return self.transport.deliver(
            Attempt(site, KEY, Content(it), recipients or (0,), self.prepare)
        )

    def test_one_stream_a_recipient(self) -> None:
        delivering = self.deliver(message(3), 0, 2)
        self.assertEqual(
            [sent.stream for sent in self.session.sent],
            [
                Stream("me@home.test", "r0@b.test", None, f"{ID}.0", len(CONTENT)),
                Stream("me@home.test", "r2@b.test", None, f"{ID}.2", len(CONTENT)),
            ],
        )
        self.assertEqual(self.session.sent[1].content, CONTENT)
        refused = PermanentFailure(Scope.RECIPIENT, Reply(550, "5.1.1", ("nobody",)))
        self.session.sent[1].outcome.callback(refused)
        self.assertNoResult(delivering)
        self.session.sent[0].outcome.callback(TAKEN)
        self.assertEqual(self.successResultOf(delivering), [(0, TAKEN), (2, refused)])

    def test_the_name_of_a_request_is_the_same_in_each_attempt(self) -> None:
        """After a restart, too: it is made of what is in the spool."""
        for _ in range(2):
            self.transport = TunnelTransport(self.sessions)
            self.deliver(message())
        names = {sent.stream.request_id for sent in self.session.sent}
        self.assertEqual(names, {f"{ID}.0"})

    def test_without_a_session_all_wait_for_one(self) -> None:
        """The failure is the site's, so that what follows does not try in vain."""
        self.sessions.there.clear()
        self.assertEqual(
            self.successResultOf(self.deliver(message(2), 0, 1)),
            [(n, AWAY) for n in (0, 1)],
        )
        self.assertEqual(self.asked, [])

    def test_a_session_that_goes_while_we_sign(self) -> None:
        self.prepared = Deferred()
        delivering = self.deliver(message())
        self.sessions.there.clear()
        self.prepared.callback(Prepared())
        ((_, outcome),) = self.successResultOf(delivering)
        self.assertEqual(outcome, AWAY)

    def test_null_sender(self) -> None:
        self.deliver(message(sender=NULL))
        self.assertEqual(self.session.sent[0].stream.sender, "")

    def test_signatures_go_first(self) -> None:
        self.prepared = Prepared(b"DKIM-Signature: x\r\n", is_eight_bit=False)
        self.deliver(message())
        (sent,) = self.session.sent
        self.assertEqual(sent.content, b"DKIM-Signature: x\r\n" + CONTENT)
        self.assertEqual(sent.stream.size_octets, len(sent.content))
        self.assertEqual(self.asked, [HopAbilities(has_8bitmime=True, has_smtputf8=True)])

    def test_what_cannot_be_prepared_is_returned(self) -> None:
        self.prepared = Reply(550, "5.6.3", ("no form would do",))
        ((_, outcome),) = self.successResultOf(self.deliver(message()))
        self.assertEqual(outcome, PermanentFailure(Scope.MESSAGE, self.prepared))

    def test_a_bug_of_ours_is_nobodys_bounce(self) -> None:
        self.prepared = None  # which has no octets
        ((_, outcome),) = self.successResultOf(self.deliver(message()))
        self.assertEqual(outcome, TransientFailure(Scope.MESSAGE, TABLE["local-error"]))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_many_recipients_take_turns(self) -> None:
        self.deliver(message(25), *range(25))
        self.assertEqual(len(self.session.sent), 10)
        self.session.sent[0].outcome.callback(TAKEN)
        self.assertEqual(len(self.session.sent), 11)

    def test_what_requires_tls_is_returned(self) -> None:
        ((_, outcome),) = self.successResultOf(self.deliver(message(requires_tls=True)))
        assert isinstance(outcome, PermanentFailure)
        self.assertEqual(outcome.cause.enhanced, "5.7.30")

    def test_close_waits_for_what_is_at_work(self) -> None:
        self.successResultOf(self.transport.close())
        self.deliver(message())
        closing = self.transport.close()
        self.assertNoResult(closing)
        self.session.sent[0].outcome.callback(TAKEN)
        self.successResultOf(closing)

    def test_a_cut_tunnel_is_gone_on_with_where_nothing_can_double(self) -> None:
        """An original relay may have sent it on: that one is tried as late as any."""
        lost = TransientFailure(Scope.HOST, Reply(451, "4.4.2", ("lost",)))
        for is_reliable, scope in ((True, Scope.HOST), (False, Scope.MESSAGE)):
            self.session.is_reliable = is_reliable
            delivering = self.deliver(message())
            self.session.sent[-1].outcome.callback(lost)
            ((_, outcome),) = self.successResultOf(delivering)
            self.assertEqual(outcome, TransientFailure(scope, lost.cause))

    def test_a_relay_that_is_full_is_left_alone(self) -> None:
        full = TransientFailure(Scope.RECIPIENT, Reply(450, "4.3.1", ("full",)))
        delivering = self.deliver(message())
        self.session.sent[-1].outcome.callback(full)
        ((_, outcome),) = self.successResultOf(delivering)
        self.assertEqual(outcome, TransientFailure(Scope.SITE, full.cause))

    def test_a_session_that_raises_costs_nobody_else_anything(self) -> None:
        self.patch(FakeSession, "send", lambda session, stream, octets: 1 / 0)
        ((_, outcome),) = self.successResultOf(self.deliver(message()))
        self.assertEqual(outcome, TransientFailure(Scope.RECIPIENT, TABLE["local-error"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
