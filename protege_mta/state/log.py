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

import msgspec

from ..model.message_query import MessageQuery
from ..model.ports import StateFailed

NAME: Final = "log.sqlite"

_FIRST: Final = (
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
)

_CHOICES: Final = (
    "ALTER TABLE recipient ADD COLUMN transition INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX recipient_by_status ON recipient (status, message_id)",
    # What most mail has not costs nothing where it is not.
    "CREATE INDEX message_by_campaign ON message (campaign, id) WHERE campaign <> ''",
    "CREATE INDEX message_by_identity ON message (identity, id) WHERE identity <> ''",
    """CREATE TABLE tag (
        tag TEXT NOT NULL,
        message_id TEXT NOT NULL,
        PRIMARY KEY (tag, message_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX tag_by_message ON tag (message_id)",
    "UPDATE message SET sender = lower(sender) WHERE sender <> lower(sender)",
)

VERSIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST, _CHOICES)
"""What makes version 1 of an empty file, version 2 of version 1, and so on; only ever added to."""


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
    tags: tuple[str, ...] = ()
    header_message_id: str = ""
    subject: str = ""


class LoggedMessage(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
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
    tags: tuple[str, ...] = ()


class LoggedRecipient(msgspec.Struct, gc=False):
    """:ivar number: the index into the envelope.  :ivar status: the last event's name."""

    number: int
    address: str
    status: str


class Logged(msgspec.Struct, gc=False):
    message: LoggedMessage
    recipients: list[LoggedRecipient]


_COMMON: Final = frozenset(("delivered", "relayed"))
"""What so many have that it is a bad way to find the few that are wanted."""

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
        self._count = -1  # of messages; -1 until they have been counted
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        self._count = -1
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
        recipients: list[tuple[str, int, str, str, int]] = []
        tags: set[tuple[str, str]] = set()
        events: list[tuple[str, int, int | str, bytes]] = []
        for line in lines:
            try:
                one = _decode(line)
                id, number_text, transition_text = one.id.rsplit(".", 2)
                number = int(number_text)
                is_report = one.event in _REPORTS
                count = 0 if is_report else int(transition_text)
            except (msgspec.DecodeError, ValueError):
                continue  # a line that a disk has spoilt
            if not one.message_id or id != one.message_id:
                continue  # what was refused at the door has no message
            events.append((id, number, transition_text if is_report else count, line))
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
                    tags=one.tags,
                )
                sender = one.sender.lower()
                messages[id] = (
                    *(id, sender, one.tenant, one.identity, one.campaign, _encode(document)),
                )
                tags.update([(tag, id) for tag in one.tags])
            recipients.append((id, number, one.recipient.lower(), one.event, count))
        with self._told(), self._open() as connection:
            connection.execute("BEGIN")
            added = connection.executemany(
                "INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?)", messages.values()
            ).rowcount
            connection.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?)", tags)
            # The furthest transition stands, whatever is told again behind it.
            connection.executemany(
                "INSERT INTO recipient VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET status = excluded.status, transition = excluded.transition "
                "WHERE excluded.transition >= transition",
                recipients,
            )
            connection.executemany("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?)", events)
            connection.execute("DELETE FROM place")
            connection.execute("INSERT INTO place VALUES (?)", (cursor,))
        if self._count >= 0:
            self._count += max(0, added)

    def trim(self) -> None:
        """Let the oldest messages go where there are too many."""
        with self._told(), self._open() as connection:
            if self._count < 0:
                [(self._count,)] = connection.execute("SELECT count(*) FROM message")
            excess = self._count - self._most
            if excess <= 0:
                return
            # From the old end, so that only what goes is looked at.
            row = connection.execute(
                "SELECT id FROM message ORDER BY id LIMIT 1 OFFSET ?", (excess,)
            ).fetchone()
            connection.execute("BEGIN")
            for table, column in (
                ("message", "id"),
                ("recipient", "message_id"),
                ("event", "message_id"),
                ("tag", "message_id"),
            ):
                connection.execute(f"DELETE FROM {table} WHERE {column} < ?", row)
        self._count -= excess

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

    def list(self, wanted: MessageQuery, most: int) -> list[Logged]:
        """The newest messages of which all that is wanted is true."""
        statement, values = _query(wanted)
        with self._told():
            rows = self._open().execute(statement, values | {"most": most})
            return [self._logged(document) for (document,) in rows.fetchall()]

    def plan(self, wanted: MessageQuery) -> Sequence[str]:
        """How SQLite finds them."""
        statement, values = _query(wanted)
        with self._told():
            rows = self._open().execute(f"EXPLAIN QUERY PLAN {statement}", values | {"most": 1})
            return [str(row[3]) for row in rows]

    def _logged(self, document: bytes) -> Logged:
        message = _message(document)
        rows = self._open().execute(
            "SELECT number, address, status FROM recipient WHERE message_id = ? ORDER BY number",
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


def _query(wanted: MessageQuery) -> tuple[str, dict[str, str]]:
    """The statement for a list, which takes ``most`` besides.

    One of what is wanted leads through its index, newest first, and the rest is looked up for each
    that it finds: SQLite, which knows nothing of how many have what, would sort a million rows.
    """
    status = wanted.status
    equal = {
        "campaign": wanted.campaign or None,
        "sender": None if wanted.sender is None else wanted.sender.lower(),
        "identity": wanted.identity or None,
        "tenant": wanted.tenant,
    }
    columns = {column: value for column, value in equal.items() if value is not None}
    values = {
        **columns,
        "address": wanted.recipient.lower(),
        "status": status,
        "tag": wanted.tag,
        "before": wanted.before,
        "since": wanted.since,
    }
    leading = next(iter(columns), "")
    id = "message_id"
    if wanted.recipient:
        source, clauses = "recipient AS r INDEXED BY recipient_by_address", ["address = :address"]
        if status:
            clauses.append("status = :status")
    elif wanted.tag:
        source, clauses = "tag AS r", ["r.tag = :tag"]
    elif status and (not leading or (status not in _COMMON and leading in ("identity", "tenant"))):
        source, clauses = "recipient AS r INDEXED BY recipient_by_status", ["status = :status"]
    else:
        source, id = "message", "id"
        clauses = []
        if leading:
            source += f" INDEXED BY message_by_{leading}"
    if id == "message_id":
        source += " CROSS JOIN message ON id = message_id"  # in this order
    clauses += [f"{column} = :{column}" for column in columns]
    # As the partial indexes have it.
    clauses += [f"{column} <> ''" for column in ("campaign", "identity") if column in columns]
    if wanted.tag and wanted.recipient:
        clauses.append("EXISTS (SELECT 1 FROM tag WHERE tag = :tag AND message_id = id)")
    if status and "status = :status" not in clauses:
        clauses.append(
            "EXISTS (SELECT 1 FROM recipient WHERE message_id = id AND status = :status)"
        )
    if wanted.before:
        clauses.append(f"{id} < :before")
    if wanted.since:
        clauses.append(f"{id} >= :since")
    # One recipient of a message after the other leads to it more than once.
    group = f"GROUP BY {id} " if " AS r INDEXED" in source else ""
    where = f"WHERE {' AND '.join(clauses)} " if clauses else ""
    return f"SELECT document FROM {source} {where}{group}ORDER BY {id} DESC LIMIT :most", values


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        [(version,)] = connection.execute("PRAGMA user_version")
        if version > len(VERSIONS):
            raise sqlite3.DatabaseError("made by a later version")
        if version < len(VERSIONS):
            connection.execute("BEGIN")
            for statements in VERSIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(VERSIONS)}")
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    path.chmod(0o600)
    return connection
