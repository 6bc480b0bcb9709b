"""The streams that one side of a session receives.

Pure.  Frames and answers of the house go in; what to do comes out, in order.  After an
:class:`Open` or a :class:`Write` that the house is not done with, nothing more may be fed until its
answer is there: that is the back-pressure.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs

from ...model.reply import TABLE, Reply
from ...model.stream import Stream
from ...model.value import value
from .bodies import parse_end, parse_start
from .frames import BadFrame, End, FramePart, Piece, Start
from .messages import (
    Credit,
    DeliveryResult,
    Malformed,
    StreamCancel,
    StreamResult,
    StreamResume,
    Terms,
    format_message,
)

OPEN_STREAMS: Final = 64
"""Streams between their start and their end; more are refused."""


# --- what to do ----------------------------------------------------------------------------------


@value
class Open:
    """Ask the house; answered by ``opened``, or ``resumed`` where it is in the middle of it.

    :ivar number: the stream's, for commands and answers: ids may come again.
    """

    number: int
    stream: Stream


@value
class Write:
    """Hand octets on; answered by ``written``."""

    number: int
    octets: bytes


@value
class Finish:
    """The content is complete, and what was sent; answered by ``finished``."""

    number: int


@value
class Abort:
    """The stream came to nothing, and what the house has of it may go."""

    number: int
    stream: Stream
    why: str


@value
class Say:
    """Send a text message."""

    text: bytes


@value
class Close:
    """The other side broke the protocol."""

    code: str
    why: str


Command = Open | Write | Finish | Abort | Say | Close


@attrs.define(eq=False)
class Receiving:
    """One stream.

    :ivar since: when it last got on, by the clock that the caller goes by.
    :ivar taken: octets of its content so far, those of an earlier session included.
    :ivar refusal: why its content is passed over; the session is not reliable, or it would know.
    :ivar is_open: whether the house takes the content.
    :ivar is_asked: whether the sender waits to be told where to go on.
    """

    number: int
    stream: Stream
    since: float = 0.0
    taken: int = 0
    refusal: Reply | None = None
    is_open: bool = False
    is_asked: bool = False
    digest: hashlib._Hash = attrs.field(factory=hashlib.sha256)


class StreamsIn:
    """:param terms: what we take, and have said so where the session is reliable.
    :param has_results: whether ends of streams are answered by ``relay_delivery_result`` where the
        session is not reliable: a relay does.
    """

    def __init__(self, terms: Terms, *, is_reliable: bool, has_results: bool) -> None:
        self._terms = terms
        self._is_reliable = is_reliable
        self._has_results = has_results
        self._open: dict[str, Receiving] = {}
        self._numbers: dict[int, Receiving] = {}  # open ones, and those that are being stored
        self._next = 1
        self._unconsumed = 0  # octets that have come, and for which no credit was given
        self._consumed = 0  # of those: what is done with

    # --- what comes ------------------------------------------------------------------------------

    def part(self, part: FramePart) -> list[Command]:
        match part:
            case Start(stream_id, body):
                return self._start(stream_id, body)
            case Piece(stream_id, octets):
                return self._piece(stream_id, octets)
            case End(stream_id, body):
                return self._end(stream_id, body)
            case BadFrame(why):
                return [Close("invalid_tunnel_frame", why)]

    def cancelled(self, cancel: StreamCancel) -> list[Command]:
        receiving = self._open.get(cancel.stream_id)
        if receiving is None:
            return []
        return self._drop(receiving, "cancelled by the sender")

    def _start(self, stream_id: str, body: bytes) -> list[Command]:
        commands: list[Command] = []
        if (old := self._open.get(stream_id)) is not None:
            commands += self._drop(old, "begun anew")
        start = parse_start(body, stream_id, is_reliable=self._is_reliable)
        if isinstance(start, Malformed):
            return [*commands, Close("invalid_tunnel_frame", start.why)]
        receiving = Receiving(self._next, start.stream, is_asked=start.is_resume)
        self._next += 1
        self._open[stream_id] = receiving
        if len(self._open) > 4 * OPEN_STREAMS:  # refusals that wait for the ends of their streams
            return [*commands, Close("too_many_streams", "starts without ends")]
        if len(self._open) > OPEN_STREAMS:
            return commands + self._refuse(receiving, TABLE["too-many-streams"])
        if self._is_reliable and not start.stream.request_id:
            return commands + self._refuse(receiving, TABLE["no-request-id"])
        if (start.stream.size_octets or 0) > self._terms.max_octets:
            return commands + self._refuse(receiving, TABLE["message-too-big"])
        self._numbers[receiving.number] = receiving
        return [*commands, Open(receiving.number, start.stream)]

    def _piece(self, stream_id: str, octets: bytes) -> list[Command]:
        if self._is_reliable:
            self._unconsumed += len(octets)
            if self._unconsumed > self._terms.window:
                return [Close("window_exceeded", "more octets than there was credit for")]
        receiving = self._open.get(stream_id)
        if receiving is None or not receiving.is_open:
            return self._consume(len(octets))
        size = receiving.stream.size_octets
        receiving.taken += len(octets)
        if receiving.taken > self._terms.max_octets:
            fault = TABLE["message-too-big"]
        elif size is not None and receiving.taken > size:
            fault = TABLE["stream-damaged"]
        else:
            if self._is_reliable:
                receiving.digest.update(octets)
            return [Write(receiving.number, octets)]
        commands: list[Command] = [Abort(receiving.number, receiving.stream, fault.text)]
        return commands + self._refuse(receiving, fault) + self._consume(len(octets))

    def _end(self, stream_id: str, body: bytes) -> list[Command]:
        receiving = self._open.pop(stream_id, None)
        if receiving is None:
            return []
        if receiving.refusal is not None:  # not reliable: now is the time to say so
            return self._answer(receiving, receiving.refusal)
        if self._is_reliable and not self._is_whole(receiving, body):
            del self._numbers[receiving.number]
            fault = TABLE["stream-damaged"]
            return [
                Abort(receiving.number, receiving.stream, fault.text),
                *self._answer(receiving, fault),
            ]
        return [Finish(receiving.number)]

    def _is_whole(self, receiving: Receiving, body: bytes) -> bool:
        size = receiving.stream.size_octets
        return size in (None, receiving.taken) and parse_end(body) == receiving.digest.hexdigest()

    # --- what the house answers ------------------------------------------------------------------

    def opened(self, number: int, reply: Reply | None) -> list[Command]:
        """:param reply: None where the house takes the content; else it is over: 2yz where it has
        the message already."""
        receiving = self._numbers.get(number)
        if receiving is None:
            return []
        if reply is not None:
            return self._refuse(receiving, reply)
        receiving.is_open = True
        return self._go_on(receiving, 0)

    def resumed(self, number: int, earlier: Receiving) -> list[Command]:
        """The house has a part of it, from an earlier session."""
        receiving = self._numbers.get(number)
        if receiving is None:
            return []
        receiving.is_open = True
        receiving.taken = earlier.taken
        receiving.digest = earlier.digest
        return self._go_on(receiving, earlier.taken)

    def _go_on(self, receiving: Receiving, offset: int) -> list[Command]:
        if not receiving.is_asked:
            return []
        return [Say(format_message(StreamResume(receiving.stream.stream_id, offset)))]

    def written(self, octets: int) -> list[Command]:
        """The house has taken so many octets in."""
        return self._consume(octets)

    def spoiled(self, number: int, reply: Reply) -> list[Command]:
        """The house cannot go on with a stream; :class:`Abort` follows, where it has to."""
        receiving = self._numbers.get(number)
        if receiving is None or not receiving.is_open:
            return []
        return [Abort(number, receiving.stream, reply.text), *self._refuse(receiving, reply)]

    def finished(self, number: int, reply: Reply) -> list[Command]:
        """The house has stored it, or not."""
        receiving = self._numbers.pop(number, None)
        return [] if receiving is None else self._answer(receiving, reply)

    def give_up(self, number: int) -> list[Command]:
        """Another session goes on with the stream; the house keeps what it has."""
        receiving = self._numbers.get(number)
        if receiving is None:
            return []
        return self._refuse(receiving, TABLE["begun-elsewhere"])

    # --- within ----------------------------------------------------------------------------------

    def _refuse(self, receiving: Receiving, reply: Reply) -> list[Command]:
        """Pass its content over: the answer is there before its end."""
        self._numbers.pop(receiving.number, None)
        receiving.is_open = False
        if not self._is_reliable:
            receiving.refusal = reply
            return []
        self._open.pop(receiving.stream.stream_id, None)
        return self._answer(receiving, reply)

    def _drop(self, receiving: Receiving, why: str) -> list[Command]:
        """Forget it, and say nothing."""
        del self._open[receiving.stream.stream_id]
        if self._numbers.pop(receiving.number, None) is None:
            return []
        return [Abort(receiving.number, receiving.stream, why)]

    def _answer(self, receiving: Receiving, reply: Reply) -> list[Command]:
        stream = receiving.stream
        is_queued = 200 <= reply.code < 300
        if self._is_reliable:
            code = reply.enhanced or f"{reply.code // 100}.0.0"
            return [
                Say(
                    format_message(
                        StreamResult(
                            stream.stream_id, stream.request_id, is_queued, code, reply.text,
                            is_permanent=reply.code >= 500,
                        )
                    )
                )
            ]  # fmt: skip
        if not self._has_results:
            return []
        error = None if is_queued else str(reply)
        return [Say(format_message(DeliveryResult(stream.stream_id, error)))]

    def _consume(self, octets: int) -> list[Command]:
        if not self._is_reliable:
            return []
        self._consumed += octets
        if self._consumed * 4 < self._terms.window:
            return []
        given, self._consumed = self._consumed, 0
        self._unconsumed -= given
        return [Say(format_message(Credit(given)))]

    def receiving(self, number: int) -> Receiving | None:
        return self._numbers.get(number)
