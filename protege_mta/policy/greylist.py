"""Whoever is new has to come again: what sends by a queue does, what fires and forgets does not
(RFC 6647, 2.4).

In memory only: a restart that forgets delays some mail, and loses none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import attrs

from ..model.address import Address
from ..model.ports import Peer
from ..model.reply import TABLE, Reply
from .clients import MOST, Streaks, network_of


@attrs.frozen
class GreylistSettings:
    """:ivar delay_s: how long a newcomer has to wait.
    :ivar retry_s: within which it has to come again.
    :ivar keep_s: how long who has come again may come at once, from the last time on.
    :ivar allow_after: so many that have come again from one client let all of its mail in; 0 for
        never.
    """

    delay_s: float = 300.0
    retry_s: float = 172_800.0
    keep_s: float = 3_024_000.0
    allow_after: int = 5


class Greylist:
    """Knows triplets: the client's network (a /24 of IPv4, a /64 of IPv6), sender, recipient.

    With too many newcomers at a time the next ones come in at once, so that a flood keeps nobody
    out for good.

    :param now: any seconds that never jump back much.
    :ivar settings: may be replaced.
    """

    def __init__(
        self, settings: GreylistSettings, now: Callable[[], float], most: int = MOST
    ) -> None:
        self.settings = settings
        self._now = now
        self._most = most
        # By triplet, when it came first, and when it came last after it had come again; what is to
        # be forgotten first is the first one.
        self._newcomers: dict[bytes, float] = {}
        self._known: dict[bytes, float] = {}
        self._clients = Streaks(now, settings.keep_s, most)

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._known) + len(self._clients)

    def judge(self, peer: Peer, sender: Address, recipient: Address) -> Reply | None:
        """Let a recipient be, or have it tried again later."""
        settings, now = self.settings, self._now()
        clients = self._clients
        clients.quiet_s = settings.keep_s
        client = network_of(peer.address)
        if ":" not in client:
            client = client.rpartition(".")[0]
        if settings.allow_after and clients.get(client) >= settings.allow_after:
            clients.add(client)
            return None
        key = _key(client, sender, recipient)
        last_at = self._known.pop(key, None)
        if last_at is None or now - last_at >= settings.keep_s:
            if not self._has_come_again(key, now):
                return TABLE["greylisted"]
            if key not in self._newcomers:  # there are too many
                return None
            del self._newcomers[key]
            clients.add(client)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[key] = now
        return None

    def _has_come_again(self, key: bytes, now: float) -> bool:
        """Whether a triplet that is not known may come in now."""
        settings, newcomers = self.settings, self._newcomers
        while newcomers and now - newcomers[oldest := next(iter(newcomers))] >= settings.retry_s:
            del newcomers[oldest]
        first_at = newcomers.get(key)
        if first_at is not None:
            return now - first_at >= settings.delay_s
        if len(newcomers) >= self._most:
            return True
        newcomers[key] = now
        return False


def _key(client: str, sender: Address, recipient: Address) -> bytes:
    """A triplet in few octets."""
    text = f"{client}\n{sender.lower()}\n{recipient.lower()}"
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
