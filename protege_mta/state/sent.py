"""What has left with a signed return path, kept for the time that reports may come.

A row is written beside the first attempt and waited for by nobody: what a crash takes costs a report
its original's names, not its meaning.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.envelope import Message
from ..model.ids import QueueId
from ..model.return_path import DAYS, Sent, sent_of
from .database import Database

_NOTED: Final = 10_000

_EARLIER: Final = (
    *("sender", "recipients", "source", "identity", "tenant", "campaign"),
    *("header_message_id", "is_sandbox", "tags"),
)

_SWEEP: Final = 10_000
"""Old rows are swept out after so many new ones."""


class SentMessages:
    """:param now: POSIX seconds."""

    log = Logger()

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._noted: dict[QueueId, None] = {}
        self._writing: dict[QueueId, Sent] = {}  # a report may be faster than the disk
        self._count = 0

    def start(self) -> None:
        """Sweep out what is too old; blocks.  :raise StateFailed:"""
        self._database.write_now(self._sweep)

    def note(self, message: Message) -> None:
        """It is on its way."""
        if message.id in self._noted:
            return
        if len(self._noted) >= _NOTED:
            del self._noted[next(iter(self._noted))]
        self._noted[message.id] = None
        sent = sent_of(message)
        facts = attrs.asdict(sent, filter=lambda fact, value: fact.name != "id" and bool(value))
        row = (sent.id, self._now(), json.dumps(facts, separators=(",", ":")))
        self._writing[sent.id] = sent
        self._write(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO sent VALUES (?, ?, ?)", row
            )
        ).addCallback(lambda _: self._writing.pop(sent.id))
        self._count += 1
        if self._count % _SWEEP == 0:
            self._write(self._sweep)

    def find(self, id: QueueId) -> Sent | None:
        """:raise StateFailed:"""
        writing = self._writing.get(id)
        if writing is not None:
            return writing
        with self._database.snapshot() as connection:
            for (facts,) in connection.execute(
                "SELECT facts FROM sent WHERE message_id = ?", (id,)
            ):
                return _sent(id, json.loads(facts))
        return None

    def _write(self, change: Callable[[sqlite3.Connection], object]) -> Deferred[object]:
        """Never fails."""
        writing: Deferred[object] = self._database.write(change)
        return writing.addErrback(self._not_noted)

    def _sweep(self, connection: sqlite3.Connection) -> None:
        old = self._now() - (DAYS + 1) * 86_400
        connection.execute("DELETE FROM sent WHERE sent_at < ?", (old,))

    def _not_noted(self, failure: Failure) -> None:
        self.log.failure("what is sent is not noted", failure=failure)


def _sent(id: QueueId, facts: dict[str, Any] | list[Any]) -> Sent:
    """What a row says.

    :param facts: by their names, those that are empty left out; of rows of earlier versions all in
        their order, as far as there were any then.
    """
    if isinstance(facts, list):
        facts = dict(zip(_EARLIER, facts, strict=False))
    for name in facts.keys() & {"recipients", "tags"}:
        facts[name] = tuple(facts[name])
    return Sent(id, **facts)
