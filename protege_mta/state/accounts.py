"""Submission accounts: the rows, and the service's memory of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

import attrs
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.account import Account, AccountLimits, ScramVerifier
from ..model.ports import StateFailed
from .database import Database, Generation

_COLUMNS: Final = (
    *("name", "password_hash"),
    *("scram_salt", "scram_iterations", "scram_stored_key", "scram_server_key"),
    *("cram_secret", "allowed_from", "allowed_to", "denied_to", "tenant"),
    *("connections", "recipients", "messages_per_hour", "messages_per_day"),
    *("recipients_per_hour", "recipients_per_day", "created_at"),
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)}, revision FROM account"
_REPLACE: Final = (
    f"INSERT OR REPLACE INTO account ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)


def find(connection: sqlite3.Connection, name: str) -> Account | None:
    """The account of that name."""
    for row in connection.execute(f"{_SELECT} WHERE name = ?", (name,)):
        return _account(row)
    return None


def every(connection: sqlite3.Connection, *, after: int = 0) -> Iterator[Account]:
    """All accounts, by name.

    :param after: only those with a greater revision.
    """
    yield from map(
        _account, connection.execute(f"{_SELECT} WHERE revision > ? ORDER BY name", (after,))
    )


def put(connection: sqlite3.Connection, account: Account) -> None:
    """Keep an account in the place of the one of that name; it gets a revision of its own."""
    scram = account.scram
    connection.execute(
        _REPLACE,
        (
            account.name,
            account.password_hash,
            *(attrs.astuple(scram) if scram is not None else (None,) * 4),
            account.cram_secret,
            *map(json.dumps, (account.allowed_from, account.allowed_to, account.denied_to)),
            account.tenant,
            *attrs.astuple(account.limits),
            account.created_at,
        ),
    )


def remove(connection: sqlite3.Connection, name: str) -> bool:
    """Forget an account.  :return: whether there was one."""
    return connection.execute("DELETE FROM account WHERE name = ?", (name,)).rowcount > 0


def _account(row: tuple[Any, ...]) -> Account:
    """:raise StateFailed: the row holds what no program of ours has written."""
    name, password_hash, salt, iterations, stored_key, server_key = row[:6]
    cram_secret, allowed_from, allowed_to, denied_to, tenant, *limits = row[6:-2]
    try:
        return Account(
            name=name,
            password_hash=password_hash,
            scram=ScramVerifier(salt, iterations, stored_key, server_key) if salt else None,
            cram_secret=cram_secret,
            allowed_from=_words(allowed_from),
            allowed_to=_words(allowed_to),
            denied_to=_words(denied_to),
            tenant=tenant,
            limits=AccountLimits(
                connections=limits[0],
                recipients=limits[1],
                messages_per_hour=limits[2],
                messages_per_day=limits[3],
                recipients_per_hour=limits[4],
                recipients_per_day=limits[5],
            ),
            created_at=row[-2],
            revision=row[-1],
        )
    except (TypeError, ValueError) as error:
        raise StateFailed(f"account {name!r} cannot be read: {error}") from error


def _words(text: str) -> tuple[str, ...]:
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("wanted an array of texts")
    return tuple(words)


class StoredAccounts:
    """:class:`~..model.ports.Accounts` from memory, which follows the file."""

    log = Logger()

    def __init__(self, database: Database) -> None:
        self._database = database
        self._generation: Generation = (0, 0)
        self._accounts: dict[str, Account] = {}
        self._revision = 0
        self._takes_cram_md5 = False

    def load(self) -> None:
        """Read all of them, so that a start fails where a login would.  :raise StateFailed:"""
        self.get("")

    def get(self, name: str) -> Account | None:
        generation = self._database.generation()
        if generation != self._generation:
            self._follow(generation)
        return self._accounts.get(name)

    def takes_cram_md5(self) -> bool:
        """Whether any account has the secret that CRAM-MD5 needs.  :raise StateFailed:"""
        self.get("")
        return self._takes_cram_md5

    def _follow(self, generation: Generation) -> None:
        """Take over what has changed, which among many accounts is little."""
        if generation[0] != self._generation[0]:  # another file, whose revisions mean nothing here
            self._accounts, self._revision = {}, 0
        accounts = self._accounts
        with self._database.snapshot() as connection:
            changed = list(every(connection, after=self._revision))
            for account in changed:
                accounts[account.name] = account
                self._revision = max(self._revision, account.revision)
            # What is in the file is in memory now; so there are more here only if some are gone.
            [(count,)] = connection.execute("SELECT count(*) FROM account")
            if count != len(accounts):
                there = {name for (name,) in connection.execute("SELECT name FROM account")}
                for name in accounts.keys() - there:
                    del accounts[name]
        self._takes_cram_md5 = any(account.cram_secret for account in accounts.values())
        self._generation = generation

    def renew(self, account: Account) -> None:
        """Keep an account with fresher hashes, unless it has been changed since it was read; what
        fails is logged, and tried again at the next login."""

        def change(connection: sqlite3.Connection) -> None:
            found = find(connection, account.name)
            if found is not None and found.revision == account.revision:
                put(connection, account)

        self._database.write(change).addErrback(self._not_renewed, account.name)

    def _not_renewed(self, failure: Failure, name: str) -> None:
        self.log.failure("the account {name} was not renewed", failure=failure, name=name)
