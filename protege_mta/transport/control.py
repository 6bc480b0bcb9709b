"""``control.sock``: commands from another process of the same machine, one JSON object a line.

In: ``{"command", "arguments"}``.  Out: ``{"row": {...}}`` any number of times, then ``{"done":
{...}}`` with a summary, or ``{"error", "kind"}``.  Commands of one connection are answered in
order, and a connection outlives a command that fails.  The socket's mode is its only guard, so it
belongs to the service's user alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Literal

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

Row = dict[str, Any]

Kind = Literal["usage", "not-found", "unavailable", "internal"]
"""What an error is about, for exit codes."""

LINE_OCTETS: Final = 64 * 1024
CONNECTIONS: Final = 32
_WAITING: Final = 16  # commands of one connection that wait for the one at work
_SLICE_OCTETS: Final = 32 * 1024
_SLICE_S: Final = 0.005


@attrs.frozen
class Done:
    """The last thing that a handler yields, if it has a summary."""

    summary: Row


class ControlFault(Exception):
    """A command cannot be done; said to whoever asked.

    :ivar kind: for the exit code.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


Handler = Callable[[Mapping[str, Any]], AsyncGenerator[Row | Done, None]]
"""An async generator function over a command's arguments.

It yields rows, may await Deferreds, and is closed early when the peer goes away: between any two
rows other things happen, and minutes may pass where the peer reads slowly.  What it raises is an
answer for :class:`ControlFault` and a logged ``internal`` error for the rest.
"""


class _Request(msgspec.Struct):
    command: str
    arguments: dict[str, Any] = {}  # msgspec makes a fresh one each time


@implementer(IPushProducer)
class ControlProtocol(LineOnlyReceiver):
    """One connection."""

    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = LINE_OCTETS
    transport: Any  # a UNIX stream, as far as producers go like TCP

    def __init__(self, factory: ControlFactory) -> None:
        self._control = factory
        self._lines: deque[bytes] = deque()
        self._work: Deferred[None] | None = None
        self._resumed: Deferred[None] | None = None
        self._is_paused = False
        self._is_lost = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        if len(self._control.connections) >= CONNECTIONS:
            self._hang_up(ControlFault("unavailable", "too many connections"))
            return
        self._control.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        self._control.connections.discard(self)
        self._lines.clear()
        if self._work is not None:
            self._work.cancel()

    def lineReceived(self, line: bytes) -> None:
        if self._is_lost:
            return
        self._lines.append(line)
        if self._work is None:
            self._next()
        elif len(self._lines) > _WAITING:
            self._hang_up(ControlFault("usage", "too many commands at once"))

    def lineLengthExceeded(self, line: bytes) -> None:
        self._hang_up(ControlFault("usage", f"a line is longer than {LINE_OCTETS} octets"))

    def close(self) -> None:
        """Drop what is at work and hang up."""
        self._hang_up(ControlFault("unavailable", "the service is shutting down"))

    # --- back-pressure ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        if self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` does the rest."""

    async def _room(self) -> None:
        """Let others have a turn, and wait until the peer has read what we wrote."""
        await deferLater(self._control.clock, 0)
        if self._is_paused:
            self._resumed = Deferred(self._forget)
            await self._resumed

    def _forget(self, resumed: Deferred[None]) -> None:
        self._resumed = None

    # --- commands --------------------------------------------------------------------------------

    def _next(self) -> None:
        while self._lines and self._work is None:
            work = Deferred.fromCoroutine(self._answer(self._lines.popleft()))
            if not work.called:
                self._work = work
            work.addErrback(self._failed)
            if self._work is not None:
                work.addCallback(self._finished)

    def _finished(self, _: None) -> None:
        self._work = None
        self._next()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("bug in the control socket", failure=failure)

    async def _answer(self, line: bytes) -> None:
        command = ""
        try:
            request = _decoded(line)
            command = request.command
            handler = self._control.handlers.get(command)
            if handler is None:
                raise ControlFault("usage", f"unknown command {command!r}")
            summary = await self._stream(handler(request.arguments))
        except CancelledError:
            raise
        except ControlFault as fault:
            self._say({"error": str(fault), "kind": fault.kind})
        except Exception:
            self.log.failure("command {command} failed", command=command)
            self._say({"error": "internal error, see the service's log", "kind": "internal"})
        else:
            self._say({"done": summary})

    async def _stream(self, answers: AsyncGenerator[Row | Done, None]) -> Row:
        clock = self._control.clock
        lines: list[bytes] = []
        octets, until = 0, clock.seconds() + _SLICE_S
        summary: Row = {}
        try:
            async with aclosing(answers):
                async for answer in answers:
                    if isinstance(answer, Done):
                        summary = answer.summary
                        break
                    lines.append(_encode({"row": answer}))
                    octets += len(lines[-1])
                    if octets >= _SLICE_OCTETS or clock.seconds() >= until:
                        self._write(lines)
                        await self._room()
                        octets, until = 0, clock.seconds() + _SLICE_S
        finally:
            self._write(lines)
        return summary

    # --- the wire --------------------------------------------------------------------------------

    def _say(self, answer: Row) -> None:
        self._write([_encode(answer)])

    def _write(self, lines: list[bytes]) -> None:
        """Write the lines, and empty the list."""
        if not self._is_lost:
            self.transport.write(b"".join(lines))
        lines.clear()

    def _hang_up(self, fault: ControlFault) -> None:
        self._lines.clear()
        if self._work is not None:
            self._work.cancel()
        self._say({"error": str(fault), "kind": fault.kind})
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._is_lost = True


@implementer(IProtocolFactory)
class ControlFactory:
    """Serves ``control.sock``.

    :param handlers: by command; ``queue.list`` and the like.
    :ivar connections: those that are open.
    """

    def __init__(self, handlers: Mapping[str, Handler], clock: IReactorTime) -> None:
        self.handlers = handlers
        self.clock = clock
        self.connections: set[ControlProtocol] = set()

    def doStart(self) -> None:
        """Nothing to make ready."""

    def doStop(self) -> None:
        """Nothing to clear away."""

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:
        return ControlProtocol(self)

    def close(self) -> None:
        """Hang up on everybody; the port is its owner's to stop."""
        for connection in tuple(self.connections):
            connection.close()


def _decoded(line: bytes) -> _Request:
    try:
        return msgspec.json.decode(line, type=_Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlFault("usage", f"not a request: {error}") from None


def _encode(answer: Row) -> bytes:
    return msgspec.json.encode(answer) + b"\n"
