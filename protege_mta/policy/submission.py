"""What the submission listeners may do: RFC 6409, and what an account is allowed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from ..model.account import Account, ScramVerifier
from ..model.address import NULL, Address
from ..model.envelope import Envelope, Origin, Recipient
from ..model.ports import About, Accounts, Events, Intake, MailCommand, Peer, Proof
from ..model.reply import TABLE, Reply
from .addresses import addresses
from .authorship import completed, may_claim
from .door import Begin
from .header_first import HeaderFirst, about
from .limits import Limits
from .pass_through import PassThrough
from .relaying import Relaying
from .usage import Reservation, Usage

IsSuppressed = Callable[[Address, str], Reply | None]


class Logins(Protocol):
    """Checks what clients say with AUTH, as the methods of a :class:`~..model.ports.Door` do, and
    tells of what it refuses."""

    def scram(self, peer: Peer, name: str) -> ScramVerifier: ...

    def login(self, peer: Peer, proof: Proof) -> Reply | Deferred[Reply]: ...


@attrs.define(eq=False)
class _Transaction:
    """What is known between MAIL and the end of the content.

    :ivar account: None for a peer that may send for where it comes from; it has no reservation.
    """

    account: Account | None
    reservation: Reservation | None
    recipients: set[Address] = attrs.field(factory=set)


class SubmissionDoor:
    """Answers for every listener of kind ``submission`` and ``submissions``.

    The place that a transaction holds in its account's limits is free again when the message is
    refused or broken off, and, since nobody is told of RSET, at the connection's next MAIL or end
    at the latest.

    :param now: POSIX seconds, for Date.
    :param new_message_id: makes a Message-ID, with its angle brackets.
    :ivar relaying: replaced as a whole when the configuration is read again.
    :ivar is_suppressed: why nothing is sent to an address for a tenant, if so.
    :ivar pass_through: as :attr:`.door.SmtpDoor.pass_through`.
    """

    def __init__(
        self,
        relaying: Relaying,
        limits: Limits,
        events: Events,
        begin: Begin,
        *,
        accounts: Accounts,
        logins: Logins,
        usage: Usage,
        now: Callable[[], float],
        new_message_id: Callable[[], str],
    ) -> None:
        self.relaying = relaying
        self.pass_through: PassThrough | None = None
        self._limits = limits
        self._events = events
        self._begin = begin
        self._accounts = accounts
        self._logins = logins
        self._usage = usage
        self._now = now
        self._new_message_id = new_message_id
        self.is_suppressed: IsSuppressed = lambda address, tenant: None
        self._transactions: dict[Peer, _Transaction] = {}
        self._sending: dict[str, set[Peer]] = {}  # who has said MAIL, by account

    def opened(self, peer: Peer) -> Reply | None:
        return self._limits.opened(peer)

    def closed(self, peer: Peer) -> None:
        self._limits.closed(peer)
        self._forget(peer)
        if self.pass_through is not None:
            self.pass_through.closed(peer)
        sending = self._sending.get(peer.identity)
        if sending is not None:
            sending.discard(peer)
            if not sending:
                del self._sending[peer.identity]

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        return self._logins.scram(peer, name)

    def login(self, peer: Peer, proof: Proof) -> Reply | Deferred[Reply]:
        return self._logins.login(peer, proof)

    def sender(self, peer: Peer, mail: MailCommand) -> Reply:
        self._forget(peer)
        sender = mail.envelope.sender
        account = self._accounts.get(peer.identity) if peer.identity else None
        reply = self._judge_sender(peer, account, sender)
        return self._told(peer, account, sender, "", reply)

    def recipient(self, peer: Peer, mail: MailCommand, recipient: Recipient) -> Reply:
        pass_through = self.pass_through if self.relaying.has_pass_through else None
        if pass_through is None:
            reply = self._judge_recipient(peer, recipient.address)
        else:
            passed = self.relaying.is_passed_through(recipient)
            refusal = pass_through.refusal(peer, mail, passed)
            reply = refusal or self._judge_recipient(peer, recipient.address)
            if reply.code < 400:
                pass_through.accepted(peer, mail, passed)
        account = self._transactions[peer].account
        return self._told(peer, account, mail.envelope.sender, recipient.address, reply)

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        transaction = self._transactions[peer]
        account = transaction.account
        origin = Origin(
            "submission",
            peer.identity,
            peer.address,
            may_sign=True,
            tenant=_tenant(account),
            tls=peer.tls,
        )
        intake = self._begin(peer, self.relaying.readdressed(envelope), origin)
        if isinstance(intake, Reply):  # DATA may be said again
            return self._told(peer, account, envelope.sender, "", intake)
        del self._transactions[peer]
        return HeaderFirst(
            intake,
            partial(self._complete, account, envelope.sender),
            partial(self._ended, peer, envelope.sender, transaction),
        )

    # --- judgement -------------------------------------------------------------------------------

    def _judge_sender(self, peer: Peer, account: Account | None, sender: Address) -> Reply:
        reservation = None
        if peer.identity:
            if account is None:  # it is gone since AUTH
                return TABLE["login-required"]
            if not self._may_connect(account, peer):
                return TABLE["too-many-connections"]
            if not _may_send_as(account, sender):
                return TABLE["sender-not-allowed"]
        elif not self.relaying.may_relay(peer):
            return TABLE["login-required"]
        refusal = self._limits.message(peer)
        if refusal is not None:
            return refusal
        if account is not None:
            reservation = self._usage.begin(account.name, account.limits)
            if reservation is None:
                return TABLE["rate-limited"]
        self._transactions[peer] = _Transaction(account, reservation)
        return TABLE["sender-ok"]

    def _may_connect(self, account: Account, peer: Peer) -> bool:
        sending = self._sending.setdefault(account.name, set())
        most = account.limits.connections
        if most and len(sending) >= most and peer not in sending:
            return False
        sending.add(peer)
        return True

    def _judge_recipient(self, peer: Peer, address: Address) -> Reply:
        reply = self._limits.recipient(peer) or self.relaying.judge(peer, address)
        transaction = self._transactions[peer]
        account, reservation = transaction.account, transaction.reservation
        if reply.code < 400:
            reply = self.is_suppressed(address, _tenant(account)) or reply
        if reply.code >= 400 or account is None or reservation is None:
            return reply
        if account.allowed_to and address not in addresses(account.allowed_to):
            return TABLE["recipient-not-allowed"]
        if account.denied_to and address in addresses(account.denied_to):
            return TABLE["recipient-not-allowed"]
        if address in transaction.recipients:  # one copy, however often it is named
            return reply
        most = account.limits.recipients
        if most and len(transaction.recipients) >= most:
            return TABLE["too-many-recipients"]
        if not reservation.add_recipient():
            return TABLE["rate-limited"]
        transaction.recipients.add(address)
        return reply

    def _complete(self, account: Account | None, sender: Address, fields: bytes) -> bytes | Reply:
        """The header section as it is queued, or why the message is not."""
        allowed_from = account.allowed_from if account is not None else ()
        if allowed_from and not may_claim(addresses(allowed_from), fields):
            return TABLE["from-not-allowed"]
        return completed(fields, sender, at=self._now(), message_id=self._new_message_id())

    # --- accounting ------------------------------------------------------------------------------

    def _ended(
        self,
        peer: Peer,
        sender: Address,
        transaction: _Transaction,
        reply: Reply | None,
        fields: bytes,
    ) -> None:
        reservation = transaction.reservation
        if reservation is not None:
            if reply is not None and reply.code < 300:
                reservation.settle()
            else:
                reservation.release()
        if reply is not None and reply.code >= 400:
            known = about(fields, _tenant(transaction.account))
            self._events.rejected(peer, sender, "", reply, known)

    def _forget(self, peer: Peer) -> None:
        transaction = self._transactions.pop(peer, None)
        if transaction is not None and transaction.reservation is not None:
            transaction.reservation.release()

    def _told(
        self, peer: Peer, account: Account | None, sender: str, recipient: str, reply: Reply
    ) -> Reply:
        if reply.code >= 400:
            self._events.rejected(peer, sender, recipient, reply, About(tenant=_tenant(account)))
        return reply


def _tenant(account: Account | None) -> str:
    return account.tenant if account is not None else ""


def _may_send_as(account: Account, sender: Address) -> bool:
    """Whether the reverse-path is the account's.

    The null one is anybody's: programs that read mail send reports about it (RFC 5321, 4.5.5; RFC
    8098, 3).  Their From is held to the rule all the same.
    """
    allowed_from = account.allowed_from
    return not allowed_from or sender == NULL or sender in addresses(allowed_from)
