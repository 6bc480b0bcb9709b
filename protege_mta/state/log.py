"""The transaction log: which messages there were, and where each recipient stood last.

An index over the event journal in a file of its own, ``log.sqlite`` in the state folder.  All that
is in it can be had from the journal again, so that it is not synced at each step, and a damaged or
missing file is made anew; the cursor lies in the same transaction as the rows, so that a crash
leaves them of one mind, and what is read twice is written once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from ..model.ports import StateFailed

NAME: Final = "log.sqlite"
VERSION: Final = 1

_TABLES: Final = (
    "CREATE TABLE place (cursor TEXT NOT NULL)",
    """CREATE TABLE message (
        id TEXT PRIMARY KEY,
        sender TEXT NOT NULL,
        tenant TEXT NOT NULL,
        identity TEXT NOT NULL,
        campaign TEXT NOT NULL,
        document BLOB NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE recipient (
        message_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        address TEXT NOT NULL,
        status TEXT NOT NULL,
        PRIMARY KEY (message_id, number)
    ) WITHOUT ROWID""",
    "CREATE INDEX recipient_by_address ON recipient (address, message_id)",
    """CREATE TABLE event (
        message_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        transition NOT NULL,  -- a number, or the name of the report that tells it
        line BLOB NOT NULL,
        PRIMARY KEY (message_id, number, transition)
    ) WITHOUT ROWID""",
    "CREATE INDEX message_by_sender ON message (sender, id)",
    "CREATE INDEX message_by_tenant ON message (tenant, id)",
    f"PRAGMA user_version = {VERSION}",
)


class _Line(msgspec.Struct, gc=False):
    event: str = ""
    id: str = ""
    at: str = ""
    message_id: str = ""
    recipient: str = ""
    sender: str = ""
    size_octets: int = 0
    source: str = ""
    identity: str = ""
    tenant: str = ""
    campaign: str = ""
    header_message_id: str = ""
    subject: str = ""


class LoggedMessage(msgspec.Struct, gc=False, kw_only=True):
    """What is known of a message itself."""

    id: str
    at: str
    sender: str
    subject: str
    size_octets: int
    source: str
    identity: str
    tenant: str
    campaign: str
    header_message_id: str


class LoggedRecipient(msgspec.Struct, gc=False):
    """:ivar status: the last event's name."""

    address: str
    status: str


class Logged(msgspec.Struct, gc=False):
    message: LoggedMessage
    recipients: list[LoggedRecipient]


@attrs.frozen(kw_only=True)
class Wanted:
    """Which messages; what is empty, or None, is not looked at.

    :ivar before: an id: only older ones.
    """

    recipient: str = ""
    sender: str | None = None
    status: str = ""
    tenant: str | None = None
    identity: str = ""
    campaign: str = ""
    before: str = ""


_REPORTS: Final = ("returned", "feedback")
"""What others say of a message later; where its recipients stand is as it was."""

_decode: Final = msgspec.json.Decoder(_Line).decode
_message: Final = msgspec.json.Decoder(LoggedMessage).decode
_encode: Final = msgspec.json.Encoder().encode


class TransactionLog:
    """The file; every method blocks, and they are called one at a time, in any thread.  Each raises
    :class:`~..model.ports.StateFailed`, or another ``OSError``, where the file cannot be used.

    :param most: so many messages are kept; the oldest go.
    """

    def __init__(self, folder: Path, *, most: int = 1_000_000) -> None:
        self._path = folder / NAME
        self._most = most
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def cursor(self) -> str:
        """How far the journal has been read; empty for not at all."""
        with self._told():
            row = self._open().execute("SELECT cursor FROM place").fetchone()
        return "" if row is None else str(row[0])

    def add(self, lines: Sequence[bytes], cursor: str) -> None:
        """Take events in, and remember that it was done."""
        messages: dict[str, tuple[Any, ...]] = {}
        recipients: list[tuple[str, int, str, str]] = []
        events: list[tuple[str, int, int | str, bytes]] = []
        for line in lines:
            try:
                one = _decode(line)
                id, number_text, transition_text = one.id.rsplit(".", 2)
                number = int(number_text)
                is_report = one.event in _REPORTS
                transition = transition_text if is_report else int(transition_text)
            except (msgspec.DecodeError, ValueError):
                continue  # a line that a disk has spoilt
            if not one.message_id or id != one.message_id:
                continue  # what was refused at the door has no message
            events.append((id, number, transition, line))
            if is_report:
                continue
            if id not in messages or one.event == "received":
                document = LoggedMessage(
                    id=id,
                    at=one.at,
                    sender=one.sender,
                    subject=one.subject,
                    size_octets=one.size_octets,
                    source=one.source,
                    identity=one.identity,
                    tenant=one.tenant,
                    campaign=one.campaign,
                    header_message_id=one.header_message_id,
                )
                row = (id, one.sender, one.tenant, one.identity, one.campaign, _encode(document))
                messages[id] = row
            recipients.append((id, number, one.recipient.lower(), one.event))
        with self._told(), self._open() as connection:
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?)", messages.values()
            )
            # In the order of the journal, so that the last one stands.
            connection.executemany(
                "INSERT OR REPLACE INTO recipient VALUES (?, ?, ?, ?)", recipients
            )
            connection.executemany("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?)", events)
            connection.execute("DELETE FROM place")
            connection.execute("INSERT INTO place VALUES (?)", (cursor,))

    def trim(self) -> None:
        """Let the oldest messages go where there are too many."""
        with self._told(), self._open() as connection:
            row = connection.execute(
                "SELECT id FROM message ORDER BY id DESC LIMIT 1 OFFSET ?", (self._most - 1,)
            ).fetchone()
            if row is None:
                return
            connection.execute("BEGIN")
            for table, column in (
                ("message", "id"),
                ("recipient", "message_id"),
                ("event", "message_id"),
            ):
                connection.execute(f"DELETE FROM {table} WHERE {column} < ?", row)

    def find(self, id: str) -> Logged | None:
        """One message."""
        with self._told():
            found = self._open().execute("SELECT document FROM message WHERE id = ?", (id,))
            row = found.fetchone()
            return None if row is None else self._logged(row[0])

    def events(self, id: str) -> list[bytes]:
        """What has happened to a message, as lines of JSON, a recipient after the other."""
        with self._told():
            rows = self._open().execute(
                "SELECT line FROM event WHERE message_id = ? ORDER BY number, transition", (id,)
            )
            return [bytes(line) for (line,) in rows]

    def list(self, wanted: Wanted, most: int) -> list[Logged]:
        """The newest messages of which all that is wanted is true."""
        clauses, values = ["1"], []
        for column, value in (
            ("sender", wanted.sender),
            ("tenant", wanted.tenant),
            ("identity", wanted.identity or None),
            ("campaign", wanted.campaign or None),
        ):
            if value is not None:
                clauses.append(f"{column} = ?")
                values.append(value)
        if wanted.before:
            clauses.append("id < ?")
            values.append(wanted.before)
        inner = []
        if wanted.recipient:
            inner.append("address = ?")
            values.append(wanted.recipient.lower())
        if wanted.status:
            inner.append("status = ?")
            values.append(wanted.status)
        if inner:
            clauses.append(
                "EXISTS (SELECT 1 FROM recipient WHERE message_id = id AND "
                + " AND ".join(inner)
                + ")"
                if not wanted.recipient
                else f"id IN (SELECT message_id FROM recipient WHERE {' AND '.join(inner)})"
            )
        with self._told():
            rows = self._open().execute(
                f"SELECT document FROM message WHERE {' AND '.join(clauses)} "
                "ORDER BY id DESC LIMIT ?",
                (*values, most),
            )
            return [self._logged(document) for (document,) in rows.fetchall()]

    def _logged(self, document: bytes) -> Logged:
        message = _message(document)
        rows = self._open().execute(
            "SELECT address, status FROM recipient WHERE message_id = ? ORDER BY number",
            (message.id,),
        )
        return Logged(message, [LoggedRecipient(*row) for row in rows])

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if isinstance(error, sqlite3.DatabaseError):
                self._is_damaged(error)
            raise StateFailed(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection = _opened(self._path)
            except sqlite3.DatabaseError as error:
                if not self._is_damaged(error):
                    raise
                self._connection = _opened(self._path)
        return self._connection

    def _is_damaged(self, error: sqlite3.DatabaseError) -> bool:
        """Whether it is, and then it is gone: nothing is in it that the journal has not.  A full
        disk, or another process's lock, is an error of a class of its own."""
        if type(error) is not sqlite3.DatabaseError:
            return False
        self.close()
        for name in (self._path, *self._path.parent.glob(f"{NAME}-*")):
            name.unlink(missing_ok=True)
        return True


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        [(version,)] = connection.execute("PRAGMA user_version")
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError("made by another version")
        if not version:
            connection.execute("BEGIN")
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    path.chmod(0o600)
    return connection
