"""What the service and its delivery process say to each other, and the pair of sockets between them.

The channel is private: a socket pair whose other end the child inherits, so that nobody else can
speak on it, and that tells each of them at once when the other one is gone.  A frame is its length
in four octets, little-endian, and a msgpack array whose first element says what it is.  What
travels are the program's own values as they are.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import msgspec
from twisted.internet import main
from twisted.internet.interfaces import IReactorFDSet, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ..model.envelope import Message
from ..model.hop import Site
from ..model.outcome import Delivered, Outcome, PermanentFailure, TransientFailure
from ..model.tally import Tally
from . import fast

_LENGTH: Final = struct.Struct("<I")
_READ_OCTETS: Final = 262_144
_PIECES: Final = 64  # most of one write, far below IOV_MAX
_BUFFER_OCTETS: Final = 1_048_576
"""What the kernel may hold for one direction; it takes what it allows of it."""


# --- what is said --------------------------------------------------------------------------------


class Setup(msgspec.Struct, array_like=True, tag="setup"):
    """To the child: work by these settings from now on.

    :ivar settings: pickled; both ends are one program.
    :ivar own: addresses and ports where the service listens.
    """

    settings: bytes
    own: list[tuple[str, int]]


class Job(msgspec.Struct, array_like=True, tag="job", gc=False):
    """To the child: deliver a message to all of its recipients.

    :ivar message: with the recipients of this attempt only.
    :ivar octets: the whole content.
    """

    number: int
    site: Site
    domain: str
    message: Message
    octets: bytes


class Leave(msgspec.Struct, array_like=True, tag="leave"):
    """To the child: end what is under way, and go."""


class Ready(msgspec.Struct, array_like=True, tag="ready"):
    """From the child: jobs may come.  :ivar pid: its process id."""

    pid: int


class Fated(msgspec.Struct, array_like=True, gc=False):
    """One recipient's outcome, which is the one that is there."""

    index: int
    delivered: Delivered | None = None
    transient: TransientFailure | None = None
    permanent: PermanentFailure | None = None

    @classmethod
    def of(cls, index: int, outcome: Outcome) -> Fated:
        if isinstance(outcome, Delivered):
            return cls(index, outcome)
        if isinstance(outcome, TransientFailure):
            return cls(index, None, outcome)
        return cls(index, None, None, outcome)

    @property
    def outcome(self) -> Outcome:
        outcome = self.delivered or self.transient or self.permanent
        if outcome is None:
            raise ValueError(f"recipient {self.index} has no outcome")
        return outcome


class Done(msgspec.Struct, array_like=True, tag="done", gc=False):
    """From the child: what became of a job's recipients."""

    number: int
    outcomes: list[Fated]


class Counted(msgspec.Struct, array_like=True, tag="counted"):
    """From the child: its counts since it began."""

    tally: Tally


class Noted(msgspec.Struct, array_like=True, tag="noted"):
    """From the child: something for the log.  :ivar level: a name of Twisted's log levels."""

    level: str
    namespace: str
    text: str


ToChild = Setup | Job | Leave
FromChild = Ready | Done | Counted | Noted

encode: Final = msgspec.msgpack.Encoder().encode
to_child: Final = msgspec.msgpack.Decoder(ToChild).decode
from_child: Final = msgspec.msgpack.Decoder(FromChild).decode


# --- the channel ---------------------------------------------------------------------------------


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends, ours and the child's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_OCTETS)
    return ends


@implementer(IReadWriteDescriptor)
class Link:
    """One end.  Frames that are sent in one turn of the reactor leave together, and nothing is
    copied on the way.

    :param end: ours from now on.
    :param received: gets each frame.
    :param lost: called once, when the other end is gone or :meth:`drop` was called.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        end: socket.socket,
        received: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        end.setblocking(False)
        self._reactor = reactor
        self._end = end
        self._received = received
        self._lost = lost
        self._rest = b""  # of a frame that has not come in whole
        self._out: deque[bytes | memoryview] = deque()
        self._is_open = True
        self._is_dropping = False
        self._is_waiting = False  # for the kernel to take more
        reactor.addReader(self)

    def send(self, frame: bytes) -> None:
        """Nothing happens once the channel is gone."""
        if not self._is_open:
            return
        out = self._out
        if not out:
            self._write_soon()
        out.append(_LENGTH.pack(len(frame)))
        out.append(frame)

    def drop(self) -> None:
        """Close, once what was sent has left."""
        self._is_dropping = True
        if self._is_open and not self._out:
            self._write_soon()

    def _write_soon(self) -> None:
        if not fast.write_at_end(self._reactor, self):
            self._wait()

    def _wait(self) -> None:
        self._is_waiting = True
        self._reactor.addWriter(self)

    # --- for the reactor -------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._end.fileno()

    def logPrefix(self) -> str:
        return "link"

    def doRead(self) -> Any:
        try:
            octets = self._end.recv(_READ_OCTETS)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not octets:
            return main.CONNECTION_DONE
        if self._rest:
            octets = self._rest + octets
        start, received = 0, self._received
        while len(octets) - start >= _LENGTH.size:
            end = start + _LENGTH.size + _LENGTH.unpack_from(octets, start)[0]
            if end > len(octets):
                break
            frame = octets[start + _LENGTH.size : end]
            start = end
            received(frame)
        self._rest = octets[start:]
        return None

    def doWrite(self) -> Any:
        out = self._out
        if out:
            try:
                sent = self._end.sendmsg(list(islice(out, _PIECES)))
            except BlockingIOError:
                return None
            except OSError:
                return main.CONNECTION_LOST
            while out and sent >= len(out[0]):
                sent -= len(out.popleft())
            if sent:
                out[0] = memoryview(out[0])[sent:]
        if not out:
            if self._is_waiting:
                self._is_waiting = False
                self._reactor.removeWriter(self)
            if self._is_dropping:
                return main.CONNECTION_DONE
        return None

    def write_now(self) -> Any:
        """The turn is over."""
        if not self._is_open:
            return None
        why = self.doWrite()
        if why is None and self._out:
            self._wait()
        return why

    def connectionLost(self, reason: Failure) -> None:
        if self._is_open:
            self._is_open = False
            self._out.clear()
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._end.close()
            self._lost()
