"""What the public SMTP listeners may do: the policies behind :class:`~..model.ports.Door`."""

from __future__ import annotations

from collections.abc import Callable

from ..model.account import ScramVerifier
from ..model.envelope import Envelope, Origin, Recipient
from ..model.ports import Events, Intake, MailCommand, Peer, Proof
from ..model.reply import TABLE, Reply
from .limits import Limits
from .relaying import Relaying

Begin = Callable[[Peer, Envelope, Origin], Intake | Reply]
"""Opens the way into the spool for one message."""


class SmtpDoor:
    """Answers for every listener of kind ``smtp``.

    :ivar relaying: replaced as a whole when the configuration is read again.
    """

    def __init__(self, relaying: Relaying, limits: Limits, events: Events, begin: Begin) -> None:
        self.relaying = relaying
        self._limits = limits
        self._events = events
        self._begin = begin

    def opened(self, peer: Peer) -> Reply | None:
        return self._limits.opened(peer)

    def closed(self, peer: Peer) -> None:
        self._limits.closed(peer)

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        raise RuntimeError(f"SCRAM on listener {peer.listener}, which offers no AUTH")

    def login(self, peer: Peer, proof: Proof) -> Reply:
        return TABLE["not-implemented"]

    def sender(self, peer: Peer, mail: MailCommand) -> Reply:
        refusal = self._limits.message(peer)
        if refusal is None:
            return TABLE["sender-ok"]
        self._events.rejected(peer, mail.envelope.sender, "", refusal)
        return refusal

    def recipient(self, peer: Peer, mail: MailCommand, recipient: Recipient) -> Reply:
        reply = self.relaying.judge(peer, recipient.address)
        if reply.code >= 400:
            self._events.rejected(peer, mail.envelope.sender, recipient.address, reply)
        return reply

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        relaying = self.relaying
        may_relay = relaying.may_relay(peer)
        origin = Origin("smtp", peer.identity, peer.address, may_sign=may_relay)
        return self._begin(peer, relaying.readdressed(envelope), origin)
