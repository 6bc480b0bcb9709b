"""One listener's SMTP connections: what they share, and how they come to their end together."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from zope.interface import implementer

from ..model.ports import Door, Peer
from ..model.tally import Tally
from ..wire.settings import ServerSettings
from .smtp_server import SmtpConnection
from .sweep import Sweep


@implementer(IProtocolFactory)
class SmtpServerFactory:
    """What the connections of one listener share.

    :param listener: its name, for :attr:`Peer.listener`.
    :param now: POSIX seconds.
    :param new_nonce: texts for AUTH, as :meth:`~..wire.shell.Shell.nonce` says.
    :param is_tls_first: whether TLS begins with the first octet (RFC 8314); ``tls`` is needed then.
    :ivar settings: may be replaced; connections made later go by the new ones.
    :ivar greet_delay_s: how long a client has to wait for the greeting, and must not speak before
        it (RFC 5321, 3.1); 0 greets at once.  Not where TLS comes first.
    :ivar tls: the context for STARTTLS, None for none; may be replaced likewise.
    """

    def __init__(
        self,
        door: Door,
        settings: ServerSettings,
        *,
        listener: str,
        tally: Tally,
        clock: IReactorTime,
        now: Callable[[], float],
        new_session_id: Callable[[], str],
        new_nonce: Callable[[], str],
        tls: IOpenSSLServerConnectionCreator | None = None,
        is_tls_first: bool = False,
        greet_delay_s: float = 0.0,
    ) -> None:
        self.settings = settings
        self.greet_delay_s = greet_delay_s
        self.clock = clock
        self.tls = tls
        self.door = door
        self.new_nonce = new_nonce
        self.tally = tally
        self.sweep = Sweep(clock)
        self.now = now
        self.is_tls_first = is_tls_first
        self.is_draining = False
        self._listener = listener
        self._new_session_id = new_session_id
        self._connections: set[SmtpConnection] = set()
        self._drained: list[Deferred[None]] = []

    def doStart(self) -> None:
        self.sweep.open()

    def doStop(self) -> None:
        self.sweep.close()

    def buildProtocol(self, addr: IAddress) -> SmtpConnection:
        address = cast(IPv4Address, addr)
        peer = Peer(
            *(address.host, address.port, self._listener, self._new_session_id()),
            source="submission" if self.settings.is_submission else "smtp",
        )
        return SmtpConnection(self, peer)

    def drain(self) -> Deferred[None]:
        """Take no more mail: 421 for idle connections now, for others once their transaction has
        ended, for new ones instead of a greeting.

        :return: fires when all connections are gone.
        """
        self.is_draining = True
        for connection in list(self._connections):
            connection.drain()
        if not self._connections:
            return succeed(None)
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        return drained

    def abort(self) -> None:
        """Cut what connections there are."""
        for connection in list(self._connections):
            connection.transport.abortConnection()

    def joined(self, connection: SmtpConnection) -> None:
        """A connection begins."""
        self._connections.add(connection)
        self.sweep.add(connection)
        self.tally.connections_in += 1
        self.tally.connections_in_open += 1

    def left(self, connection: SmtpConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.sweep.remove(connection)
        self.tally.connections_in_open -= 1
        if not self._connections:
            drained, self._drained = self._drained, []
            for each in drained:
                each.callback(None)
