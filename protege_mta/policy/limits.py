"""How much one client may ask of us, and when we have had enough of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..model.ports import Peer
from ..model.reply import TABLE, Reply
from .clients import Streaks, Window, network_of


@attrs.frozen
class LimitSettings:
    """An address stands for its /64 where it is one of IPv6.  0 is no limit, but for
    ``connections``.

    :ivar offences_per_ip: after so many connections that were broken off for what the client did,
        more of them are refused,
    :ivar shut_out_s: until there was none for so long.
    """

    connections: int = 2000
    connections_per_ip: int = 50
    messages_per_ip_per_minute: int = 0
    connections_per_ip_per_minute: int = 0
    recipients_per_ip_per_minute: int = 0
    offences_per_ip: int = 5
    shut_out_s: float = 600.0


def _nobody(peer: Peer) -> bool:
    return False


def _untold(peer: Peer, reply: Reply) -> None:
    """Keep it to ourselves."""


class Limits:
    """Counts connections, messages and offences; knows no message and no socket.

    :param now: any seconds that never jump back much.
    :param trusts: whether a client's offences are overlooked.
    :param tell: called with connections that are refused, of each client once in a minute, lest a
        flood of them fill the journal; and with those that end in an offence.
    """

    def __init__(
        self,
        settings: LimitSettings,
        now: Callable[[], float],
        *,
        trusts: Callable[[Peer], bool] = _nobody,
        tell: Callable[[Peer, Reply], None] = _untold,
    ) -> None:
        self._trusts = trusts
        self._tell = tell
        self._open = 0
        self._open_by_client: dict[str, int] = {}
        self._connections = Window(now)
        self._refusals = Window(now)
        self._messages = Window(now)
        self._recipients = Window(now)
        self._strikes = Streaks(now, settings.shut_out_s)
        self.settings = settings

    @property
    def settings(self) -> LimitSettings:
        """Those in force; may be replaced."""
        return self._settings

    @settings.setter
    def settings(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._strikes.quiet_s = settings.shut_out_s

    def opened(self, peer: Peer) -> Reply | None:
        """Count a connection, or refuse it and count nothing."""
        client = network_of(peer.address)
        there = self._open_by_client.get(client, 0)
        refusal = self._refusal(peer, client, there)
        if refusal is None:
            self._open += 1
            self._open_by_client[client] = there + 1
        elif self._refusals.add(client) == 1:
            self._tell(peer, refusal)
        return refusal

    def _refusal(self, peer: Peer, client: str, there: int) -> Reply | None:
        settings = self._settings
        if self._open >= settings.connections or 0 < settings.connections_per_ip <= there:
            return TABLE["too-many-connections"]
        if self._strikes and self._is_shut_out(peer, client):
            return TABLE["shut-out"]
        limit = settings.connections_per_ip_per_minute
        if limit and self._connections.add(client) > limit:
            return TABLE["connecting-too-often"]
        return None

    def _is_shut_out(self, peer: Peer, client: str) -> bool:
        limit = self._settings.offences_per_ip
        return 0 < limit <= self._strikes.get(client) and not self._trusts(peer)

    def closed(self, peer: Peer) -> None:
        """Give back what :meth:`opened` counted."""
        client = network_of(peer.address)
        self._open -= 1
        left = self._open_by_client[client] - 1
        if left:
            self._open_by_client[client] = left
        else:
            del self._open_by_client[client]
        if peer.offence:
            self.strike(peer)
            self._tell(peer, TABLE[peer.offence])

    def strike(self, peer: Peer) -> None:
        """The client has done what no honest one does."""
        if self._settings.offences_per_ip and not self._trusts(peer):
            self._strikes.add(network_of(peer.address))

    def message(self, peer: Peer) -> Reply | None:
        """Count a message, or tell the peer to come back in another minute."""
        limit = self._settings.messages_per_ip_per_minute
        if limit and self._messages.add(network_of(peer.address)) > limit:
            return TABLE["rate-limited"]
        return None

    def recipient(self, peer: Peer) -> Reply | None:
        """Count a recipient, likewise."""
        limit = self._settings.recipients_per_ip_per_minute
        if limit and self._recipients.add(network_of(peer.address)) > limit:
            return TABLE["recipients-limited"]
        return None
