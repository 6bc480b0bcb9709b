"""A gateway's way out: mail through the session of one of its agents to the relay server.

One recipient is one stream, whose request id is the same in every attempt: a relay that knows the
reliable extension stores it once, whatever is lost in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.identity import Identity
from ..model.ids import QueueId
from ..model.outcome import Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, Content, HopAbilities, Octets, Prepared, Sessions
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from ..wire.client import unmet

STREAMS: Final = 10
"""So many recipients of one message are sent to at a time."""

_TAKES_ALL: Final = HopAbilities()
"""A stream is octets, and an address is text in UTF-8: what the relay cannot pass on is for it to
recode or to return."""


@attrs.frozen
class PreparedOctets:
    """A message as it is to be sent: an :class:`~..model.ports.Octets` over content that stays
    where it is."""

    content: Content
    prepared: Prepared

    @property
    def size_octets(self) -> int:
        return len(self.prepared.head) + self._rest_octets

    @property
    def _rest_octets(self) -> int:
        body = self.prepared.body
        if body is not None:
            return len(body)
        return self.content.size_octets - self.prepared.skip_octets

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        head = self.prepared.head
        if size < 0:
            size = max(0, self.size_octets - offset)
        first = head[offset : offset + size]
        size -= len(first)
        if not size:
            return first
        at = max(0, offset - len(head))
        body = self.prepared.body
        if body is None:
            return first + self.content.read(self.prepared.skip_octets + at, size)
        return first + body[at : at + size]


def request_id(id: QueueId, recipient: int) -> str:
    """What the relay knows one recipient's message by."""
    return f"{id}.{recipient}"


class TunnelTransport:
    """:class:`~..model.ports.Transport` for sites of the kind ``tunnel``; a hop's name is the
    identity whose session it is."""

    log = Logger()

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._at_work = 0
        self._closing: Deferred[None] | None = None

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        """Send to each recipient; without a session they all wait for one."""
        if attempt.content.message.envelope.requires_tls:
            cause = unmet("the relay server does not offer it")
            return succeed(_all(attempt, PermanentFailure(Scope.MESSAGE, cause)))
        if self._sessions.to(Identity(attempt.domain)) is None:
            return succeed(_all(attempt, TransientFailure(Scope.SITE, TABLE["relay-away"])))
        self._at_work += 1
        delivering = Deferred.fromCoroutine(self._deliver(attempt))
        return delivering.addErrback(self._broke, attempt).addBoth(self._ended)

    def close(self) -> Deferred[None]:
        """Resolves once what is at work has ended; sessions are not ours to close."""
        if not self._at_work:
            return succeed(None)
        self._closing = Deferred()
        return self._closing

    async def _deliver(self, attempt: Attempt) -> Sequence[tuple[int, Outcome]]:
        answer = attempt.prepare(_TAKES_ALL)
        prepared = await answer if isinstance(answer, Deferred) else answer
        if isinstance(prepared, Reply):
            return _all(attempt, PermanentFailure(Scope.MESSAGE, prepared))
        octets = PreparedOctets(attempt.content, prepared)
        turns = DeferredSemaphore(STREAMS)
        sending = [turns.run(self._send, attempt, index, octets) for index in attempt.recipients]
        outcomes = await gatherResults(sending, consumeErrors=True)
        return list(zip(attempt.recipients, outcomes, strict=True))

    def _send(self, attempt: Attempt, index: int, octets: Octets) -> Deferred[Outcome]:
        message = attempt.content.message
        session = self._sessions.to(Identity(attempt.domain))  # it may have gone since
        if session is None:
            return succeed(TransientFailure(Scope.SITE, TABLE["relay-away"]))
        stream = Stream(
            message.envelope.sender,
            message.envelope.recipients[index].address,
            request_id=request_id(message.id, index),
            size_octets=octets.size_octets,
        )

        def broke(failure: Failure) -> Outcome:
            self.log.failure("stream {id} broke", failure=failure, id=stream.request_id)
            return TransientFailure(Scope.RECIPIENT, TABLE["local-error"])

        return session.send(stream, octets).addErrback(broke)

    def _broke(self, failure: Failure, attempt: Attempt) -> Sequence[tuple[int, Outcome]]:
        id = attempt.content.message.id
        self.log.failure("delivery of {id} through the tunnel failed", failure=failure, id=id)
        return _all(attempt, TransientFailure(Scope.MESSAGE, TABLE["local-error"]))

    def _ended(
        self, outcomes: Sequence[tuple[int, Outcome]]
    ) -> Sequence[tuple[int, Outcome]]:
        self._at_work -= 1
        if self._closing is not None and not self._at_work:
            self._closing.callback(None)
        return outcomes


def _all(attempt: Attempt, outcome: Outcome) -> list[tuple[int, Outcome]]:
    return [(index, outcome) for index in attempt.recipients]
