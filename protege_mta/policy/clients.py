"""What is remembered of clients by their addresses, in little memory whatever their number.

An IPv6 client has 2**64 addresses to choose from, so that its network is what counts (RFC 4291,
2.5.4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from ..model.networks import client_address

MOST: Final = 50_000
"""So many clients are remembered in one place; some 10 MB."""


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, also where IPv6 wraps it, or a /64 of IPv6."""
    return _ipv6_network(address) if ":" in address else address


@lru_cache(maxsize=10_000)
def _ipv6_network(address: str) -> str:
    parsed = client_address(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


class Window:
    """How often each client did something since the present stretch of time began.

    With too many clients it begins anew for all of them: whoever comes from so many addresses is
    not stopped by counting addresses.

    :param now: any seconds that never jump back much.
    :param length_s: how long a stretch is.
    """

    def __init__(self, now: Callable[[], float], length_s: float = 60.0, most: int = MOST) -> None:
        self._now = now
        self._length_s = length_s
        self._most = most
        self._stretch = 0
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def get(self, client: str) -> int:
        """How often so far."""
        self._move_on()
        return self._counts.get(client, 0)

    def add(self, client: str) -> int:
        """Once more.  :return: how often, this time included."""
        self._move_on()
        counts = self._counts
        count = counts.get(client, 0) + 1
        if count == 1 and len(counts) >= self._most:
            counts.clear()
        counts[client] = count
        return count

    def _move_on(self) -> None:
        stretch = int(self._now() // self._length_s)
        if stretch != self._stretch:
            self._stretch = stretch
            self._counts.clear()


class Streaks:
    """How often each client did something without a long pause.

    Where there are too many clients, the one that paused for longest is forgotten.

    :param now: any seconds that never jump back much.
    :ivar quiet_s: how long a pause has to be to end a streak.
    """

    def __init__(self, now: Callable[[], float], quiet_s: float, most: int = MOST) -> None:
        self.quiet_s = quiet_s
        self._now = now
        self._most = most
        self._streaks: dict[str, tuple[int, float]] = {}  # who did it last is the last one

    def __len__(self) -> int:
        return len(self._streaks)

    def get(self, client: str) -> int:
        """How often so far."""
        streak = self._streaks.get(client)
        if streak is None:
            return 0
        count, last_at = streak
        if self._now() - last_at < self.quiet_s:
            return count
        del self._streaks[client]
        return 0

    def add(self, client: str) -> int:
        """Once more.  :return: how often, this time included."""
        count = self.get(client) + 1
        streaks = self._streaks
        streaks.pop(client, None)
        if len(streaks) >= self._most:
            del streaks[next(iter(streaks))]
        streaks[client] = (count, self._now())
        return count
