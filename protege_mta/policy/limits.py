"""How much one address may ask of us."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..model.ports import Peer
from ..model.reply import TABLE, Reply


@attrs.frozen
class LimitSettings:
    """:ivar messages_per_ip_per_minute: 0 for no limit."""

    connections: int = 2000
    connections_per_ip: int = 50
    messages_per_ip_per_minute: int = 0


class Limits:
    """Counts connections and messages; knows no message and no socket.

    :param now: any seconds that never jump back much.
    """

    def __init__(self, settings: LimitSettings, now: Callable[[], float]) -> None:
        self.settings = settings
        self._now = now
        self._open = 0
        self._open_by_address: dict[str, int] = {}
        self._minute = 0
        self._messages: dict[str, int] = {}

    def opened(self, peer: Peer) -> Reply | None:
        """Count a connection, or refuse it and count nothing."""
        there = self._open_by_address.get(peer.address, 0)
        if self._open >= self.settings.connections or there >= self.settings.connections_per_ip:
            return TABLE["too-many-connections"]
        self._open += 1
        self._open_by_address[peer.address] = there + 1
        return None

    def closed(self, peer: Peer) -> None:
        """Give back what :meth:`opened` counted."""
        self._open -= 1
        left = self._open_by_address[peer.address] - 1
        if left:
            self._open_by_address[peer.address] = left
        else:
            del self._open_by_address[peer.address]

    def message(self, peer: Peer) -> Reply | None:
        """Count a message, or tell the peer to come back in another minute."""
        limit = self.settings.messages_per_ip_per_minute
        if not limit:
            return None
        minute = int(self._now() // 60)
        if minute != self._minute:
            self._minute = minute
            self._messages.clear()
        count = self._messages.get(peer.address, 0)
        if count >= limit:
            return TABLE["rate-limited"]
        self._messages[peer.address] = count + 1
        return None
