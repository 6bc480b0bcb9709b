"""The one host that takes all outbound mail (RFC 5321, 3.6.2 calls it a relay)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from ..model.hop import Host, NextHop, Site
from ..model.ports import Resolver
from .addresses import Addresses, addresses_of
from .networks import OwnListeners
from .site import Located, try_again

if TYPE_CHECKING:
    import random


class SmarthostRouter:
    """Finds the addresses of the configured smarthost; where it has none, that is for us to mend,
    so mail waits.

    :param resolver: asked for A and AAAA, never for MX.
    :param hosts: what ``hosts(5)`` says of a name; it goes first, as everywhere on the machine.
    :param own: our listeners; a smarthost there would be ourselves.
    :param prefers_ipv6: whether IPv6 addresses are tried first.
    """

    def __init__(
        self,
        resolver: Resolver,
        hosts: Callable[[str], Sequence[str]],
        own: OwnListeners,
        *,
        rng: random.Random,
        prefers_ipv6: Callable[[], bool],
    ) -> None:
        self._resolver = resolver
        self._hosts = hosts
        self._own = own
        self._rng = rng
        self._prefers_ipv6 = prefers_ipv6

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        """Locate ``host:port``; an IPv6 address stands in brackets."""
        host, _, port = hop.name.rpartition(":")
        host = host.removeprefix("[").removesuffix("]").lower()
        known = self._known(host)
        if known:
            return succeed(self._site(hop, host, int(port), Addresses.of(known)))
        return Deferred.fromCoroutine(self._locate(hop, host, int(port)))

    async def _locate(self, hop: NextHop, host: str, port: int) -> Located:
        return self._site(hop, host, port, await addresses_of(self._resolver, host))

    def _known(self, host: str) -> Sequence[str]:
        """Addresses that are known without a question to the DNS."""
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            pass
        name = host.removesuffix(".")
        listed = self._hosts(name)
        if listed:
            return listed
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
            return ("127.0.0.1", "::1")
        return ()

    def _site(self, hop: NextHop, host: str, port: int, addresses: Addresses) -> Located:
        usable = addresses.without(lambda address: self._own.is_own(address, port))
        if usable.all():
            ordered = usable.in_order(self._prefers_ipv6(), self._rng)
            return Site(f"smarthost:{hop.name}", "smarthost", (Host(host, ordered, port),))
        if addresses.all():
            return try_again("own-smarthost", hop.name)
        return try_again("no-smarthost", addresses.trouble or host)
