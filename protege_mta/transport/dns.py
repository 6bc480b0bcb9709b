"""The resolver: questions to the configured name servers, and answers kept while they hold.

It leaves recursion to the servers it asks, and follows what they do not.  No thread, no blocking
call but a look at ``resolv.conf`` now and then.  RFC 1034, 5.3.1; RFC 2308; RFC 5452.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, cast

import dns.name
from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import Answer, Found, NoSuchName, TryAgain
from .dns_cache import FAILURE_TTL_S, POSITIVE_TTL_S, Cache
from .dns_exchange import Network, Reactor, Server, Socket, exchange, open_socket
from .dns_messages import (
    CHAIN_LIMIT,
    Elsewhere,
    Kind,
    Settled,
    Useless,
    ask,
    to_name,
    to_text,
)
from .dns_system import SystemNameservers

if TYPE_CHECKING:
    import random

LOOKUP_S: Final = 15.0
"""A lookup ends after so long, whatever is still to be tried."""

ROUNDS: Final = 2
"""How often a silent server is asked."""

OPEN_LOOKUPS: Final = 200
"""How many are on the network at a time; each has a socket."""

_Key = tuple[str, Kind]

_CLOSED: Final = TryAgain("shutting down")


class DnsResolver:
    """A stub resolver on Twisted's reactor; implements :class:`~protege_mta.model.ports.Resolver`.

    :param nameservers: addresses and ports, asked in this order, the one that answered last
        first; None for those of ``resolv.conf``.
    :param trust_ad: believe the AD bit of these servers' answers, and ask for it.
    :param rng: of the ids of messages; unpredictable outside tests (``random.SystemRandom``).
    :param open_socket: gives a datagram socket for a server.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        nameservers: Sequence[Server] | None = None,
        *,
        trust_ad: bool = False,
        rng: random.Random,
        open_socket: Callable[[Server], Socket] = open_socket,
    ) -> None:
        self._reactor = reactor
        self._network = Network(reactor, open_socket)
        self._nameservers = (
            SystemNameservers(reactor.seconds)
            if nameservers is None
            else lambda: tuple(nameservers)
        )
        self._trust_ad = trust_ad
        self._rng = rng
        self._cache = Cache(reactor.seconds)
        self._waiting: dict[_Key, list[Deferred[Answer]]] = {}
        self._work: dict[_Key, Deferred[Settled | Useless]] = {}
        self._slots = DeferredSemaphore(OPEN_LOOKUPS)
        self._favourite: Server | None = None
        self._is_closed = False

    def lookup(self, name: str, kind: Kind) -> Deferred[Answer]:
        """As the port says.  Cancelling forgets the caller only: the answer is for the cache too."""
        known = self._cache.get((name.lower().removesuffix("."), kind))
        if known is not None:
            return succeed(known)
        asked = to_name(name)
        if asked is None:
            return succeed(NoSuchName())
        key: _Key = (to_text(asked), kind)  # its U-labels are gone
        known = self._cache.get(key)
        if known is not None:
            return succeed(known)
        if self._is_closed:
            return succeed(_CLOSED)
        is_first = key not in self._waiting
        waiting = self._waiting.setdefault(key, [])
        waiter: Deferred[Answer] = Deferred(waiting.remove)
        waiting.append(waiter)
        if is_first:
            self._start(key, asked)
        return waiter

    def close(self) -> None:
        """Answer whoever still waits, and ask nothing more."""
        self._is_closed = True
        for work in tuple(self._work.values()):
            work.cancel()

    def _start(self, key: _Key, asked: dns.name.Name) -> None:
        work = Deferred.fromCoroutine(self._resolve(asked, key[1]))
        work.addTimeout(LOOKUP_S, cast(IReactorTime, self._reactor), _too_late)
        work.addErrback(self._failed)
        if not work.called:  # with no socket to be had it ends at once
            self._work[key] = work
        work.addCallback(self._settle, key)

    def _failed(self, failure: Failure) -> Useless:
        if not self._is_closed:
            self.log.failure("DNS lookup failed for no reason of the network", failure)
        return Useless(_CLOSED.cause if self._is_closed else "local error")

    def _settle(self, outcome: Settled | Useless, key: _Key) -> None:
        self._work.pop(key, None)
        answer: Answer
        match outcome:
            case Settled():
                answer = outcome.answer
                self._cache.put(key, answer, outcome.ttl_s, outcome.size_octets)
            case Useless():
                answer = TryAgain(outcome.cause)
                self._cache.put(key, answer, FAILURE_TTL_S, 0)
        for waiter in self._waiting.pop(key):
            waiter.callback(answer)

    async def _resolve(self, name: dns.name.Name, kind: Kind) -> Settled | Useless:
        """Follow the chain of CNAMEs over as many answers as it takes."""
        ttl_s, is_authentic, links = POSITIVE_TTL_S, True, 0
        async with self._slots:
            while True:
                reading = await self._ask(name, kind)
                match reading:
                    case Useless():
                        return reading
                    case Elsewhere():
                        ttl_s = min(ttl_s, reading.ttl_s)
                        is_authentic = is_authentic and reading.is_authentic
                        links += reading.links
                        if links > CHAIN_LIMIT:
                            return Useless("CNAME loop")
                        name = reading.name
                    case Settled(answer=answer):
                        if isinstance(answer, Found):
                            is_authentic = is_authentic and answer.is_authentic
                            answer = Found(answer.records, is_authentic)
                        return Settled(answer, min(ttl_s, reading.ttl_s), reading.size_octets)

    async def _ask(self, name: dns.name.Name, kind: Kind) -> Settled | Elsewhere | Useless:
        """Go through the servers until one can answer."""
        servers = self._nameservers()
        if self._favourite in servers:
            servers = (self._favourite, *(each for each in servers if each != self._favourite))
        causes: dict[Server, str] = {}
        given_up: set[Server] = set()
        for round in range(ROUNDS):
            for server in servers:
                if server in given_up:
                    continue
                # Some broken middleboxes swallow what has EDNS: the second try goes without.
                reading = await self._exchange(server, name, kind, has_edns=round == 0)
                if isinstance(reading, Useless) and reading.reason == "edns":
                    reading = await self._exchange(server, name, kind, has_edns=False)
                if not isinstance(reading, Useless):
                    self._favourite = server
                    return reading
                causes[server] = reading.cause
                if reading.reason != "silent":
                    given_up.add(server)
        return Useless("; ".join(f"{host}: {cause}" for (host, _), cause in causes.items()))

    async def _exchange(
        self, server: Server, name: dns.name.Name, kind: Kind, *, has_edns: bool
    ) -> Settled | Elsewhere | Useless:
        question = ask(
            name, kind, self._rng.getrandbits(16), trust_ad=self._trust_ad, has_edns=has_edns
        )
        return await exchange(self._network, server, question, trust_ad=self._trust_ad)


def _too_late(_: object, waited_s: float) -> Useless:
    return Useless(f"no answer within {waited_s:g} s")
