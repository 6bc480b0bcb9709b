"""The ways out of a service: a transport for each kind of hop, and what finds the way to it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from . import from_settings, inbound_hooks, outbound
from .config.model import Settings
from .gateway import Gateway
from .model.hop import HopKind, NextHop
from .model.ports import Transport
from .model.tally import Tally
from .relay_server import RelayServer
from .returns import Returns
from .routing.agents import AgentRouter
from .routing.lmtp import LmtpRouter
from .routing.mx import MxRouter
from .routing.networks import OwnListeners, Prohibited
from .routing.site import Located, Locator
from .routing.smarthost import SmarthostRouter
from .transport.addresses import has_global_ipv6
from .transport.agent import AgentTransport, Attest
from .transport.delegate import Delegate, DelegatedTransport
from .transport.dns import DnsResolver
from .transport.dns_system import HostsFile
from .transport.maildir import MaildirTransport
from .transport.maildir import resolver as maildir_resolver
from .transport.sandbox import SandboxTransport
from .transport.tunnel import TunnelTransport


@attrs.frozen(kw_only=True)
class WaysOut:
    """Makes them of settings.

    :ivar delegate: the delivery process; None where we deliver ourselves.
    :ivar in_thread: runs a function that blocks elsewhere.
    :ivar started_at: the service, POSIX seconds.
    """

    _reactor: Any
    _own: OwnListeners
    _resolver: DnsResolver
    _tally: Tally
    _delegate: Delegate | None
    _relay_server: RelayServer
    _gateway: Gateway
    _returns: Returns
    _in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    _rng: random.Random
    _started_at: float

    def transports(self, settings: Settings, attest: Attest | None) -> dict[HopKind, Transport]:
        """By the kind of hop.

        :param attest: our word about a message's sender, for agents; None to give none.
        :raise ValueError, OSError: a file that one needs cannot be used.
        """
        delegate = self._delegate
        found: dict[HopKind, Transport] = {
            kind: DelegatedTransport(delegate, one) if delegate is not None else one
            for kind, one in outbound.transports(
                self._reactor, settings, own=self._own, tally=self._tally
            ).items()
        }
        found["maildir"] = MaildirTransport(
            maildir_resolver(from_settings.maildirs(settings), from_settings.mailboxes(settings)),
            in_thread=self._in_thread,
            hostname=settings.hostname,
            started_at=self._started_at,
        )
        found["sandbox"] = SandboxTransport()
        found["agent"] = AgentTransport(self._relay_server.sessions, attest)
        found["tunnel"] = TunnelTransport(self._gateway.lines)
        found["webhook"] = inbound_hooks.transport(self._reactor, settings, self._in_thread)
        found["returns"] = self._returns.transport()
        return found

    def smarthost(self) -> SmarthostRouter:
        """Finds hosts by their names."""
        return SmarthostRouter(
            self._resolver,
            HostsFile(self._reactor.seconds).addresses,
            self._own,
            rng=self._rng,
            prefers_ipv6=has_global_ipv6,
        )

    def locator(
        self, settings: Settings, by_name: SmarthostRouter
    ) -> Callable[[NextHop], Deferred[Located]]:
        """Finds the site of a hop."""
        mx = MxRouter(
            self._resolver,
            own_names=(settings.hostname,),
            own=self._own,
            prohibited=Prohibited(map(str, settings.outbound.prohibited_networks)),
            port=settings.outbound.mx_port,
            rng=self._rng,
            prefers_ipv6=has_global_ipv6,
        )
        return Locator(
            {
                "mx": mx,
                "smarthost": by_name,
                "lmtp": LmtpRouter(from_settings.lmtp_servers(settings), by_name),
                "agent": AgentRouter(self._relay_server.agents, self._relay_server.sessions),
                "tunnel": self._gateway.router,
            }
        )
