"""What the public SMTP listeners may do: the policies behind :class:`~..model.ports.Door`."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from ..model.account import ScramVerifier
from ..model.address import Address
from ..model.envelope import Envelope, Origin, Recipient
from ..model.ports import Events, Intake, MailCommand, Peer, Proof
from ..model.reply import TABLE, Reply
from .guard import Guard
from .limits import Limits
from .pass_through import PassThrough
from .relaying import Relaying
from .tarpit import Tarpit

Begin = Callable[[Peer, Envelope, Origin], Intake | Reply]
"""Opens the way into the spool for one message."""


class SmtpDoor:
    """Answers for every listener of kind ``smtp``.

    :ivar relaying: replaced as a whole when the configuration is read again.
    :ivar guard: likewise; None where nothing is asked of strangers.
    :ivar pass_through: keeps mail for agents that is never kept apart from the rest; None where
        there are none.
    :ivar is_return_path: whether an address is a signed return path of ours that is still good, or
        a forged one; None for any other.
    :ivar begin_stranger: likewise; opens the way for their messages.
    """

    def __init__(
        self,
        relaying: Relaying,
        limits: Limits,
        events: Events,
        begin: Begin,
        *,
        tarpit: Tarpit,
    ) -> None:
        self.relaying = relaying
        self.guard: Guard | None = None
        self.pass_through: PassThrough | None = None
        self._limits = limits
        self._events = events
        self._begin = self.begin_stranger = begin
        self._tarpit = tarpit
        self.is_return_path: Callable[[Address], bool | None] = lambda address: None

    def opened(self, peer: Peer) -> Reply | None:
        refusal = self._limits.opened(peer)
        if refusal is not None:
            return refusal
        if self.guard is not None and not self.relaying.may_relay(peer):
            self.guard.opened(peer)
        return None

    def closed(self, peer: Peer) -> None:
        self._limits.closed(peer)
        self._tarpit.closed(peer)
        if self.pass_through is not None:
            self.pass_through.closed(peer)
        if self.guard is not None:
            self.guard.closed(peer)

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        raise RuntimeError(f"SCRAM on listener {peer.listener}, which offers no AUTH")

    def login(self, peer: Peer, proof: Proof) -> Reply:
        return TABLE["not-implemented"]

    def sender(self, peer: Peer, mail: MailCommand) -> Reply:
        refusal = self._limits.message(peer)
        if refusal is not None:
            self._events.rejected(peer, mail.envelope.sender, "", refusal)
            return refusal
        if self.guard is not None:
            self.guard.mail(peer)
        return TABLE["sender-ok"]

    def recipient(
        self, peer: Peer, mail: MailCommand, recipient: Recipient
    ) -> Reply | Deferred[Reply]:
        refusal = self._limits.recipient(peer)
        if refusal is not None:
            return self._refuse(peer, mail, recipient, refusal)
        guard = self.guard
        if guard is None:
            return self._apart(peer, mail, recipient, self._judge(peer, mail, recipient))
        waiting = guard.ready(peer)
        if waiting is None:
            return self._judge_stranger(guard, peer, mail, recipient)
        return waiting.addCallback(lambda _: self._judge_stranger(guard, peer, mail, recipient))

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        relaying = self.relaying
        may_relay = relaying.may_relay(peer)
        origin = Origin("smtp", peer.identity, peer.address, may_sign=may_relay, tls=peer.tls)
        begin = self._begin if may_relay else self.begin_stranger
        return begin(peer, relaying.readdressed(envelope), origin)

    def _judge_stranger(
        self, guard: Guard, peer: Peer, mail: MailCommand, recipient: Recipient
    ) -> Reply | Deferred[Reply]:
        refusal = guard.refusal(peer, recipient)
        if refusal is not None:
            return self._refuse(peer, mail, recipient, refusal)
        reply = self._judge(peer, mail, recipient)
        if isinstance(reply, Reply) and reply.code < 400:
            refusal = guard.patience(peer, mail, recipient)
            if refusal is not None:
                return self._refuse(peer, mail, recipient, refusal)
        return self._apart(peer, mail, recipient, reply)

    def _apart(
        self,
        peer: Peer,
        mail: MailCommand,
        recipient: Recipient,
        reply: Reply | Deferred[Reply],
    ) -> Reply | Deferred[Reply]:
        """The reply, unless the recipient would be accepted and may not be with those before it."""
        relaying, pass_through = self.relaying, self.pass_through
        if (
            pass_through is None
            or not relaying.has_pass_through
            or not isinstance(reply, Reply)
            or reply.code >= 400
        ):
            return reply
        passed = relaying.is_passed_through(recipient)
        refusal = pass_through.refusal(peer, mail, passed)
        if refusal is not None:
            return self._refuse(peer, mail, recipient, refusal)
        pass_through.accepted(peer, mail, passed)
        return reply

    def _judge(
        self, peer: Peer, mail: MailCommand, recipient: Recipient
    ) -> Reply | Deferred[Reply]:
        is_ours = self.is_return_path(recipient.address)
        if is_ours is None:
            reply = self.relaying.judge(peer, recipient.address)
        else:
            reply = TABLE["recipient-ok" if is_ours else "no-such-user"]
        if reply.code < 400:
            return reply
        if reply is not TABLE["no-such-user"] or self.relaying.may_relay(peer):
            return self._refuse(peer, mail, recipient, reply)
        answer = self._tarpit.refusal(peer, reply)
        if answer is TABLE["too-many-unknown"]:
            self._limits.strike(peer)
            return self._refuse(peer, mail, recipient, answer)
        self._refuse(peer, mail, recipient, reply)
        return answer

    def _refuse(self, peer: Peer, mail: MailCommand, recipient: Recipient, reply: Reply) -> Reply:
        self._events.rejected(peer, mail.envelope.sender, recipient.address, reply)
        return reply
