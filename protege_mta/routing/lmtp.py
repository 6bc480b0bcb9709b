"""Where the LMTP servers of our own domains are (RFC 2033)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from twisted.internet.defer import Deferred, succeed

from ..model.hop import Host, NextHop, Site
from .site import Locate, Located, try_again

UNIX = "unix:"


class LmtpRouter:
    """Finds the site of a next hop of kind ``lmtp``; domains with one server share it.

    :param servers: ``host:port`` or ``unix:/path``, by domain.
    :param by_name: finds a ``host:port``, as it does for smarthosts.
    """

    def __init__(self, servers: Mapping[str, str], by_name: Locate) -> None:
        self._servers = servers
        self._by_name = by_name

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        """Locate a domain's server; one that has none any more waits for a person to mend that."""
        server = self._servers.get(hop.name)
        if server is None:
            return succeed(try_again("no-local-delivery", hop.name))
        if server.startswith(UNIX):
            host = Host(server, (server,), 0)
            return succeed(Site(f"lmtp:{server}", "lmtp", (host,)))

        def found(site: Located) -> Located:
            if isinstance(site, Site):
                return attrs.evolve(site, key=f"lmtp:{server}", kind="lmtp")
            return site

        return self._by_name(NextHop("smarthost", server)).addCallback(found)
