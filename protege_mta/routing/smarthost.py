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
        found = self.addresses(host)
        return found.addCallback(lambda addresses: self._site(hop, host, int(port), addresses))

    def addresses(self, host: str) -> Deferred[Addresses]:
        """What the machine or the DNS knows of a host, given in lower case."""
        known = self._known(host)
        if known:
            return succeed(Addresses.of(known))
        return Deferred.fromCoroutine(addresses_of(self._resolver, host))

    def in_order(self, addresses: Addresses) -> tuple[str, ...]:
        """To try one after the other."""
        return addresses.in_order(self._prefers_ipv6(), self._rng)

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
            return Site(
                f"smarthost:{hop.name}", "smarthost", (Host(host, self.in_order(usable), port),)
            )
        if addresses.all():
            return try_again("own-smarthost", hop.name)
        return try_again("no-smarthost", addresses.trouble or host)
