"""API keys: the rows, and the service's memory of them."""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.apikey import ApiKey, KeySecret
from ..model.ports import StateFailed
from .contacts import forget
from .database import Database, Generation

USE_S: Final = 60.0
"""How exactly it is kept when a key was used last."""

_SHORT: Final = 8
"""Octets of a digest that secrets are looked up by, before all of it is compared."""

_NOBODYS: Final = b"\0" * 32

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(ApiKey).decode


def find(connection: sqlite3.Connection, name: str) -> ApiKey | None:
    """The key of that name."""
    for row in connection.execute("SELECT name, document FROM api_key WHERE name = ?", (name,)):
        return _key(*row)
    return None


def every(connection: sqlite3.Connection) -> Iterator[ApiKey]:
    """All keys, by name."""
    for row in connection.execute("SELECT name, document FROM api_key ORDER BY name"):
        yield _key(*row)


def put(connection: sqlite3.Connection, key: ApiKey) -> None:
    """Keep a key in the place of the one of that name."""
    connection.execute(
        "INSERT OR REPLACE INTO api_key (name, document) VALUES (?, ?)", (key.name, _encode(key))
    )


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Forget a key, and whom it has written to.  :return: whether there was one."""
    forget(connection, ApiKey(name=name, secrets=()).identity)
    connection.execute("DELETE FROM api_key_use WHERE name = ?", (name,))
    return connection.execute("DELETE FROM api_key WHERE name = ?", (name,)).rowcount > 0


def uses(connection: sqlite3.Connection) -> dict[str, float]:
    """When each key was used last, POSIX seconds, to within :data:`USE_S`."""
    return dict(connection.execute("SELECT name, last_at FROM api_key_use"))


def _key(name: str, document: bytes) -> ApiKey:
    """:raise StateFailed: the row holds what no program of ours has written."""
    try:
        return _decode(document)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateFailed(f"API key {name!r} cannot be read: {error}") from error


class StoredKeys:
    """The keys in memory, which follow the file.

    :param now: POSIX seconds.
    """

    log = Logger()

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._generation: Generation = (0, 0)
        self._edition: tuple[int, int, int] = (0, 0, 0)
        self._by_digest: dict[bytes, tuple[ApiKey, KeySecret]] = {}
        self._by_name: dict[str, ApiKey] = {}
        self._used_at: dict[str, float] = {}

    def load(self) -> None:
        """Read all of them, so that a start fails where a request would.  :raise StateFailed:"""
        self.find(_NOBODYS)

    def find(self, digest: bytes) -> ApiKey | None:
        """The key that has a secret of that fingerprint, as long as both are valid.

        Takes the same steps whether there is one or not.

        :raise StateFailed: nobody knows what they are now.
        """
        self._look()
        found = self._by_digest.get(digest[:_SHORT])
        is_same = hmac.compare_digest(digest, _NOBODYS if found is None else found[1].digest)
        if found is None or not is_same:
            return None
        key, secret = found
        return key if key.is_valid(secret, self._now()) else None

    def get(self, name: str) -> ApiKey | None:
        """The key of that name, as long as any secret of it may open anything.

        :raise StateFailed: as :meth:`find`.
        """
        self._look()
        key = self._by_name.get(name)
        now = self._now()
        if key is None or not any(key.is_valid(secret, now) for secret in key.secrets):
            return None
        return key

    def _look(self) -> None:
        generation = self._database.generation()
        if generation != self._generation:
            self._follow(generation)

    def _follow(self, generation: Generation) -> None:
        with self._database.snapshot() as connection:
            [(last, count)] = connection.execute(
                "SELECT ifnull(max(revision), 0), count(*) FROM api_key"
            )
            edition = (generation[0], last, count)  # of another file revisions mean nothing here
            if edition != self._edition:
                self._by_name = {key.name: key for key in every(connection)}
                self._by_digest = {
                    secret.digest[:_SHORT]: (key, secret)
                    for key in self._by_name.values()
                    for secret in key.secrets
                }
                self._edition = edition
        self._generation = generation

    def used(self, name: str) -> None:
        """A key opened something just now."""
        now = self._now()
        if now - self._used_at.get(name, 0.0) < USE_S:
            return
        self._used_at[name] = now

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO api_key_use SELECT name, ? FROM api_key WHERE name = ?",
                (now, name),
            )

        self._database.write(change).addErrback(self._not_kept, name)

    def _not_kept(self, failure: Failure, name: str) -> None:
        self.log.error(
            "when the key {name} was used is not kept: {why}",
            name=name,
            why=failure.getErrorMessage(),
        )
