"""The suppression list: its rows, and the service's view of them.

An address has a row for each tenant and reason, so that what ends by itself, a hard bounce, never
takes the place of what does not.  What is over counts for nothing, and is swept out at each start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import Suppressed
from ..model.suppression import Chosen, Place, normalised
from .database import Database, Generation

_COLUMNS: Final = "address, tenant, reason, since, until, detail, message_id"
_PUT: Final = f"INSERT OR REPLACE INTO suppression ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_FIND: Final = (
    f"SELECT {_COLUMNS} FROM suppression WHERE address = ? AND tenant IN ('', ?) "
    "AND (until IS NULL OR until > ?) "
    "AND NOT (message_id != '' AND message_id = ? AND reason = 'hard_bounce') "
    "AND (NOT ? OR reason IN ('manual', 'policy', 'unsubscribe')) "
    "ORDER BY until IS NULL DESC, until DESC LIMIT 1"
)


def put(connection: sqlite3.Connection, entries: Iterable[Suppressed]) -> None:
    """Keep these in the place of those of the same address, tenant and reason.  Addresses are
    normalised."""
    connection.executemany(_PUT, [_row(one) for one in entries])


def remove(connection: sqlite3.Connection, chosen: Chosen) -> int:
    """Forget entries.  :return: how many there were."""
    where, values = _where(chosen)
    return connection.execute(f"DELETE FROM suppression WHERE {where}", values).rowcount


def page(
    connection: sqlite3.Connection, chosen: Chosen, after: Place | None, most: int
) -> list[Suppressed]:
    """The next entries in the order of their places.

    :param after: the last place there was; None to begin.
    """
    where, values = _where(chosen)
    if after is not None:
        where += " AND (address, tenant, reason) > (?, ?, ?)"
        values += after
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM suppression WHERE {where} "
        "ORDER BY address, tenant, reason LIMIT ?",
        [*values, most],
    )
    return [_entry(row) for row in rows]


def _where(chosen: Chosen) -> tuple[str, list[Any]]:
    """The condition in SQL, and what it is about."""
    terms, values = ["1"], list[Any]()
    if chosen.address:
        terms.append("address = ?")
        values.append(chosen.address)
    if chosen.domain:
        terms.append("substr(address, -length(?) - 1) = '@' || ?")
        values += (chosen.domain, chosen.domain)
    if chosen.reason:
        terms.append("reason = ?")
        values.append(chosen.reason)
    if chosen.tenants is not None:
        terms.append(f"tenant IN ({', '.join('?' * len(chosen.tenants))})")
        values += chosen.tenants
    if chosen.at is not None:
        terms.append("(until IS NULL OR until > ?)")
        values.append(chosen.at)
    return " AND ".join(terms), values


def _row(entry: Suppressed) -> Sequence[Any]:
    return (
        entry.address,
        entry.tenant,
        entry.reason,
        entry.since,
        entry.until,
        entry.detail,
        entry.message_id,
    )


def _entry(row: Sequence[Any]) -> Suppressed:
    address, tenant, reason, since, until, detail, message_id = row
    return Suppressed(address, reason, tenant, since, until, detail, message_id)


class StoredSuppressions:
    """:class:`~..model.ports.Suppressions` over the database.

    A service that suppresses nobody asks for nothing; else a look costs some 10 us.

    :param now: POSIX seconds.
    """

    log = Logger()

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._generation: Generation = (-1, 0)
        self._is_empty = True

    def start(self) -> None:
        """Sweep out what is over; blocks.  :raise StateFailed:"""
        now = self._now()
        self._database.write_now(
            lambda connection: connection.execute(
                "DELETE FROM suppression WHERE until <= ?", (now,)
            )
        )

    def find(
        self, address: str, tenant: str, *, but_of: str = "", is_by_hand: bool = False
    ) -> Suppressed | None:
        generation = self._database.generation()
        if generation == self._generation and self._is_empty:
            return None
        known = normalised(address)
        if known is None:
            return None
        with self._database.snapshot() as connection:
            if generation != self._generation:
                self._generation = generation
                [(is_there,)] = connection.execute("SELECT EXISTS (SELECT 1 FROM suppression)")
                self._is_empty = not is_there
            for row in connection.execute(_FIND, (known, tenant, self._now(), but_of, is_by_hand)):
                return _entry(row)
        return None

    def add(self, entry: Suppressed) -> Deferred[None]:
        return self.add_all([entry])

    def add_all(self, entries: Sequence[Suppressed]) -> Deferred[None]:
        """Durable together, once it resolves; fails with :class:`~..model.ports.StateFailed`."""

        def added(result: None) -> None:
            self._is_empty = False  # whatever a look in between has found

        return self._database.write(lambda connection: put(connection, entries)).addCallback(added)

    def withdraw(self, entry: Suppressed) -> Deferred[None]:
        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM suppression WHERE address = ? AND tenant = ? AND reason = ? "
                "AND message_id = ?",
                (entry.address, entry.tenant, entry.reason, entry.message_id),
            )

        return self._database.write(change).addErrback(self._still_there, entry)

    def _still_there(self, failure: Failure, entry: Suppressed) -> None:
        self.log.error(
            "the {reason} of {id} stays on the suppression list: {why}",
            reason=entry.reason,
            id=entry.message_id,
            why=failure.getErrorMessage(),
        )

    def remove(self, chosen: Chosen) -> Deferred[int]:
        """Forget entries; how many there were."""
        return self._database.write(lambda connection: remove(connection, chosen))

    def page(self, chosen: Chosen, after: Place | None, most: int) -> list[Suppressed]:
        """As :func:`page`.  :raise StateFailed:"""
        with self._database.snapshot() as connection:
            return page(connection, chosen, after, most)
