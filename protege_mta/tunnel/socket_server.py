"""The relay's side of tunnels: agents' connections, and who of them is logged in.

Whose address is the client's, and whether there is room for it, is for whoever takes the connection
and gives it one of :attr:`TunnelServer.sockets`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..model.identity import Identity
from ..model.ports import Session, StreamDoor
from ..transport.sweep import Sweep
from ..wire.tunnel.handshake import TOO_OFTEN, Proven, Refuse, RelayHandshake, Say
from .connection import GOING_AWAY, Connection, Socket
from .limits import TunnelLimits
from .session import TunnelSession
from .setting import Setting
from .unfinished import Unfinished

if TYPE_CHECKING:
    from .websocket import ServerSockets

REPLACED: Final = (4400, "replaced_by_new_session")
"""What a session is closed with whose agent has come again."""


class TunnelServer:
    """A :class:`~..model.ports.Sessions`: the inbound session of each agent.

    Where a session takes the place of another, the door hears that it is open before it hears that
    the older one is closed.

    :param may_attempt: whether one more message before authentication is allowed from an address;
        a login takes two.
    :param may_log_in: whether the holder of a key may come.
    :param refused: told of each login that failed: from which address, and the code.
    :param clock: one that nobody sets.
    :param now: POSIX seconds, which agents are told.
    :param new_id: gives a fresh UUID, version 4, that nobody can guess.
    """

    def __init__(
        self,
        door: StreamDoor,
        *,
        limits: TunnelLimits,
        clock: IReactorTime,
        now: Callable[[], float],
        new_id: Callable[[], str],
        may_attempt: Callable[[str], bool],
        may_log_in: Callable[[Identity], bool],
        refused: Callable[[str, str], None] = lambda address, code: None,
    ) -> None:
        self.limits = limits
        self.sweep = Sweep(clock, period_s=1.0)
        self.now = now
        self.new_id = new_id
        self.may_attempt = may_attempt
        self.may_log_in = may_log_in
        self.unfinished = Unfinished(self.sweep)
        self.setting = Setting(
            is_relay=True,
            door=door,
            limits=limits,
            unfinished=self.unfinished,
            clock=clock,
            new_id=new_id,
        )
        self.clock = clock
        self.refused = refused
        self._connections: set[RelayConnection] = set()
        self._inbound: dict[Identity, TunnelSession] = {}
        self._gone: Deferred[None] | None = None

    def to(self, identity: Identity) -> Session | None:
        return self._inbound.get(identity)

    @cached_property
    def sockets(self) -> ServerSockets:
        """Makes what serves a connection; to be asked for before there is one to serve."""
        # It brings autobahn along, which takes a tenth of a second and is for relay servers alone.
        from .websocket import ServerSockets

        return ServerSockets(self.clock, self.connection)

    @property
    def connections(self) -> int:
        """Those that are not logged in included."""
        return len(self._connections)

    @property
    def is_full(self) -> bool:
        return len(self._connections) >= self.limits.sessions

    def close(self) -> Deferred[None]:
        """End every session; what was cut is given up.  :return: fires when all are gone."""
        self._gone = self._gone or Deferred()
        for connection in list(self._connections):
            connection.close(GOING_AWAY, "shutting down")
        self._check_gone()
        return self._gone

    # --- for connections -------------------------------------------------------------------------

    def connection(self, socket: Socket) -> RelayConnection:
        """What an agent's new socket is to call."""
        connection = RelayConnection(socket, self)
        self._connections.add(connection)
        return connection

    def enter(self, session: TunnelSession) -> TunnelSession | None:
        """A session begins.  :return: the one that it takes the place of."""
        if not session.takes_mail:
            return None
        old = self._inbound.get(session.identity)
        self._inbound[session.identity] = session
        return old

    def leave(self, session: TunnelSession) -> None:
        if self._inbound.get(session.identity) is session:
            del self._inbound[session.identity]

    def left(self, connection: RelayConnection) -> None:
        self._connections.discard(connection)
        self._check_gone()

    def _check_gone(self) -> None:
        if self._gone is not None and not self._gone.called and not self._connections:
            self.unfinished.close()
            self.sweep.close()
            self._gone.callback(None)


class RelayConnection(Connection):
    """One agent's."""

    def __init__(self, socket: Socket, server: TunnelServer) -> None:
        super().__init__(socket, server.limits, server.sweep)
        self._server = server
        self._handshake = RelayHandshake(
            server.limits.terms,
            challenge_s=server.limits.challenge_s,
            now=server.now,
            new_id=server.new_id,
        )

    def opened(self) -> None:
        """The agent speaks first."""

    def authenticate(self, octets: bytes) -> None:
        server = self._server
        if not server.may_attempt(self.peer_address):
            self._refuse(Refuse("rate_limited", TOO_OFTEN))
            return
        match self._handshake.received(octets, server.clock.seconds()):
            case Say(text):
                self.send_text(text)
            case Refuse() as refuse:
                self._refuse(refuse)
            case Proven(identity) as proven:
                if server.may_log_in(identity):
                    self._admit(proven)
                else:
                    self._refuse(Refuse("identity_not_allowed"))

    def too_late(self) -> None:
        self._refuse(Refuse("auth_timeout", TOO_OFTEN))

    def _too_long(self) -> None:
        self._refuse(Refuse("invalid_message"))

    def _refuse(self, refuse: Refuse) -> None:
        self._server.refused(self.peer_address, refuse.code)
        self.send_text(refuse.text)
        self.close(refuse.close, refuse.code)

    def _admit(self, proven: Proven) -> None:
        server = self._server
        session = TunnelSession(
            self,
            server.setting,
            proven.identity,
            host=proven.identity,
            peer_address=self.peer_address,
            takes_mail=proven.role == "inbound",
            theirs=proven.terms,
            socket_id=server.new_id(),
        )
        old = server.enter(session)
        self.send_text(self._handshake.admit(proven, old.socket_id if old else None))
        self.begin(session)
        if old is not None:
            old.close(*REPLACED)

    def ended(self, code: int, reason: str) -> None:
        if self.session is not None:
            self._server.leave(self.session)

    def left(self) -> None:
        self._server.left(self)
