"""A session that has begun: streams both ways between a socket and the house, in either role.

What the protocol allows is :mod:`..wire.tunnel`'s business, the socket :mod:`.connection`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..model.identity import Identity
from ..model.outcome import Contact, Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Octets
from ..model.reply import TABLE, Reply
from ..model.stream import DeliveryState, Stream
from ..wire.tunnel.frames import FramePart
from ..wire.tunnel.messages import (
    AuthError,
    Credit,
    DeliveryResult,
    Malformed,
    StreamCancel,
    StreamResult,
    StreamResume,
    Terms,
    format_message,
    parse,
)
from ..wire.tunnel.outgoing import (
    Acknowledgement,
    Queued,
    Refused,
    Result,
    Sending,
    State,
    StreamsOut,
    Unanswered,
)
from .reception import Reception
from .setting import Setting, Wire
from .unfinished import Request

BROKEN: Final = 4401
"""The close code for who breaks the protocol, as the original has it."""

_TURNS: Final = 16  # chunks before others get a look in
_TEXT: Final = re.compile(r"[^ -~]+")
_CODE: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\Z")


class TunnelSession:
    """A :class:`~..model.ports.Session`.

    :ivar socket_id: what a session that takes its place is told.
    :param host: what outcomes call the other side.
    :param theirs: what the other side takes; None where the session is not reliable.
    """

    log = Logger()

    def __init__(
        self,
        wire: Wire,
        setting: Setting,
        identity: Identity,
        *,
        host: str,
        peer_address: str,
        takes_mail: bool,
        theirs: Terms | None,
        socket_id: str = "",
    ) -> None:
        self.identity = identity
        self.peer_address = peer_address
        self.is_reliable = theirs is not None
        self.takes_mail = takes_mail
        self.socket_id = socket_id
        self._wire = wire
        self._setting = setting
        self._unfinished = setting.unfinished
        self._contact = Contact(host, peer_address)
        self._theirs = theirs
        if theirs is not None:
            acknowledgement = Acknowledgement.RESULT
        elif setting.is_relay:
            acknowledgement = Acknowledgement.PONG
        else:
            acknowledgement = Acknowledgement.DELIVERY_RESULT
        self._acknowledgement = acknowledgement
        self._out = StreamsOut(acknowledgement, theirs)
        self._sends: dict[Sending, tuple[Octets, Deferred[Outcome]]] = {}
        self._in = Reception(self, wire, setting, self._broken)
        self._pings = 0
        self._is_pumping = False
        self._later: IDelayedCall | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<session of {self.identity} at {self.peer_address}>"

    # --- Session ---------------------------------------------------------------------------------

    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        if self._is_over:
            return succeed(self._lost())
        if self._theirs is not None and octets.size_octets > self._theirs.max_octets:
            reply = TABLE["message-too-big"]
            return succeed(PermanentFailure(Scope.MESSAGE, reply, self._contact))
        stream_id = stream.stream_id or self._setting.new_id()
        stream = attrs.evolve(
            stream, stream_id=stream_id, request_id=stream.request_id or stream_id,
            size_octets=octets.size_octets,
        )  # fmt: skip
        try:
            sending = self._out.begin(
                stream,
                octets.size_octets,
                is_resume=self.is_reliable and self._unfinished.is_asked(self._request(stream)),
                now=self._now,
            )
        except ValueError:
            reply = TABLE["cannot-be-sent"]
            return succeed(PermanentFailure(Scope.MESSAGE, reply, self._contact))
        if self.is_reliable:
            self._unfinished.ask(self._request(stream))
        outcome: Deferred[Outcome] = Deferred(lambda _: self._cancel(sending))
        self._sends[sending] = octets, outcome
        self._settle()
        self._pump()
        return outcome

    def tell(self, state: DeliveryState) -> None:
        # Nobody needs to know so much that words pile up for who does not read.
        if self.is_reliable and not self._is_over and not self._wire.is_stuck:
            self._wire.send_text(format_message(state))

    def close(self, code: int, reason: str) -> None:
        if not self._is_over:
            self._wire.close(code, reason)

    # --- what the connection calls ---------------------------------------------------------------

    def begin(self) -> None:
        """Tell the house."""
        try:
            self._setting.door.opened(self)
        except Exception:
            self.log.failure("the door could not take a session in")

    @property
    def is_waiting(self) -> bool:
        """Whether nothing may be fed for now."""
        return self._in.is_waiting

    @property
    def is_busy(self) -> bool:
        """Whether streams are under way, and :meth:`look` has something to look at."""
        return not self._out.is_idle or self._in.is_busy

    def parts(self, parts: Iterable[FramePart]) -> None:
        """What a binary message came to."""
        self._in.parts(parts)

    def text(self, octets: bytes) -> None:
        """A text message."""
        if not self.is_reliable:
            self._text_of_original(octets)
            return
        match parse(octets):
            case Credit() as credit:
                self._expect(self._out.credited(credit))
            case StreamResume() as resume:
                self._expect(self._out.resumed(resume, self._now))
            case StreamResult() as result:
                self._out.answered(result)
                self._settle()
            case StreamCancel() as cancel:
                self._in.cancelled(cancel)
            case DeliveryState() as state if not self._setting.is_relay:
                self._told(state)
            case Malformed(why):
                self._broken("invalid_message", why)
            case _:
                return
        self._pump()

    def _text_of_original(self, octets: bytes) -> None:
        if self._setting.is_relay:
            self._broken("invalid_tunnel_frame", "text in a session that has none")
            return
        match parse(octets):
            case DeliveryResult() as result:
                self._out.delivered(result)
                self._settle()
                self._pump()
            case _:
                self.log.debug("{session}: a message that nobody knows", session=self)

    def ponged(self, number: int) -> None:
        """The other side has answered a ping."""
        self._out.ponged(number)
        self._settle()

    def next_ping(self) -> int:
        self._pings += 1
        return self._pings

    def flow(self) -> None:
        """What was sent has left."""
        self._pump()

    def look(self) -> None:
        """End what has waited for too long."""
        limits, now = self._setting.limits, self._now
        is_told = self._acknowledgement is Acknowledgement.DELIVERY_RESULT
        for sending in self._out.overdue(now - min(limits.result_s, limits.answer_s)):
            is_result_due = is_told and sending.state is State.AWAITING
            if sending.since < now - (limits.result_s if is_result_due else limits.answer_s):
                self._give_up(sending, Unanswered())
        self._in.look(limits.answer_s)
        self._pump()

    def over(self) -> None:
        """The socket is closing, or gone: nothing more can be said.

        What has come may still be fed; :meth:`drained` follows.
        """
        if self._is_over:
            return
        self._is_over = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._in.over()
        for sending in self._out.drop():
            _, outcome = self._sends.pop(sending)
            outcome.callback(self._lost())
        try:
            self._setting.door.closed(self)
        except Exception:
            self.log.failure("the door could not take leave of a session")

    def drained(self) -> None:
        """Nothing more will be fed."""
        self._in.drained()

    def _expect(self, is_right: bool) -> None:
        if not is_right:
            self._broken("invalid_message", "more credit, or more resumed, than there can be")

    def _broken(self, code: str, why: str) -> None:
        """The other side broke the protocol."""
        if self._is_over:
            return
        self.log.info("{session}: broken off with {code}: {why}", session=self, code=code, why=why)
        if self._setting.is_relay:
            self._wire.send_text(format_message(AuthError(code)))
        self._wire.close(BROKEN, code)

    # --- sending ---------------------------------------------------------------------------------

    def _request(self, stream: Stream) -> Request:
        return self.identity, stream.request_id

    @property
    def _now(self) -> float:
        return self._unfinished.sweep.now

    def _pump(self) -> None:
        """Send what can be sent now."""
        if self._is_pumping or self._later is not None:
            return
        self._is_pumping = True
        try:
            for _ in range(_TURNS):
                if self._wire.is_stuck or self._is_over or not self._send_one():
                    return
        finally:
            self._is_pumping = False
        self._later = self._setting.clock.callLater(0, self._pump_later)

    def _pump_later(self) -> None:
        self._later = None
        self._pump()

    def _send_one(self) -> bool:
        turn = self._out.turn()
        if turn is None:
            return False
        sending, offset, size = turn
        try:
            octets = self._sends[sending][0].read(offset, size) if size else b""
            if len(octets) != size:
                raise EOFError(f"{len(octets)} octets at {offset}, {size} were to be there")
        except Exception:
            self.log.failure("{session}: content could not be read", session=self)
            self._fail(sending, TransientFailure(Scope.MESSAGE, TABLE["local-error"]))
            return True
        for frame in self._out.advance(sending, octets, self._now):
            self._wire.send_binary(frame)
        is_at_end = sending.state is State.AWAITING
        if is_at_end and self._acknowledgement is Acknowledgement.PONG:
            sending.ping = self.next_ping()
            self._wire.ping(sending.ping)
        return True

    def _settle(self) -> None:
        """Tell who waits for it what became of streams."""
        ended, self._out.ended = self._out.ended, []
        for sending, result in ended:
            self._end(sending, result)

    def _give_up(self, sending: Sending, result: Result) -> None:
        self._say_cancel(sending)
        self._end(sending, result)

    def _fail(self, sending: Sending, outcome: Outcome) -> None:
        self._say_cancel(sending)
        self._sends.pop(sending)[1].callback(outcome)

    def _cancel(self, sending: Sending) -> None:
        """Nobody waits for the outcome any more."""
        self._sends.pop(sending, None)
        self._say_cancel(sending)
        self._pump()

    def _say_cancel(self, sending: Sending) -> None:
        text = self._out.cancel(sending)
        if text is not None:
            self._wire.send_text(text)

    def _end(self, sending: Sending, result: Result) -> None:
        if self.is_reliable and not isinstance(result, Unanswered):
            self._unfinished.answered(self._request(sending.stream))
        octets, outcome = self._sends.pop(sending)
        ended = self._outcome(result)
        self._setting.sent(ended, octets.size_octets)
        outcome.callback(ended)

    def _outcome(self, result: Result) -> Outcome:
        match result:
            case Queued(code, text):
                reply = Reply(250, _enhanced(code, "2"), (readable(text),))
                return Delivered(self._contact, reply)
            case Refused(code, text, True):
                reply = Reply(550, _enhanced(code, "5"), (readable(text),))
                return PermanentFailure(Scope.RECIPIENT, reply, self._contact)
            case Refused(code, text):
                reply = Reply(450, _enhanced(code, "4"), (readable(text),))
                return TransientFailure(Scope.RECIPIENT, reply, self._contact)
            case Unanswered():
                return TransientFailure(Scope.HOST, TABLE["no-answer"], self._contact)

    def _lost(self) -> Outcome:
        return TransientFailure(Scope.HOST, TABLE["session-lost"], self._contact)

    def _told(self, state: DeliveryState) -> None:
        state = attrs.evolve(
            state,
            request_id=readable(state.request_id),
            code=readable(state.code),
            text=readable(state.text),
        )
        try:
            self._setting.told(self, state)
        except Exception:
            self.log.failure("{session}: a state of delivery was told in vain", session=self)


def readable(text: str) -> str:
    """What the other side said, as it may stand in a log and in a reply: ASCII, and not too long."""
    return _TEXT.sub(" ", text)[:500]


def _enhanced(code: str, kind: str) -> str:
    return code if _CODE.match(code) and code.startswith(kind) else f"{kind}.0.0"
