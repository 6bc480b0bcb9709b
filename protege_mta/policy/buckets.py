"""How often each client may do something, spread over time: token buckets in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

from .clients import MOST, network_of


class Buckets:
    """One bucket a client, full at first; it holds what may be done in a minute, and fills as fast.

    Where there are too many clients, the one that has not come for longest is forgotten: it gets a
    full bucket when it comes again.

    :param now: any seconds that never jump back much.
    :ivar per_minute: 0 for no limit.
    """

    def __init__(self, now: Callable[[], float], per_minute: int, most: int = MOST) -> None:
        self.per_minute = per_minute
        self._now = now
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when; the latest is last

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str) -> bool:
        """Take a token out of the bucket of an IP address, if there is one."""
        most = self.per_minute
        if not most:
            return True
        client, now = network_of(address), self._now()
        tokens, since = self._buckets.pop(client, (float(most), now))
        tokens = min(float(most), tokens + max(0.0, now - since) * most / 60)
        if len(self._buckets) >= self._most:
            del self._buckets[next(iter(self._buckets))]
        is_there = tokens >= 1
        self._buckets[client] = (tokens - 1 if is_there else tokens, now)
        return is_there
