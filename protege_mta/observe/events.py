"""The lines of the event journal: one typed function an event, which counts it too.

A line is one JSON object and LF; ``docs/reference/events.md`` describes its members.  A member that
an event does not have is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType
from twisted.logger import Logger

from ..model.bounce_class import UNCATEGORIZED, Classify
from ..model.envelope import Message
from ..model.hop import Site
from ..model.ids import QueueId
from ..model.outcome import Delivered, Fate, Outcome, PermanentFailure, TlsFacts, TransientFailure
from ..model.ports import NOTHING_MORE, About, Peer
from ..model.reply import Reply, name_of
from ..model.return_path import Sent
from ..model.verdicts import UNCHECKED
from .metrics import Counts


class _Tls(msgspec.Struct, frozen=True, gc=False):
    protocol: str
    cipher: str
    verified: bool


class _Reply(msgspec.Struct, frozen=True, gc=False):
    code: int
    enhanced: str
    text: str


class Event(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A line's members, in the order in which they are written.

    :ivar sender: empty for the null reverse-path.
    :ivar attempt: real contacts so far, this one included.
    :ivar mx: the host, smarthost or Maildir that was spoken to.
    """

    event: str
    id: str
    at: str
    message_id: str = ""
    recipient: str = ""
    sender: str | UnsetType = UNSET
    size_octets: int = 0
    source: str = ""
    identity: str = ""
    tenant: str = ""
    campaign: str = ""
    tags: tuple[str, ...] = ()
    attempt: int = 0
    route: str = ""
    mx: str = ""
    peer_address: str = ""
    tls: _Tls | None = None
    reply: _Reply | None = None
    bounce_class: str = ""
    bounce_action: str = ""
    remedy: str = ""
    reason: str = ""
    action: str = ""
    feedback_type: str = ""
    user_agent: str = ""
    report_id: str = ""
    next_attempt_at: str = ""
    queued_s: float | UnsetType = UNSET
    header_message_id: str = ""
    subject: str = ""
    dsn: str = ""
    spf: str = ""
    dkim: str = ""
    dmarc: str = ""
    sandbox: bool = False


Settled = Callable[[Message, Fate | Literal["deferred"], Outcome | None, float | None], None]


def _untold(
    message: Message,
    fate: Fate | Literal["deferred"],
    outcome: Outcome | None,
    next_attempt_at: float | None,
) -> None:
    """Nobody wants to know."""


class EventLines:
    """:class:`~..model.ports.Events` over one clock and one set of counts.

    :param now: POSIX seconds.
    :param append: takes the line of an event that belongs to no batch (``rejected``).
    :ivar settled: told of each fate and each failed attempt of a recipient, when it is about to be
        made durable: what is told there is no promise.  The next attempt is in POSIX seconds.
    :ivar classify: what failures were about.
    """

    log = Logger()

    def __init__(
        self, now: Callable[[], float], append: Callable[[bytes], None], counts: Counts
    ) -> None:
        self._now = now
        self._append = append
        self._counts = counts
        self.settled: Settled = _untold
        self.classify: Classify = lambda reply: UNCATEGORIZED
        self._second = -1
        self._second_text = ""  # as the times of its events begin
        self._ms = -1
        self._ms_text = ""
        self._rejected = 0

    def received(self, message: Message, recipient: int) -> bytes:
        """We took responsibility; transition 0."""
        origin = message.origin
        if recipient == 0:
            self._counts.messages[origin.source] += 1
            self._counts.octets[origin.source] += message.size_octets
        event = self._about(message, recipient, 0, "received", "", self._now())
        event.peer_address = origin.peer_address
        event.tls = _tls(origin.tls)
        verdicts = message.verdicts
        if verdicts is not UNCHECKED:
            event.spf, event.dkim, event.dmarc = verdicts.spf, verdicts.dkim, verdicts.dmarc
        return _line(event)

    def scheduled(
        self, message: Message, recipient: int, transition: int, next_attempt_at: float
    ) -> bytes:
        """The first attempt waits for a time that the sender chose (RFC 4865)."""
        event = self._about(message, recipient, transition, "scheduled", "", self._now())
        event.next_attempt_at = self._time(next_attempt_at)
        return _line(event)

    def deferred(
        self,
        message: Message,
        recipient: int,
        transition: int,
        attempt: int,
        site: Site | None,
        failure: TransientFailure,
        next_attempt_at: float,
    ) -> bytes:
        """An attempt failed, and there will be another."""
        now = self._now()
        route = "" if site is None else site.kind
        event = self._about(message, recipient, transition, "deferred", route, now)
        event.attempt = attempt
        event.next_attempt_at = self._time(next_attempt_at)
        event.queued_s = _wait_s(message, now)
        self._tell(event, failure)
        self.settled(message, "deferred", failure, next_attempt_at)
        return _line(event)

    def delayed(
        self,
        message: Message,
        recipient: int,
        transition: int,
        attempt: int,
        dsn: str,
        next_attempt_at: float,
    ) -> bytes:
        """The sender is told of the delay."""
        now = self._now()
        event = self._about(message, recipient, transition, "delayed", "", now)
        event.attempt = attempt
        if next_attempt_at > now:
            event.next_attempt_at = self._time(next_attempt_at)
        event.queued_s = _wait_s(message, now)
        event.dsn = dsn
        return _line(event)

    def ended(
        self,
        message: Message,
        recipient: int,
        transition: int,
        fate: Fate,
        attempt: int,
        site: Site | None,
        outcome: Outcome | None,
        dsn: str,
    ) -> bytes:
        """The recipient's one fate."""
        now = self._now()
        route = "" if site is None else site.kind
        event = self._about(message, recipient, transition, fate, route, now)
        event.attempt = attempt
        event.dsn = dsn
        event.queued_s = queued_s = _wait_s(message, now)
        if fate == "suppressed" and isinstance(outcome, PermanentFailure):
            event.reply = _reply(outcome.cause)
            event.reason = name_of(outcome.cause).removeprefix("suppressed-")
        elif outcome is not None:
            self._tell(event, outcome)
        if fate == "delivered" or fate == "relayed":
            self._counts.queued_s[route].observe(queued_s)
        self.settled(message, fate, outcome, None)
        return _line(event)

    def moved(
        self,
        message: Message,
        recipient: int,
        transition: int,
        event: Literal["held", "released"],
        attempt: int = 0,
        reason: str = "",
        next_attempt_at: float = 0.0,
    ) -> bytes:
        """A person, or a rule, put the recipient aside or back."""
        now = self._now()
        line = self._about(message, recipient, transition, event, "", now)
        line.attempt = attempt
        line.reason = reason
        if next_attempt_at > now:
            line.next_attempt_at = self._time(next_attempt_at)
        line.queued_s = _wait_s(message, now)
        return _line(line)

    def returned(
        self,
        sent: Sent,
        recipient: int,
        address: str,
        action: str,
        reply: Reply,
        *,
        report: QueueId,
        reporting_mta: str,
    ) -> bytes:
        """Another server reports what became of a message that it, or one before it, had taken."""
        event = self._of_report(sent, recipient, address, "returned", report)
        event.action = action
        event.mx = reporting_mta
        event.reply = _reply(reply)
        if reply.code >= 400:
            self._classified(event, reply)
        return _line(event)

    def feedback(
        self,
        sent: Sent,
        recipient: int,
        address: str,
        kind: str,
        *,
        report: QueueId,
        user_agent: str,
    ) -> bytes:
        """A recipient's provider says what the recipient thinks of a message."""
        event = self._of_report(sent, recipient, address, "feedback", report)
        event.feedback_type = kind
        event.user_agent = user_agent
        return _line(event)

    def _of_report(
        self, sent: Sent, recipient: int, address: str, name: str, report: QueueId
    ) -> Event:
        """What both have; told again after a crash it has the same id, by that of the report."""
        self._counts.events[name, ""] += 1
        return Event(
            event=name,
            id=f"{sent.id}.{recipient}.{report}",
            at=self._time(self._now()),
            message_id=sent.id,
            recipient=address,
            sender=sent.sender or UNSET,
            size_octets=sent.size_octets,
            source=sent.source,
            identity=sent.identity,
            tenant=sent.tenant,
            campaign=sent.campaign,
            tags=sent.tags,
            header_message_id=sent.header_message_id,
            subject=sent.subject,
            report_id=report,
            sandbox=sent.is_sandbox,
        )

    def rejected(
        self,
        peer: Peer,
        sender: str | None,
        recipient: str,
        reply: Reply,
        about: About = NOTHING_MORE,
    ) -> None:
        """Refused at the door; the id is ``session.0.count``.

        The line in the log has what the client wrote behind all that it did not.
        """
        self._rejected += 1
        counts = self._counts
        counts.events["rejected", ""] += 1
        counts.rejections[reply.code] += 1
        counts.reasons[name_of(reply)] += 1
        self.log.info(
            "rejected session_id={session_id} peer={peer} reply={reply}: {sender!r} to {recipient!r}",
            session_id=peer.session_id,
            peer=peer.address,
            reply=str(reply),
            sender=sender or "",
            recipient=recipient,
        )
        event = Event(
            event="rejected",
            id=f"{peer.session_id}.0.{self._rejected}",
            at=self._time(self._now()),
            recipient=recipient,
            sender=UNSET if sender is None else sender,
            size_octets=about.size_octets,
            source=peer.source,
            identity=peer.identity,
            tenant=about.tenant,
            campaign=about.campaign,
            peer_address=peer.address,
            tls=_tls(peer.tls),
            reply=_reply(reply),
            header_message_id=about.header_message_id,
            subject=about.subject,
        )
        self._append(_line(event))

    def _about(
        self, message: Message, recipient: int, transition: int, name: str, route: str, now: float
    ) -> Event:
        """What every event of a queued recipient has; counts it."""
        self._counts.events[name, route] += 1
        id, envelope, origin = message.id, message.envelope, message.origin
        return Event(
            event=name,
            id=f"{id}.{recipient}.{transition}",
            at=self._time(now),
            message_id=id,
            recipient=envelope.recipients[recipient].address,
            sender=envelope.sender,
            size_octets=message.size_octets,
            source=origin.source,
            identity=origin.identity,
            tenant=origin.tenant,
            campaign=origin.campaign,
            tags=origin.tags,
            sandbox=origin.is_sandbox,
            route=route,
            header_message_id=message.header_message_id,
            subject=message.subject,
        )

    def _tell(self, event: Event, outcome: Outcome) -> None:
        contact = outcome.contact
        if contact is not None:
            event.mx = contact.host
            event.peer_address = contact.peer_address
            if contact.tls is not None:
                event.tls = _tls(contact.tls)
        if isinstance(outcome, Delivered):
            event.reply = _reply(outcome.reply)
            return
        event.reply = _reply(outcome.cause)
        self._classified(event, outcome.cause)

    def _classified(self, event: Event, cause: Reply) -> None:
        kind = self.classify(cause)
        event.bounce_class, event.bounce_action, event.remedy = kind.name, kind.action, kind.remedy
        if not event.sandbox:  # a bounce that was played
            self._counts.failures[event.event, kind.name] += 1

    def _time(self, at: float) -> str:
        """RFC 3339 in UTC with milliseconds; each second, and each millisecond, is formatted once
        for all the events that a turn of the reactor brings in it."""
        ms = round(at * 1000)
        if ms != self._ms:
            self._ms = ms
            second, rest = divmod(ms, 1000)
            if second != self._second:
                self._second = second
                self._second_text = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
            self._ms_text = f"{self._second_text}.{rest:03d}Z"
        return self._ms_text


_encode: Final = msgspec.json.Encoder().encode

_FROM_PEERS: Final = (
    *("recipient", "sender", "header_message_id", "subject", "identity", "mx"),
    *("tenant", "campaign"),
)
"""Members that may have what others wrote."""


def _line(event: Event) -> bytes:
    try:
        return _encode(event) + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate: octets of a peer that were not UTF-8.  Rare enough to be looked for
        # only when it has struck.
        for name in _FROM_PEERS:
            text = getattr(event, name)
            if isinstance(text, str):
                setattr(event, name, _printable(text))
        if event.reply is not None:
            event.reply = msgspec.structs.replace(event.reply, text=_printable(event.reply.text))
        return _encode(event) + b"\n"


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _wait_s(message: Message, now: float) -> float:
    """How long it has been on its way; what its sender had us wait for does not count.

    :param now: POSIX seconds.
    """
    # Not round(): to three digits that goes by way of text, at ten times the price.
    wait_s = now - (message.envelope.hold_until or message.arrived_at)
    return int(wait_s * 1000 + 0.5) / 1000 if wait_s > 0.0 else 0.0


def _tls(facts: TlsFacts | None) -> _Tls | None:
    return None if facts is None else _Tls(facts.protocol, facts.cipher, facts.is_verified)


def _reply(reply: Reply) -> _Reply:
    lines = reply.lines
    return _Reply(reply.code, reply.enhanced, lines[0] if len(lines) == 1 else reply.text)
