"""What accounts have sent, kept over a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from twisted.internet.defer import Deferred

from ..model.account import Usage
from .database import Database

_INSERT: Final = "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?)"


class StoredUsage:
    """The counts of all accounts, saved and loaded as a whole."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> list[Usage]:
        """What was saved last.  :raise StateFailed:"""
        with self._database.snapshot() as connection:
            return [
                Usage(*row)
                for row in connection.execute(
                    "SELECT name, window_start, window_s, messages, recipients FROM usage"
                )
            ]

    def save(self, rows: Iterable[Usage]) -> Deferred[None]:
        """Keep these in the place of all that were there; fails with
        :class:`~..model.ports.StateFailed`."""
        kept = list(rows)

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM usage")
            connection.executemany(_INSERT, kept)

        return self._database.write(change)
