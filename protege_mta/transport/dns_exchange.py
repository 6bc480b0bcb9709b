"""One question to one name server: a datagram, and a stream where that is too small.

RFC 1035, 4.2; RFC 7766; against forgeries RFC 5452: a socket and so a random source port for each
question, connected so that the kernel drops what comes from elsewhere, and an unpredictable id.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocolFactory,
    IReactorTime,
    IReadDescriptor,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .dns_messages import Elsewhere, Question, Reading, Settled, Truncated, Useless, read

DATAGRAM_S: Final = 2.0
"""How long a server may take for a datagram."""

STREAM_S: Final = 4.0
"""How long it may take for a stream, connecting included."""

STRAYS: Final = 100
"""After so many datagrams that are no answer somebody is guessing; a stream cannot be guessed."""

_LARGEST_OCTETS: Final = 65_535

_T = TypeVar("_T")

Server = tuple[str, int]
"""A name server's IP address and port."""


class Reactor(Protocol):
    """What a resolver needs of Twisted's."""

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall: ...

    def addReader(self, reader: IReadDescriptor) -> None: ...

    def removeReader(self, reader: IReadDescriptor) -> None: ...

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any: ...


class Socket(Protocol):
    """What is needed of a datagram socket."""

    def connect(self, address: Server, /) -> None: ...
    def send(self, octets: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def open_socket(server: Server) -> Socket:
    """A datagram socket that never blocks, of the server's address family."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


@attrs.frozen
class Network:
    """The way to name servers.

    :ivar open_socket: gives a datagram socket for a server.
    """

    reactor: Reactor
    open_socket: Callable[[Server], Socket] = open_socket


async def exchange(
    network: Network, server: Server, question: Question, *, trust_ad: bool
) -> Settled | Elsewhere | Useless:
    """Ask, and ask again by a stream where the answer does not fit.

    Ends in time by itself; may be cancelled.
    """
    reading = await _by_datagram(network, server, question, trust_ad)
    if not isinstance(reading, Truncated):
        return reading
    stream = Deferred.fromCoroutine(_by_stream(network, server, question, trust_ad))
    return await stream.addTimeout(STREAM_S, cast(IReactorTime, network.reactor), _silent)


def _silent(_: object, waited_s: float) -> Useless:
    return Useless(f"no answer within {waited_s:g} s", "silent")


def _by_datagram(
    network: Network, server: Server, question: Question, trust_ad: bool
) -> Deferred[Reading]:
    clock = cast(IReactorTime, network.reactor)
    answered: Deferred[Reading] = Deferred()
    try:
        opened = network.open_socket(server)
    except OSError as error:  # no descriptors, no IPv6
        return answered.addTimeout(0, clock, _useless(f"no socket: {error.strerror}"))
    datagram = _Datagram(opened, answered, question, trust_ad)
    network.reactor.addReader(datagram)
    answered.addBoth(_closed, datagram, network.reactor)
    try:
        opened.connect(server)
        opened.send(question.octets)
    except OSError as error:  # no route
        return answered.addTimeout(0, clock, _useless(f"unreachable: {error.strerror}"))
    return answered.addTimeout(DATAGRAM_S, clock, _silent)


def _useless(cause: str) -> Callable[[object, float], Useless]:
    """Trouble that is known at once waits for the reactor's next turn: who waits for a turn of his
    own would else be answered from within the answer before his, and so on, thousands deep."""
    return lambda _result, _waited_s: Useless(cause)


def _closed(result: _T, datagram: _Datagram, reactor: Reactor) -> _T:
    reactor.removeReader(datagram)
    datagram.close()
    return result


@implementer(IReadDescriptor)
class _Datagram:
    """A socket that lives for one question.

    Not one of Twisted's UDP ports: those write two lines to the log for each socket, and take a
    refused connection for a closed port.

    :param answered: gets the one result.
    """

    def __init__(
        self, opened: Socket, answered: Deferred[Reading], question: Question, trust_ad: bool
    ) -> None:
        self._socket = opened
        self._answered = answered
        self._question = question
        self._trust_ad = trust_ad
        self._strays = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "dns"

    def doRead(self) -> None:
        try:
            octets = self._socket.recv(_LARGEST_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:  # what ICMP said of what we sent
            self.settle(Useless(f"unreachable: {error.strerror}"))
            return
        reading = read(octets, self._question, trust_ad=self._trust_ad)
        if reading is not None:
            self.settle(reading)
            return
        self._strays += 1
        if self._strays == STRAYS:
            self.settle(Truncated())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The reactor saw an error on the socket, which reading tells."""
        self.doRead()

    def settle(self, reading: Reading) -> None:
        if not self._answered.called:
            self._answered.callback(reading)

    def close(self) -> None:
        self._socket.close()


async def _by_stream(
    network: Network, server: Server, question: Question, trust_ad: bool
) -> Settled | Elsewhere | Useless:
    protocol = _Stream(question, trust_ad)
    # In spite of its name it hands an address of either family straight to the reactor.
    endpoint = TCP4ClientEndpoint(cast(Any, network.reactor), *server, timeout=STREAM_S)
    try:
        await endpoint.connect(cast(IProtocolFactory, _Quiet(protocol)))
    except ConnectError as error:
        return Useless(f"by TCP: {error}")
    try:
        return await protocol.answered
    finally:
        cast(ITCPTransport, protocol.transport).abortConnection()


class _Quiet(Factory):
    """Of one protocol; does not tell the log."""

    noisy = False

    def __init__(self, protocol: StreamProtocol) -> None:
        self._only = protocol

    def buildProtocol(self, addr: IAddress | None) -> StreamProtocol:
        return self._only


class _Stream(StreamProtocol):
    """Lives for one question; whoever waits for :attr:`answered` closes it."""

    def __init__(self, question: Question, trust_ad: bool) -> None:
        self.answered: Deferred[Settled | Elsewhere | Useless] = Deferred()
        self._question = question
        self._trust_ad = trust_ad
        self._received = b""

    def connectionMade(self) -> None:
        octets = self._question.octets
        cast(ITCPTransport, self.transport).write(len(octets).to_bytes(2, "big") + octets)

    def dataReceived(self, data: bytes) -> None:
        if self.answered.called:
            return
        self._received += data
        end = 2 + int.from_bytes(self._received[:2], "big")
        if len(self._received) >= max(end, 2):
            reading = read(self._received[2:end], self._question, trust_ad=self._trust_ad)
            if reading is None or isinstance(reading, Truncated):
                reading = Useless("nonsense by TCP")
            self.answered.callback(reading)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answered.called:
            self.answered.callback(Useless("TCP connection lost"))
