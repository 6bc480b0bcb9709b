"""The way from a gateway to its relay: names to addresses, TCP, TLS, and one connection at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from ..model.identity import Identity
from ..model.outcome import TlsFacts
from ..transport.tls_client import facts_of
from .client import Call
from .passports import Passport
from .socket_client import Agent, TunnelClient, Watcher

CONNECT_S: Final = 15.0
"""So long one address may take to answer."""

Find = Callable[[str], Deferred[Sequence[str]]]
"""The IP addresses of a host in the order to try; fails with the reason where there is none."""


def host_and_port(url: str) -> tuple[str, int]:
    """Where a relay is (RFC 6455, 3)."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)


@implementer(IStreamClientEndpoint)
class RelayEndpoint:
    """Connects to whichever of the relay's addresses answers first, in their order.

    :param tls: makes what encrypts the channel and verifies the host; None for a channel in clear.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        find: Find,
        tls: Callable[[str], IOpenSSLClientConnectionCreator] | None,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._find = find
        self._tls = tls
        self._protocol: Any = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    def tls_facts(self) -> TlsFacts | None:
        """How the channel is protected; None in clear, and where there is none."""
        if self._tls is None or self._protocol is None or self._protocol.transport is None:
            return None
        return facts_of(self._protocol.transport.getHandle(), is_verified=True)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        trouble: Exception = OSError(f"{self._host} has no address")
        for address in await self._find(self._host):
            try:
                self._protocol = await self._to(address).connect(factory)
                return cast(IProtocol, self._protocol)
            except CancelledError:
                raise  # which is an Exception, and means that nobody waits any more
            except Exception as error:
                trouble = error
        raise trouble

    def _to(self, address: str) -> Any:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        plain = kind(self._reactor, address, self._port, CONNECT_S)
        return plain if self._tls is None else wrapClientTLS(self._tls(self._host), plain)


class Dialler:
    """Calls the relay for one agent after the other; a :data:`~.client.Dial`.

    :ivar client: makes connections; like ``new_endpoint``, which makes the way to the relay, replaced
        when the configuration changes.
    """

    def __init__(self, client: TunnelClient, new_endpoint: Callable[[], RelayEndpoint]) -> None:
        self.client = client
        self.new_endpoint = new_endpoint
        self._ways: dict[Identity, RelayEndpoint] = {}

    def __call__(self, passport: Passport, watcher: Watcher) -> Call:
        way = self._ways[passport.identity] = self.new_endpoint()
        return self.client.connect(way, Agent(passport.identity, passport.sign), watcher)

    def tls(self, identity: Identity) -> TlsFacts | None:
        """How an agent's channel is protected; None in clear, and where there is none."""
        way = self._ways.get(identity)
        return None if way is None else way.tls_facts()
