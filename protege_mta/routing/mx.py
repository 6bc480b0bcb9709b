"""The hosts that take a domain's mail (RFC 5321, section 5; RFC 7505; RFC 8689, 4.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final, cast

import attrs
from twisted.internet.defer import Deferred

from ..model.address import literal_of
from ..model.hop import Host, NextHop, Site
from ..model.ports import Found, NoSuchName, NoSuchRecord, Resolver, TryAgain
from .addresses import Addresses, addresses_of, together
from .networks import OwnListeners, Prohibited
from .site import Located, give_up, try_again

if TYPE_CHECKING:
    import random

HOSTS: Final = 20
"""No more MX hosts of one domain are looked at (RFC 5321, 5.1 allows a limit, of two at least)."""

ADDRESSES: Final = 50
"""No more addresses of all its hosts are tried in one attempt."""

_NULL: Final = "."
"""The exchange of a null MX (RFC 7505, section 3)."""


@attrs.frozen
class _Mx:
    """An MX record and what its host has."""

    preference: int
    name: str
    addresses: Addresses
    is_own: bool


class MxRouter:
    """Finds the site of a next hop of kind ``mx``.

    :param own_names: host names that are ours; no host from there on in the list is used.
    :param own: our listeners, for hosts whose names we do not know as ours.
    :param prohibited: addresses never used.
    :param port: of all MX hosts.
    :param rng: chooses between equals.
    :param prefers_ipv6: whether a host's IPv6 addresses are tried first.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        own_names: Collection[str],
        own: OwnListeners,
        prohibited: Prohibited,
        port: int,
        rng: random.Random,
        prefers_ipv6: Callable[[], bool],
    ) -> None:
        self._resolver = resolver
        self._own_names = frozenset(name.lower().removesuffix(".") for name in own_names)
        self._own = own
        self._prohibited = prohibited
        self._port = port
        self._rng = rng
        self._prefers_ipv6 = prefers_ipv6

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        """Locate a domain or an address literal; at once where the resolver knows all of it."""
        return Deferred.fromCoroutine(self._locate(hop.name))

    async def _locate(self, domain: str) -> Located:
        literal = literal_of(domain)
        if literal is not None:  # RFC 5321, 4.1.3; no MX lookup
            mx = self._known(0, domain, Addresses.of((str(literal),)))
            return self._judge(domain, [mx], is_authentic=False)
        answer = await self._resolver.lookup(domain, "MX")
        match answer:
            case Found(records=records, is_authentic=is_authentic):
                named = cast("tuple[tuple[int, str], ...]", records)
                best = {name: preference for preference, name in sorted(named, reverse=True)}
                best.pop(_NULL, None)  # no host, wherever it stands
                wanted = sorted((preference, name) for name, preference in best.items())
                if not wanted:
                    return give_up("null-mx", domain)
            case NoSuchRecord():
                wanted = [(0, domain)]  # the implicit MX
                # A forged answer would gain nothing: the host has to prove that it is the domain.
                is_authentic = True
            case NoSuchName():
                return give_up("no-such-domain", domain)
            case TryAgain(cause=cause):
                return try_again("dns-failed", f"{domain}: {cause}")
        lookups = [
            Deferred.fromCoroutine(self._look_up(preference, name))
            for preference, name in wanted[:HOSTS]
        ]
        return self._judge(domain, await together(lookups), is_authentic=is_authentic)

    async def _look_up(self, preference: int, name: str) -> _Mx:
        if name in self._own_names:
            return _Mx(preference, name, Addresses(), is_own=True)
        return self._known(preference, name, await addresses_of(self._resolver, name))

    def _known(self, preference: int, name: str, addresses: Addresses) -> _Mx:
        is_own = any(self._own.is_own(address, self._port) for address in addresses.all())
        return _Mx(preference, name, addresses, is_own)

    def _judge(self, domain: str, found: Sequence[_Mx], *, is_authentic: bool) -> Located:
        """Leave out what must not be used.

        :param found: sorted by preference, then by name.
        :param is_authentic: see :attr:`~..model.hop.Site.is_authentic`.
        """
        # RFC 5321, 5.1: equals and worse than ourselves would send the mail back to us.
        ours = min((mx.preference for mx in found if mx.is_own), default=None)
        better = [mx for mx in found if ours is None or mx.preference < ours]
        if not better:
            return give_up("loops-back", domain)
        usable = [
            attrs.evolve(mx, addresses=mx.addresses.without(self._prohibited.__contains__))
            for mx in better
        ]
        if any(mx.addresses.all() for mx in usable):
            return self._site(usable, is_authentic=is_authentic)
        troubles = [mx.addresses.trouble for mx in better if mx.addresses.trouble]
        if troubles:
            return try_again("dns-failed", f"{domain}: {troubles[0]}")
        if any(mx.addresses.all() for mx in better):
            return give_up("prohibited-address", domain)
        return give_up("no-mail-host", domain)

    def _site(self, usable: Sequence[_Mx], *, is_authentic: bool) -> Site:
        """Choose among equals (RFC 5321, 5.1).

        The key names hosts that have no address now, and equals by name, so that it does not
        change with their luck or with ours.
        """
        groups = [list(group) for _, group in groupby(usable, lambda mx: mx.preference)]
        # Hosts of other domains have any name that the DNS can hold; these separators are the ones
        # that its text form escapes, so that no name looks like two.
        key = ";".join(" ".join(mx.name for mx in group) for group in groups)
        prefers_ipv6 = self._prefers_ipv6()
        hosts: list[Host] = []
        room = ADDRESSES
        for group in groups:
            self._rng.shuffle(group)
            for mx in group:
                addresses = mx.addresses.in_order(prefers_ipv6, self._rng)[:room]
                room -= len(addresses)
                if addresses:
                    hosts.append(Host(mx.name, addresses, self._port))
        return Site(f"mx:{key}", "mx", tuple(hosts), is_authentic)
