"""Which way a recipient's mail goes: into one of our own domains, or out (RFC 5321, 3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

from ..model.address import Address, domain_of, local_part_of
from ..model.domain import ascii_domain
from ..model.hop import HopKind, NextHop
from ..model.identity import Identity
from ..model.ports import Agents

_DOMAINS: Final = 4096
"""So many domains' hops are remembered; likewise agents'."""

NOBODY: Final = NextHop("agent", "")
"""Where mail goes that was for an agent whom we do not know any more: back to its sender."""


@lru_cache(_DOMAINS)
def agent_hop(identity: Identity) -> NextHop:
    """The next hop of an agent's mail, whatever domain and name it came under."""
    return NextHop("agent", identity)


class RoutingTable:
    """Own domains, and the one way out for all others.

    :param domains: each own domain and the kind of hop that delivers for it; with ``tunnel`` each
        of its agents is a hop.
    :param outbound: the way out; its ``name`` is the smarthost's ``host:port``, and empty for
        ``mx``, where each recipient's domain is a hop of its own.
    :param agents: whose the addresses of tunnel domains are.
    """

    def __init__(
        self,
        domains: Mapping[str, Literal["maildir", "lmtp", "webhook", "tunnel"]],
        outbound: NextHop,
        agents: Agents | None = None,
    ) -> None:
        self._domains: dict[str, HopKind] = {
            ascii_domain(domain): "agent" if kind == "tunnel" else kind
            for domain, kind in domains.items()
        }
        self._outbound = outbound
        self._agents = agents
        # The same hop for the same domain: most mail goes to few, and a dict finds what it is
        # given back at once: 0.95 us to 0.40 where the hop is the domain.
        self._hop_of = lru_cache(_DOMAINS)(self._find)

    def is_own(self, domain: str) -> bool:
        """Whether we are the final stop for a domain, in whatever case and form."""
        return ascii_domain(domain) in self._domains

    def hop(self, address: Address) -> NextHop:
        """The next hop of a recipient."""
        hop = self._hop_of(domain_of(address))
        return hop if hop.kind != "agent" else self._to_agent(address, hop.name)

    def _find(self, domain: str) -> NextHop:
        domain = ascii_domain(domain)
        kind = self._domains.get(domain)
        if kind is not None:
            return NextHop(kind, domain)
        if self._outbound.kind == "mx":
            return NextHop("mx", domain)
        return self._outbound

    def _to_agent(self, address: Address, domain: str) -> NextHop:
        identity = None if self._agents is None else self._agents.at(address)
        if identity is not None:
            return agent_hop(identity)
        # RFC 5321, 4.5.1: there is always somebody, if no agent then a mailbox of this machine.
        if local_part_of(address).lower() == "postmaster":
            return NextHop("maildir", domain)
        return NOBODY
