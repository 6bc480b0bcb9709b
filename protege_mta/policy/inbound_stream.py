"""What a gateway takes from its relay: mail for the mailboxes of our own domains, and nothing else.

A relay that acknowledges nothing has told the sender 250 already, and hears no refusal: what can be
delivered at all is, then, and the rest is told to the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

import attrs
from twisted.logger import Logger

from ..message.authres import ResInfo, field, without_foreign
from ..message.line_ends import LineEnds
from ..model.address import NULL, Address, domain_of, is_ascii, local_part_of, parse
from ..model.envelope import Envelope, Origin, Recipient
from ..model.ports import Arrival, Events, Intake, Peer, Session
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from ..model.value import value
from ..model.verdicts import UNCHECKED, Verdicts
from .header_first import HeaderFirst
from .relaying import Relaying
from .stream_intake import LISTENER, StreamIntake

Attestation = Literal[
    "ok",
    "missing_attestation",
    "missing_trusted_key",
    "invalid_payload",
    "invalid_signature",
    "context_mismatch",
]
"""What a look at the relay's word came to, in the protocol's words."""

FORGED: Final = frozenset({"invalid_payload", "invalid_signature", "context_mismatch"})
"""Somebody wrote these who is not the relay, or about another message; the others may be for want of
a key on either side."""


@value
class Attested:
    """What is known of a message's sender.

    :ivar verdicts: the relay's, where ``result`` is ``ok``.
    :ivar key_id: of the key that showed it.
    """

    result: Attestation
    verdicts: Verdicts = UNCHECKED
    key_id: str = ""


@attrs.frozen
class StreamRules:
    """What the configuration decides.

    :ivar relaying: which mailboxes there are.
    :ivar hostname: ours.
    :ivar message_octets: the largest message.
    """

    relaying: Relaying
    hostname: str
    message_octets: int
    unattested: Literal["accept", "refuse"] = "accept"


Begin = Callable[[Session, Envelope, Origin], Arrival | Reply]
"""Opens the way into the spool for one message."""


class InboundStreams:
    """Answers for every session of a gateway.

    :param verify: looks at a stream's attestation.
    :param is_ours: whether a local-part is the key of one of our agents.
    :ivar rules: replaced as a whole when the configuration is read again; ``verify`` likewise.
    :ivar seen: how the attestations of all streams were found.
    """

    log = Logger()

    def __init__(
        self,
        rules: StreamRules,
        events: Events,
        begin: Begin,
        *,
        verify: Callable[[Stream], Attested],
        is_ours: Callable[[str], bool],
        new_session_id: Callable[[], str],
    ) -> None:
        self.rules = rules
        self.verify = verify
        self.seen: Counter[Attestation] = Counter()
        self._events = events
        self._begin = begin
        self._is_ours = is_ours
        self._new_session_id = new_session_id
        self._domains_told: set[str] = set()

    def receive(self, session: Session, stream: Stream) -> Intake | Reply:
        """As :meth:`~..model.ports.StreamDoor.receive`."""
        recipient = parse(stream.recipient, is_smtputf8=True)
        if recipient is None:
            return self._refuse(session, stream, TABLE["bad-recipient"])
        refusal = self._judge(session, recipient)
        if refusal is not None:
            return self._refuse(session, stream, refusal)
        sender = self._sender(session, stream)
        if sender is None:
            return self._refuse(session, stream, TABLE["bad-sender"])
        if (stream.size_octets or 0) > self.rules.message_octets:
            return self._refuse(session, stream, TABLE["message-too-big"])
        attested = self.verify(stream)
        self.seen[attested.result] += 1
        if attested.result != "ok":
            refusal = self._unattested(session, stream, attested.result)
            if refusal is not None:
                return self._refuse(session, stream, refusal)
        envelope = Envelope(
            sender,
            (self.rules.relaying.redirected(Recipient(recipient)),),
            "8BITMIME",
            is_smtputf8=not (is_ascii(sender) and is_ascii(recipient)),
        )
        # An original relay uses the ids of its streams again, for other messages.
        request_id = stream.request_id if session.is_reliable else ""
        origin = Origin("tunnel", session.identity, session.peer_address, request_id=request_id)
        begun = self._begin(session, envelope, origin)
        if isinstance(begun, Reply):
            return self._refuse(session, stream, begun) if begun.code >= 400 else begun
        hostname = self.rules.hostname
        if attested.result == "ok":
            begun.mark(_results(hostname, sender, attested), attested.verdicts)

        def ended(reply: Reply | None, octets: int) -> None:
            if reply is not None and reply.code >= 400:
                self._refuse(session, stream, reply)

        return StreamIntake(
            HeaderFirst(begun, lambda fields: without_foreign(fields, hostname)),
            LineEnds(is_cr_an_end=True),  # refused it would be lost with all the rest
            most_octets=self.rules.message_octets,
            clock=None,
            ended=ended,
        )

    def _judge(self, session: Session, recipient: Address) -> Reply | None:
        """Why the mailbox is not here, or None where it is."""
        # By no listener: one that is called like the tunnel may let its neighbours relay.
        answer = self.rules.relaying.judge(Peer(session.peer_address, 0, "", ""), recipient)
        if answer.code < 400:
            return None
        if not self._is_ours(local_part_of(recipient)):
            return TABLE["no-such-user"] if answer is TABLE["no-relaying"] else answer
        # For us to mend, so that a relay that keeps mail goes on keeping it.
        domain = domain_of(recipient)
        if domain not in self._domains_told:
            self._domains_told.add(domain)
            self.log.error(
                "the relay has mail for our agent {recipient}, and there is {missing}: add "
                "it and reload",
                recipient=recipient,
                domain=domain,
                missing=f'no table [domains."{domain}"] that says where it should go'
                if answer is TABLE["no-relaying"]
                else f'no such name among the recipients of [domains."{domain}"]',
            )
        return TABLE["no-local-delivery"]

    def _sender(self, session: Session, stream: Stream) -> Address | None:
        if not stream.sender:
            return NULL
        sender = parse(stream.sender, is_smtputf8=True)
        if sender is None and not session.is_reliable:
            # Nobody would hear of a refusal; nothing can be returned to such a sender either way.
            self.log.warn("taken as from nobody: {sender!r} is no address", sender=stream.sender)
            return NULL
        return sender

    def _unattested(self, session: Session, stream: Stream, result: Attestation) -> Reply | None:
        is_refused = self.rules.unattested == "refuse"
        if is_refused or result in FORGED:
            self.log.warn(
                "{result}: mail from {sender!r} to {recipient!r} by the relay at {peer}",
                result=result,
                sender=stream.sender,
                recipient=stream.recipient,
                peer=session.peer_address,
            )
        if not is_refused:
            return None
        return TABLE["forged-attestation" if result in FORGED else "not-attested"]

    def _refuse(self, session: Session, stream: Stream, reply: Reply) -> Reply:
        who = Peer(
            *(session.peer_address, 0, LISTENER, self._new_session_id()),
            identity=session.identity,
            source="tunnel",
        )
        self._events.rejected(who, stream.sender, stream.recipient, reply)
        if not session.is_reliable:
            self.log.error(
                "mail from {sender!r} to {recipient!r} is lost: {reply}, and the relay, which has "
                "accepted it, takes no refusals",
                sender=stream.sender,
                recipient=stream.recipient,
                reply=str(reply),
            )
        return reply


def _results(hostname: str, sender: Address, attested: Attested) -> bytes:
    """The field that mail readers look at; what the relay did not say is left out."""
    verdicts, reason = attested.verdicts, f"told by relay {attested.key_id}"
    about = (("smtp.mailfrom", domain_of(sender)),) if sender else ()
    said = (
        ResInfo("spf", verdicts.spf, reason, about),
        ResInfo("dkim", verdicts.dkim, reason),
        ResInfo("dmarc", verdicts.dmarc, reason),
    )
    return field(hostname, [one for one in said if one.result])
