"""The way into the house: one message from whatever door into the spool and the schedule.

Every source (SMTP, sendmail, our own bounces) ends in :meth:`Acceptance.store`, which answers only
once the message is durable.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..message import headers
from ..message.loop import HOPS
from ..model.address import Address
from ..model.batch import Append, Batch, BigFile, with_head
from ..model.envelope import Envelope, Message, Origin, Recipient
from ..model.ids import QueueId
from ..model.ports import Events, Held, Incoming, Spool, SpoolFailed, SpoolFull
from ..model.reply import TABLE, Reply
from ..model.status import RecipientStatus
from ..model.verdicts import UNCHECKED, Verdicts

HEADER_OCTETS = 262_144
"""So much of a header is looked at; fields behind it are carried, not read."""


class Acceptance:
    """Takes responsibility for messages (RFC 5321, 4.2.5).

    :param first_s: how long after arrival, or release, a restart would make the first attempt, in
        seconds.
    :param accepted: told of each message once it is durable, with its recipients' status.
    :param took: told of each acceptance: seconds from the end of the data to the answer.
    :ivar arriving: messages on their way in.
    """

    log = Logger()

    def __init__(
        self,
        spool: Spool,
        events: Events,
        *,
        now: Callable[[], float],
        new_id: Callable[[], QueueId],
        first_s: Callable[[], float],
        accepted: Callable[[Message, RecipientStatus], None],
        took: Callable[[float], None],
    ) -> None:
        self._spool = spool
        self._events = events
        self._now = now
        self._new_id = new_id
        self._first_s = first_s
        self._accepted = accepted
        self._took = took
        self.arriving: set[Arriving] = set()

    def begin(
        self, envelope: Envelope, origin: Origin, trace: Callable[[QueueId, float], bytes]
    ) -> Arriving | Reply:
        """Open the way for one message, or refuse where there is no room.

        :param trace: makes the Received field from the id and the time of arrival.
        """
        try:
            self._spool.check_room(0)
            incoming = self._spool.receive()
        except (SpoolFull, SpoolFailed) as trouble:
            return refusal(trouble)
        id, arrived_at = self._new_id(), self._now()
        trace_field = trace(id, arrived_at)
        return Arriving(self, incoming, id, arrived_at, _distinct(envelope), origin, trace_field)

    def store(
        self, message: Message, content: tuple[bytes, ...] | BigFile, began_at: float
    ) -> Deferred[Reply]:
        """Make a message durable, put it on the schedule, and say so.

        :param began_at: when its data ended.
        :return: never fails, so that nobody needs to add an errback: each takes 1 us of the 10
            between the commit and its reply.
        """
        received = self._events.received
        hold_until = message.envelope.hold_until
        indexes = range(len(message.envelope.recipients))
        events = tuple([received(message, n) for n in indexes])
        if hold_until:
            scheduled = self._events.scheduled
            events += tuple([scheduled(message, n, 1, hold_until) for n in indexes])
            status = RecipientStatus(due_at=hold_until + self._first_s(), transitions=2)
        else:
            status = RecipientStatus(due_at=message.arrived_at + self._first_s())
        stored = self._spool.commit(Batch((Append(message, content, status),), events))

        def durable(_: None) -> Reply:
            try:
                self._accepted(message, status)
                self._took(self._now() - began_at)
            except Exception:
                return self.failed(Failure(), message.id)
            return Reply(250, "2.0.0", (f"ok, queued as {message.id}",))

        return stored.addCallbacks(durable, self.failed, errbackArgs=(message.id,))

    def failed(self, failure: Failure, id: QueueId) -> Reply:
        """What the sender hears of a message that could not be stored."""
        if not failure.check(SpoolFull, SpoolFailed):
            self.log.failure("could not store {id}", failure=failure, id=id)
        return refusal(failure.value)


class Arriving:
    """One message on its way in; an :class:`~..model.ports.Arrival`.

    :ivar arrived_at: when it began to, POSIX seconds.
    """

    __slots__ = (
        "_acceptance",
        "_began_at",
        "_head",
        "_head_octets",
        "_incoming",
        "_is_eight_bit",
        "_mark",
        "_trouble",
        "_verdicts",
        "arrived_at",
        "envelope",
        "id",
        "origin",
    )

    def __init__(
        self,
        acceptance: Acceptance,
        incoming: Incoming,
        id: QueueId,
        arrived_at: float,
        envelope: Envelope,
        origin: Origin,
        trace: bytes,
    ) -> None:
        self.id = id
        self._acceptance = acceptance
        self._incoming = incoming
        self.arrived_at = arrived_at
        self.envelope = envelope
        self.origin = origin
        self._head: list[bytes] = []
        self._head_octets = 0
        self._is_eight_bit = False
        self._mark = b""
        self._verdicts = UNCHECKED
        self._began_at = 0.0  # when the data ended, once somebody has looked at it
        self._trouble: Failure | None = None
        self._incoming.write(trace)
        acceptance.arriving.add(self)

    @property
    def size_octets(self) -> int:
        """As much as is there."""
        return self._incoming.size_octets

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._trouble is not None:
            return None
        if self._head_octets < HEADER_OCTETS:
            self._head.append(octets)
            self._head_octets += len(octets)
        if not self._is_eight_bit and not octets.isascii():
            self._is_eight_bit = True
        try:
            waiting = self._incoming.write(octets)
        except (SpoolFull, SpoolFailed):
            self._trouble = Failure()
            return None
        return waiting if waiting is None else waiting.addErrback(self._remember)

    def _remember(self, failure: Failure) -> None:
        # Back-pressure that ends in trouble lets the rest of the data go by; finish() tells it.
        if not failure.check(CancelledError):
            self._trouble = failure

    def look(self) -> Deferred[Held | Reply]:
        self._began_at = self._acceptance._now()
        if self._trouble is not None:
            self.abort()
            return succeed(refusal(self._trouble.value))
        return self._incoming.look().addErrback(self._unseen)

    def _unseen(self, failure: Failure) -> Reply:
        self.abort()
        return self._acceptance.failed(failure, self.id)

    def mark(self, head: bytes, verdicts: Verdicts) -> None:
        self._mark = head
        self._verdicts = verdicts

    def finish(self) -> Deferred[Reply]:
        self._acceptance.arriving.discard(self)
        if self._trouble is not None:
            self._incoming.discard()
            return succeed(refusal(self._trouble.value))
        glance = headers.glance(b"".join(self._head))
        self._head.clear()
        if glance.received_count >= HOPS:
            self._incoming.discard()
            return succeed(TABLE["routing-loop"])
        acceptance = self._acceptance
        message = Message(
            self.id,
            self.envelope,
            self.origin,
            self.arrived_at,
            self._incoming.size_octets + len(self._mark),
            glance.message_id,
            glance.subject,
            self._is_eight_bit,
            verdicts=self._verdicts,
        )
        began_at = self._began_at or acceptance._now()
        content = self._incoming.at_hand()
        if content is not None:
            if self._mark:
                content = (self._mark, *content)
            return acceptance.store(message, content, began_at)
        mark = self._mark
        storing = self._incoming.sealed().addCallback(
            lambda content: acceptance.store(message, with_head(content, mark), began_at)
        )
        return storing.addErrback(acceptance.failed, self.id)

    def abort(self) -> None:
        self._acceptance.arriving.discard(self)
        self._incoming.discard()


def refusal(trouble: BaseException | None) -> Reply:
    """What a sender is told of a local fault: always 4yz, never the cause."""
    return TABLE["spool-full" if isinstance(trouble, SpoolFull) else "spool-failed"]


def _distinct(envelope: Envelope) -> Envelope:
    """Each mailbox once, as it was first named: two copies would serve nobody."""
    recipients = envelope.recipients
    if len(recipients) == 1:
        return envelope
    first: dict[Address, Recipient] = {}
    for recipient in recipients:
        first.setdefault(recipient.address, recipient)
    return attrs.evolve(envelope, recipients=tuple(first.values()))
