"""The hosts that take a domain's mail (RFC 5321, section 5; RFC 7505)."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Final, cast

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed

from ..model.address import literal_of
from ..model.hop import Host, NextHop, Site
from ..model.ports import Found, NoSuchName, NoSuchRecord, Resolver, TryAgain
from .addresses import Addresses, addresses_of
from .networks import OwnListeners, Prohibited
from .site import Located, give_up, try_again

HOSTS: Final = 20
"""No more MX hosts of one domain are looked at (RFC 5321, 5.1 allows a limit, of two at least)."""

ADDRESSES: Final = 50
"""No more addresses of all its hosts are tried in one attempt."""

FRESH_S: Final = 10.0
"""How much longer than its records say a plan may be used: finding it again for each message of a
burst would cost more than sending it."""

PLANS: Final = 10_000

_NULL: Final = "."
"""The exchange of a null MX (RFC 7505, section 3)."""


@attrs.frozen
class _Mx:
    """An MX record and what its host has."""

    preference: int
    name: str
    addresses: Addresses
    is_own: bool


@attrs.frozen
class _Plan:
    """Hosts with addresses, in groups of one preference, best first.

    :ivar key: of the site; names hosts that have no address now, so that it does not change with
        their luck.
    """

    key: str
    groups: tuple[tuple[_Mx, ...], ...]
    expires_at: float


class MxRouter:
    """Finds the site of a next hop of kind ``mx``.

    :param own_names: host names that are ours; no host from there on in the list is used.
    :param own: our listeners, for hosts whose names we do not know as ours.
    :param prohibited: addresses never used.
    :param port: of all MX hosts.
    :param rng: chooses between equals.
    :param prefers_ipv6: whether a host's IPv6 addresses are tried first.
    :param seconds: a clock that never jumps back.
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
        seconds: Callable[[], float],
    ) -> None:
        self._resolver = resolver
        self._own_names = frozenset(name.lower().removesuffix(".") for name in own_names)
        self._own = own
        self._prohibited = prohibited
        self._port = port
        self._rng = rng
        self._prefers_ipv6 = prefers_ipv6
        self._seconds = seconds
        self._plans: dict[str, _Plan] = {}

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        """Locate a domain or an address literal; at once where that was done just before."""
        plan = self._plans.get(hop.name)
        if plan is not None:
            if plan.expires_at > self._seconds():
                return succeed(self._site(plan))
            del self._plans[hop.name]
        return Deferred.fromCoroutine(self._locate(hop.name))

    async def _locate(self, domain: str) -> Located:
        plan = await self._find(domain)
        if not isinstance(plan, _Plan):
            return plan
        if len(self._plans) >= PLANS:
            self._plans.clear()
        self._plans[domain] = plan
        return self._site(plan)

    async def _find(self, domain: str) -> _Plan | Located:
        literal = literal_of(domain)
        if literal is not None:  # RFC 5321, 4.1.3; no MX lookup
            return self._judge(domain, [self._known(0, domain, Addresses.of((str(literal),)))])
        answer = await self._resolver.lookup(domain, "MX")
        match answer:
            case Found(records=records):
                named = cast("tuple[tuple[int, str], ...]", records)
                best = {name: preference for preference, name in sorted(named, reverse=True)}
                best.pop(_NULL, None)  # no host, wherever it stands
                wanted = sorted((preference, name) for name, preference in best.items())
                if not wanted:
                    return give_up("null-mx", domain)
            case NoSuchRecord():
                wanted = [(0, domain)]  # the implicit MX
            case NoSuchName():
                return give_up("no-such-domain", domain)
            case TryAgain(cause=cause):
                return try_again("dns-failed", f"{domain}: {cause}")
        lookups = [
            Deferred.fromCoroutine(self._look_up(preference, name))
            for preference, name in wanted[:HOSTS]
        ]
        return self._judge(domain, await gatherResults(lookups, consumeErrors=True))

    async def _look_up(self, preference: int, name: str) -> _Mx:
        if name in self._own_names:
            return _Mx(preference, name, Addresses(), is_own=True)
        return self._known(preference, name, await addresses_of(self._resolver, name))

    def _known(self, preference: int, name: str, addresses: Addresses) -> _Mx:
        is_own = any(self._own.is_own(address, self._port) for address in addresses.all())
        return _Mx(preference, name, addresses, is_own)

    def _judge(self, domain: str, found: Sequence[_Mx]) -> _Plan | Located:
        """Leave out what must not be used.

        :param found: sorted by preference, then by name.
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
            return self._plan(usable)
        troubles = [mx.addresses.trouble for mx in better if mx.addresses.trouble]
        if troubles:
            return try_again("dns-failed", f"{domain}: {troubles[0]}")
        if any(mx.addresses.all() for mx in better):
            return give_up("prohibited-address", domain)
        return give_up("no-mail-host", domain)

    def _plan(self, usable: Sequence[_Mx]) -> _Plan:
        groups = [tuple(group) for _, group in groupby(usable, lambda mx: mx.preference)]
        key = ">".join(",".join(mx.name for mx in group) for group in groups)
        reachable = (tuple(mx for mx in group if mx.addresses.all()) for group in groups)
        return _Plan(f"mx:{key}", tuple(filter(None, reachable)), self._seconds() + FRESH_S)

    def _site(self, plan: _Plan) -> Site:
        """Choose among equals anew (RFC 5321, 5.1)."""
        prefers_ipv6 = self._prefers_ipv6()
        hosts: list[Host] = []
        room = ADDRESSES
        for group in plan.groups:
            for mx in self._rng.sample(group, len(group)) if len(group) > 1 else group:
                addresses = mx.addresses.in_order(prefers_ipv6, self._rng)[:room]
                room -= len(addresses)
                if addresses:
                    hosts.append(Host(mx.name, addresses, self._port))
        return Site(plan.key, "mx", tuple(hosts))
