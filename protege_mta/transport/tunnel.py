"""A gateway's way out: mail through the session of one of its agents to the relay server.

One recipient is one stream, whose request id is the same in every attempt: a relay that knows the
reliable extension has it once, whatever is lost in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from twisted.internet.defer import (
    Deferred,
    DeferredSemaphore,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.identity import Identity
from ..model.outcome import Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, HopAbilities, Octets, Sessions
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from ..wire.client import unmet
from .agent import request_id
from .prepared import PreparedOctets

STREAMS: Final = 10
"""So many recipients of one message are sent to at a time."""

AWAY: Final = TransientFailure(Scope.ABSENT, TABLE["relay-away"])
"""There is no session: mail waits for one, which is no attempt."""

_TAKES_ALL: Final = HopAbilities()
"""A stream is octets, and an address is text in UTF-8: what the relay cannot pass on is for it to
recode or to return."""

_NO_ROOM: Final = "4.3.1"
"""RFC 3463, 3.4: mail system full."""


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
            return succeed(_all(attempt, AWAY))
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
            return succeed(AWAY)
        stream = Stream(
            message.envelope.sender,
            message.envelope.recipients[index].address,
            request_id=request_id(message, index),
            size_octets=octets.size_octets,
        )
        is_reliable = session.is_reliable

        def broke(failure: Failure) -> Outcome:
            self.log.failure("stream {id} broke", failure=failure, id=stream.request_id)
            return TransientFailure(Scope.RECIPIENT, TABLE["local-error"])

        sending = maybeDeferred(session.send, stream, octets).addErrback(broke)
        return sending.addCallback(_judged, is_reliable)

    def _broke(self, failure: Failure, attempt: Attempt) -> Sequence[tuple[int, Outcome]]:
        id = attempt.content.message.id
        self.log.failure("delivery of {id} through the tunnel failed", failure=failure, id=id)
        return _all(attempt, TransientFailure(Scope.MESSAGE, TABLE["local-error"]))

    def _ended(self, outcomes: Sequence[tuple[int, Outcome]]) -> Sequence[tuple[int, Outcome]]:
        self._at_work -= 1
        if self._closing is not None and not self._at_work:
            self._closing.callback(None)
        return outcomes


def _all(attempt: Attempt, outcome: Outcome) -> list[tuple[int, Outcome]]:
    return [(index, outcome) for index in attempt.recipients]


def _judged(outcome: Outcome, is_reliable: bool) -> Outcome:
    """What a session's outcome means for mail that goes out.

    A stream carries none of what RFC 3461 adds: a success that was to be told is ours to tell.  A
    tunnel that was cut is gone on with at once where the relay knows what it has; where it does not,
    another attempt may be a second copy, and is made as late as any.
    """
    match outcome:
        case Delivered():
            return attrs.evolve(outcome, is_relayed=False, is_final=False)
        case TransientFailure(scope=Scope.HOST | Scope.SITE):
            return attrs.evolve(outcome, scope=Scope.HOST if is_reliable else Scope.MESSAGE)
        case TransientFailure(cause=cause) if cause.enhanced.startswith(_NO_ROOM):
            return attrs.evolve(outcome, scope=Scope.SITE)
    return outcome
