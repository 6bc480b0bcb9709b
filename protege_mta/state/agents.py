"""Which agents have ever logged in by tunnel, and when the last time was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.identity import Identity
from .database import Database

MOST: Final = 100_000
"""So many are remembered; where anybody may come, keys cost nothing.  Some 20 MB."""

_PUT: Final = (
    "INSERT INTO agent VALUES (?, ?, ?) "
    "ON CONFLICT (identity) DO UPDATE SET last_at = max(last_at, excluded.last_at)"
)


def every(connection: sqlite3.Connection) -> Iterator[tuple[Identity, float]]:
    """Each agent and when it was there last, POSIX seconds; the longest absent first."""
    for identity, at in connection.execute("SELECT identity, last_at FROM agent ORDER BY last_at"):
        yield Identity(identity), at


class StoredAgents:
    """In memory, and kept in the database.  The service alone writes."""

    log = Logger()

    def __init__(self, database: Database, *, most: int = MOST) -> None:
        self._database = database
        self._most = most
        self._last_at: dict[Identity, float] = {}  # the longest absent first
        self._is_stopped = False

    def load(self) -> None:
        """Read what is there; blocks.  :raise StateFailed:"""
        with self._database.snapshot() as connection:
            self._last_at = dict(every(connection))

    def __contains__(self, identity: object) -> bool:
        return identity in self._last_at

    def identities(self) -> list[Identity]:
        """All of them, the longest absent first."""
        return list(self._last_at)

    def last_at(self, identity: Identity) -> float | None:
        """When it was there last, POSIX seconds; None where it never was."""
        return self._last_at.get(identity)

    def seen(self, identity: Identity, at: float) -> None:
        """It is there, or was until now."""
        if self._is_stopped:
            return
        last_at = self._last_at
        last_at.pop(identity, None)
        forgotten = next(iter(last_at)) if len(last_at) >= self._most else None
        if forgotten is not None:
            del last_at[forgotten]
        last_at[identity] = at

        def change(connection: sqlite3.Connection) -> None:
            if forgotten is not None:
                connection.execute("DELETE FROM agent WHERE identity = ?", (forgotten,))
            connection.execute(_PUT, (identity, at, at))

        self._database.write(change).addErrback(self._not_kept, identity)

    def stop(self) -> None:
        """Take nothing more, for the database is closed next."""
        self._is_stopped = True

    def _not_kept(self, failure: Failure, identity: Identity) -> None:
        self.log.error(
            "that {identity} was here is not kept: {why}",
            identity=identity,
            why=failure.getErrorMessage(),
        )
