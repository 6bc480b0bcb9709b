"""Connections that a proxy hands on: the PROXY header comes first, then the client.

The network that a connection comes from decides, and nothing that it says: from a named one the
header is required, from anywhere else it is a command like any other, and a bad one.  What stands
behind the header was never looked at here, whether it is SMTP or TLS.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..model.networks import client_address
from ..model.tally import Tally
from ..wire import proxy
from .sweep import Sweep

HEADER_S: Final = 10.0
"""Within which the header has to be there; a proxy sends it first of all, in one segment."""


@implementer(IProtocolFactory)
class ProxiedFactory:
    """Puts the header before the protocols of another factory.

    :param inner: makes the protocol once the client's address is known, and for whoever does not
        come from a proxy.
    :param networks: where proxies are.
    """

    def __init__(
        self,
        inner: IProtocolFactory,
        networks: Sequence[IPv4Network | IPv6Network],
        *,
        tally: Tally,
        clock: IReactorTime,
    ) -> None:
        self.inner = inner
        self.tally = tally
        self.sweep = Sweep(clock)
        self._networks = networks

    def doStart(self) -> None:
        self.sweep.open()
        self.inner.doStart()

    def doStop(self) -> None:
        self.sweep.close()
        self.inner.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        address = client_address(cast(IPv4Address, addr).host)
        if any(address in network for network in self._networks):
            return HeaderProtocol(self, addr)
        return self.inner.buildProtocol(addr)


@implementer(IProtocol)
class HeaderProtocol:
    """Waits for the header, then gives the transport to the client's own protocol."""

    log = Logger()

    def __init__(self, factory: ProxiedFactory, addr: IAddress) -> None:
        self.transport: ITCPTransport
        self._factory = factory
        self._addr = addr
        self._octets = b""
        self._is_done = False
        self.deadline = factory.sweep.after(HEADER_S)

    def makeConnection(self, transport: ITransport) -> None:
        self.transport = cast(ITCPTransport, transport)
        self.connectionMade()

    def connectionMade(self) -> None:
        self._factory.sweep.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self._is_done:
            return
        self._octets += data
        match proxy.parse(self._octets):
            case proxy.Header() as header:
                self._hand_on(header)
            case proxy.Malformed(why=why):
                self._refuse(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()

    def expired(self) -> None:
        self._refuse("no whole header in time")

    def _end(self) -> None:
        self._is_done = True
        self._factory.sweep.remove(self)

    def _refuse(self, why: str) -> None:
        """Cut the connection: who cannot say who it is has nothing to be told."""
        self._end()
        self._factory.tally.proxy_headers_refused += 1
        self.log.warn(
            "PROXY header refused proxy={proxy}: {why}",
            proxy=cast(IPv4Address, self._addr).host,
            why=why,
        )
        self.transport.abortConnection()

    def _hand_on(self, header: proxy.Header) -> None:
        self._end()
        rest, self._octets = self._octets[header.size :], b""
        addr = self._addr
        if ":" in header.address:
            addr = IPv6Address("TCP", header.address, header.port)
        elif header.address:
            addr = IPv4Address("TCP", header.address, header.port)
        protocol = self._factory.inner.buildProtocol(addr)
        if protocol is None:
            self.transport.abortConnection()
            return
        transport = cast(Any, self.transport)
        transport.protocol = protocol
        protocol.makeConnection(self.transport)
        if rest:
            # Not to the protocol itself: where TLS comes first, its handshake is in between now.
            transport.protocol.dataReceived(rest)
