"""A relay server's way to its agents: mail through the sessions that they have opened.

One recipient is one stream, whose request id is the same in every attempt: an agent whose session is
reliable has it once, whatever is lost in between.  The message goes as it was received and is kept,
our trace fields in front; no Return-Path is added, since the stream says the reverse-path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.envelope import Message
from ..model.identity import Identity
from ..model.outcome import Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, HopAbilities, Octets, Prepared, Session, Sessions
from ..model.reply import TABLE, Reply
from ..model.stream import Attestation, Stream
from ..model.verdicts import Verdicts
from .prepared import PreparedOctets

Attest = Callable[[Stream, Verdicts], Attestation]
"""Signs our word about a message's sender, for a stream whose ``stream_id`` is chosen."""

_TAKES_ALL: Final = HopAbilities()
_SPARED: Final = ("4.3.1", "4.3.2")
"""System full, and not accepting messages (RFC 3463, 3.4)."""

Outcomes = Sequence[tuple[int, Outcome]]


def request_id(message: Message, recipient: int) -> str:
    """The name of one recipient's message, the same in every attempt and after every restart."""
    return f"{message.id}.{recipient}"


def stream_to_agent(
    message: Message, recipient: int, size_octets: int, attest: Attest | None
) -> Stream:
    """What is said before the content.

    :param size_octets: of the content.
    :param attest: None to attach no word of ours.
    """
    name = request_id(message, recipient)
    stream = Stream(
        message.envelope.sender,
        message.envelope.recipients[recipient].address,
        request_id=name,
        size_octets=size_octets,
        stream_id=name,
    )
    if attest is None:
        return stream
    return attrs.evolve(stream, attestation=attest(stream, message.verdicts))


class AgentTransport:
    """:class:`~..model.ports.Transport` for sites of the kind ``agent``; a hop's name is the
    identity.

    :param attest: None where the configuration names no key for it.
    """

    log = Logger()

    def __init__(self, sessions: Sessions, attest: Attest | None = None) -> None:
        self._sessions = sessions
        self._attest = attest
        self._at_work = 0
        self._closing: Deferred[None] | None = None

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        """Send to each recipient, side by side; without a session nothing is tried."""
        session = self._sessions.to(Identity(attempt.domain))
        if session is None:
            away = TransientFailure(Scope.ABSENT, TABLE["agent-not-connected"])
            return succeed(_all(attempt, away))
        if attempt.content.message.envelope.requires_tls:
            # A stream cannot say that a message has to be kept secret, and whether a proxy takes the
            # session's TLS off before it comes to us we do not know (RFC 8689, 4.4).
            return succeed(
                _all(attempt, PermanentFailure(Scope.MESSAGE, TABLE["tunnel-requiretls"]))
            )
        self._at_work += 1
        delivering = maybeDeferred(self._deliver, attempt, session)
        return delivering.addErrback(self._broke, attempt).addCallback(self._ended)

    def close(self) -> Deferred[None]:
        """Resolves once what is at work has ended; sessions are not ours to close."""
        if not self._at_work:
            return succeed(None)
        self._closing = Deferred()
        return self._closing

    def _deliver(self, attempt: Attempt, session: Session) -> Deferred[Outcomes]:
        prepared = attempt.prepare(_TAKES_ALL)
        if isinstance(prepared, Deferred):
            return prepared.addCallback(self._send_all, attempt, session)
        return self._send_all(prepared, attempt, session)

    def _send_all(
        self, prepared: Prepared | Reply, attempt: Attempt, session: Session
    ) -> Deferred[Outcomes]:
        if isinstance(prepared, Reply):
            return succeed(_all(attempt, PermanentFailure(Scope.MESSAGE, prepared)))
        octets = PreparedOctets(attempt.content, prepared)
        sending = [self._send(attempt, index, session, octets) for index in attempt.recipients]
        if len(sending) == 1:  # as nearly all are; to gather one costs as much as to send it
            return sending[0].addCallback(lambda outcome: [(attempt.recipients[0], outcome)])
        return gatherResults(sending).addCallback(
            lambda outcomes: list(zip(attempt.recipients, outcomes, strict=True))
        )

    def _send(
        self, attempt: Attempt, index: int, session: Session, octets: Octets
    ) -> Deferred[Outcome]:
        message = attempt.content.message

        def send() -> Deferred[Outcome]:
            stream = stream_to_agent(message, index, octets.size_octets, self._attest)
            return session.send(stream, octets)

        def broke(failure: Failure) -> Outcome:
            id = request_id(message, index)
            self.log.failure("stream {id} broke", failure=failure, id=id)
            return TransientFailure(Scope.RECIPIENT, TABLE["local-error"])

        # What breaks for one must not leave those behind that are under way already.
        return maybeDeferred(send).addCallbacks(_judged, broke)

    def _broke(self, failure: Failure, attempt: Attempt) -> Outcomes:
        id = attempt.content.message.id
        self.log.failure("delivery of {id} to its agent failed", failure=failure, id=id)
        return _all(attempt, TransientFailure(Scope.MESSAGE, TABLE["local-error"]))

    def _ended(self, outcomes: Outcomes) -> Outcomes:
        self._at_work -= 1
        if self._closing is not None and not self._at_work:
            self._closing.callback(None)
        return outcomes


def _judged(outcome: Outcome) -> Outcome:
    """What a session's outcome means for the agent's mail.

    A stream carries none of what RFC 3461 adds, so that nobody behind us can tell the sender: a
    success that was to be told is ours to tell, as ``relayed`` (RFC 3464, 2.3.3), for what lies
    behind the agent's end of the tunnel we do not know.  A lost session holds back nothing but what
    was under way; a machine that has no room now is left alone for a while.
    """
    match outcome:
        case Delivered():
            return attrs.evolve(outcome, is_relayed=False, is_final=False)
        case TransientFailure(scope=Scope.HOST | Scope.SITE):
            return attrs.evolve(outcome, scope=Scope.HOST)
        case TransientFailure(cause=cause) if cause.enhanced in _SPARED:
            return attrs.evolve(outcome, scope=Scope.SITE)
    return outcome


def _all(attempt: Attempt, outcome: Outcome) -> list[tuple[int, Outcome]]:
    return [(index, outcome) for index in attempt.recipients]
