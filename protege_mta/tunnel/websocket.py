"""WebSockets (RFC 6455) by autobahn: the one module that knows it.

autobahn's types are Any to us.  Its timers stay off, its messages are taken in the pieces that they
come in, and nothing is ever compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.wamp.types import TransportDetails
from twisted.internet.interfaces import IAddress, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .connection import LOST, Connection

_REQUEST_OCTETS: Final = 16_384
"""The longest head of an HTTP request or answer."""

_NO_STATUS: Final = 1005

_OPTIONS: Final[dict[str, Any]] = {
    "openHandshakeTimeout": 0,
    "closeHandshakeTimeout": 0,
    "autoPingInterval": 0,
    "autoPingTimeout": 0,
    "failByDrop": False,
    "tcpNoDelay": True,
    "maxFramePayloadSize": 0,
    "maxMessagePayloadSize": 0,
}


class _Silent:
    """Takes autobahn's log: what matters is told by the connection."""

    def _nothing(self, *arguments: Any, **fields: Any) -> None: ...

    trace = debug = info = warn = error = critical = failure = _nothing


@implementer(IPushProducer)
class _Valve:
    """Tells a connection when its octets leave, and when they do not."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def pauseProducing(self) -> None:
        self._connection.stuck(True)

    def resumeProducing(self) -> None:
        self._connection.stuck(False)

    def stopProducing(self) -> None:
        """``connectionLost`` follows."""


class _Socket:
    """What both roles have in common; a mix-in for autobahn's protocols."""

    log: Any = _Silent()
    failures = Logger()
    connection: Connection
    address = ""
    CONFIG_ATTRS: tuple[str, ...] = ()
    """What autobahn copies from the factory to each socket, and formats for a log that nobody reads:
    a third of a login's time.  Here the class has it; see :func:`_equipped`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)  # what the mix-in's other half has is Any

    # --- Socket ----------------------------------------------------------------------------------

    @property
    def peer_address(self) -> str:
        return self.address

    def send_text(self, octets: bytes) -> None:
        self.sendFrame(1, octets)

    def send_binary(self, octets: bytes) -> None:
        self.sendFrame(2, octets)

    def send_ping(self, payload: bytes) -> None:
        self.sendPing(payload)

    def send_close(self, code: int, reason: str) -> None:
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code, reason.encode("utf-8")[:123])
        else:
            self.abort()

    def abort(self) -> None:
        """Even where autobahn takes the connection for closed, and waits for octets to leave."""
        self.transport.abortConnection()

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        if self.state != self.STATE_CLOSED:
            self.transport.resumeProducing()

    # --- from autobahn ---------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Without autobahn's look at the transport's TLS, which may be behind other protocols."""
        self._transport_details = TransportDetails()
        self._connectionMade()

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """At once, and without a line for a log that nobody reads."""
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.connection.heard()
        try:
            self._dataReceived(data)
        except Exception as error:
            if self.state == self.STATE_CONNECTING and isinstance(error, UnicodeDecodeError):
                self.lost_because = "its HTTP is no text"
            else:
                self.failures.failure("a WebSocket broke")
            self.transport.abortConnection()
        if self.state == self.STATE_CONNECTING and len(self.data) > _REQUEST_OCTETS:
            self.abort()

    def onOpen(self) -> None:
        self.transport.registerProducer(_Valve(self.connection), True)
        self.connection.opened()

    def onMessageBegin(self, isBinary: bool) -> None:
        self.connection.message_began(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        """Its data is taken as it comes."""

    def onMessageFrameData(self, payload: bytes) -> None:
        if payload:
            self.connection.message_data(payload)

    def onMessageFrameEnd(self) -> None:
        """The message may go on."""

    def onMessageEnd(self) -> None:
        self.connection.message_ended()

    def onPing(self, payload: bytes) -> None:
        self.sendPong(payload)
        self.connection.pinged(payload)

    def onPong(self, payload: bytes) -> None:
        self.connection.ponged(payload)

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        """Every close goes by here: ours, the answer to the other side's, and autobahn's own."""
        super().sendCloseFrame(code, reasonUtf8, isReply)  # type: ignore[misc]
        self.connection.closing(*self._end())

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.connection.gone(*self._end())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost_because = reason.getErrorMessage()
        super().connectionLost(reason)  # type: ignore[misc]

    lost_because = ""

    def _end(self) -> tuple[int, str]:
        """Why it is over: by the other side's close, by ours, or by the loss of the channel."""
        if self.remoteCloseCode is not None:
            return self.remoteCloseCode, self.remoteCloseReason or ""
        if self.localCloseCode is not None:
            return self.localCloseCode, (self.localCloseReason or b"").decode("utf-8", "replace")
        if self.wasClean:
            return _NO_STATUS, ""
        return LOST, self.wasNotCleanReason or self.lost_because


def _equipped(socket: type[Any], factory: Any, names: Sequence[str]) -> Any:
    """A class of sockets that has the factory's options; functions among them are no methods."""
    options = {name: getattr(factory, name) for name in names}
    members = {
        name: staticmethod(value) if callable(value) else value for name, value in options.items()
    }
    return type(socket.__name__, (socket,), members)


class ServerSocket(_Socket, WebSocketServerProtocol):  # type: ignore[misc]
    """An agent's connection, at the relay."""

    def onConnect(self, request: Any) -> str | None:
        """Speak the first subprotocol that is offered, whatever it is, as the original does."""
        return request.protocols[0] if request.protocols else None


class ClientSocket(_Socket, WebSocketClientProtocol):  # type: ignore[misc]
    """A connection to a relay."""


class ServerSockets(WebSocketServerFactory):
    """Makes an agent's socket, with its connection.

    :param connect: makes the connection of a socket.
    """

    log = _Silent()
    noisy = False

    def __init__(self, clock: IReactorTime, connect: Any) -> None:
        super().__init__(server="", reactor=clock)
        self.setProtocolOptions(webStatus=False, allowNullOrigin=True, **_OPTIONS)
        self._connect = connect
        self._protocol = _equipped(ServerSocket, self, WebSocketServerProtocol.CONFIG_ATTRS)

    def buildProtocol(self, addr: IAddress | None) -> ServerSocket:
        return self.socket(str(getattr(addr, "host", "")))

    def socket(self, address: str) -> ServerSocket:
        """:param address: of the agent, as far as it is known."""
        socket: ServerSocket = self._protocol()
        socket.factory = self
        socket.address = address
        socket.connection = self._connect(socket)
        return socket


class ClientSockets(WebSocketClientFactory):
    """Makes the socket of one connection to a relay."""

    log = _Silent()
    noisy = False

    def __init__(self, clock: IReactorTime, url: str, connect: Any) -> None:
        super().__init__(url, useragent="protege-mta", reactor=clock)
        self.setProtocolOptions(serverConnectionDropTimeout=0, **_OPTIONS)
        if ":" in self.host:
            self.host = f"[{self.host}]"  # an IPv6 address, in the field Host
        self._connect = connect
        self._protocol = _equipped(ClientSocket, self, WebSocketClientProtocol.CONFIG_ATTRS)

    def buildProtocol(self, addr: IAddress | None) -> ClientSocket:
        socket: ClientSocket = self._protocol()
        socket.factory = self
        socket.address = str(getattr(addr, "host", ""))
        socket.connection = self._connect(socket)
        return socket
