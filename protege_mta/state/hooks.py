"""``webhooks.sqlite`` in the state folder: how far each webhook is, and what it would not have.

It is a file of its own, so that a thousand places a second share neither lock nor sync with what
mail waits for.  A loss of power may take the last of it back, a place and its dead letters alike:
then they are sent again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, ParamSpec, TypeVar
from urllib.parse import quote

import attrs

from ..model.ports import StateFailed
from .database import transaction

NAME: Final = "webhooks.sqlite"

MOST_DEAD: Final = 10_000
"""So many dead letters of a webhook are kept; the oldest go."""

_BUSY_S: Final = 5.0

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS hook (
        name TEXT PRIMARY KEY,
        cursor TEXT NOT NULL,
        moved INTEGER NOT NULL DEFAULT 0,
        delivered INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        lost INTEGER NOT NULL DEFAULT 0,
        told_at REAL NOT NULL DEFAULT 0,
        told TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS dead (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        at REAL NOT NULL,
        id TEXT NOT NULL,
        tries INTEGER NOT NULL,
        cause TEXT NOT NULL,
        lines BLOB NOT NULL,
        is_wanted INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX IF NOT EXISTS dead_by_name ON dead (name, number)",
)


@attrs.frozen(kw_only=True)
class DeadLetter:
    """What an endpoint would not have.

    :ivar id: the request's ``webhook-id``.
    :ivar at: when it was given up, POSIX seconds.
    :ivar lines: the events, each without LF.
    :ivar is_wanted: whether it is to be sent again.
    """

    number: int
    id: str
    at: float
    tries: int
    cause: str
    lines: tuple[bytes, ...]
    is_wanted: bool


@attrs.frozen
class Standing:
    """A webhook's row.

    :ivar cursor: everything before it was delivered or is dead.
    :ivar moved: how often a person has put the cursor elsewhere.
    :ivar delivered: events, and likewise the next; ``lost`` counts how often some were no longer
        kept when it was their turn, and how many could not be read.
    :ivar told: the figures of the process that delivers, as JSON; empty where it never told any.
    """

    cursor: str
    moved: int
    delivered: int
    failed: int
    lost: int
    told_at: float
    told: str


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _failing(method: Callable[_P, _T]) -> Callable[_P, _T]:
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except sqlite3.Error as error:
            raise StateFailed(f"{NAME}: {error}") from error

    return run


class HookStore:
    """The file, open.  For one thread; each method may wait for another process that writes.

    Every method raises :class:`~..model.ports.StateFailed` where the file cannot be used.

    :param folder: which is there.
    """

    @_failing
    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(fd)
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", timeout=_BUSY_S, isolation_level=None, uri=True
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with transaction(self._connection):
            for statement in _TABLES:
                self._connection.execute(statement)

    def close(self) -> None:
        self._connection.close()

    @_failing
    def generation(self) -> int:
        """Another number once another process has changed something."""
        [(version,)] = self._connection.execute("PRAGMA data_version")
        return int(version)

    # --- places ----------------------------------------------------------------------------------

    @_failing
    def begin(self, name: str, cursor: str) -> None:
        """A webhook that is new begins here; any other one stays where it is."""
        self._connection.execute(
            "INSERT OR IGNORE INTO hook (name, cursor) VALUES (?, ?)", (name, cursor)
        )

    @_failing
    def standing(self, name: str) -> Standing | None:
        """None for one that never began."""
        row = self._connection.execute(
            "SELECT cursor, moved, delivered, failed, lost, told_at, told FROM hook WHERE name = ?",
            (name,),
        ).fetchone()
        return None if row is None else Standing(*row)

    @_failing
    def advance(
        self, name: str, cursor: str, moved: int, *, delivered: int = 0, lost: int = 0
    ) -> bool:
        """Everything before the cursor is done.

        :param moved: as it was when that was begun.
        :return: False where a person has put the cursor elsewhere since then; it stays there.
        """
        done = self._connection.execute(
            "UPDATE hook SET cursor = ?, delivered = delivered + ?, lost = lost + ? "
            "WHERE name = ? AND moved = ?",
            (cursor, delivered, lost, name, moved),
        )
        return done.rowcount > 0

    @_failing
    def count_failed(self, name: str) -> None:
        """A try has failed."""
        self._connection.execute("UPDATE hook SET failed = failed + 1 WHERE name = ?", (name,))

    @_failing
    def move(self, name: str, cursor: str) -> bool:
        """Go on from another place; whether there is such a webhook."""
        done = self._connection.execute(
            "UPDATE hook SET cursor = ?, moved = moved + 1 WHERE name = ?", (cursor, name)
        )
        return done.rowcount > 0

    @_failing
    def tell(self, name: str, at: float, told: str) -> None:
        """Keep the figures for who asks."""
        self._connection.execute(
            "UPDATE hook SET told_at = ?, told = ? WHERE name = ?", (at, told, name)
        )

    # --- dead letters ----------------------------------------------------------------------------

    @_failing
    def bury(
        self,
        name: str,
        cursor: str,
        moved: int,
        *,
        at: float,
        id: str,
        tries: int,
        cause: str,
        lines: Sequence[bytes],
    ) -> bool:
        """Give a request up and go on behind it, both or neither; as :meth:`advance`."""
        with transaction(self._connection):
            if not self.advance(name, cursor, moved):
                return False
            self._connection.execute(
                "INSERT INTO dead (name, at, id, tries, cause, lines) VALUES (?, ?, ?, ?, ?, ?)",
                (name, at, id, tries, cause, b"\n".join(lines)),
            )
            self._connection.execute(
                "DELETE FROM dead WHERE name = ? AND number <= (SELECT number FROM dead "
                "WHERE name = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (name, name, MOST_DEAD),
            )
        return True

    @_failing
    def lose(
        self, name: str, cursor: str, moved: int, *, at: float, id: str, notice: bytes
    ) -> bool:
        """Go on behind what is no longer kept, and have the endpoint told of that first; as
        :meth:`advance`.

        :param notice: an event, which is sent as dead letters are that are to be sent again.
        """
        with transaction(self._connection):
            if not self.advance(name, cursor, moved, lost=1):
                return False
            self._connection.execute(
                "INSERT INTO dead (name, at, id, tries, cause, lines, is_wanted) "
                "VALUES (?, ?, ?, 0, 'not sent yet', ?, 1)",
                (name, at, id, notice),
            )
        return True

    @_failing
    def bury_again(self, number: int, *, at: float, tries: int, cause: str) -> None:
        """It was tried again, and would not be had again."""
        self._connection.execute(
            "UPDATE dead SET at = ?, tries = tries + ?, cause = ?, is_wanted = 0 WHERE number = ?",
            (at, tries, cause, number),
        )

    @_failing
    def raised(self, name: str, number: int, events: int) -> None:
        """A dead letter was delivered after all."""
        with transaction(self._connection):
            self._connection.execute("DELETE FROM dead WHERE number = ?", (number,))
            self._connection.execute(
                "UPDATE hook SET delivered = delivered + ? WHERE name = ?", (events, name)
            )

    @_failing
    def dead(self, name: str) -> int:
        """How many there are."""
        [(count,)] = self._connection.execute("SELECT count(*) FROM dead WHERE name = ?", (name,))
        return int(count)

    def letters(self, name: str, *, is_wanted: bool | None = None) -> Iterator[DeadLetter]:
        """The dead letters, the oldest first.

        :param is_wanted: only those that are, or are not, to be sent again.
        """
        with _told():
            rows = self._connection.execute(
                "SELECT number, id, at, tries, cause, lines, is_wanted FROM dead WHERE name = ? "
                "AND (? IS NULL OR is_wanted = ?) ORDER BY number",
                (name, is_wanted, is_wanted),
            )
            for number, id, at, tries, cause, lines, wanted in rows:
                yield DeadLetter(
                    number=number,
                    id=id,
                    at=at,
                    tries=tries,
                    cause=cause,
                    lines=tuple(lines.split(b"\n")),
                    is_wanted=bool(wanted),
                )

    @_failing
    def want(self, name: str) -> int:
        """Have all dead letters sent again; how many that are."""
        done = self._connection.execute(
            "UPDATE dead SET is_wanted = 1 WHERE name = ? AND is_wanted = 0", (name,)
        )
        return done.rowcount


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StateFailed(f"{NAME}: {error}") from error
