"""Time-outs of many connections by one timer.

A connection says until when it is content to wait; a coarse sweep looks at all of them.  No timer
is made, moved or cancelled for a line or a message.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

NEVER: Final = float("inf")


class Expiring(Protocol):
    """What a sweep looks after."""

    @property
    def deadline(self) -> float:
        """By the sweep's clock, or :data:`NEVER`.  Asked once in a period."""
        ...

    def expired(self) -> None:
        """The deadline has passed.  Called at every sweep until it is moved or the connection is
        removed."""


class Sweep:
    """Look at every deadline once in ``period_s``.

    The timer runs only while there is something to look at; after :meth:`close` it goes with the
    last connection.

    :ivar now: the clock's time at the last look, at most ``period_s`` ago.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, *, period_s: float = 5.0) -> None:
        self.now = clock.seconds()
        self._clock = clock
        self._period_s = period_s
        self._all: set[Expiring] = set()
        self._call: IDelayedCall | None = None
        self._is_closing = False

    def after(self, wait_s: float) -> float:
        """The deadline for a wait that begins now: never early, late by two periods at most."""
        return self.now + wait_s + self._period_s

    def add(self, connection: Expiring) -> None:
        self._all.add(connection)
        if self._call is None:
            self.now = self._clock.seconds()
            self._call = self._clock.callLater(self._period_s, self._look)

    def remove(self, connection: Expiring) -> None:
        self._all.discard(connection)
        if self._is_closing:
            self._stop_if_empty()

    def close(self) -> None:
        """Leave no timer behind, once the last connection is gone."""
        self._is_closing = True
        self._stop_if_empty()

    def open(self) -> None:
        """Undo :meth:`close`."""
        self._is_closing = False

    def _stop_if_empty(self) -> None:
        if self._call is not None and not self._all:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        self.now = now = self._clock.seconds()
        for connection in list(self._all):
            try:
                if connection.deadline <= now:
                    connection.expired()
            except Exception:
                self.log.failure("a time-out could not be carried out")
        if self._all and self._call is None:
            self._call = self._clock.callLater(self._period_s, self._look)
