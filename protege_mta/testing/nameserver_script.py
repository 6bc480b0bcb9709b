"""Name servers that say what a test has written for them, without a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from ..transport.dns_exchange import Server, Socket

Script = Callable[[bytes], Sequence[bytes | OSError]]
"""From a query to what comes back for it: datagrams, and errors of the socket."""


def reply(
    query: bytes,
    answer: Sequence[str] = (),
    authority: Sequence[str] = (),
    *,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    flags: int = 0,
) -> bytes:
    """A well-formed response.

    :param answer: records in text, ``name ttl IN type data``; ``authority`` likewise.
    :param flags: more of them, such as ``dns.flags.TC``.
    """
    response = dns.message.make_response(dns.message.from_wire(query))
    response.flags |= flags
    response.set_rcode(rcode)
    for section, lines in ((response.answer, answer), (response.authority, authority)):
        for line in lines:
            name, ttl, rdclass, rdtype, data = line.split(" ", 4)
            section.append(dns.rrset.from_text(name, int(ttl), rdclass, rdtype, data))
    return response.to_wire(max_size=65_535)


class ScriptedServers(MemoryReactorClock):
    """A reactor with name servers behind it; one that is not named is silent.

    :ivar datagrams: by server, what it says to a datagram.
    :ivar streams: by server, what it says to a query by TCP, framing left to us; connections to
        others are refused.
    :ivar asked: every query in its order, as the server's address with ``udp`` or ``tcp``.
    :ivar queries: what was asked.
    :ivar sockets: the datagram sockets that are open, by file descriptor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: dict[Server, Script] = {}
        self.streams: dict[Server, Script] = {}
        self.asked: list[tuple[str, str]] = []
        self.queries: list[dns.message.Message] = []
        self.sockets: dict[int, _ScriptedSocket] = {}
        self._descriptors = count(1000)

    def open_socket(self, server: Server) -> Socket:
        """As :func:`~protege_mta.transport.dns_exchange.open_socket`."""
        opened = _ScriptedSocket(self, next(self._descriptors))
        self.sockets[opened.fileno()] = opened
        return opened

    def deliver(self) -> None:
        """Let every datagram that is under way arrive, and those that are sent for it."""
        while ready := [
            reader for reader in self.getReaders() if self.sockets[reader.fileno()].arrived
        ]:
            ready[0].doRead()

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: object = None,
    ) -> Any:
        connector = super().connectTCP(host, port, factory, timeout, bindAddress)
        script = self.streams.get((host, port))
        if script is None:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return connector
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        transport = StringTransport()
        protocol.makeConnection(transport)
        query = transport.value()[2:]
        self.noted(host, "tcp", query)
        for response in script(query):
            if isinstance(response, OSError):
                protocol.connectionLost(Failure(ConnectionLost()))
                return connector
            framed = len(response).to_bytes(2, "big") + response
            for chunk in (framed[:1], framed[1:7], framed[7:]):
                protocol.dataReceived(chunk)
        return connector

    def noted(self, host: str, by: str, query: bytes) -> None:
        self.asked.append((host, by))
        self.queries.append(dns.message.from_wire(query))


class _ScriptedSocket:
    """A datagram socket; sending runs the script."""

    def __init__(self, servers: ScriptedServers, descriptor: int) -> None:
        self._servers = servers
        self._descriptor = descriptor
        self.arrived: deque[bytes | OSError] = deque()

    def connect(self, address: Server) -> None:
        self._peer = address

    def send(self, octets: bytes) -> int:
        self._servers.noted(self._peer[0], "udp", octets)
        script = self._servers.datagrams.get(self._peer)
        self.arrived.extend(script(octets) if script is not None else ())
        return len(octets)

    def recv(self, size: int) -> bytes:
        arrived = self.arrived.popleft()
        if isinstance(arrived, OSError):
            raise arrived
        return arrived

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        del self._servers.sockets[self._descriptor]
