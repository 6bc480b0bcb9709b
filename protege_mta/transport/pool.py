"""Outbound connections: the idle ones to use again, the time limits of all, and their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IReactorTime

from ..model.tally import Tally
from .sweep import NEVER, Sweep

if TYPE_CHECKING:
    from .smtp_client import Connection

SWEEP_S: Final = 1.0
"""Time limits strike up to twice as late."""


class Pool:
    """Every open connection of one transport.

    :param idle_s: how long a connection waits for its next message.
    :param messages: most messages a connection.
    """

    def __init__(self, clock: IReactorTime, tally: Tally, *, idle_s: float, messages: int) -> None:
        self.tally = tally
        self.sweep = Sweep(clock, period_s=SWEEP_S)
        self._idle_s = idle_s
        self._messages = messages
        self._all: set[Connection] = set()
        self._idle: dict[str, list[Connection]] = {}
        self._is_closing = False
        self._emptied: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._all)

    @property
    def idle(self) -> int:
        """How many connections wait for a message."""
        return sum(map(len, self._idle.values()))

    def opened(self, connection: Connection) -> None:
        self._all.add(connection)
        self.sweep.add(connection)
        self.tally.connections_out += 1
        self.tally.connections_out_open += 1

    def take(self, key: str) -> Connection | None:
        """The idle connection that was used last, or None."""
        idle = self._idle.get(key)
        if idle is None:
            return None
        connection = idle.pop()
        connection.deadline = NEVER
        if not idle:
            del self._idle[key]
        return connection

    def release(self, connection: Connection) -> None:
        """A message is over; keep its connection for the next one, or say goodbye."""
        if not connection.is_open:
            return
        if self._is_closing or connection.messages >= self._messages or self._idle_s <= 0:
            connection.quit()
            return
        connection.deadline = self.sweep.after(self._idle_s)
        self._idle.setdefault(connection.key, []).append(connection)

    def forget(self, connection: Connection) -> None:
        """It is not to be used again: it has spoken out of turn, or is leaving."""
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.key]

    def lost(self, connection: Connection) -> None:
        """The channel is gone."""
        self.forget(connection)
        self._all.discard(connection)
        self.sweep.remove(connection)
        self.tally.connections_out_open -= 1
        if not self._all and self._emptied is not None:
            self._emptied()

    def close(self, emptied: Callable[[], None]) -> None:
        """QUIT to the idle, and to the others after their message.

        :param emptied: called each time that the last connection has gone.
        """
        self._is_closing = True
        self._emptied = emptied
        self.sweep.close()
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.quit()
