"""A resolver that reads zone text; the same text can be served by a real name server."""

from __future__ import annotations

from collections.abc import Collection

import dns.name
import dns.node
import dns.rdataclass
import dns.rdatatype
import dns.zone
from twisted.internet.defer import Deferred, succeed

from ..model.ports import Answer, Found, NoSuchName, NoSuchRecord, TryAgain
from ..transport.dns_messages import CHAIN_LIMIT, Kind, records, to_name


class ZoneResolver:
    """Implements :class:`~protege_mta.model.ports.Resolver` on a master file (RFC 1035, section 5).

    It answers as a resolver with one authoritative server would: a name outside the zone is
    refused, so try again.  No wildcards, no delegations.

    :param text: the zone; needs no SOA where only this class reads it.
    :param origin: the zone's name; ``.`` makes every name exist or not.
    :param broken: names whose lookups fail with ``SERVFAIL``.
    :ivar is_authentic: whether what is found comes with the AD bit.
    :ivar is_held: while true, answers wait for :meth:`release`.
    :ivar asked: every lookup, as ``(name, kind)``.
    """

    def __init__(self, text: str, origin: str = ".", broken: Collection[str] = ()) -> None:
        self._zone = dns.zone.from_text(text, origin, relativize=False, check_origin=False)
        self._broken = {to_name(name) for name in broken}
        self._held: list[tuple[Deferred[Answer], Answer]] = []
        self.is_authentic = False
        self.is_held = False
        self.asked: list[tuple[str, Kind]] = []

    def lookup(self, name: str, kind: Kind) -> Deferred[Answer]:
        self.asked.append((name, kind))
        answer = self._answer(to_name(name), kind)
        if not self.is_held:
            return succeed(answer)
        waiter: Deferred[Answer] = Deferred()
        self._held.append((waiter, answer))
        return waiter

    def release(self) -> None:
        """Give the answers that are held."""
        held, self._held = self._held, []
        for waiter, answer in held:
            if not waiter.called:  # not cancelled meanwhile
                waiter.callback(answer)

    def _answer(self, name: dns.name.Name | None, kind: Kind) -> Answer:
        if name is None:
            return NoSuchName()
        for _ in range(CHAIN_LIMIT + 1):
            if name in self._broken:
                return TryAgain("SERVFAIL")
            assert self._zone.origin is not None
            if not name.is_subdomain(self._zone.origin):
                return TryAgain("REFUSED")
            node = self._zone.get_node(name)
            if node is None:
                # An empty non-terminal exists, for there is something below it (RFC 8020).
                below = any(other.is_subdomain(name) for other in self._zone.nodes)
                return NoSuchRecord() if below else NoSuchName()
            found = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.from_text(kind))
            if found is not None:
                return Found(records(found, kind), self.is_authentic)
            alias = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME)
            if alias is None:
                return NoSuchRecord()
            name = alias[0].target.canonicalize()
        return TryAgain("CNAME loop")
