"""Which DSNs a transition brings forth, and their way into the queue (RFC 3461, section 5.2;
RFC 5321, 4.5.5 and 6.1; RFC 8689, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from ..message import dsn
from ..model.address import NULL, Address, is_ascii
from ..model.batch import Append
from ..model.envelope import Envelope, Message, Origin, Recipient
from ..model.identity import Identity
from ..model.ids import QueueId, derived
from ..model.outcome import Delivered, PermanentFailure, TransientFailure
from ..model.ports import Content, Events
from ..model.reply import Reply
from ..model.status import RecipientStatus
from .entry import Entry
from .verdict import Ended


@attrs.frozen
class Bounce:
    """A DSN that goes into the same batch as the transition it tells of.

    :ivar recipients: those of the parent whose fate it tells.
    :ivar lines: what the journal says of its own arrival.
    """

    id: QueueId
    recipients: frozenset[int]
    append: Append
    lines: tuple[bytes, ...]


@attrs.frozen
class Reporter:
    """Whom a DSN is from.

    :ivar address: of its From.
    :ivar identity: the agent through whose session it leaves.
    """

    address: Address
    identity: Identity


class Bounces:
    """Writes DSNs, never one about a DSN.

    :param hostname: ours; mail from us is from ``MAILER-DAEMON`` at it.
    :param first_s: as for every message: when a restart would make the first attempt.
    :param reporter: who else reports on a message's recipients, given the index of the first of
        them; None where nobody has to.
    """

    def __init__(
        self,
        events: Events,
        *,
        hostname: str,
        now: Callable[[], float],
        first_s: Callable[[], float],
        reporter: Callable[[Message, int], Reporter | None] = lambda message, index: None,
    ) -> None:
        self._events = events
        self._hostname = hostname
        self._now = now
        self._first_s = first_s
        self._reporter = reporter

    def of_fates(self, content: Content, transition: int, ended: Sequence[Ended]) -> list[Bounce]:
        """The DSNs that some recipients' fates call for: one for failures, one for successes."""
        message = content.message
        if message.envelope.sender == NULL:
            return []
        bounces = []
        for kind in _KINDS:
            told = [one for one in ended if self._is_due(message, one, kind)]
            if told:
                reports = [self._report(message, one) for one in told]
                indexes = [one.recipient for one in told]
                bounces.append(self._bounce(content, kind, transition, indexes, reports))
        return bounces

    def of_delay(self, content: Content, entry: Entry) -> Bounce | None:
        """The DSN that tells of a delay, if anybody wants it."""
        message = content.message
        to_agent = entry.hop.kind == "agent"
        told = [
            index
            for index in entry.recipients
            if dsn.is_due(message, message.envelope.recipients[index], "delay")
            and (not to_agent or message.envelope.recipients[index].notify)
        ]
        if not told:
            return None
        why = "held until the agent comes for it" if to_agent else "not delivered yet"
        reply = Reply(451, "4.4.7", (entry.cause or why,))
        reports = [
            dsn.Report(
                message.envelope.recipients[index], "delayed", reply, retry_until=entry.expires_at
            )
            for index in told
        ]
        return self._bounce(content, "delay", entry.transitions, told, reports)

    def told(self, bounces: Sequence[Bounce], message: Message, one: Ended) -> str:
        """What the event of a fate says of its DSN: an id, ``none`` where one was due by rights
        and may not be sent, or nothing."""
        for bounce in bounces:
            if one.recipient in bounce.recipients:
                return bounce.id
        if one.fate == "suppressed" and not _is_told_of_suppression(message):
            return ""
        return "none" if one.fate in ("bounced", "expired", "suppressed") else ""

    def _is_due(self, message: Message, one: Ended, kind: dsn.Kind) -> bool:
        recipient = message.envelope.recipients[one.recipient]
        match one.fate:
            case "bounced" | "expired":
                return kind == "failure" and dsn.is_due(message, recipient, kind)
            case "suppressed":
                is_told = kind == "failure" and _is_told_of_suppression(message)
                return is_told and dsn.is_due(message, recipient, kind)
            case "delivered":
                return kind == "success" and dsn.is_due(message, recipient, kind)
            case _:  # a relayed one is the next hop's duty, a removed one nobody's
                return False

    def _report(self, message: Message, one: Ended) -> dsn.Report:
        recipient = message.envelope.recipients[one.recipient]
        match one.outcome:
            case Delivered(contact=contact, reply=reply, is_final=is_final):
                action: dsn.Action = "delivered" if is_final else "relayed"
            case (
                PermanentFailure(contact=contact, cause=reply)
                | TransientFailure(contact=contact, cause=reply)
            ):
                action = "failed"
            case None:
                raise RuntimeError(f"a fate of {message.id} has no outcome to report")
        host = "" if contact is None or action == "delivered" else contact.host
        return dsn.Report(recipient, action, reply, host, last_attempt_at=self._now())

    def _bounce(
        self,
        content: Content,
        kind: dsn.Kind,
        transition: int,
        indexes: Sequence[int],
        reports: Sequence[dsn.Report],
    ) -> Bounce:
        parent = content.message
        id = derived(parent.id, f"{kind} {transition} {indexes}")
        now = self._now()
        reporter = self._reporter(parent, indexes[0])
        octets = dsn.compose(
            kind=kind,
            message=parent,
            reports=reports,
            original=content.read(0, dsn.wanted_octets(parent, kind)),
            hostname=self._hostname,
            at=now,
            id=id,
            author=NULL if reporter is None else reporter.address,
        )
        is_eight_bit = not octets.isascii()
        sender = parent.envelope.sender
        message = Message(
            id,
            Envelope(
                NULL,
                (Recipient(sender),),
                "8BITMIME" if is_eight_bit else "7BIT",
                is_smtputf8=not is_ascii(sender),
                # It tells what the message said, and has to be kept as secret.
                requires_tls=parent.envelope.requires_tls,
            ),
            Origin(
                "internal",
                "" if reporter is None else reporter.identity,
                may_sign=True,
                tenant=parent.origin.tenant,
                is_sandbox=parent.origin.is_sandbox,
            ),
            now,
            len(octets),
            f"<{id}@{self._hostname}>",
            dsn.SUBJECTS[kind],
            is_eight_bit,
        )
        status = RecipientStatus(due_at=now + self._first_s())
        return Bounce(
            id,
            frozenset(indexes),
            Append(message, (octets,), status),
            (self._events.received(message, 0),),
        )


def _is_told_of_suppression(message: Message) -> bool:
    """Whoever handed mail in by SMTP is owed a report of what became of it (RFC 5321, 6.1); who did
    by HTTP has an answer and events, and may have no mailbox."""
    return message.origin.source != "http"


_KINDS: tuple[dsn.Kind, ...] = ("failure", "success")
