"""One question to one name server: a datagram, and a stream where that is too small.

RFC 1035, 4.2; RFC 7766; against forgeries RFC 5452: a socket and so a random source port for each
question, connected so that the kernel drops what comes from elsewhere, and an unpredictable id.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReactorTime,
    ITCPTransport,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from .dns_messages import Elsewhere, Question, Reading, Settled, Truncated, Useless, read

DATAGRAM_S: Final = 2.0
"""How long a server may take for a datagram."""

STREAM_S: Final = 4.0
"""How long it may take for a stream, connecting included."""

STRAYS: Final = 100
"""After so many datagrams that are no answer somebody is guessing; a stream cannot be guessed."""

_log = Logger()

Server = tuple[str, int]
"""A name server's IP address and port."""


class Reactor(Protocol):
    """What a resolver needs of Twisted's."""

    def seconds(self) -> float: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall: ...

    def listenUDP(
        self, port: int, protocol: DatagramProtocol, interface: str = "", maxPacketSize: int = 8192
    ) -> IListeningPort: ...

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any: ...


async def exchange(
    reactor: Reactor, server: Server, question: Question, *, trust_ad: bool
) -> Settled | Elsewhere | Useless:
    """Ask, and ask again by a stream where the answer does not fit.

    Ends in time by itself; may be cancelled.
    """
    reading = await _by_datagram(reactor, server, question, trust_ad)
    if not isinstance(reading, Truncated):
        return reading
    stream = Deferred.fromCoroutine(_by_stream(reactor, server, question, trust_ad))
    return await stream.addTimeout(STREAM_S, cast(IReactorTime, reactor), _silent)


def _silent(_: object, waited_s: float) -> Useless:
    return Useless(f"no answer within {waited_s:g} s", "silent")


def _by_datagram(
    reactor: Reactor, server: Server, question: Question, trust_ad: bool
) -> Deferred[Reading]:
    protocol = _Datagram(server[0], question, trust_ad)
    try:
        port = reactor.listenUDP(0, protocol, interface="::" if ":" in server[0] else "")
    except CannotListenError as error:  # no descriptors, no ports, no IPv6
        protocol.settle(Useless(f"no socket: {error.socketError}"))
        return protocol.answered
    protocol.send(server)
    protocol.answered.addBoth(_closed, port)
    return protocol.answered.addTimeout(DATAGRAM_S, cast(IReactorTime, reactor), _silent)


def _closed(result: Any, port: IListeningPort) -> Any:
    closing = port.stopListening()
    if closing is not None:
        closing.addErrback(lambda failure: _log.failure("closing a DNS socket", failure))
    return result


class _Datagram(DatagramProtocol):
    """Lives for one question.

    :ivar answered: its one result; its owner closes the port then.
    """

    noisy = False

    def __init__(self, host: str, question: Question, trust_ad: bool) -> None:
        self.answered: Deferred[Reading] = Deferred()
        self._address = _without_zone(host)
        self._question = question
        self._trust_ad = trust_ad
        self._strays = 0

    def send(self, server: Server) -> None:
        transport = cast(IUDPTransport, self.transport)
        try:
            transport.connect(*server)
            transport.write(self._question.octets, None)
        except OSError as error:  # no route
            self.settle(Useless(f"unreachable: {error.strerror}"))

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if _without_zone(addr[0]) == self._address:  # one may have come before we connected
            reading = read(datagram, self._question, trust_ad=self._trust_ad)
            if reading is not None:
                self.settle(reading)
                return
        self._strays += 1
        if self._strays == STRAYS:
            self.settle(Truncated())

    def connectionRefused(self) -> None:
        self.settle(Useless("connection refused"))

    def settle(self, reading: Reading) -> None:
        if not self.answered.called:
            self.answered.callback(reading)


def _without_zone(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])


async def _by_stream(
    reactor: Reactor, server: Server, question: Question, trust_ad: bool
) -> Settled | Elsewhere | Useless:
    protocol = _Stream(question, trust_ad)
    # In spite of its name it hands an address of either family straight to the reactor.
    endpoint = TCP4ClientEndpoint(cast(Any, reactor), *server, timeout=STREAM_S)
    try:
        await connectProtocol(endpoint, protocol)
    except ConnectError as error:
        return Useless(f"by TCP: {error}")
    try:
        return await protocol.answered
    finally:
        cast(ITCPTransport, protocol.transport).abortConnection()


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
