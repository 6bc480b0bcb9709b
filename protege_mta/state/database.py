"""``state.sqlite`` in the state folder: opened, brought up to date, read, written.

SQLite in WAL mode, so that readers wait for nobody and several processes may have the file open:
the command line writes to it while the service runs and while it does not.  What is committed is
on stable storage (``synchronous=FULL``); a crash leaves the whole of a transaction or nothing.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import StateFailed
from .schema import VERSIONS

NAME: Final = "state.sqlite"

LOOK_S: Final = 0.25
"""How often the file is looked at for what other processes have changed."""

WRITE_BUSY_S: Final = 10.0
"""How long a writer waits for another process that writes."""

READ_BUSY_S: Final = 0.1
"""The same for who reads in the reactor's thread, and waits only for a recovery of the log."""

_T = TypeVar("_T")


def connect(folder: Path, *, busy_s: float = WRITE_BUSY_S) -> sqlite3.Connection:
    """Open the database in a folder.  What is missing is made: folder (mode 0700), file (0600),
    tables.

    :raise StateFailed: it cannot be read, is no database, or comes from a newer version.
    """
    path = folder / NAME
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        with _alone_in(folder) as fd:
            # Never opened by us where it is there: to close any descriptor of a file gives back
            # all locks that SQLite has on it in this process (POSIX).
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                os.fsync(fd)
            return _opened(path, busy_s)
    except StateFailed:
        raise
    except OSError as error:
        raise StateFailed(f"{path}: {error.strerror}") from error


def connect_to_present(folder: Path, *, busy_s: float) -> sqlite3.Connection:
    """:func:`connect`, making nothing: a file that is gone may be on a disk that is.

    :raise StateFailed:
    """
    return _opened(folder / NAME, busy_s)


@contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """One process at a time makes the file, or brings it up to date."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _opened(path: Path, busy_s: float) -> sqlite3.Connection:
    connection = None
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", timeout=busy_s, isolation_level=None, uri=True
        )
        [(mode,)] = connection.execute("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StateFailed(f"{path}: the file system cannot do what SQLite's WAL mode needs")
        connection.execute("PRAGMA synchronous = FULL")
        _bring_up_to_date(connection, path)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise StateFailed(f"{path}: {error}") from error
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    [(version,)] = connection.execute("PRAGMA user_version")
    known = len(VERSIONS)
    if version > known:
        raise StateFailed(
            f"{path}: written by a newer version of this program (its tables are of version "
            f"{version}, and {known} is the newest known here)"
        )
    if version < known:
        with transaction(connection):
            for statements in VERSIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {known}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is done inside, durably, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has undone it already where the disk was full
            connection.execute("ROLLBACK")
        raise


def secret(connection: sqlite3.Connection, name: str, fresh: bytes) -> bytes:
    """The secret of that name: ``fresh`` where there was none, and the same ever after."""
    with transaction(connection):
        connection.execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", (name, fresh))
        [(octets,)] = connection.execute("SELECT octets FROM secret WHERE name = ?", (name,))
    return bytes(octets)


def once(connection: sqlite3.Connection, name: str) -> bool:
    """Whether that has never been done in this state folder; from now on it has."""
    told = connection.execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", (name, b""))
    return told.rowcount > 0


Generation = tuple[int, int]
"""Another one for each state of the file that a look has found."""


class _Link:
    """A connection that follows its path: to another file where there is one, as after a restored
    backup."""

    def __init__(self, folder: Path, busy_s: float) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._busy_s = busy_s
        self._file = (0, 0)
        self._connection: sqlite3.Connection | None = None
        self.opened = 0

    def connection(self) -> sqlite3.Connection:
        """:raise StateFailed:"""
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise StateFailed(f"{self._path}: {error.strerror}") from error
        file = (status.st_dev, status.st_ino)
        if self._connection is None or file != self._file:
            self.close()
            self._connection = connect_to_present(self._folder, busy_s=self._busy_s)
            self._file = file
            self.opened += 1
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


_Job = tuple[Callable[[sqlite3.Connection], Any], "Deferred[Any]"]


class Database:
    """The service's hold on the file: it reads in the reactor's thread, and writes in one thread
    of its own, which puts what waits for it into one transaction.

    :param in_reactor: calls a function in the reactor's thread, as ``reactor.callFromThread`` does.
    :param monotonic: seconds that never jump.
    """

    log = Logger()

    def __init__(
        self, folder: Path, *, in_reactor: Callable[..., object], monotonic: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._in_reactor = in_reactor
        self._monotonic = monotonic
        self._reader = _Link(folder, READ_BUSY_S)
        self._looked_at = -LOOK_S
        self._generation: Generation = (0, 0)
        self._trouble: StateFailed | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed: Deferred[None] | None = None

    def open(self) -> None:
        """Make what is missing.  After a fork only; blocks.  :raise StateFailed:"""
        connect(self._folder).close()
        self._look()
        if self._trouble is not None:
            raise self._trouble

    def secret(self, name: str, fresh: bytes) -> bytes:
        """The secret of that name, ``fresh`` where there was none; blocks.  :raise StateFailed:"""
        with self._told(), closing(connect(self._folder)) as connection:
            return secret(connection, name, fresh)

    # --- reading ---------------------------------------------------------------------------------

    def generation(self) -> Generation:
        """What tells one state of the file from another; looked for once in :data:`LOOK_S`.

        :raise StateFailed: at the last look the file could not be read.
        """
        now = self._monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look()
        if self._trouble is not None:
            raise StateFailed(str(self._trouble))
        return self._generation

    def _look(self) -> None:
        before = self._trouble
        try:
            with self._told():
                [(version,)] = self._reader.connection().execute("PRAGMA data_version")
        except StateFailed as error:
            self._reader.close()
            self._trouble = error
            if before is None:
                self.log.error("the state cannot be read: {error}", error=error)
            return
        self._generation = (self._reader.opened, version)
        self._trouble = None
        if before is not None:
            self.log.info("the state can be read again")

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Reads that see one state of the file.  Short ones: the reactor waits.

        :raise StateFailed:
        """
        with self._told():
            connection = self._reader.connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateFailed(f"{self._folder / NAME}: {error}") from error

    # --- writing ---------------------------------------------------------------------------------

    def write(self, change: Callable[[sqlite3.Connection], _T]) -> Deferred[_T]:
        """Let ``change`` work in the writer's thread, inside of a transaction that others share.

        :return: what ``change`` returned, once that is durable; fails with :class:`StateFailed`,
            or with what ``change`` raised, which is then undone alone.
        """
        if self._closed is not None:
            raise RuntimeError("a change of the state after its end")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
            self._thread.start()
        done: Deferred[_T] = Deferred()
        self._jobs.put((change, done))
        return done

    def write_now(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        """Let ``change`` work in this thread, inside of a transaction; blocks until it is durable.

        :raise StateFailed:
        """
        with self._told(), closing(connect(self._folder)) as connection, transaction(connection):
            return change(connection)

    def close(self) -> Deferred[None]:
        """Once all that was written is durable."""
        self._reader.close()
        if self._closed is None:
            if self._thread is None:
                self._closed = succeed(None)
            else:
                self._closed = Deferred()
                self._jobs.put(None)
        return self._closed

    def _run(self) -> None:
        link, jobs = _Link(self._folder, WRITE_BUSY_S), self._jobs
        is_last = False
        while not is_last:
            batch = [jobs.get()]
            while not jobs.empty():
                batch.append(jobs.get())
            is_last = None in batch
            work = [job for job in batch if job is not None]
            if work:
                self._in_reactor(_tell, self._commit(link, work))
        link.close()
        self._in_reactor(_tell, [(self._closed, None)])

    def _commit(self, link: _Link, batch: list[_Job]) -> list[tuple[Deferred[Any], Any]]:
        """Each job's Deferred and what to tell it."""
        try:
            with self._told():
                connection = link.connection()
                with transaction(connection):
                    return [(done, self._done(connection, change)) for change, done in batch]
        except Exception:
            link.close()
            failure = Failure()
            return [(done, failure) for _, done in batch]

    def _done(
        self, connection: sqlite3.Connection, change: Callable[[sqlite3.Connection], Any]
    ) -> Any:
        connection.execute("SAVEPOINT change")
        try:
            with self._told():
                result = change(connection)
        except Exception:
            result = Failure()
            connection.execute("ROLLBACK TO change")  # fails, and all with it, on a full disk
        connection.execute("RELEASE change")
        return result


def _tell(results: list[tuple[Deferred[Any], Any]]) -> None:
    for done, result in results:
        done.callback(result)
