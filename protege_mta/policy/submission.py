"""What the submission listeners may do: RFC 6409, and what an account or a key is allowed, which
:mod:`.sending` says here as for HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred

from ..model.account import ScramVerifier
from ..model.address import Address
from ..model.caller import Caller, Flaw
from ..model.envelope import Envelope, Origin, Recipient
from ..model.ports import (
    About,
    Events,
    Intake,
    LoggedIn,
    MailCommand,
    Peer,
    Permit,
    Proof,
    Sending,
)
from ..model.reply import TABLE, Reply
from .authorship import completed
from .door import Begin
from .header_first import HeaderFirst, about
from .limits import Limits
from .pass_through import PassThrough
from .relaying import Relaying
from .sending import refusal

IsSuppressed = Callable[[Address, str], Reply | None]


class Logins(Protocol):
    """Checks what clients say with AUTH, as the methods of a :class:`~..model.ports.Door` do, and
    tells of what it refuses."""

    def scram(self, peer: Peer, name: str) -> ScramVerifier: ...

    def login(self, peer: Peer, proof: Proof) -> LoggedIn | Reply | Deferred[Reply]: ...


@attrs.define(eq=False)
class _Transaction:
    """What is known between MAIL and the end of the content.

    :ivar permit: None for a peer that may send for where it comes from.
    """

    permit: Permit | None

    @property
    def is_sandbox(self) -> bool:
        return self.permit is not None and self.permit.caller.is_sandbox

    @property
    def tenant(self) -> str:
        return "" if self.permit is None else self.permit.caller.tenant


class SubmissionDoor:
    """Answers for every listener of kind ``submission`` and ``submissions``.

    The place that a transaction holds in its sender's limits is free again when the message is
    refused or broken off, and, since nobody is told of RSET, at the connection's next MAIL or end
    at the latest.

    :param caller: who has logged in under an identity, as they are now; None where they are gone.
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
        caller: Callable[[str], Caller | None],
        logins: Logins,
        sending: Sending,
        now: Callable[[], float],
        new_message_id: Callable[[], str],
    ) -> None:
        self.relaying = relaying
        self.pass_through: PassThrough | None = None
        self._limits = limits
        self._events = events
        self._begin = begin
        self._caller = caller
        self._logins = logins
        self._sending = sending
        self._now = now
        self._new_message_id = new_message_id
        self.is_suppressed: IsSuppressed = lambda address, tenant: None
        self._transactions: dict[Peer, _Transaction] = {}
        self._connected: dict[str, set[Peer]] = {}  # who has said MAIL, by identity

    def opened(self, peer: Peer) -> Reply | None:
        return self._limits.opened(peer)

    def closed(self, peer: Peer) -> None:
        self._limits.closed(peer)
        self._forget(peer)
        if self.pass_through is not None:
            self.pass_through.closed(peer)
        connected = self._connected.get(peer.identity)
        if connected is not None:
            connected.discard(peer)
            if not connected:
                del self._connected[peer.identity]

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        return self._logins.scram(peer, name)

    def login(self, peer: Peer, proof: Proof) -> LoggedIn | Reply | Deferred[Reply]:
        return self._logins.login(peer, proof)

    def sender(self, peer: Peer, mail: MailCommand) -> Reply:
        self._forget(peer)
        sender = mail.envelope.sender
        caller = self._caller(peer.identity) if peer.identity else None
        reply = self._judge_sender(peer, caller, sender)
        return self._told(peer, "" if caller is None else caller.tenant, sender, "", reply)

    def recipient(self, peer: Peer, mail: MailCommand, recipient: Recipient) -> Reply:
        pass_through = self.pass_through if self.relaying.has_pass_through else None
        if pass_through is None or self._transactions[peer].is_sandbox:
            reply = self._judge_recipient(peer, recipient.address)
        else:
            passed = self.relaying.is_passed_through(recipient)
            reply = pass_through.refusal(peer, mail, passed) or self._judge_recipient(
                peer, recipient.address
            )
            if reply.code < 400:
                pass_through.accepted(peer, mail, passed)
        tenant = self._transactions[peer].tenant
        return self._told(peer, tenant, mail.envelope.sender, recipient.address, reply)

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        transaction = self._transactions[peer]
        permit = transaction.permit
        origin = Origin(
            "submission",
            peer.identity,
            peer.address,
            may_sign=True,
            tenant=transaction.tenant,
            tls=peer.tls,
            hold="" if permit is None else permit.hold,
            is_sandbox=transaction.is_sandbox,
        )
        intake = self._begin(peer, self.relaying.readdressed(envelope), origin)
        if isinstance(intake, Reply):  # DATA may be said again
            return self._told(peer, transaction.tenant, envelope.sender, "", intake)
        del self._transactions[peer]
        return HeaderFirst(
            intake,
            partial(self._complete, permit, envelope.sender),
            partial(self._ended, peer, envelope.sender, transaction),
        )

    # --- judgement -------------------------------------------------------------------------------

    def _judge_sender(self, peer: Peer, caller: Caller | None, sender: Address) -> Reply:
        if peer.identity:
            if caller is None:  # it is gone since AUTH
                return TABLE["login-required"]
            if not self._may_connect(caller, peer):
                return TABLE["too-many-connections"]
        elif not self.relaying.may_relay(peer):
            return TABLE["login-required"]
        permit = None
        if caller is not None:
            begun = self._sending.begin(caller, sender)
            if isinstance(begun, Flaw):
                return refusal(begun)
            permit = begun
        limited = self._limits.message(peer)
        if limited is not None:
            if permit is not None:
                permit.release()
            return limited
        self._transactions[peer] = _Transaction(permit)
        return TABLE["sender-ok"]

    def _may_connect(self, caller: Caller, peer: Peer) -> bool:
        connected = self._connected.setdefault(caller.identity, set())
        most = caller.limits.connections
        if most and len(connected) >= most and peer not in connected:
            return False
        connected.add(peer)
        return True

    def _judge_recipient(self, peer: Peer, address: Address) -> Reply:
        reply = self._limits.recipient(peer) or self.relaying.judge(peer, address)
        transaction = self._transactions[peer]
        if reply.code < 400 and not transaction.is_sandbox:  # nothing of it leaves
            reply = self.is_suppressed(address, transaction.tenant) or reply
        if reply.code >= 400 or transaction.permit is None:
            return reply
        flaw = transaction.permit.add(address)
        return reply if flaw is None else refusal(flaw)

    def _complete(self, permit: Permit | None, sender: Address, fields: bytes) -> bytes | Reply:
        """The header section as it is queued, or why the message is not."""
        flaw = None if permit is None else permit.look(fields)
        if flaw is not None:
            found = refusal(flaw)
            is_about_from = found is TABLE["sender-not-allowed"]
            return TABLE["from-not-allowed"] if is_about_from else found
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
        permit = transaction.permit
        if permit is not None:
            if reply is not None and reply.code < 300:
                permit.settle()
            else:
                permit.release()
        if reply is not None and reply.code >= 400:
            known = about(fields, transaction.tenant)
            self._events.rejected(peer, sender, "", reply, known)

    def _forget(self, peer: Peer) -> None:
        transaction = self._transactions.pop(peer, None)
        if transaction is not None and transaction.permit is not None:
            transaction.permit.release()

    def _told(self, peer: Peer, tenant: str, sender: str, recipient: str, reply: Reply) -> Reply:
        if reply.code >= 400:
            self._events.rejected(peer, sender, recipient, reply, About(tenant=tenant))
        return reply
