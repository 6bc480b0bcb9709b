"""Every door's way in: a Received field, then the queue, or through to agents whose mail is not
kept."""

from __future__ import annotations

from collections.abc import Callable

from . import from_settings
from .config.model import Settings
from .message import trace
from .model.address import NULL
from .model.envelope import Envelope, Origin
from .model.ids import QueueId
from .model.ports import Arrival, Intake, Peer
from .model.reply import TABLE, Reply
from .policy.pass_through import PassThrough
from .policy.relaying import Relaying
from .schedule.intake import Acceptance
from .transport.submit import Submission
from .transport.unix import Credentials


class Entrance:
    """:ivar relaying: says which way mail goes; replaced when the configuration is read again.
    :ivar acceptance: the way into the queue; set before anything comes, as is the next.
    :ivar pass_through: the way around it.
    """

    acceptance: Acceptance
    pass_through: PassThrough

    def __init__(self, settings: Settings) -> None:
        self.relaying = Relaying({}, {}, NULL)  # until it is configured
        self.configure(settings, self.relaying)

    def configure(self, settings: Settings, relaying: Relaying) -> None:
        """Put settings into force."""
        self.relaying = relaying
        self._hostname = settings.hostname
        self._hiding = from_settings.hiding(settings)

    def smtp(self, peer: Peer, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        """For a message that comes by SMTP."""
        recipients = envelope.recipients
        helo, address = peer.helo, peer.address
        if peer.listener in self._hiding:
            helo, address = self._hostname, ""

        def received(id: QueueId, at: float) -> bytes:
            return trace.received(
                hostname=self._hostname,
                id=id,
                at=at,
                protocol=trace.protocol(
                    is_esmtp=peer.is_esmtp,
                    is_encrypted=peer.tls is not None,
                    is_authenticated=bool(peer.identity),
                    is_smtputf8=envelope.is_smtputf8,
                ),
                helo=helo,
                peer_address=address,
                tls=peer.tls,
                recipient=recipients[0].address if len(recipients) == 1 else None,
            )

        return self._open(peer, envelope, origin, received)

    def stream(self, peer: Peer, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        """For a message of an agent."""
        (recipient,) = envelope.recipients
        return self._open(
            peer,
            envelope,
            origin,
            lambda id, at: trace.streamed(
                hostname=self._hostname,
                id=id,
                at=at,
                recipient=recipient.address,
                peer_address=peer.address,
            ),
        )

    def submission(self, who: Credentials, given: Submission) -> Intake | Reply:
        """For a message of one of the machine's own users, who may write to anybody."""
        origin = Origin("sendmail", identity=f"uid {who.uid}", may_sign=True)
        hostname = self._hostname
        return self._open(
            None,
            given.envelope,
            origin,
            lambda id, at: trace.received(hostname=hostname, id=id, at=at, protocol=""),
        )

    def report(self, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        """For a report that goes on to the sender of what it is about."""
        hostname = self._hostname
        return self._open(
            None,
            self.relaying.readdressed(envelope),
            origin,
            lambda id, at: trace.received(hostname=hostname, id=id, at=at, protocol=""),
        )

    def _open(
        self,
        peer: Peer | None,
        envelope: Envelope,
        origin: Origin,
        trace: Callable[[QueueId, float], bytes],
    ) -> Arrival | Reply:
        # What is in the sandbox leaves for nowhere, and agents are elsewhere.
        match "queue" if origin.is_sandbox else self.relaying.way(envelope):
            case "queue":
                return self.acceptance.begin(envelope, origin, trace)
            case "through" if origin.hold:
                return TABLE["cannot-wait"]
            case "through":
                return self.pass_through.begin(peer, envelope, origin, trace)
            case "both":
                return TABLE["comes-by-itself"]
