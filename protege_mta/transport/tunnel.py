"""A gateway's way out: mail through the session of one of its agents to the relay server."""

from __future__ import annotations

from typing import Final

import attrs

from ..model.envelope import Message
from ..model.outcome import Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Sessions
from ..model.reply import TABLE
from ..model.stream import Stream
from ..wire.client import unmet
from .streams import StreamTransport, request_id

AWAY: Final = TransientFailure(Scope.ABSENT, TABLE["relay-away"])
"""There is no session: mail waits for one, which is no attempt."""

NO_TLS: Final = PermanentFailure(Scope.MESSAGE, unmet("the relay server does not offer it"))

_NO_ROOM: Final = "4.3.1"
"""RFC 3463, 3.4: mail system full."""


class TunnelTransport(StreamTransport):
    """For sites of the kind ``tunnel``."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(
            sessions, away=AWAY, no_tls=NO_TLS, stream=_stream_to_relay, judged=_judged
        )


def _stream_to_relay(message: Message, recipient: int, size_octets: int) -> Stream:
    return Stream(
        message.envelope.sender,
        message.envelope.recipients[recipient].address,
        request_id=request_id(message, recipient),
        size_octets=size_octets,
    )


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
        case TransientFailure(cause=cause) if cause.enhanced == _NO_ROOM:
            return attrs.evolve(outcome, scope=Scope.SITE)
    return outcome
