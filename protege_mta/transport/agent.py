"""A relay server's way to its agents: mail through the sessions that they have opened.

The message goes as it was received and is kept, our trace fields in front; no Return-Path is added,
since the stream says the reverse-path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from ..model.envelope import Message
from ..model.outcome import Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Sessions
from ..model.reply import TABLE
from ..model.stream import Attestation, Stream
from ..model.verdicts import Verdicts
from .streams import StreamTransport, request_id

Attest = Callable[[Stream, Verdicts], Attestation]
"""Signs our word about a message's sender, for a stream whose ``stream_id`` is chosen."""

AWAY: Final = TransientFailure(Scope.ABSENT, TABLE["agent-not-connected"])

NO_TLS: Final = PermanentFailure(Scope.MESSAGE, TABLE["tunnel-requiretls"])
"""Whether a proxy takes the session's TLS off before it comes to us we do not know (RFC 8689, 4.4)."""

_SPARED: Final = ("4.3.1", "4.3.2")
"""System full, and not accepting messages (RFC 3463, 3.4)."""


class AgentTransport(StreamTransport):
    """For sites of the kind ``agent``.

    :param attest: None where the configuration names no key for it.
    """

    def __init__(self, sessions: Sessions, attest: Attest | None = None) -> None:
        super().__init__(
            sessions,
            away=AWAY,
            no_tls=NO_TLS,
            stream=partial(stream_to_agent, attest=attest),
            judged=_judged,
        )


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


def _judged(outcome: Outcome, is_reliable: bool) -> Outcome:
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
