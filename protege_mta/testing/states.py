"""``state.sqlite`` without a thread: its writer works when it is told to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..model.ports import StateFailed
from ..state.database import Database

_T = TypeVar("_T")


class HeldDatabase(Database):
    """:ivar waiting: what is to be written.  :ivar is_failed: whether writing fails.
    :ivar is_holding: whether writes wait for :meth:`turn`.
    """

    def __init__(self, folder: Path, monotonic: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(folder, in_reactor=lambda call, *args: call(*args), monotonic=monotonic)
        self.waiting: list[tuple[Callable[[sqlite3.Connection], Any], Deferred[Any]]] = []
        self.is_failed = False
        self.is_holding = False

    def write(self, change: Callable[[sqlite3.Connection], _T]) -> Deferred[_T]:
        done: Deferred[_T] = Deferred()
        self.waiting.append((change, done))
        if not self.is_holding:
            self.turn()
        return done

    def write_now(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        if self.is_failed:
            raise StateFailed("no disk")
        return super().write_now(change)

    def turn(self) -> None:
        """Write what waits."""
        waiting, self.waiting = self.waiting, []
        for change, done in waiting:
            try:
                result = self.write_now(change)
            except StateFailed:
                done.errback(Failure())
            else:
                done.callback(result)
