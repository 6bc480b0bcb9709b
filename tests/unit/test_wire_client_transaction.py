"""One mail transaction: what is asked for, and what each answer comes to."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import NULL, Address
from protege_mta.model.envelope import Envelope, Notify, Recipient
from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.reply import Reply
from protege_mta.wire.abilities import Abilities
from protege_mta.wire.client import Awaited, our_reply
from protege_mta.wire.transaction import Step, Transaction, Turn

MX = Contact("mx.b.test", "192.0.2.1")
ALL = Abilities(
    has_pipelining=True,
    size_octets=0,
    has_8bitmime=True,
    has_smtputf8=True,
    has_dsn=True,
    has_enhanced_codes=True,
)
PIPELINED = Abilities(has_pipelining=True)
OLD = Abilities()

OK = Reply(250, "2.0.0", ("ok",))
GO = Reply(354, "", ("go",))
SOFT = Reply(450, "4.2.0", ("later",))
HARD = Reply(550, "5.1.1", ("no",))
BYE = Reply(421, "4.3.2", ("closing",))
FULL = Reply(452, "4.5.3", ("too many recipients",))
NONE = Reply(554, "5.5.1", ("no valid recipients",))
LOST = our_reply("4.4.2", "connection lost")


def envelope_to(*recipients: str | Recipient, sender: str = "a@a.test") -> Envelope:
    return Envelope(
        Address(sender),
        tuple(r if isinstance(r, Recipient) else Recipient(Address(r)) for r in recipients),
    )


def begun(
    *recipients: str,
    abilities: Abilities = PIPELINED,
    is_lmtp: bool = False,
    needs_reset: bool = False,
) -> Transaction:
    transaction = Transaction(
        envelope_to(*recipients),
        tuple(range(len(recipients))),
        abilities,
        100,
        MX,
        is_lmtp=is_lmtp,
        needs_reset=needs_reset,
    )
    transaction.begin()
    return transaction


def told(transaction: Transaction, *replies: Reply) -> list[Step]:
    """Feed replies; the content is sent when its turn comes."""
    steps = []
    for reply in replies:
        step = transaction.reply(reply)
        if step is Turn.CONTENT:
            transaction.content_sent()
        steps.append(step)
    return steps


class AskingTests(SynchronousTestCase):
    """What a transaction says."""

    def first(
        self,
        envelope: Envelope,
        abilities: Abilities,
        *,
        is_eight_bit: bool = False,
        recipients: Sequence[int] = (0,),
    ) -> Step:
        transaction = Transaction(
            envelope, recipients, abilities, 100, MX, is_eight_bit=is_eight_bit
        )
        return transaction.begin()

    def test_pipelined(self) -> None:
        self.assertEqual(
            self.first(envelope_to("b@b.test", "c@b.test"), PIPELINED, recipients=(0, 1)),
            b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n",
        )

    def test_only_the_recipients_asked_for(self) -> None:
        self.assertEqual(
            self.first(envelope_to("b@b.test", "c@b.test"), PIPELINED, recipients=(1,)),
            b"MAIL FROM:<a@a.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n",
        )

    def test_one_at_a_time(self) -> None:
        transaction = Transaction(envelope_to("b@b.test", "c@b.test"), (0, 1), OLD, 100, MX)
        self.assertEqual(transaction.begin(), b"MAIL FROM:<a@a.test>\r\n")
        self.assertEqual(
            told(transaction, OK, OK, OK, GO, OK),
            [
                b"RCPT TO:<b@b.test>\r\n",
                b"RCPT TO:<c@b.test>\r\n",
                b"DATA\r\n",
                Turn.CONTENT,
                Turn.END,
            ],
        )

    def test_groups(self) -> None:
        """A hundred commands at a time, and DATA behind the last."""
        transaction = Transaction(
            envelope_to(*(f"{n}@b.test" for n in range(150))), range(150), PIPELINED, 100, MX
        )
        first = transaction.begin()
        assert isinstance(first, bytes)
        self.assertEqual(first.count(b"\r\n"), 100)
        second = told(transaction, *[OK] * 100)[-1]
        assert isinstance(second, bytes)
        self.assertEqual(second.count(b"\r\n"), 52)
        self.assertTrue(second.endswith(b"RCPT TO:<149@b.test>\r\nDATA\r\n"))

    def test_parameters(self) -> None:
        envelope = Envelope(
            Address("a@a.test"),
            (
                Recipient(Address("b@b.test"), Notify.SUCCESS | Notify.DELAY, "rfc822;b+40b.test"),
                Recipient(Address("c@b.test"), Notify.NEVER),
            ),
            body="8BITMIME",
            is_smtputf8=True,
            ret="HDRS",
            envid="QQ1",
        )
        self.assertEqual(
            self.first(envelope, ALL, is_eight_bit=True, recipients=(0, 1)),
            b"MAIL FROM:<a@a.test> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ1\r\n"
            b"RCPT TO:<b@b.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+40b.test\r\n"
            b"RCPT TO:<c@b.test> NOTIFY=NEVER\r\nDATA\r\n",
        )

    def test_no_parameter_that_was_not_offered(self) -> None:
        envelope = Envelope(
            NULL,
            (Recipient(Address("b@b.test"), Notify.NEVER, "rfc822;b@b.test"),),
            body="8BITMIME",
            is_smtputf8=True,
            ret="FULL",
            envid="QQ1",
        )
        self.assertEqual(
            self.first(envelope, PIPELINED, is_eight_bit=True),
            b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n",
        )

    def test_smtputf8_addresses(self) -> None:
        self.assertEqual(
            self.first(envelope_to("dömi@b.test"), ALL),
            "MAIL FROM:<a@a.test> SIZE=100 SMTPUTF8\r\nRCPT TO:<dömi@b.test>\r\nDATA\r\n".encode(),
        )

    def test_smtputf8_original_recipient_at_another_hop(self) -> None:
        """RFC 6533, 3: the form with escapes."""
        recipient = Recipient(Address("b@b.test"), orcpt="utf-8;dömi@b.test")
        abilities = attrs.evolve(ALL, has_smtputf8=False)
        first = self.first(envelope_to(recipient), abilities)
        assert isinstance(first, bytes)
        self.assertIn(b" ORCPT=utf-8;d\\x{F6}mi@b.test\r\n", first)

    def test_reset_goes_ahead(self) -> None:
        transaction = Transaction(
            envelope_to("b@b.test"), (0,), PIPELINED, 100, MX, needs_reset=True
        )
        self.assertEqual(
            transaction.begin(),
            b"RSET\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n",
        )
        told(transaction, OK, OK, OK, GO, OK)
        self.assertFalse(transaction.needs_reset)

    def test_no_line_end_slips_through(self) -> None:
        """Whatever came past the doors, an address is never two commands."""
        for address in ("b@b.test>\r\nDATA\r\n", "b@b.test\n", "b\r@b.test"):
            transaction = Transaction(envelope_to(address), (0,), PIPELINED, 100, MX)
            self.assertRaises(RuntimeError, transaction.begin)


class UnsendableTests(SynchronousTestCase):
    """What the hop's EHLO alone settles."""

    def outcomes(self, envelope: Envelope, abilities: Abilities) -> list[tuple[int, Outcome]]:
        indexes = range(len(envelope.recipients))
        transaction = Transaction(envelope, indexes, abilities, 100, MX)
        self.assertIs(transaction.begin(), Turn.END)
        return transaction.outcomes

    def test_too_big(self) -> None:
        """RFC 1870, 6.1: not even tried."""
        reply = Reply(552, "5.3.4", ("message exceeds the size limit of the next hop",))
        self.assertEqual(
            self.outcomes(envelope_to("b@b.test", "c@b.test"), Abilities(size_octets=99)),
            [
                (0, PermanentFailure(Scope.MESSAGE, reply, MX)),
                (1, PermanentFailure(Scope.MESSAGE, reply, MX)),
            ],
        )

    def test_just_small_enough(self) -> None:
        transaction = Transaction(
            envelope_to("b@b.test"), (0,), Abilities(size_octets=100), 100, MX
        )
        self.assertEqual(transaction.begin(), b"MAIL FROM:<a@a.test> SIZE=100\r\n")

    def test_tls_required_of_who_does_not_know_it(self) -> None:
        """RFC 8689, 4.2.1; whoever opened this connection should have seen it before."""
        envelope = attrs.evolve(envelope_to("b@b.test"), requires_tls=True)
        [(_, outcome)] = self.outcomes(envelope, PIPELINED)
        assert isinstance(outcome, PermanentFailure)
        self.assertEqual(outcome.cause.enhanced, "5.7.30")
        abilities = attrs.evolve(PIPELINED, has_requiretls=True)
        transaction = Transaction(envelope, (0,), abilities, 100, MX)
        first = transaction.begin()
        assert isinstance(first, bytes)
        self.assertTrue(first.startswith(b"MAIL FROM:<a@a.test> REQUIRETLS\r\n"))

    def test_addresses_beyond_ascii(self) -> None:
        reply = Reply(553, "5.6.7", ("the next hop does not take SMTPUTF8 addresses",))
        self.assertEqual(
            self.outcomes(envelope_to("b@b.test", sender="dömi@a.test"), PIPELINED),
            [(0, PermanentFailure(Scope.MESSAGE, reply, MX))],
        )
        self.assertEqual(
            self.outcomes(envelope_to("dömi@b.test"), PIPELINED),
            [(0, PermanentFailure(Scope.RECIPIENT, reply, MX))],
        )

    def test_one_address_beyond_ascii_among_others(self) -> None:
        envelope = envelope_to("dömi@b.test", "b@b.test")
        transaction = Transaction(envelope, (0, 1), PIPELINED, 100, MX)
        self.assertEqual(
            transaction.begin(), b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n"
        )
        told(transaction, OK, OK, GO, OK)
        self.assertEqual([index for index, _ in transaction.outcomes], [0, 1])


class AnswersTests(SynchronousTestCase):
    """What replies come to."""

    def test_delivered(self) -> None:
        transaction = begun("b@b.test", "c@b.test")
        final = Reply(250, "2.0.0", ("queued as 1",))
        self.assertEqual(
            told(transaction, OK, OK, OK, GO, final),
            [Turn.WAIT, Turn.WAIT, Turn.WAIT, Turn.CONTENT, Turn.END],
        )
        self.assertEqual(
            transaction.outcomes, [(0, Delivered(MX, final)), (1, Delivered(MX, final))]
        )
        self.assertEqual((transaction.cause, transaction.needs_reset), (None, False))

    def test_relayed(self) -> None:
        """Only to a hop with DSN, and only for who asked for SUCCESS (RFC 3461, 5.2.2)."""
        envelope = envelope_to(
            Recipient(Address("b@b.test"), Notify.SUCCESS | Notify.FAILURE),
            Recipient(Address("c@b.test"), Notify.FAILURE),
            "d@b.test",
        )
        for abilities, is_relayed in ((ALL, [True, False, False]), (PIPELINED, [False] * 3)):
            transaction = Transaction(envelope, (0, 1, 2), abilities, 100, MX)
            transaction.begin()
            told(transaction, OK, OK, OK, OK, GO, OK)
            self.assertEqual(
                transaction.outcomes,
                [(n, Delivered(MX, OK, is_relayed=is_relayed[n])) for n in range(3)],
            )

    def test_recipients_answered_differently(self) -> None:
        transaction = begun("b@b.test", "c@b.test", "d@b.test")
        told(transaction, OK, SOFT, OK, HARD, GO, OK)
        self.assertEqual(
            transaction.outcomes,
            [
                (0, TransientFailure(Scope.RECIPIENT, SOFT, MX)),
                (2, PermanentFailure(Scope.RECIPIENT, HARD, MX)),
                (1, Delivered(MX, OK)),
            ],
        )

    def test_sender_refused(self) -> None:
        """It is the message's fate, whatever the rest of the group is told."""
        for reply, outcome in (
            (SOFT, TransientFailure(Scope.SENDER, SOFT, MX)),
            (HARD, PermanentFailure(Scope.SENDER, HARD, MX)),
        ):
            transaction = begun("b@b.test", "c@b.test")
            bad = Reply(503, "5.5.1", ("MAIL first",))
            self.assertEqual(
                told(transaction, reply, bad, bad, bad)[1:], [Turn.WAIT, Turn.WAIT, Turn.END]
            )
            self.assertEqual(transaction.outcomes, [(0, outcome), (1, outcome)])
            self.assertFalse(transaction.needs_reset)

    def test_sender_refused_one_at_a_time(self) -> None:
        transaction = begun("b@b.test", abilities=OLD)
        self.assertEqual(told(transaction, HARD), [Turn.END])

    def test_no_recipient_accepted(self) -> None:
        """The transaction stays open at the server, and has to be reset."""
        for abilities, replies in ((PIPELINED, (OK, HARD, NONE)), (OLD, (OK, HARD))):
            transaction = begun("b@b.test", abilities=abilities)
            self.assertIs(told(transaction, *replies)[-1], Turn.END)
            self.assertEqual(
                transaction.outcomes, [(0, PermanentFailure(Scope.RECIPIENT, HARD, MX))]
            )
            self.assertTrue(transaction.needs_reset)

    def test_data_for_nobody(self) -> None:
        """354 though nobody was accepted: a lone dot, and whatever comes is ignored
        (RFC 2920, 3.1)."""
        for last in (OK, NONE):
            transaction = begun("b@b.test")
            self.assertEqual(
                told(transaction, OK, HARD, GO, last),
                [Turn.WAIT, Turn.WAIT, b".\r\n", Turn.END],
            )
            self.assertEqual(
                transaction.outcomes, [(0, PermanentFailure(Scope.RECIPIENT, HARD, MX))]
            )
            self.assertIsNone(transaction.cause)

    def test_data_for_recipients_of_a_refused_sender(self) -> None:
        """A server that makes no sense is left before it gets an empty message."""
        transaction = begun("b@b.test")
        self.assertIs(told(transaction, HARD, OK, GO)[-1], Turn.END)
        self.assertEqual(transaction.outcomes, [(0, PermanentFailure(Scope.SENDER, HARD, MX))])
        self.assertEqual(transaction.unsettled, [])
        self.assertIsNotNone(transaction.cause)

    def test_data_refused(self) -> None:
        transaction = begun("b@b.test", "c@b.test")
        told(transaction, OK, OK, HARD, SOFT)
        self.assertEqual(
            transaction.outcomes,
            [
                (1, PermanentFailure(Scope.RECIPIENT, HARD, MX)),
                (0, TransientFailure(Scope.MESSAGE, SOFT, MX)),
            ],
        )
        self.assertTrue(transaction.needs_reset)

    def test_final_dot_refused(self) -> None:
        for reply, outcome in (
            (SOFT, TransientFailure(Scope.MESSAGE, SOFT, MX)),
            (HARD, PermanentFailure(Scope.MESSAGE, HARD, MX)),
        ):
            transaction = begun("b@b.test")
            told(transaction, OK, OK, GO, reply)
            self.assertEqual(transaction.outcomes, [(0, outcome)])
            self.assertFalse(transaction.needs_reset)

    def test_too_many_recipients(self) -> None:
        """The rest goes into a further transaction (RFC 5321, 4.5.3.1.10)."""
        for reply in (
            FULL,
            Reply(452, "", ("too many",)),
            Reply(552, "", ("too many",)),
            Reply(552, "5.5.3", ("too many",)),
        ):
            transaction = begun("b@b.test", "c@b.test", "d@b.test")
            told(transaction, OK, OK, reply, reply, GO, OK)
            self.assertEqual(transaction.outcomes, [(0, Delivered(MX, OK))])
            self.assertEqual(transaction.left_over, [(1, reply), (2, reply)])

    def test_too_many_from_the_first(self) -> None:
        """Then it is that recipient's own answer, or there would be no end."""
        transaction = begun("b@b.test", "c@b.test")
        told(transaction, OK, FULL, OK, GO, OK)
        self.assertEqual(
            transaction.outcomes,
            [(0, TransientFailure(Scope.RECIPIENT, FULL, MX)), (1, Delivered(MX, OK))],
        )

    def test_a_full_mailbox_is_not_too_many(self) -> None:
        full = Reply(552, "5.2.2", ("mailbox full",))
        transaction = begun("b@b.test", "c@b.test")
        told(transaction, OK, OK, full, GO, OK)
        self.assertEqual(
            transaction.outcomes,
            [(1, PermanentFailure(Scope.RECIPIENT, full, MX)), (0, Delivered(MX, OK))],
        )

    def test_too_many_and_the_message_refused(self) -> None:
        """There is no sense in trying the others at once."""
        for replies in ((GO, HARD), (HARD,)):
            transaction = begun("b@b.test", "c@b.test")
            told(transaction, OK, OK, FULL, *replies)
            self.assertEqual(
                transaction.outcomes,
                [
                    (0, PermanentFailure(Scope.MESSAGE, HARD, MX)),
                    (1, TransientFailure(Scope.RECIPIENT, FULL, MX)),
                ],
            )
            self.assertEqual(transaction.left_over, [])


class LmtpTests(SynchronousTestCase):
    def test_a_reply_for_each_accepted_recipient(self) -> None:
        """RFC 2033, 4.2."""
        transaction = begun("b@b.test", "c@b.test", "d@b.test", is_lmtp=True)
        full = Reply(452, "4.2.2", ("mailbox full",))
        steps = told(transaction, OK, OK, HARD, OK, GO, OK, full)
        self.assertEqual(steps[-2:], [Turn.WAIT, Turn.END])
        self.assertEqual(
            transaction.outcomes,
            [
                (1, PermanentFailure(Scope.RECIPIENT, HARD, MX)),
                (0, Delivered(MX, OK, is_final=True)),
                (2, TransientFailure(Scope.RECIPIENT, full, MX)),
            ],
        )

    def test_lost_between_the_replies(self) -> None:
        """Who was answered stays answered."""
        transaction = begun("b@b.test", "c@b.test", is_lmtp=True)
        told(transaction, OK, OK, OK, GO, OK)
        transaction.broken(LOST)
        self.assertEqual(
            transaction.outcomes,
            [(0, Delivered(MX, OK, is_final=True)), (1, TransientFailure(Scope.HOST, LOST, MX))],
        )
        self.assertEqual(transaction.unsettled, [])

    def test_closing_between_the_replies(self) -> None:
        transaction = begun("b@b.test", "c@b.test", is_lmtp=True)
        told(transaction, OK, OK, OK, GO, BYE)
        self.assertEqual(
            transaction.outcomes,
            [
                (0, TransientFailure(Scope.HOST, BYE, MX)),
                (1, TransientFailure(Scope.HOST, BYE, MX)),
            ],
        )

    def test_too_many_recipients(self) -> None:
        transaction = begun("b@b.test", "c@b.test", "d@b.test", is_lmtp=True)
        told(transaction, OK, OK, OK, FULL, GO, HARD, OK)
        self.assertEqual(transaction.left_over, [(2, FULL)])
        transaction = begun("b@b.test", "c@b.test", is_lmtp=True)
        told(transaction, OK, OK, FULL, GO, HARD)
        self.assertEqual(
            transaction.outcomes,
            [
                (0, PermanentFailure(Scope.RECIPIENT, HARD, MX)),
                (1, TransientFailure(Scope.RECIPIENT, FULL, MX)),
            ],
        )

    def test_data_for_nobody(self) -> None:
        """Nobody would answer a lone dot: hang up."""
        transaction = begun("b@b.test", is_lmtp=True)
        self.assertIs(told(transaction, OK, HARD, GO)[-1], Turn.END)
        self.assertIsNotNone(transaction.cause)


class BrokenTests(SynchronousTestCase):
    """The host goes away, or makes no sense."""

    def test_closing_at_each_command(self) -> None:
        """421: nothing was accepted, so another host may be tried."""
        for replies in ((BYE,), (OK, BYE), (OK, OK, BYE), (OK, OK, GO, BYE)):
            transaction = begun("b@b.test")
            self.assertIs(told(transaction, *replies)[-1], Turn.END)
            self.assertEqual(transaction.unsettled, [0], replies)
            self.assertEqual((transaction.cause, transaction.outcomes), (BYE, []))

    def test_closing_leaves_outcomes_as_they_are(self) -> None:
        transaction = begun("b@b.test", "c@b.test", "d@b.test")
        told(transaction, OK, HARD, OK, BYE)
        self.assertEqual(transaction.outcomes, [(0, PermanentFailure(Scope.RECIPIENT, HARD, MX))])
        self.assertEqual(transaction.unsettled, [1, 2])

    def test_lost_before_the_final_dot(self) -> None:
        for replies in ((), (OK,), (OK, OK)):
            transaction = begun("b@b.test")
            told(transaction, *replies)
            transaction.broken(LOST)
            self.assertEqual((transaction.unsettled, transaction.outcomes), ([0], []))
        transaction = begun("b@b.test")
        for reply in (OK, OK, GO):
            transaction.reply(reply)
        transaction.broken(LOST)  # in the middle of the content
        self.assertEqual((transaction.unsettled, transaction.outcomes), ([0], []))

    def test_lost_after_the_final_dot(self) -> None:
        """Ambiguous: the server may have it.  Not for another host now; later again."""
        transaction = begun("b@b.test", "c@b.test")
        told(transaction, OK, OK, FULL, GO)
        transaction.broken(LOST)
        self.assertEqual(
            transaction.outcomes,
            [
                (0, TransientFailure(Scope.HOST, LOST, MX)),
                (1, TransientFailure(Scope.RECIPIENT, FULL, MX)),
            ],
        )
        self.assertEqual(transaction.unsettled, [])

    def test_out_of_step(self) -> None:
        """A reply that cannot be one to the command."""
        for replies in ((GO,), (OK, GO), (OK, OK, OK)):
            transaction = begun("b@b.test")
            self.assertIs(told(transaction, *replies)[-1], Turn.END)
            self.assertEqual(transaction.unsettled, [0])
            self.assertIsNotNone(transaction.cause)
        transaction = begun("b@b.test")
        self.assertIs(told(transaction, OK, OK, GO, GO)[-1], Turn.END)
        [(_, outcome)] = transaction.outcomes
        assert isinstance(outcome, TransientFailure)
        self.assertIs(outcome.scope, Scope.HOST)

    def test_reset_refused(self) -> None:
        transaction = begun("b@b.test", needs_reset=True)
        self.assertIs(told(transaction, HARD)[-1], Turn.END)
        self.assertEqual(transaction.unsettled, [0])

    def test_heard_enough(self) -> None:
        """A refusal in the middle of the content is the message's, and the channel is spent."""
        transaction = begun("b@b.test")
        for reply in (OK, OK, GO):
            transaction.reply(reply)
        self.assertIs(transaction.awaited, Awaited.BLOCK)
        self.assertIs(transaction.reply(HARD), Turn.END)
        self.assertEqual(transaction.outcomes, [(0, PermanentFailure(Scope.MESSAGE, HARD, MX))])
        self.assertIsNotNone(transaction.cause)

    def test_accepted_before_the_end(self) -> None:
        """2yz in the middle of the content is a promise about another message."""
        transaction = begun("b@b.test")
        for reply in (OK, OK, GO):
            transaction.reply(reply)
        self.assertIs(transaction.reply(OK), Turn.END)
        self.assertEqual((transaction.unsettled, transaction.outcomes), ([0], []))

    def test_content_cannot_be_read(self) -> None:
        transaction = begun("b@b.test", "c@b.test")
        for reply in (OK, HARD, OK, GO):
            transaction.reply(reply)
        local = Reply(451, "4.3.0", ("local error",))
        transaction.content_failed(local)
        self.assertEqual(
            transaction.outcomes,
            [
                (0, PermanentFailure(Scope.RECIPIENT, HARD, MX)),
                (1, TransientFailure(Scope.MESSAGE, local, MX)),
            ],
        )
        self.assertEqual(transaction.unsettled, [])

    def test_whether_it_has_shown_life(self) -> None:
        """A 421 or silence on a connection that had been idle is no answer yet."""
        transaction = begun("b@b.test")
        told(transaction, BYE)
        self.assertFalse(transaction.is_answered)
        transaction = begun("b@b.test")
        told(transaction, OK, BYE)
        self.assertTrue(transaction.is_answered)
