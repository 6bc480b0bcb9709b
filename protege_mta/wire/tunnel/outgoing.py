"""The streams that one side of a session sends.

Pure.  Whoever has the socket asks :meth:`StreamsOut.turn` whose turn it is, reads the octets that
are wanted, hands them to :meth:`StreamsOut.advance`, and sends what that gives; so nothing is read
before there is room for it on the way.  Ends of streams are values in :attr:`StreamsOut.ended`.
"""

from __future__ import annotations

import enum
import hashlib
import re
from typing import Final

import attrs

from ...model.stream import Stream
from ...model.value import value
from .bodies import format_end, format_start
from .frames import CHUNK_OCTETS, Kind, encode
from .messages import (
    Credit,
    DeliveryResult,
    StreamCancel,
    StreamResult,
    StreamResume,
    Terms,
    format_message,
)

_ENHANCED: Final = r"[245]\.\d{1,3}\.\d{1,3}"
_REPLY: Final = re.compile(
    rf"(?<![\w.:-])(?:(?P<code>[245][0-5]\d)(?=[ -]|\Z)[ -]?(?P<enhanced>{_ENHANCED}(?![\w.]))?"
    rf"|(?P<alone>{_ENHANCED})(?![\w.]))"
)
"""The first thing in a text that looks like a reply, or an enhanced status code."""

STREAMS_AT_A_TIME: Final = 32
"""Streams between their start and their end; others wait for their turn."""


class Acknowledgement(enum.Enum):
    """How a sender gets to know that a stream has come in."""

    RESULT = "result"
    """``stream_result``: the session is reliable."""

    PONG = "pong"
    """The agent has answered a ping that was sent after the stream's end."""

    DELIVERY_RESULT = "delivery_result"
    """``relay_delivery_result``, of an original relay."""


class State(enum.Enum):
    WAITING = "waiting"  # for a place among the streams at a time
    ASKING = "asking"  # where to go on
    SENDING = "sending"
    AWAITING = "awaiting"  # the acknowledgement


@value
class Queued:
    """The other side has it."""

    code: str = "2.0.0"
    text: str = ""


@value
class Refused:
    """It does not take it.  :ivar code: enhanced; empty where it gave none."""

    code: str
    text: str
    is_permanent: bool


@value
class Unanswered:
    """It said nothing for too long."""


Result = Queued | Refused | Unanswered


@attrs.define(eq=False)
class Sending:
    """One stream.

    :ivar offset: octets of the content that are sent, or that the other side has.
    :ivar hashed: octets that are in the digest.
    :ivar start: the message that begins it; empty once it has begun.
    :ivar since: when it last got on, by the clock that the caller goes by.
    :ivar ping: the number of the ping after its end; 0 before.
    """

    stream: Stream
    size: int
    is_resume: bool
    since: float
    start: bytes
    state: State = State.WAITING
    offset: int = 0
    hashed: int = 0
    ping: int = 0
    digest: hashlib._Hash = attrs.field(factory=hashlib.sha256)


class StreamsOut:
    """:param terms: what the other side takes; None where it did not say (not reliable).

    :ivar ended: streams that came to their end, with what it was; to be taken out by the caller.
    """

    def __init__(self, acknowledgement: Acknowledgement, terms: Terms | None) -> None:
        self._acknowledgement = acknowledgement
        self._terms = terms
        self._streams: dict[str, Sending] = {}
        # Lists, for they are short, and an empty deque takes 700 octets of every session.
        self._waiting: list[Sending] = []
        self._active: list[Sending] = []  # asking or sending
        self._unacknowledged = 0  # octets of chunks' bodies
        self.ended: list[tuple[Sending, Result]] = []

    @property
    def is_reliable(self) -> bool:
        return self._acknowledgement is Acknowledgement.RESULT

    def begin(self, stream: Stream, size: int, *, is_resume: bool, now: float) -> Sending:
        """Line a stream up.

        :param stream: with its ids; those have to be new in this session.
        :param size: octets of the content.
        :raise ValueError: the start cannot be put into words: an id that is too long, or in use, or
            text that is no Unicode.
        """
        if stream.stream_id in self._streams:
            raise ValueError("the stream's id is in use")
        body = format_start(stream, is_reliable=self.is_reliable, is_resume=is_resume)
        start = encode(Kind.START, stream.stream_id, body)
        sending = Sending(stream, size, is_resume, now, start)
        self._streams[stream.stream_id] = sending
        self._waiting.append(sending)
        return sending

    def turn(self) -> tuple[Sending, int, int] | None:
        """The stream that can get on, and the octets that :meth:`advance` wants for it: from where,
        how many.  None where nothing can be sent now."""
        if self._waiting and len(self._active) < STREAMS_AT_A_TIME:
            return self._waiting[0], 0, 0
        for _ in range(len(self._active)):
            sending = self._active.pop(0)
            self._active.append(sending)
            if sending.state is not State.SENDING:
                continue
            if sending.hashed < sending.offset:  # what the other side has counts for the digest
                size = min(CHUNK_OCTETS, sending.offset - sending.hashed)
                return sending, sending.hashed, size
            size = min(CHUNK_OCTETS, sending.size - sending.offset, self._room)
            if size or sending.offset == sending.size:
                return sending, sending.offset, size
        return None

    @property
    def _room(self) -> int:
        return CHUNK_OCTETS if self._terms is None else self._terms.window - self._unacknowledged

    def advance(self, sending: Sending, octets: bytes, now: float) -> list[bytes]:
        """What :meth:`turn` asked for.

        :param octets: exactly as many as it named.
        :return: binary messages to be sent.
        """
        stream_id = sending.stream.stream_id
        sending.since = now
        if sending.state is State.WAITING:
            start, sending.start = sending.start, b""
            sending.state = State.ASKING if sending.is_resume else State.SENDING
            self._waiting.remove(sending)
            self._active.append(sending)
            return [start]
        if self.is_reliable:
            sending.digest.update(octets)
        sending.hashed += len(octets)
        frames = []
        if octets and sending.hashed > sending.offset:
            sending.offset = sending.hashed
            self._unacknowledged += len(octets)
            frames.append(encode(Kind.CHUNK, stream_id, octets))
        if sending.offset == sending.size == sending.hashed:
            body = format_end(sending.digest.hexdigest()) if self.is_reliable else b""
            frames.append(encode(Kind.END, stream_id, body))
            self._active.remove(sending)
            sending.state = State.AWAITING
        return frames

    def cancel(self, sending: Sending) -> bytes | None:
        """Give a stream up, unless it is over.  :return: a text message to be sent, if any."""
        if self._streams.get(sending.stream.stream_id) is not sending:
            return None
        was_begun = sending.state is not State.WAITING
        self._forget(sending)
        if not was_begun or not self.is_reliable:
            return None
        return format_message(StreamCancel(sending.stream.stream_id))

    def drop(self) -> list[Sending]:
        """The session is over: give back what was under way."""
        left = list(self._streams.values())
        self._streams.clear()
        self._waiting.clear()
        self._active.clear()
        return left

    # --- what the other side says ----------------------------------------------------------------

    def credited(self, credit: Credit) -> bool:
        """Whether it may say so."""
        if credit.octets > self._unacknowledged:
            return False
        self._unacknowledged -= credit.octets
        return True

    def resumed(self, resume: StreamResume, now: float) -> bool:
        """Whether it may say so; of a stream that is over it may."""
        sending = self._streams.get(resume.stream_id)
        if sending is None:
            return True
        if sending.state is not State.ASKING or resume.offset > sending.size:
            return False
        sending.state = State.SENDING
        sending.offset = resume.offset
        sending.since = now
        return True

    def answered(self, result: StreamResult) -> None:
        if result.is_queued:
            self._end(result.stream_id, Queued(result.code, result.text))
        else:
            self._end(result.stream_id, Refused(result.code, result.text, result.is_permanent))

    def delivered(self, result: DeliveryResult) -> None:
        sending = self._streams.get(result.stream_id)
        if sending is None or sending.state is not State.AWAITING:
            return
        if result.error is None:
            self._end(result.stream_id, Queued(text="sent by the relay"))
        else:
            self._end(result.stream_id, read_error(result.error))

    def ponged(self, number: int) -> None:
        """The ping of this number was answered: and so was every earlier one (RFC 6455, 5.5.3)."""
        for sending in list(self._streams.values()):
            if 0 < sending.ping <= number:
                self._end(sending.stream.stream_id, Queued(text="taken by the agent"))

    def overdue(self, since: float) -> list[Sending]:
        """Begun streams that have not got on after that time."""
        return [
            sending
            for sending in self._streams.values()
            if sending.state is not State.WAITING and sending.since < since
        ]

    @property
    def is_idle(self) -> bool:
        return not self._streams

    def _end(self, stream_id: str, result: Result) -> None:
        sending = self._streams.get(stream_id)
        if sending is not None:
            self._forget(sending)
            self.ended.append((sending, result))

    def _forget(self, sending: Sending) -> None:
        del self._streams[sending.stream.stream_id]
        for line in (self._waiting, self._active):
            if sending in line:
                line.remove(sending)


def read_error(text: str) -> Refused:
    """What an original relay's free text comes to: for good only where it shows such a reply."""
    found = _REPLY.search(text)
    if found is None:
        return Refused("", text, is_permanent=False)
    code = found["enhanced"] or found["alone"] or ""
    return Refused(code, text, is_permanent=(found["code"] or code).startswith("5"))
