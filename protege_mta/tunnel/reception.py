"""What comes in by a session: its streams, on their way into the house."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import Intake, Session
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from ..wire.tunnel.frames import FramePart
from ..wire.tunnel.incoming import Abort, Close, Command, Finish, Open, Say, StreamsIn, Write
from ..wire.tunnel.messages import StreamCancel
from .setting import Setting, Wire
from .unfinished import Kept, Request


class Reception:
    """Does what :class:`..wire.tunnel.incoming.StreamsIn` says.

    :param broken: told of a code, and why, where the other side broke the protocol.
    """

    log = Logger()

    def __init__(
        self, session: Session, wire: Wire, setting: Setting, broken: Callable[[str, str], None]
    ) -> None:
        self._session = session
        self._wire = wire
        self._setting = setting
        self._unfinished = setting.unfinished
        self._broken = broken
        self._in = StreamsIn(
            setting.limits.terms,
            is_reliable=session.is_reliable,
            has_results=setting.is_relay,
        )
        self._intakes: dict[int, Intake] = {}
        self._waiting: Deferred[None] | None = None  # for the house
        self._waiting_number = 0
        self._is_waiting = False  # for another session that stores the same message
        self._storing = 0
        self._is_over = False

    @property
    def is_waiting(self) -> bool:
        """Whether nothing may be fed for now."""
        return (
            self._waiting is not None
            or self._is_waiting
            or self._storing >= self._setting.limits.storing
        )

    @property
    def is_busy(self) -> bool:
        """Whether contents are on their way in, and :meth:`look` has something to look at."""
        return bool(self._intakes)

    def look(self, answer_s: float) -> None:
        """Give up what has not got on for so long; what the house takes does not count."""
        now = self._unfinished.sweep.now
        for number in list(self._intakes):
            receiving = self._in.receiving(number)
            if receiving is None:
                continue
            if self.is_waiting:
                receiving.since = now
            elif receiving.since < now - answer_s:
                self._obey(self._in.spoiled(number, TABLE["stream-stalled"]))

    def parts(self, parts: Iterable[FramePart]) -> None:
        for part in parts:
            self._obey(self._in.part(part))

    def cancelled(self, cancel: StreamCancel) -> None:
        self._obey(self._in.cancelled(cancel))

    def over(self) -> None:
        """Nothing more can be said; what has come may still be fed."""
        self._is_over = True
        if self._waiting is not None and self._waiting_number not in self._intakes:
            self._waiting.cancel()  # a stream that has not been opened never will be

    def drained(self) -> None:
        """Nothing more will be fed: keep what can be gone on with, for a while."""
        for number, intake in list(self._intakes.items()):
            receiving = self._in.receiving(number)
            del self._intakes[number]
            if receiving is None or not receiving.stream.request_id or not receiving.taken:
                self._abort(intake)
                continue
            request = self._request(receiving.stream)
            self._unfinished.release(request, self, number)
            self._unfinished.keep(request, Kept(receiving, intake, self._unfinished.sweep.now))

    def _request(self, stream: Stream) -> Request:
        return self._session.identity, stream.request_id

    def _obey(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Open(number, stream):
                    self._open(number, stream)
                case Write(number, octets):
                    self._write(number, octets)
                case Finish(number):
                    self._finish(number)
                case Abort(number, stream, why):
                    self._drop(number, stream, why)
                case Say(text):
                    if not self._is_over:
                        self._wire.send_text(text)
                case Close(code, why):
                    self._broken(code, why)

    def _open(self, number: int, stream: Stream) -> None:
        receiving = self._in.receiving(number)
        if self._is_over or receiving is None:
            self._obey(self._in.opened(number, TABLE["session-lost"]))
            return
        receiving.since = self._unfinished.sweep.now
        if self._session.is_reliable:
            request = self._request(stream)
            if self._unfinished.when_stored(request, lambda: self._open_at_last(number, stream)):
                self._is_waiting = True
                return
            kept = self._unfinished.claim(request, self, receiving)
            if kept is not None:
                self._intakes[number] = kept.intake
                self._obey(self._in.resumed(number, kept.receiving))
                return
        try:
            answer = self._setting.door.receive(self._session, stream)
        except Exception:
            self.log.failure("{session}: the door could not answer", session=self._session)
            answer = TABLE["local-error"]
        if not isinstance(answer, Deferred):
            self._opened(number, answer)
            return
        self._wait(number, answer.addCallbacks(
            lambda opened: self._opened(number, opened), lambda failure: self._unopened(number, failure)
        ))  # fmt: skip

    def _open_at_last(self, number: int, stream: Stream) -> None:
        """Another session has done with the same message."""
        self._is_waiting = False
        self._open(number, stream)
        self._go_on()

    def _opened(self, number: int, answer: Intake | Reply) -> None:
        receiving = self._in.receiving(number)
        if isinstance(answer, Reply):
            if receiving is not None:
                self._unfinished.release(self._request(receiving.stream), self, number)
            self._obey(self._in.opened(number, answer))
        elif receiving is None:  # given up meanwhile
            self._abort(answer)
        else:
            receiving.since = self._unfinished.sweep.now
            self._intakes[number] = answer
            self._obey(self._in.opened(number, None))

    def _unopened(self, number: int, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("{session}: the door could not answer", failure, session=self._session)
        self._opened(number, TABLE["local-error"])

    def _write(self, number: int, octets: bytes) -> None:
        receiving = self._in.receiving(number)
        if receiving is not None:
            receiving.since = self._unfinished.sweep.now
        try:
            pause = self._intakes[number].write(octets)
        except Exception:
            self._unwritten(number, len(octets), Failure())
            return
        if pause is None:
            self._obey(self._in.written(len(octets)))
            return
        self._wait(number, pause.addCallbacks(
            lambda _: self._obey(self._in.written(len(octets))),
            lambda failure: self._unwritten(number, len(octets), failure),
        ))  # fmt: skip

    def _unwritten(self, number: int, octets: int, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure(
                "{session}: content could not be handed on", failure, session=self._session
            )
        self._obey(self._in.spoiled(number, TABLE["local-error"]))
        self._obey(self._in.written(octets))

    def _wait(self, number: int, answer: Deferred[None]) -> None:
        """Let nothing more in before the house has answered."""
        self._waiting, self._waiting_number = answer, number
        answer.addBoth(self._answered)

    def _answered(self, result: object) -> None:
        if isinstance(result, Failure):
            self.log.failure("{session}: bug in a session", result, session=self._session)
        self._waiting = None
        self._go_on()

    def _go_on(self) -> None:
        if not self.is_waiting:
            self._wire.go_on()

    def _finish(self, number: int) -> None:
        receiving = self._in.receiving(number)
        request = None
        if receiving is not None and receiving.stream.request_id:
            request = self._request(receiving.stream)
            self._unfinished.release(request, self, number)
            self._unfinished.storing(request)
        self._storing += 1
        try:
            stored = self._intakes.pop(number).finish()
        except Exception:
            self._stored(Failure(), number, request)
            return
        stored.addBoth(self._stored, number, request)

    def _stored(self, result: Reply | Failure, number: int, request: Request | None) -> None:
        self._storing -= 1
        if isinstance(result, Failure):
            self.log.failure(
                "{session}: content could not be stored", result, session=self._session
            )
            result = TABLE["local-error"]
        self._obey(self._in.finished(number, result))
        if request is not None:
            self._unfinished.stored(request)
        self._go_on()

    def _drop(self, number: int, stream: Stream, why: str) -> None:
        """A stream came to nothing."""
        # What a relay sends may be lost by it; agents may do so for as long as they like.
        log = self.log.debug if self._setting.is_relay else self.log.warn
        log("{session}: a stream came to nothing: {why}", session=self._session, why=why)
        intake = self._intakes.pop(number, None)
        self._unfinished.release(self._request(stream), self, number)
        if self._waiting is not None and self._waiting_number == number:
            self._waiting.cancel()
        if intake is not None:
            self._abort(intake)

    def _abort(self, intake: Intake) -> None:
        try:
            intake.abort()
        except Exception:
            self.log.failure("{session}: content could not be given up", session=self._session)

    def hand_over(self, number: int) -> Kept | None:
        """Another session goes on with a stream."""
        receiving = self._in.receiving(number)
        intake = self._intakes.pop(number, None)
        self._obey(self._in.give_up(number))
        if self._waiting is not None and self._waiting_number == number:
            self._waiting.cancel()  # the house is in the middle of it: nothing to go on with
            if intake is not None:
                self._abort(intake)
            return None
        if receiving is None or intake is None:
            return None
        return Kept(receiving, intake)
