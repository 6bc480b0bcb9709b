"""A relay server: agents behind NAT come to ``/ws``, send their mail through us and get theirs.

:class:`RelayServer` is made once, like the house that it is a part of, and serves nobody until
``[tunnel_server]`` is enabled.  What the configuration decides is replaced by
:meth:`RelayServer.configure`, without a session noticing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .config.domains import TunnelDomain
from .config.model import Settings
from .config.toml import load_identities
from .model.address import NULL
from .model.domain import ascii_domain
from .model.identity import Agent
from .model.outcome import Delivered, Outcome, PermanentFailure
from .model.ports import Events, InThread, Session
from .model.reply import Reply
from .model.stream import Attestation, Stream
from .model.tally import Tally
from .model.verdicts import Verdicts, signal
from .policy.agents import AgentsDoor
from .policy.buckets import Buckets
from .policy.clients import Window, network_of
from .policy.door import Begin
from .policy.relaying import Relaying
from .policy.usage import Usage
from .state.agents import StoredAgents
from .state.database import Database
from .transport.agent import Attest
from .transport.control import Done, Handler, Row
from .tunnel.doorstep import Doorstep
from .tunnel.identities import Identities, IdentitiesFile, IdentitySettings
from .tunnel.limits import TunnelLimits
from .tunnel.sessions import Registry
from .tunnel.socket_server import TunnelServer
from .wire.tunnel.attestation import Signals, sign

if TYPE_CHECKING:
    from .tunnel.websocket import ServerSockets

REVOKED: Final = (4401, "identity_not_allowed")
"""What a session is closed with whose agent may not log in any more; a login is refused alike."""

REPLACED: Final = (4400, "replaced_by_new_session")

SENDING: Final = 16
"""Sessions of one agent beside the one that takes its mail; those that it forgot are among them until
they are silent for too long.  With more the oldest go: nobody is to have all the room there is."""

TOLD_A_MINUTE: Final = 20
"""So many logins of one address that fail are in the log; it may knock as often as it likes."""

GRACE_S: Final = 5.0
"""How long streams that have begun may take to their end when the service stops."""

CLOSED: Final = (1001, "no tunnel server here")


class RelayServer:
    """:param database: opened before :meth:`start`.
    :param begin: opens the way into the spool for one message.
    :param new_session_id: names sessions in the log.
    :ivar agents: who may come.
    :ivar sessions: who is there.
    :ivar door: what they may send.
    """

    log = Logger()

    _sockets: ServerSockets  # once it has been enabled

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        database: Database,
        events: Events,
        begin: Begin,
        usage: Usage,
        tally: Tally,
        in_thread: InThread,
        new_message_id: Callable[[], str],
        new_session_id: Callable[[], str],
    ) -> None:
        self._clock = reactor
        self._tally = tally.tunnel
        self._is_enabled = False
        self._seen = StoredAgents(database)
        self.agents = Identities(self._seen, IdentitySettings())
        self.sessions = Registry()
        self._file = IdentitiesFile(load_identities, self._use, clock=reactor, in_thread=in_thread)
        self.door = AgentsDoor(
            self.agents,
            self.sessions,
            Relaying({}, {}, NULL),  # until it is configured
            events,
            begin,
            usage=usage,
            clock=reactor,
            now=time.time,
            new_message_id=new_message_id,
            monotonic=time.monotonic,
            new_session_id=new_session_id,
            ended=self._received,
            message_octets=settings.limits.message_octets,
        )
        self._knocks = Buckets(time.monotonic, settings.tunnel_server.auth_per_ip_per_minute)
        self._refusals = Window(time.monotonic)
        self._doorstep = Doorstep(network_of)
        self._server = TunnelServer(
            _Watched(self),
            limits=tunnel_limits(settings),
            clock=reactor,
            now=time.time,
            new_id=lambda: str(uuid4()),
            may_attempt=self._knocks.take,
            may_log_in=lambda identity: self.agents.get(identity) is not None,
            refused=self._refused,
        )

    # --- life ------------------------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Put settings into force; sessions of agents that may come no more end.

        :raise ConfigError: the file of the agents cannot be used; nothing has changed then.
        """
        server = settings.tunnel_server
        if server.enabled:
            self._file.use(server.identities_file)
        self._is_enabled = server.enabled
        if server.enabled:
            self._sockets = self._server.sockets
        else:
            self._file.forget()
        self.agents.settings = IdentitySettings(
            takes_any=server.identities == "any",
            domains=tunnel_domains(settings),
            send_per_hour=server.send_per_hour,
        )
        self.door.message_octets = settings.limits.message_octets
        self._knocks.per_minute = server.auth_per_ip_per_minute
        self._server.limits = limits = tunnel_limits(settings)
        self._server.setting = attrs.evolve(self._server.setting, limits=limits, sent=self._sent)
        self._dismiss()

    def start(self) -> None:
        """Read who has been here, and look after the file; blocks.  :raise StateFailed:"""
        self._seen.load()
        self._file.start()

    def drain(self, within_s: float) -> Deferred[None]:
        """Take nothing new, let what is under way come in, and say goodbye to everybody.

        :param within_s: how long at most before the goodbye.
        :return: once all are gone.
        """
        self.door.is_closing = True
        self._file.stop()
        return Deferred.fromCoroutine(self._drain(min(within_s, GRACE_S)))

    async def _drain(self, within_s: float) -> None:
        until = self._clock.seconds() + within_s
        while self.door.streams and self._clock.seconds() < until:
            await deferLater(self._clock, GRACE_S / 50)
        await self._server.close()

    def stop(self) -> None:
        """Keep nothing more of what comes."""
        self._file.stop()
        self._seen.stop()

    # --- connections -----------------------------------------------------------------------------

    @property
    def upgrade(self) -> Callable[[str], IProtocol | None] | None:
        """For the HTTP listeners; None where nobody may come."""
        return self._upgrade if self._is_enabled else None

    def _upgrade(self, address: str) -> IProtocol | None:
        if self._server.is_full or self.door.is_closing or not self._doorstep.has_room(address):
            self._tally.connections_refused += 1
            return None
        socket = self._sockets.socket(address)
        self._doorstep.add(address, socket.connection)
        return socket

    def _refused(self, address: str, code: str) -> None:
        results = {"rate_limited": "limited", "identity_not_allowed": "not-allowed"}
        self._tally.logins[results.get(code, "failed")] += 1
        if self._refusals.add(network_of(address)) <= TOLD_A_MINUTE:
            self.log.info(
                "agent refused peer={peer} code={code}",
                peer=address,
                code=code,
            )

    # --- sessions --------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        self._tally.logins["succeeded"] += 1
        self.log.info(
            "agent logged in identity={identity} peer={peer} reliable={reliable} mail={mail}",
            identity=session.identity,
            peer=session.peer_address,
            reliable=session.is_reliable,
            mail=session.takes_mail,
        )
        self._seen.seen(session.identity, time.time())
        self.door.opened(session)
        beside = [one for one in self.sessions.of(session.identity) if not one.takes_mail]
        for one in beside[:-SENDING]:
            one.close(*REPLACED)

    def closed(self, session: Session) -> None:
        self.log.info(
            "agent left identity={identity} peer={peer}",
            identity=session.identity,
            peer=session.peer_address,
        )
        self._seen.seen(session.identity, time.time())
        self.door.closed(session)

    def _use(self, agents: Sequence[Agent]) -> None:
        self.agents.use(agents)
        self._dismiss()

    def _dismiss(self) -> None:
        """Close the sessions of those who may not be here any more."""
        for session in self.sessions:
            if not self._is_enabled:
                session.close(*CLOSED)
            elif self.agents.get(session.identity) is None:
                session.close(*REVOKED)

    # --- figures ---------------------------------------------------------------------------------

    def _received(self, reply: Reply | None, octets: int) -> None:
        self._tally.octets_in += octets
        results = {2: "taken", 4: "later", 5: "refused"}
        self._tally.streams_in["broken-off" if reply is None else results[reply.code // 100]] += 1

    def _sent(self, outcome: Outcome, octets: int) -> None:
        match outcome:
            case Delivered():
                self._tally.octets_out += octets
                self._tally.streams_out["delivered"] += 1
            case PermanentFailure():
                self._tally.streams_out["refused"] += 1
            case _:
                self._tally.streams_out["later"] += 1

    def figures(self) -> dict[str, int]:
        """Agents that mail can be sent to, sessions, and connections that have not logged in."""
        return {
            "reachable": self.sessions.reachable,
            "sessions": self.sessions.count,
            "waiting": max(0, self._server.connections - self.sessions.count),
        }

    def status(self) -> Row:
        """For ``status``."""
        return {
            "is_enabled": self._is_enabled,
            "listed": self.agents.listed,
            **self.figures(),
        }

    def handlers(self) -> Mapping[str, Handler]:
        """Of commands of ``control.sock``."""
        return {"tunnel.list": self._list}

    async def _list(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Row | Done, None]:
        there = set(self.sessions.identities())
        for identity in (*there, *(one for one in self._seen.identities() if one not in there)):
            sessions = self.sessions.of(identity)
            yield {
                "key": identity,
                "is_connected": bool(sessions),
                "last_seen_at": self._seen.last_at(identity),
                "peer_address": sessions[0].peer_address if sessions else "",
            }


class _Watched:
    """The door as sessions see it: a :class:`~.model.ports.StreamDoor`."""

    def __init__(self, server: RelayServer) -> None:
        self.opened = server.opened
        self.closed = server.closed
        self.receive = server.door.receive


def tunnel_domains(settings: Settings) -> tuple[str, ...]:
    """The domains of agents, as A-labels in lower case."""
    return tuple(
        ascii_domain(name)
        for name, domain in settings.domains.items()
        if isinstance(domain, TunnelDomain)
    )


def attester(settings: Settings) -> Attest | None:
    """Signs our word about senders; None where the configuration names no key.  Blocks.

    :raise OSError, ValueError: the key cannot be used.
    """
    server = settings.tunnel_server
    if not server.enabled or server.attestation is None:
        return None
    key_id, path = server.attestation.key_id, server.attestation.private_key
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: no Ed25519 key")

    def attest(stream: Stream, verdicts: Verdicts) -> Attestation:
        signals = Signals(signal(verdicts.spf), signal(verdicts.dkim), signal(verdicts.dmarc))
        return sign(stream, time.time(), signals, key_id=key_id, key=key)

    return attest


def tunnel_limits(settings: Settings) -> TunnelLimits:
    server = settings.tunnel_server
    return TunnelLimits(
        message_octets=settings.limits.message_octets,
        auth_s=server.idle_s / 4,
        ping_s=server.ping_s,
        idle_s=server.idle_s,
        sessions=server.sessions,
    )
