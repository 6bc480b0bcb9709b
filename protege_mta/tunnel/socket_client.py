"""The agents' side of tunnels: connections to a relay, made once each.

::

    client = TunnelClient(
        "wss://relay.example/ws", door, limits=TunnelLimits(), clock=reactor,
        new_id=lambda: str(uuid4()), told=lambda session, state: None,
    )
    connection = client.connect(endpoint, Agent(identity, key.sign), watcher)
    connection.stop()

The watcher hears :meth:`Watcher.connected` once the relay has let the agent in, and at the end, in
any case and once, :meth:`Watcher.lost`.  Nobody connects again but who is told of it.  Endpoints
do names, TLS and time-outs of connecting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

import attrs
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure

from ..model.identity import Identity
from ..model.ports import Session, StreamDoor
from ..model.stream import DeliveryState
from ..transport.sweep import Sweep
from ..wire.tunnel.handshake import TOO_OFTEN, Admitted, AgentHandshake, Failed, Say
from ..wire.tunnel.messages import Role
from .connection import LOST, Connection, Socket
from .limits import TunnelLimits
from .session import BROKEN, TunnelSession, readable
from .setting import Setting
from .unfinished import Unfinished


@attrs.frozen
class Agent:
    """Who logs in.  :ivar sign: Ed25519 with the agent's private key."""

    identity: Identity
    sign: Callable[[bytes], bytes] = attrs.field(repr=False)
    role: Role = "inbound"


class Watcher(Protocol):
    """Who wants to know of one connection."""

    def connected(self, session: Session) -> None:
        """The relay has let the agent in."""

    def lost(self, code: int, reason: str) -> None:
        """It is over, or never was.  Once; maybe before :meth:`TunnelClient.connect` returns.

        :param code: of the close (RFC 6455, 7.4.1), 1006 where there was none.
        """


class TunnelClient:
    """:param told: gets what the relay says of mail that an agent has sent."""

    def __init__(
        self,
        url: str,
        door: StreamDoor,
        *,
        limits: TunnelLimits,
        clock: IReactorTime,
        new_id: Callable[[], str],
        told: Callable[[Session, DeliveryState], None] = lambda session, state: None,
    ) -> None:
        self.limits = limits
        self.sweep = Sweep(clock, period_s=1.0)
        self.unfinished = Unfinished(self.sweep)
        self.host = urlsplit(url).hostname or ""
        self.setting = Setting(
            is_relay=False,
            door=door,
            limits=limits,
            unfinished=self.unfinished,
            clock=clock,
            new_id=new_id,
            told=told,
        )
        self._url = url
        self._clock = clock

    def connect(
        self, endpoint: IStreamClientEndpoint, agent: Agent, watcher: Watcher
    ) -> Connecting:
        """Try once."""
        return Connecting(self, self._clock, self._url, endpoint, agent, watcher)

    def close(self) -> None:
        """Give up what was cut, once no connection is left."""
        self.unfinished.close()
        self.sweep.close()


class Connecting:
    """One attempt, and the connection that comes of it."""

    def __init__(
        self,
        client: TunnelClient,
        clock: IReactorTime,
        url: str,
        endpoint: IStreamClientEndpoint,
        agent: Agent,
        watcher: Watcher,
    ) -> None:
        # It brings autobahn along, which takes a tenth of a second and is for gateways alone.
        from .websocket import ClientSockets

        self._watcher = watcher
        self._is_over = False
        self._connection: AgentConnection | None = None

        def connect(socket: Socket) -> AgentConnection:
            self._connection = AgentConnection(socket, client, agent, self)
            return self._connection

        self._attempt = endpoint.connect(ClientSockets(clock, url, connect))
        self._attempt.addErrback(self._failed)

    def stop(self) -> None:
        """End it; the watcher is told as ever."""
        if self._connection is not None:
            self._connection.close(1000, "client_stopped")
        else:
            self._attempt.cancel()

    def _failed(self, failure: Failure) -> None:
        self.lost(LOST, failure.getErrorMessage())

    def connected(self, session: Session) -> None:
        self._watcher.connected(session)

    def lost(self, code: int, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._watcher.lost(code, reason)


class AgentConnection(Connection):
    """One agent's connection to its relay."""

    takes_json_in_binary = True

    def __init__(
        self, socket: Socket, client: TunnelClient, agent: Agent, watcher: Watcher
    ) -> None:
        super().__init__(socket, client.limits, client.sweep)
        self._client = client
        self._agent = agent
        self._watcher = watcher
        self._handshake = AgentHandshake(
            agent.identity, agent.sign, client.limits.terms, agent.role
        )

    def opened(self) -> None:
        self.send_text(self._handshake.begin())

    def authenticate(self, octets: bytes) -> None:
        match self._handshake.received(octets):
            case Say(text):
                self.send_text(text)
            case Admitted(ok):
                session = TunnelSession(
                    self,
                    self._client.setting,
                    self._agent.identity,
                    host=self._client.host,
                    peer_address=self.peer_address,
                    takes_mail=self._agent.role == "inbound",
                    theirs=ok.reliable,
                )
                self.begin(session)
                self._watcher.connected(session)
            case Failed(code):
                self.close(BROKEN, readable(code))
            case None:
                return

    def too_late(self) -> None:
        self.close(TOO_OFTEN, "heartbeat_timeout")

    def ended(self, code: int, reason: str) -> None:
        self._watcher.lost(code, readable(reason))

    def left(self) -> None:
        """There is nothing to count."""
