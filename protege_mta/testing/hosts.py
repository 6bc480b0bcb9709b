"""Scripted SMTP and LMTP hosts, and a network in memory to meet them on.

A :class:`ScriptedHost` answers by a table and writes down what it hears; it runs on real sockets as
well as on a :class:`HostNet`, which is clock and reactor in one and moves octets only when told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IConnector,
    IOpenSSLServerConnectionCreator,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

HANG_UP: Final = b"<hang up>"
"""In a script: close the channel; octets before it are sent first."""

SILENCE: Final = b""

ANSWERS: Final[dict[str, bytes]] = {
    "CONNECT": b"220 host.test ready\r\n",
    "EHLO": b"250-host.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n"
    b"250 ENHANCEDSTATUSCODES\r\n",
    "LHLO": b"250-host.test\r\n250 PIPELINING\r\n",
    "HELO": b"250 host.test\r\n",
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    ".": b"250 2.0.0 taken\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "QUIT": b"221 2.0.0 bye\r\n" + HANG_UP,
}
"""What a host says that takes everything."""


@attrs.define(eq=False)
class Script:
    """How hosts answer, and what they hear.

    :ivar answers: by command; ``CONNECT`` for the greeting, ``.`` for the end of data.  A list is
        used up from its start, and its last entry stays.
    :ivar by_argument: by a whole command line without its CRLF, before :attr:`answers`.
    :ivar is_lmtp: answer the end of data for each accepted recipient.
    :ivar tls: for STARTTLS, which then is a 220 and a handshake.
    :ivar commands: every line heard outside of data, with ``CONNECT`` for each connection.
    :ivar contents: every message's octets, still dot-stuffed.
    """

    answers: Mapping[str, bytes | list[bytes]] = attrs.field(factory=dict)
    by_argument: Mapping[str, bytes | list[bytes]] = attrs.field(factory=dict)
    is_lmtp: bool = False
    tls: IOpenSSLServerConnectionCreator | None = None
    commands: list[str] = attrs.field(factory=list)
    contents: list[bytes] = attrs.field(factory=list)
    hosts: list[ScriptedHost] = attrs.field(factory=list)

    def answer(self, line: str) -> bytes:
        verb = line.upper().split(" ", 1)[0].split(":", 1)[0]
        for table, key in ((self.by_argument, line), (self.answers, verb), (ANSWERS, verb)):
            if key in table:
                found = table[key]
                if isinstance(found, bytes):
                    return found
                return found.pop(0) if len(found) > 1 else found[0]
        return b"500 5.5.2 what?\r\n"


class ScriptedHost(Protocol):
    """One connection of a scripted host."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._buffer = b""
        self._is_data = False
        self._accepted = 0
        self.is_connected = False

    def connectionMade(self) -> None:
        self.is_connected = True
        self._script.hosts.append(self)
        self._hear("CONNECT")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_connected = False

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while self.is_connected:
            if self._is_data:
                padded = b"\r\n" + self._buffer
                end = padded.find(b"\r\n.\r\n")
                if end < 0:
                    return
                self._script.contents.append(self._buffer[:end])
                self._buffer = padded[end + 5 :]
                self._is_data = False
                for _ in range(self._accepted if self._script.is_lmtp else 1):
                    self.say(self._script.answer("."))
            else:
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    return
                self._buffer = rest
                self._hear(line.decode("utf-8", "replace"))

    def say(self, octets: bytes) -> None:
        """Say something, asked or not."""
        text, found, _ = octets.partition(HANG_UP)
        transport = self.transport
        assert transport is not None
        if text and self.is_connected:
            transport.write(text)
        if found:
            self.is_connected = False
            transport.loseConnection()

    def _hear(self, line: str) -> None:
        script = self._script
        script.commands.append(line)
        verb = line.upper().split(" ", 1)[0]
        answer = script.answer(line)
        if verb == "MAIL":
            self._accepted = 0
        self._accepted += verb == "RCPT" and answer.startswith(b"2")
        self._is_data = verb == "DATA" and answer.startswith(b"354")
        self.say(answer)
        if verb == "STARTTLS" and script.tls is not None and answer.startswith(b"220"):
            cast(ITLSTransport, self.transport).startTLS(script.tls)


class ScriptedFactory(ServerFactory):
    """For a real listener."""

    noisy = False

    def __init__(self, script: Script) -> None:
        self.script = script

    def buildProtocol(self, addr: object) -> ScriptedHost:
        return ScriptedHost(self.script)


class _End:
    """One end of a channel in memory."""

    def __init__(self, protocol: Protocol, address: IPv4Address) -> None:
        self.protocol = protocol
        self.peer: _End
        self.disconnecting = False
        self.is_aborted = False
        self.is_lost = False
        self.buffer = b""
        self.writes: list[bytes] = []
        self.producer: object = None
        self.tls: list[object] = []
        self._address = address

    def write(self, data: bytes) -> None:
        if not (self.disconnecting or self.is_lost):
            self.buffer += data
            self.writes.append(data)

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = self.is_aborted = True
        self.buffer = b""

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def startTLS(self, contextFactory: object) -> None:
        """Only written down: there is no TLS in memory."""
        self.tls.append(contextFactory)

    def getPeer(self) -> IPv4Address:
        return self._address

    getHost = getPeer

    def lose(self, failure: Failure) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connectionLost(failure)


@attrs.define(eq=False)
class Call:
    """One ``connectTCP`` or ``connectUNIX``, as it was asked."""

    address: str
    port: int
    bind: tuple[str, int] | None


_NO_CONNECTOR: Final = cast(IConnector, None)  # nobody looks at it


class HostNet(Clock):
    """A clock and a network of scripted hosts.

    :param cut: how many octets come with a read at most; 0 for all that there are.
    :ivar hosts: scripts by address and port; port 0 for the paths of sockets.  Connections to
        other addresses are refused; to those in :attr:`silent`, time out.
    :ivar dialled: every connection asked for, in order.
    :ivar ends: the client's end of each connection, in order.
    """

    def __init__(self, cut: int = 0) -> None:
        super().__init__()
        self.hosts: dict[tuple[str, int], Script] = {}
        self.silent: set[str] = set()
        self.dialled: list[Call] = []
        self.ends: list[_End] = []
        self._cut = cut

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        self.dialled.append(Call(host, port, bindAddress))
        if host in self.silent:
            self.callLater(timeout, self._refuse, factory)
        else:
            self.callLater(0, self._connect, host, port, factory)
        return _NO_CONNECTOR

    def connectUNIX(self, address: str, factory: ClientFactory, timeout: float = 30) -> object:
        self.dialled.append(Call(address, 0, None))
        return self.callLater(0, self._connect, address, 0, factory)

    def _refuse(self, factory: ClientFactory) -> None:
        factory.clientConnectionFailed(_NO_CONNECTOR, Failure(ConnectionRefusedError()))

    def _connect(self, host: str, port: int, factory: ClientFactory) -> None:
        script = self.hosts.get((host, port))
        if script is None:
            self._refuse(factory)
            return
        address = IPv4Address("TCP", host, port)
        client = factory.buildProtocol(address)
        if client is None:
            return
        near, far = _End(cast(Protocol, client), address), _End(ScriptedHost(script), address)
        near.peer, far.peer = far, near
        self.ends.append(near)
        for end in (near, far):
            end.protocol.makeConnection(cast(ITransport, end))

    def settle(self) -> None:
        """Move octets until all is quiet."""
        while self.step():
            pass

    def step(self) -> bool:
        """Move one read's worth each way on each channel; returns whether there was anything."""
        dialled = len(self.dialled)
        self.advance(0)
        moved = len(self.dialled) != dialled
        for near in list(self.ends):
            for end in (near, near.peer):
                moved = self._move(end) or moved
        return moved

    def _move(self, end: _End) -> bool:
        if end.is_lost:
            return False
        if not end.buffer and end.producer is not None:
            end.producer.resumeProducing()  # type: ignore[attr-defined]
            return True
        if end.buffer:
            data = end.buffer[: self._cut] if self._cut else end.buffer
            end.buffer = end.buffer[len(data) :]
            if not (end.peer.is_lost or end.peer.is_aborted):
                end.peer.protocol.dataReceived(data)
            return True
        if end.disconnecting:
            error = ConnectionLost() if end.is_aborted else ConnectionDone()
            end.lose(Failure(error))
            end.peer.lose(Failure(error))
            return True
        return False

    def serve(self, address: str, script: Script, port: int = 25) -> Script:
        self.hosts[address, port] = script
        return script
