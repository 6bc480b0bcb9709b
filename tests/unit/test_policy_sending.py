"""What a key may send: as whom, to whom, how much, and what waits for a person."""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import AccountLimits
from protege_mta.model.address import NULL, Address
from protege_mta.model.caller import AgentPolicy, Caller, Flaw
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.policy.sending import APPROVE_ALL, APPROVE_FIRST, Permit, SendingPolicy
from protege_mta.policy.usage import Usage
from protege_mta.testing.contacts import MemoryContacts

NOON: Final = 1_790_000_000.0
FIELDS: Final = b"From: Bot <bot@a.test>\r\nTo: b@b.test\r\nSubject: Hi\r\n"


class SendingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOON
        self.contacts = MemoryContacts(lambda: self.now)
        self.sending = SendingPolicy(Usage(lambda: self.now), self.contacts, lambda: self.now)
        self.caller = Caller(identity="key:bot", scopes=frozenset({"send"}))

    def may(self, **changes: Any) -> None:
        self.caller = attrs.evolve(self.caller, **changes)

    def judge(
        self, *recipients: str, sender: str = "bot@a.test", fields: bytes = FIELDS
    ) -> Permit | Flaw:
        to = tuple(Recipient(Address(one)) for one in recipients or ("b@b.test",))
        return self.sending.judge(
            self.caller,
            Envelope(Address(sender), to),
            fields,
            members=[f"/to/{index}" for index in range(len(to))],
        )

    def permit(self, *recipients: str, **more: Any) -> Permit:
        found = self.judge(*recipients, **more)
        assert isinstance(found, Permit), found
        return found

    def flaw(self, *recipients: str, **more: Any) -> tuple[int, str, str]:
        found = self.judge(*recipients, **more)
        assert isinstance(found, Flaw)
        return found.status, found.kind, found.member


class SenderTests(SendingCase):
    REFUSED: Final = (403, "sender-not-allowed", "/from")

    def test_anybody_where_nothing_is_said(self) -> None:
        self.permit(sender="x@elsewhere.test", fields=b"From: y@elsewhere.test\r\n")

    def test_scopes(self) -> None:
        """``admin`` is everything, sending as well."""
        for scopes in ({"send"}, {"admin"}, {"read", "send"}):
            self.may(scopes=frozenset(scopes))
            self.permit()
        for scopes in ({"read"}, set()):
            self.may(scopes=frozenset(scopes))
            self.assertEqual(self.flaw(), (403, "scope-missing", ""))

    def test_envelope_from_and_sender(self) -> None:
        self.may(allowed_from=("bot@a.test", ".sub.test"))
        self.permit()
        self.permit(sender="x@y.sub.test")
        self.assertEqual(self.flaw(sender="x@a.test"), self.REFUSED)
        for fields in (
            b"From: x@a.test\r\n",
            b"From: bot@a.test, x@a.test\r\n",
            b"From: bot@a.test\r\nFrom: x@a.test\r\n",
            b"From: bot@a.test\r\nSender: x@a.test\r\n",
            b"From : x@a.test\r\n",
        ):
            self.assertEqual(self.flaw(fields=fields), self.REFUSED, fields)
            self.assertEqual(self.flaw(fields=fields + b"\r\nFrom: bot@a.test"), self.REFUSED)

    def test_which_of_the_two_is_wrong(self) -> None:
        """Where a request has a sender beside its author."""
        self.may(allowed_from=("bot@a.test",))
        for sender, fields, member in (
            ("x@a.test", FIELDS, "/envelope_sender"),
            ("bot@a.test", FIELDS.replace(b"<bot", b"<x"), "/content/from"),
        ):
            found = self.sending.judge(
                self.caller,
                Envelope(Address(sender), (Recipient(Address("b@b.test")),)),
                fields,
                from_member="/content/from",
                sender_member="/envelope_sender",
            )
            assert isinstance(found, Flaw)
            self.assertEqual((found.kind, found.member), ("sender-not-allowed", member))

    def test_reply_to_is_free(self) -> None:
        self.may(allowed_from=("bot@a.test",))
        self.permit(fields=FIELDS + b"Reply-To: boss@elsewhere.test\r\n")

    def test_null_reverse_path(self) -> None:
        """Is anybody's, but From is not."""
        self.may(allowed_from=("bot@a.test",))
        self.permit(sender=NULL)
        self.assertEqual(self.flaw(sender=NULL, fields=b"From: x@a.test\r\n"), self.REFUSED)


class RecipientTests(SendingCase):
    def test_lists(self) -> None:
        self.may(allowed_to=("b.test", "c@c.test"), denied_to=("x@b.test",))
        self.permit("b@b.test", "C@c.test")
        for wrong in ("x@b.test", "X@B.test", "d@c.test"):
            self.assertEqual(
                self.flaw("b@b.test", wrong), (403, "recipient-not-allowed", "/to/1"), wrong
            )

    def test_whom_it_is_about(self) -> None:
        """Events name the recipient, where a refusal is for one and not for their number."""
        self.may(
            denied_to=("x@b.test",),
            limits=AccountLimits(recipients=2),
            policy=AgentPolicy(first_time_per_day=1),
        )
        for recipients, whom in (
            (("b@b.test", "x@b.test"), "x@b.test"),
            (("b@b.test", "c@b.test"), "c@b.test"),
            (("b@b.test", "c@b.test", "d@b.test"), ""),
        ):
            found = self.judge(*recipients)
            assert isinstance(found, Flaw)
            self.assertEqual(found.recipient, whom, found.kind)

    def test_denied_where_all_are_allowed(self) -> None:
        self.may(denied_to=("b.test",))
        self.assertEqual(self.flaw()[1], "recipient-not-allowed")

    def test_no_bcc(self) -> None:
        self.may(policy=AgentPolicy(may_bcc=False))
        self.permit("b@b.test")
        self.permit("B@b.test", "c@c.test", fields=FIELDS + b"Cc: =?utf-8?q?C?= <c@C.test>\r\n")
        self.assertEqual(self.flaw("b@b.test", "c@c.test"), (403, "bcc-not-allowed", "/to/1"))

    def test_what_may_be_read_in_two_ways_shows_nobody(self) -> None:
        self.may(policy=AgentPolicy(may_bcc=False))
        for fields in (
            b"To: undisclosed: b@b.test;\r\n",
            b"To : b@b.test\r\n",
            b"Bcc: b@b.test\r\n",
        ):
            self.assertEqual(self.flaw(fields=fields)[1], "bcc-not-allowed", fields)

    def test_recipients_of_a_message(self) -> None:
        self.may(limits=AccountLimits(recipients=1))
        self.permit("b@b.test", "b@b.test")
        self.assertEqual(self.flaw("b@b.test", "c@b.test"), (403, "too-many-recipients", ""))


class LimitTests(SendingCase):
    def test_an_hour(self) -> None:
        self.may(limits=AccountLimits(messages_per_hour=1))
        self.permit().settle()
        found = self.judge()
        assert isinstance(found, Flaw)
        self.assertEqual((found.status, found.retry_after_s), (429, 3600))
        self.now += 3599.5
        found = self.judge()
        assert isinstance(found, Flaw)
        self.assertEqual(found.retry_after_s, 1)
        self.now += 0.5
        self.permit()

    def test_what_is_under_way_counts(self) -> None:
        self.may(limits=AccountLimits(messages_per_hour=1))
        permit = self.permit()
        self.assertEqual(self.flaw()[0], 429)
        permit.release()
        self.permit()

    def test_recipients_a_day(self) -> None:
        self.may(limits=AccountLimits(recipients_per_day=3))
        self.permit("a@b.test", "b@b.test").settle()
        self.assertEqual(self.flaw("a@b.test", "b@b.test")[:2], (429, "rate-limited"))
        self.permit("a@b.test", "a@b.test").settle()

    def test_more_than_there_ever_is(self) -> None:
        """Waiting would not help."""
        self.may(limits=AccountLimits(recipients_per_day=1))
        self.assertEqual(self.flaw("a@b.test", "b@b.test"), (403, "too-many-recipients", ""))
        self.permit()

    def test_a_refusal_takes_no_place(self) -> None:
        self.may(limits=AccountLimits(messages_per_hour=1, recipients_per_hour=1))
        self.flaw("a@b.test", "b@b.test")
        self.may(denied_to=("c.test",))
        self.flaw("c@c.test")
        self.permit()

    def test_keys_do_not_count_for_each_other(self) -> None:
        self.may(limits=AccountLimits(messages_per_hour=1))
        self.permit().settle()
        self.may(identity="key:other")
        self.permit()


class FirstTimeTests(SendingCase):
    def setUp(self) -> None:
        super().setUp()
        self.may(policy=AgentPolicy(first_time_per_day=2))

    def test_budget(self) -> None:
        self.permit("a@b.test").settle()
        self.permit("b@b.test").settle()
        found = self.judge("c@b.test")
        assert isinstance(found, Flaw)
        self.assertEqual((found.status, found.kind), (429, "first-time-limit"))
        self.assertTrue(found.retry_after_s)
        self.permit("a@b.test", "b@b.test").settle()
        self.now += 86_401
        self.permit("c@b.test")

    def test_one_message_cannot_overspend(self) -> None:
        self.assertEqual(self.flaw("a@b.test", "b@b.test", "c@b.test")[1], "first-time-limit")
        self.permit("a@b.test", "b@b.test")

    def test_what_is_under_way_counts(self) -> None:
        first = self.permit("a@b.test")
        second = self.permit("b@b.test")
        self.assertEqual(self.flaw("c@b.test")[1], "first-time-limit")
        self.permit("a@b.test").release()  # nobody new
        first.release()
        self.permit("c@b.test").settle()
        second.settle()
        self.assertEqual(self.flaw("a@b.test")[1], "first-time-limit")

    def test_state_that_cannot_be_read(self) -> None:
        self.contacts.is_broken = True
        self.assertEqual(self.flaw()[:2], (503, "unavailable"))


class ApprovalTests(SendingCase):
    def test_none(self) -> None:
        self.assertEqual(self.permit().hold, "")

    def test_all(self) -> None:
        self.may(policy=AgentPolicy(approval="all"))
        self.assertEqual(self.permit().hold, APPROVE_ALL)
        self.permit().settle()
        self.assertEqual(self.permit().hold, APPROVE_ALL)

    def test_first_time(self) -> None:
        """Another message does not get by while the first one waits."""
        self.may(policy=AgentPolicy(approval="first_time"))
        first = self.permit("a@b.test", "b@b.test")
        self.assertEqual(first.hold, APPROVE_FIRST)
        first.settle()
        self.assertEqual(self.permit("a@b.test").hold, APPROVE_FIRST)
        self.contacts.add("key:bot", [Address("a@b.test")], is_known=True)  # it was released
        self.assertEqual(self.permit("a@b.test").hold, "")
        self.assertEqual(self.permit("a@b.test", "b@b.test").hold, APPROVE_FIRST)

    def test_who_has_no_such_policy_is_not_written_down(self) -> None:
        self.permit().settle()
        self.assertEqual(self.contacts.since_at, {})
