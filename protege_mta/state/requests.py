"""By which names messages were handed in: an index over the spool's records that outlives them.

A message's name lies in its content record, and is there as soon as the message is.  What is put on
the schedule has its row here already, so it cannot be gone from the spool before that: what a crash
finds in between is still in the spool, and :meth:`StoredRequests.restore` brings it in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.envelope import Message, Origin
from ..model.ids import QueueId
from ..model.ports import Known, Recovered, StateFailed
from .database import Database

LOOK_S: Final = 10.0
"""How often what is too old is looked for, and what could not be written is tried again."""

STEP: Final = 200
"""So many rows are forgotten at a time, before others have their turn."""

RESTORE_STEP: Final = 1000
"""So many messages found at start are brought in at a time."""

_FIND: Final = (
    "SELECT message_id, answer FROM request WHERE source = ? AND identity = ? AND request_id = ?"
)
_PUT: Final = "INSERT OR IGNORE INTO request VALUES (?, ?, ?, ?, ?, ?)"
_OLD: Final = (
    "SELECT source, identity, request_id, message_id FROM request "
    "WHERE kept_from < ? ORDER BY kept_from LIMIT ?"
)
_RENEW: Final = (
    "UPDATE request SET kept_from = ? WHERE source = ? AND identity = ? AND request_id = ?"
)
_DELETE: Final = "DELETE FROM request WHERE source = ? AND identity = ? AND request_id = ?"

_Key = tuple[str, str, str]
_Row = tuple[str, str, str, str, str, float]


class StoredRequests:
    """:class:`~..model.ports.Requests` in the database; those under way in memory.

    :param now: POSIX seconds.
    :param is_queued: whether a message is on the schedule: its name is kept whatever its age.
    :ivar kept_s: for how long a name is kept, at least.
    """

    log = Logger()

    def __init__(
        self,
        database: Database,
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        is_queued: Callable[[QueueId], bool],
        kept_s: float,
    ) -> None:
        self._database = database
        self._now = now
        self._is_queued = is_queued
        self.kept_s = kept_s
        self._open: dict[_Key, StoredRequest] = {}
        self._unwritten: set[StoredRequest] = set()
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> None:
        self._looking.start(LOOK_S, now=False).addErrback(self._broken)

    def stop(self) -> None:
        """Look after nothing more.  What is under way may still end."""
        if self._looking.running:
            self._looking.stop()

    def begin(self, origin: Origin) -> Known | StoredRequest | None:
        key = _key(origin)
        before = self._open.get(key)
        if before is not None and before.is_settled:
            return None
        if before is None:
            with self._database.snapshot() as connection:
                for id, answer in connection.execute(_FIND, key):
                    return Known(QueueId(id), answer)
        if self._unwritten:
            raise StateFailed("what was handed in before cannot be remembered yet")
        request = self._open[key] = StoredRequest(self, key)
        if before is not None:
            before.superseded()
        return request

    def restore(self, found: Iterator[Recovered]) -> Iterator[Recovered]:
        """Pass on what was found in the spool at start, each once its name, if it has one, is kept;
        blocks.

        :raise StateFailed:
        """
        while some := list(islice(found, RESTORE_STEP)):
            now = self._now()
            rows = [_row(one.message, now) for one in some if one.message.origin.request_id]
            if rows:
                self._database.write_now(partial(_put_all, rows))
            yield from some

    # --- what is under way -----------------------------------------------------------------------

    def write(self, request: StoredRequest, row: _Row) -> Deferred[None]:
        """Have a row written; its request goes on from there."""

        writing = self._database.write(partial(_put_all, [row]))
        return writing.addCallbacks(
            lambda _: self._written(request), lambda failure: self._failed(request, failure)
        )

    def _written(self, request: StoredRequest) -> None:
        if self._unwritten:
            self._unwritten.discard(request)
            if not self._unwritten:
                self.log.info("requests are remembered again")
        self.forget(request)
        request.then()

    def _failed(self, request: StoredRequest, failure: Failure) -> Failure:
        if not self._unwritten:
            self.log.error(
                "a request cannot be remembered, and its message waits for that: {why}",
                why=failure.getErrorMessage(),
            )
        self._unwritten.add(request)
        return failure

    def forget(self, request: StoredRequest) -> None:
        """It is under way no more."""
        if self._open.get(request.key) is request:
            del self._open[request.key]

    # --- what is looked after --------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            for request in list(self._unwritten):
                await request.write()
            while self._looking.running and await self._prune() == STEP:
                pass
        except StateFailed as error:
            self.log.warn("requests are not looked after now: {error}", error=error)
        except Exception:
            self.log.failure("requests are not looked after now")

    async def _prune(self) -> int:
        """Forget the oldest of what is too old.  :return: how many rows were looked at."""
        now = self._now()
        with self._database.snapshot() as connection:
            old = connection.execute(_OLD, (now - self.kept_s, STEP)).fetchall()
        queued, gone = [], []
        for *key, id in old:
            if self._is_queued(id):
                queued.append((now, *key))
            else:
                gone.append(key)

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(_RENEW, queued)
            connection.executemany(_DELETE, gone)

        if old:
            await self._database.write(change)
        return len(old)

    def _broken(self, failure: Failure) -> None:
        self.log.failure("requests are not looked after", failure)


class StoredRequest:
    """:class:`~..model.ports.Request`.

    :ivar is_settled: it cannot be superseded.
    """

    __slots__ = ("_requests", "_row", "is_settled", "key", "superseded", "then")

    def __init__(self, requests: StoredRequests, key: _Key) -> None:
        self._requests = requests
        self._row: _Row | None = None
        self.key = key
        self.is_settled = False
        self.superseded: Callable[[], None] = _nothing
        self.then: Callable[[], None] = _nothing

    def settle(self) -> None:
        self.is_settled = True

    def remember(self, message: Message, then: Callable[[], None]) -> Deferred[None]:
        self.then = then
        self._row = _row(message, self._requests._now())
        return self.write()

    def write(self) -> Deferred[None]:
        """Write it, once more where that failed."""
        if self._row is None:
            raise RuntimeError(f"no message has come under {self.key}")
        return self._requests.write(self, self._row)

    def release(self) -> None:
        if self._row is None:
            self._requests.forget(self)


def _key(origin: Origin) -> _Key:
    return origin.source, origin.identity, origin.request_id


def _put_all(rows: list[_Row], connection: sqlite3.Connection) -> None:
    connection.executemany(_PUT, rows)


def _row(message: Message, now: float) -> _Row:
    return (*_key(message.origin), message.id, message.origin.answer, now)


def _nothing() -> None:
    """Nobody is told."""
