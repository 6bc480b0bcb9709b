"""Mail through the sessions of a tunnel, whichever end of it we are.

One recipient is one stream, whose request id is the same in every attempt: who knows the reliable
extension has it once, whatever is lost in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import (
    Deferred,
    DeferredSemaphore,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.envelope import Message
from ..model.identity import Identity
from ..model.outcome import Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, HopAbilities, Octets, Prepared, Sessions
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from .prepared import PreparedOctets

STREAMS: Final = 10
"""So many recipients of one message are sent to at a time."""

_TAKES_ALL: Final = HopAbilities()
"""A stream is octets, and an address is text in UTF-8: what the other end cannot pass on is for it
to recode or to return."""

Outcomes = Sequence[tuple[int, Outcome]]


def request_id(message: Message, recipient: int) -> str:
    """The name of one recipient's message, the same in every attempt and after every restart."""
    return f"{message.id}.{recipient}"


class StreamTransport:
    """:class:`~..model.ports.Transport` for sites whose hop's name is the identity that a session
    belongs to.

    :param away: the outcome where there is none.
    :param no_tls: that of mail which has to be kept secret: a stream cannot say so (RFC 8689).
    :param stream: what is said before the content: of a message, for its recipient, with that many
        octets.
    :param judged: what the outcome of a session means for the mail, reliable or not.
    """

    log = Logger()

    def __init__(
        self,
        sessions: Sessions,
        *,
        away: TransientFailure,
        no_tls: PermanentFailure,
        stream: Callable[[Message, int, int], Stream],
        judged: Callable[[Outcome, bool], Outcome],
    ) -> None:
        self._sessions = sessions
        self._away = away
        self._no_tls = no_tls
        self._stream = stream
        self._judged = judged
        self._at_work = 0
        self._closing: Deferred[None] | None = None

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        """Send to each recipient; without a session nothing is tried."""
        if attempt.content.message.envelope.requires_tls:
            return succeed(_all(attempt, self._no_tls))
        if self._sessions.to(Identity(attempt.domain)) is None:
            return succeed(_all(attempt, self._away))
        self._at_work += 1
        delivering = maybeDeferred(self._deliver, attempt)
        return delivering.addErrback(self._broke, attempt).addCallback(self._ended)

    def close(self) -> Deferred[None]:
        """Resolves once what is at work has ended; sessions are not ours to close."""
        if not self._at_work:
            return succeed(None)
        self._closing = Deferred()
        return self._closing

    def _deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        prepared = attempt.prepare(_TAKES_ALL)
        if isinstance(prepared, Deferred):
            return prepared.addCallback(self._send_all, attempt)
        return self._send_all(prepared, attempt)

    def _send_all(self, prepared: Prepared | Reply, attempt: Attempt) -> Deferred[Outcomes]:
        if isinstance(prepared, Reply):
            return succeed(_all(attempt, PermanentFailure(Scope.MESSAGE, prepared)))
        octets = PreparedOctets(attempt.content, prepared)
        send = partial(self._send, attempt, octets, octets.size_octets)
        recipients = attempt.recipients
        if len(recipients) == 1:  # as nearly all are; to gather one costs as much as to send it
            return send(recipients[0]).addCallback(lambda outcome: [(recipients[0], outcome)])
        if len(recipients) > STREAMS:
            send = partial(DeferredSemaphore(STREAMS).run, send)
        return gatherResults([send(index) for index in recipients]).addCallback(
            lambda outcomes: list(zip(recipients, outcomes, strict=True))
        )

    def _send(
        self, attempt: Attempt, octets: Octets, size_octets: int, index: int
    ) -> Deferred[Outcome]:
        message = attempt.content.message
        session = self._sessions.to(Identity(attempt.domain))  # it may have gone since
        if session is None:
            return succeed(self._away)
        is_reliable = session.is_reliable

        def send() -> Deferred[Outcome]:
            return session.send(self._stream(message, index, size_octets), octets)

        def broke(failure: Failure) -> Outcome:
            id = request_id(message, index)
            self.log.failure("stream {id} broke", failure=failure, id=id)
            return TransientFailure(Scope.RECIPIENT, TABLE["local-error"])

        # What breaks for one must not leave those behind that are under way already.
        return maybeDeferred(send).addErrback(broke).addCallback(self._judged, is_reliable)

    def _broke(self, failure: Failure, attempt: Attempt) -> Outcomes:
        id = attempt.content.message.id
        self.log.failure("delivery of {id} through a tunnel failed", failure=failure, id=id)
        return _all(attempt, TransientFailure(Scope.MESSAGE, TABLE["local-error"]))

    def _ended(self, outcomes: Outcomes) -> Outcomes:
        self._at_work -= 1
        if self._closing is not None and not self._at_work:
            self._closing.callback(None)
        return outcomes


def _all(attempt: Attempt, outcome: Outcome) -> Outcomes:
    return [(index, outcome) for index in attempt.recipients]
