"""The way into the house: one message from whatever door into the spool and the schedule.

Every source (SMTP, sendmail, our own bounces) ends in :meth:`Acceptance.store`, which answers only
once the message is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

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
from ..model.ports import (
    Events,
    Held,
    Incoming,
    Known,
    Request,
    Requests,
    Spool,
    SpoolFailed,
    SpoolFull,
    StateFailed,
)
from ..model.reply import TABLE, Reply
from ..model.status import RecipientStatus
from ..model.verdicts import UNCHECKED, Verdicts

_T = TypeVar("_T")

HEADER_OCTETS = 262_144
"""So much of a header is looked at; fields behind it are carried, not read."""

SMALL_OCTETS: Final = 262_144
"""Content up to this size goes into a batch as it is, without asking where it may lie."""


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
        requests: Requests,
        now: Callable[[], float],
        new_id: Callable[[], QueueId],
        first_s: Callable[[], float],
        accepted: Callable[[Message, RecipientStatus], None],
        took: Callable[[float], None],
    ) -> None:
        self._spool = spool
        self._events = events
        self._requests = requests
        self._now = now
        self._new_id = new_id
        self._first_s = first_s
        self._accepted = accepted
        self._took = took
        self.arriving: set[Arriving] = set()

    def begin(
        self, envelope: Envelope, origin: Origin, trace: Callable[[QueueId, float], bytes]
    ) -> Arriving | Reply:
        """Open the way for one message; or say that it came in before, where its origin has a name
        for it; or refuse where there is no room.

        Who brings a name anew takes it over: what has come so far of the one before is forgotten.

        :param trace: makes the Received field from the id and the time of arrival.
        """
        request = None
        if origin.request_id:
            begun = self._requested(origin)
            if isinstance(begun, Reply):
                return begun
            request = begun
        try:
            self._spool.check_room(0)
            incoming = self._spool.receive()
        except (SpoolFull, SpoolFailed) as trouble:
            if request is not None:
                request.release()
            return refusal(trouble)
        id, arrived_at = self._new_id(), self._now()
        trace_field = trace(id, arrived_at)
        return Arriving(
            self, incoming, id, arrived_at, distinct(envelope), origin, trace_field, request
        )

    def _requested(self, origin: Origin) -> Request | Reply:
        try:
            begun = self._requests.begin(origin)
        except StateFailed:
            return TABLE["local-error"]
        if begun is None:
            return TABLE["request-busy"]
        return _queued(begun.id) if isinstance(begun, Known) else begun

    def store(
        self,
        message: Message,
        content: tuple[bytes, ...] | BigFile,
        began_at: float,
        request: Request | None = None,
    ) -> Deferred[Reply]:
        """Make a message durable, put it on the schedule, and say so.

        :param began_at: when its data ended.
        :param request: its name is kept before it is on the schedule, and so before it can be gone
            from the spool; in between a restart finds it there.
        :return: never fails, so that nobody needs to add an errback: each takes 1 us of the 10
            between the commit and its reply.
        """
        append, events = self._appended(message, content)
        status = append.status
        stored = self._spool.commit(Batch((append,), events))

        def durable(_: None) -> Reply:
            try:
                self._accepted(message, status)
                self._took(self._now() - began_at)
            except Exception:
                return self.failed(Failure(), message.id)
            return _queued(message.id)

        if request is not None:
            return self._remembered(stored, request, message, durable)
        return stored.addCallbacks(durable, self.failed, errbackArgs=(message.id,))

    def store_all(
        self,
        messages: Sequence[tuple[Message, tuple[bytes, ...]]],
        began_at: float,
        request: Request | None = None,
    ) -> Deferred[Reply]:
        """:meth:`store` for several that are ours together or not at all.

        :param messages: one at least, each with its content; of what is above the spool's threshold
            a file is made first.
        :param request: the name of them all, which the first one's origin has.
        :return: 250 about the first, or why none is ours.
        """
        try:
            octets = sum(message.size_octets for message, _ in messages)
            self._spool.check_room(octets)
            if all(message.size_octets <= SMALL_OCTETS for message, _ in messages):
                return self._store_all(messages, began_at, request)
            return Deferred.fromCoroutine(self._store_big(messages, began_at, request))
        except (SpoolFull, SpoolFailed):
            return succeed(self.failed(Failure(), messages[0][0].id))

    async def _store_big(
        self,
        messages: Sequence[tuple[Message, tuple[bytes, ...]]],
        began_at: float,
        request: Request | None,
    ) -> Reply:
        ready: list[tuple[Message, tuple[bytes, ...] | BigFile]] = []
        incoming: list[Incoming] = []
        try:
            for message, content in messages:
                if message.size_octets <= SMALL_OCTETS:
                    ready.append((message, content))
                    continue
                one = self._spool.receive()
                incoming.append(one)
                for piece in content:
                    waiting = one.write(piece)
                    if waiting is not None:
                        await waiting
                ready.append((message, one.at_hand() or await one.sealed()))
        except Exception:
            for one in incoming:
                one.discard()
            return self.failed(Failure(), messages[0][0].id)
        return await self._store_all(ready, began_at, request)

    def _store_all(
        self,
        messages: Sequence[tuple[Message, tuple[bytes, ...] | BigFile]],
        began_at: float,
        request: Request | None,
    ) -> Deferred[Reply]:
        appends: list[Append] = []
        lines: list[bytes] = []
        for message, content in messages:
            append, events = self._appended(message, content)
            appends.append(append)
            lines += events
        first = appends[0].message
        stored = self._spool.commit(Batch(tuple(appends), tuple(lines)))

        def durable(_: None) -> Reply:
            reply = _queued(first.id)
            for append in appends:
                try:
                    self._accepted(append.message, append.status)
                except Exception:
                    reply = self.failed(Failure(), append.message.id)
            self._took(self._now() - began_at)
            return reply

        if request is not None:
            return self._remembered(stored, request, first, durable)
        return stored.addCallbacks(durable, self.failed, errbackArgs=(first.id,))

    def _appended(
        self, message: Message, content: tuple[bytes, ...] | BigFile
    ) -> tuple[Append, tuple[bytes, ...]]:
        """A message as it goes into the spool, and the events of that."""
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
        if message.origin.hold:
            status, held = self._held(message, status)
            events += held
        return Append(message, content, status), events

    def _held(
        self, message: Message, status: RecipientStatus
    ) -> tuple[RecipientStatus, tuple[bytes, ...]]:
        """Nothing is tried before a person has released it, and the batch that brings it in says
        so: there is no moment in which it could leave."""
        hold, transition = message.origin.hold, status.transitions
        lines = [
            self._events.moved(message, index, transition, "held", reason=hold)
            for index in range(len(message.envelope.recipients))
        ]
        held = attrs.evolve(status, state="held", transitions=transition + 1, cause=hold)
        return held, tuple(lines)

    def _remembered(
        self,
        stored: Deferred[None],
        request: Request,
        message: Message,
        durable: Callable[[None], Reply],
    ) -> Deferred[Reply]:
        replies: list[Reply] = []
        remembered = stored.addCallback(
            lambda _: request.remember(message, lambda: replies.append(durable(None)))
        )
        return remembered.addCallbacks(lambda _: replies[0], self.failed, errbackArgs=(message.id,))

    def failed(self, failure: Failure, id: QueueId) -> Reply:
        """What the sender hears of a message that could not be stored."""
        if not failure.check(SpoolFull, SpoolFailed, StateFailed):
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
        "_request",
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
        request: Request | None = None,
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
        self._request = request
        if request is not None:
            request.superseded = self._superseded
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

    def _superseded(self) -> None:
        """The same comes anew by another way; what this one still brings passes by."""
        self._request = None
        self._trouble = Failure(_Superseded())
        self._acceptance.arriving.discard(self)
        self._incoming.discard()

    def finish(self) -> Deferred[Reply]:
        request, self._request = self._request, None
        if request is None:
            return self._finish(None)
        request.settle()

        def ended(result: _T) -> _T:
            request.release()
            return result

        try:
            return self._finish(request).addBoth(ended)
        except BaseException:
            request.release()
            raise

    def _finish(self, request: Request | None) -> Deferred[Reply]:
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
            return acceptance.store(message, content, began_at, request)
        mark = self._mark
        storing = self._incoming.sealed().addCallback(
            lambda content: acceptance.store(message, with_head(content, mark), began_at, request)
        )
        return storing.addErrback(acceptance.failed, self.id)

    def abort(self) -> None:
        self._acceptance.arriving.discard(self)
        self._incoming.discard()
        request, self._request = self._request, None
        if request is not None:
            request.release()


class _Superseded(Exception):
    """The same message is being handed in anew."""


def refusal(trouble: BaseException | None) -> Reply:
    """What a sender is told of a local fault: always 4yz, never the cause."""
    if isinstance(trouble, _Superseded):
        return TABLE["request-busy"]
    return TABLE["spool-full" if isinstance(trouble, SpoolFull) else "spool-failed"]


def _queued(id: QueueId) -> Reply:
    return Reply(250, "2.0.0", (f"ok, queued as {id}",))


def distinct(envelope: Envelope) -> Envelope:
    """Each mailbox once, as it was first named: two copies would serve nobody."""
    recipients = envelope.recipients
    if len(recipients) == 1:
        return envelope
    first: dict[Address, Recipient] = {}
    for recipient in recipients:
        first.setdefault(recipient.address, recipient)
    return attrs.evolve(envelope, recipients=tuple(first.values()))
