"""Connections to a relay that have not logged in: few at a time, and fewer from one address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .connection import Connection, Stage

MOST: Final = 1000
PER_CLIENT: Final = 50
"""Many agents may sit behind one address, and all come at once after it was cut off."""


class Doorstep:
    """Counts them.

    :param client_of: what stands for one client, given an IP address.
    """

    def __init__(
        self,
        client_of: Callable[[str], str],
        *,
        most: int = MOST,
        per_client: int = PER_CLIENT,
    ) -> None:
        self._client_of = client_of
        self._most = most
        self._per_client = per_client
        self._waiting: dict[str, list[Connection]] = {}
        self._count = 0  # at most: some may have gone in, or away

    def has_room(self, address: str) -> bool:
        """Whether one more may wait."""
        client = self._client_of(address)
        self._look(client)
        if len(self._waiting.get(client, ())) >= self._per_client:
            return False
        if self._count >= self._most:
            for each in list(self._waiting):
                self._look(each)
        return self._count < self._most

    def add(self, address: str, connection: Connection) -> None:
        """It waits from now on, until it has logged in or is gone."""
        self._waiting.setdefault(self._client_of(address), []).append(connection)
        self._count += 1

    def _look(self, client: str) -> None:
        """Forget those of a client that wait no more."""
        before = self._waiting.pop(client, [])
        waiting = [one for one in before if one.stage is Stage.OPENING]
        self._count -= len(before) - len(waiting)
        if waiting:
            self._waiting[client] = waiting
