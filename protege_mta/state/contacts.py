"""Whom those have written to whose policy asks for it, and who was approved by a person.

Addresses are kept as keyed hashes: the file tells nobody who writes to whom.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.address import Address
from .database import Database

KEPT_S: Final = 400 * 86_400.0
"""Who has not been written to for so long is a stranger again."""

PRUNE_S: Final = 86_400.0

_PUT: Final = (
    "INSERT INTO contact VALUES (?, ?, ?, ?, ?) ON CONFLICT (identity, recipient) DO UPDATE SET "
    "last_at = max(last_at, excluded.last_at), is_known = max(is_known, excluded.is_known)"
)


def forget(connection: sqlite3.Connection, identity: str) -> None:
    """Nobody of that name has written to anybody."""
    connection.execute("DELETE FROM contact WHERE identity = ?", (identity,))


class StoredContacts:
    """Read from the file's pages in memory, written behind.

    What has been taken over and is not written yet is remembered here, so that every answer counts
    it.

    :param now: POSIX seconds.
    :param random_octets: so many, from the system's secure source.
    """

    log = Logger()

    def __init__(
        self, database: Database, *, now: Callable[[], float], random_octets: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._now = now
        self._random_octets = random_octets
        self._secret = b""
        self._fresh: dict[tuple[str, bytes], tuple[float, bool]] = {}
        self._pruned_at = 0.0

    def load(self) -> None:
        """Read what is there; blocks.  :raise StateFailed:"""
        self._secret = self._database.secret("contacts", self._random_octets(32))

    def strangers(
        self, identity: str, recipients: Iterable[Address], *, is_known: bool = False
    ) -> list[Address]:
        """Those that it has never written to.

        :param is_known: whether to count among them those whose mail no person has released yet.
        :raise StateFailed:
        """
        found = []
        with self._database.snapshot() as connection:
            for address in recipients:
                hashed = self._hash(identity, address)
                fresh = self._fresh.get((identity, hashed))
                rows = connection.execute(
                    "SELECT is_known FROM contact WHERE identity = ? AND recipient = ? "
                    "AND last_at > ?",
                    (identity, hashed, self._now() - KEPT_S),
                ).fetchall()
                known = [bool(row[0]) for row in rows] + ([fresh[1]] if fresh else [])
                if not (any(known) if is_known else known):
                    found.append(address)
        return found

    def since(self, identity: str, at: float) -> int:
        """How many it wrote to for the first time after that moment, POSIX seconds.

        What a clock that was set back says of the future does not count: else it might for years.

        :raise StateFailed:
        """
        now = self._now()
        fresh = [
            hashed
            for (whose, hashed), (first_at, _) in self._fresh.items()
            if whose == identity and at < first_at <= now
        ]
        with self._database.snapshot() as connection:
            [(count,)] = connection.execute(
                "SELECT count(*) FROM contact WHERE identity = ? AND first_at > ? "
                "AND first_at <= ?",
                (identity, at, now),
            )
            for hashed in fresh:  # what is there besides is counted, or older
                [(is_there,)] = connection.execute(
                    "SELECT count(*) FROM contact WHERE identity = ? AND recipient = ?",
                    (identity, hashed),
                )
                count += not is_there
        return int(count)

    def add(self, identity: str, recipients: Sequence[Address], *, is_known: bool) -> None:
        """A message to them was accepted.

        :param is_known: whether it goes without a person's word.
        """
        now = self._now()
        rows = [(identity, self._hash(identity, one), now, now, is_known) for one in recipients]
        for _, hashed, *_ in rows:
            key = (identity, hashed)
            before = self._fresh.get(key)
            self._fresh[key] = (
                before[0] if before else now,
                is_known or bool(before and before[1]),
            )
        self._write(rows)

    def _write(self, rows: list[tuple[str, bytes, float, float, bool]]) -> None:
        now = self._now()
        is_time = now - self._pruned_at >= PRUNE_S
        if is_time:
            self._pruned_at = now

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(_PUT, rows)
            if is_time:
                connection.execute("DELETE FROM contact WHERE last_at < ?", (now - KEPT_S,))

        written: Deferred[None] = self._database.write(change)
        written.addCallbacks(self._written, self._not_written, callbackArgs=(rows,))

    def _written(self, _: None, rows: list[tuple[str, bytes, float, float, bool]]) -> None:
        for identity, hashed, _first_at, _last_at, is_known in rows:
            fresh = self._fresh.get((identity, hashed))
            if fresh is not None and (is_known or not fresh[1]):
                del self._fresh[identity, hashed]

    def _not_written(self, failure: Failure) -> None:
        # They stay in memory, so that this process goes by them.
        self.log.error(
            "whom a key has written to is not kept: {why}", why=failure.getErrorMessage()
        )

    def _hash(self, identity: str, recipient: Address) -> bytes:
        told = f"{identity}\0{recipient.lower()}".encode("utf-8", "replace")
        return hashlib.blake2b(told, key=self._secret, digest_size=16).digest()
