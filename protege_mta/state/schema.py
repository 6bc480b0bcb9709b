"""The tables of ``state.sqlite``, as the statements that lead from each version to the next."""

from __future__ import annotations

from typing import Final

_ACCOUNTS: Final = (
    # AUTOINCREMENT gives no number twice, be it that of an account long removed; a change replaces
    # the row, so that its revision is a new one.
    """CREATE TABLE account (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        password_hash TEXT NOT NULL,
        scram_salt BLOB,
        scram_iterations INTEGER,
        scram_stored_key BLOB,
        scram_server_key BLOB,
        cram_secret TEXT,
        allowed_from TEXT NOT NULL,
        allowed_to TEXT NOT NULL,
        denied_to TEXT NOT NULL,
        tenant TEXT NOT NULL,
        connections INTEGER NOT NULL,
        recipients INTEGER NOT NULL,
        messages_per_hour INTEGER NOT NULL,
        messages_per_day INTEGER NOT NULL,
        recipients_per_hour INTEGER NOT NULL,
        recipients_per_day INTEGER NOT NULL,
        created_at REAL NOT NULL
    )""",
    """CREATE TABLE usage (
        name TEXT NOT NULL,
        window_start INTEGER NOT NULL,
        window_s INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        recipients INTEGER NOT NULL,
        PRIMARY KEY (name, window_s, window_start)
    ) WITHOUT ROWID""",
    # Keys that no configuration names, made once by chance.
    "CREATE TABLE secret (name TEXT PRIMARY KEY, octets BLOB NOT NULL) WITHOUT ROWID",
)

_REQUESTS: Final = (
    # An index over the spool's content records that outlives them.
    """CREATE TABLE request (
        source TEXT NOT NULL,
        identity TEXT NOT NULL,
        request_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        answer TEXT NOT NULL,
        kept_from REAL NOT NULL,
        PRIMARY KEY (source, identity, request_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX request_by_age ON request (kept_from)",
)

_AGENTS: Final = (
    # Agents that have logged in by tunnel, so that mail may wait for them.
    """CREATE TABLE agent (
        identity TEXT PRIMARY KEY,
        first_at REAL NOT NULL,
        last_at REAL NOT NULL
    ) WITHOUT ROWID""",
)

_KEYS: Final = (
    # A change replaces the row, so that its revision is a new one, and no number comes twice.
    """CREATE TABLE api_key (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        document BLOB NOT NULL
    )""",
    "CREATE TABLE api_key_use (name TEXT PRIMARY KEY, last_at REAL NOT NULL) WITHOUT ROWID",
    """CREATE TABLE contact (
        identity TEXT NOT NULL,
        recipient BLOB NOT NULL,
        first_at REAL NOT NULL,
        last_at REAL NOT NULL,
        is_known INTEGER NOT NULL,
        PRIMARY KEY (identity, recipient)
    ) WITHOUT ROWID""",
    "CREATE INDEX contact_by_first ON contact (identity, first_at)",
)

_SUPPRESSION: Final = (
    """CREATE TABLE suppression (
        address TEXT NOT NULL,
        tenant TEXT NOT NULL,
        reason TEXT NOT NULL,
        since REAL NOT NULL,
        until REAL,
        detail TEXT NOT NULL,
        message_id TEXT NOT NULL,
        PRIMARY KEY (address, tenant, reason)
    ) WITHOUT ROWID""",
    # What has left with a signed return path, for reports that come when the spool has forgotten.
    """CREATE TABLE sent (
        message_id TEXT PRIMARY KEY,
        sent_at REAL NOT NULL,
        facts TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX sent_by_age ON sent (sent_at)",
)

VERSIONS: Final[tuple[tuple[str, ...], ...]] = (
    _ACCOUNTS,
    _REQUESTS,
    _AGENTS,
    _KEYS,
    _SUPPRESSION,
)
"""What makes version 1 of an empty file, version 2 of version 1, and so on; only ever added to."""
