"""Messages in the queue and those that were, put together for the HTTP API."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from klein import Klein
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .http import timeline
from .http.reading import Refused
from .http.timeline import (
    Action,
    AuthenticateAny,
    Done,
    MessageSummary,
    RecipientStanding,
    Whose,
)
from .model.caller import Flaw
from .model.ids import QueueId
from .model.message_query import MessageQuery
from .model.outcome import Fate
from .model.ports import (
    Content,
    CursorGone,
    JournalReader,
    NoSuchMessage,
    Recovered,
    SpoolFailed,
    SpoolFull,
)
from .schedule.desk import Change, Chosen, Desk, NotFound
from .state.log import Logged, LoggedMessage, TransactionLog

TICK_S: Final = 1.0
PACE: Final = 1000
"""So many events go into the log a tick, some 26 ms of a processor: what comes faster waits until it
is quieter, or until somebody asks."""

ASKED: Final = 50_000
"""So many are read first where somebody asks."""

SETTLE_S: Final = 0.1
SETTLES: Final = 5
"""A message may have left the queue a moment before its fate is told: so often, and so far apart, is
it looked for again."""

_FATES: Final = frozenset(get_args(Fate))

_BEHIND: Final = Flaw(
    503, "log-behind", "the log of messages has not caught up with the events", retry_after_s=1
)
_UNAVAILABLE: Final = Flaw(
    503, "unavailable", "the log of messages cannot be read just now", retry_after_s=10
)
_NOT_STORED: Final = Flaw(
    503, "unavailable", "the queue cannot be written just now", retry_after_s=10
)
_ENDED: Final = Flaw(
    409, "already-ended", "the message has left the queue: each recipient has met its fate"
)
_HELD: Final = Flaw(
    409, "held", "the message is held, and is not tried before it is released", hint="release it"
)
_CANCELLED: Final = Flaw(
    409, "being-cancelled", "the message is being tried, and what that leaves will be removed"
)
_DAMAGED: Final = Flaw(
    409, "damaged", "the message cannot be read, and so not sent", hint="cancel it"
)
_UNKNOWN: Final = Flaw(404, "no-such-message", "there is no such message any more")


class MessageLog:
    """:class:`~.http.timeline.Records`.

    :param flush: has the journal's readers see what has happened; whether they see all of it.
        Blocks.
    :param in_thread: runs what blocks.
    """

    log = Logger()

    def __init__(
        self,
        folder: Path,
        journal: JournalReader,
        flush: Callable[[], bool],
        desk: Desk,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        clock: IReactorTime,
    ) -> None:
        self._log = TransactionLog(folder)
        self._journal = journal
        self._flush = flush
        self._clock = clock
        self._desk = desk
        self.in_thread = in_thread
        self._lock = DeferredLock()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock
        self._is_failing = False

    def start(self) -> None:
        """Follow the journal, once it is whole."""
        self._loop.start(TICK_S, now=False).addErrback(
            lambda failure: self.log.failure("bug", failure=failure)
        )

    def close(self) -> Deferred[None]:
        """Once what is being read or written has been."""
        if self._loop.running:
            self._loop.stop()
        return self._lock.run(lambda: self.in_thread(self._log.close))

    def add(self, app: Klein, authenticate: AuthenticateAny) -> None:
        """Serve the endpoints."""
        timeline.add(app, self, authenticate)

    # --- following -------------------------------------------------------------------------------

    def _tick(self) -> Deferred[object]:
        following = self._lock.run(lambda: Deferred.fromCoroutine(self._follow(PACE)))
        return following.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not self._is_failing:
            self._is_failing = True
            self.log.failure("the transaction log cannot be kept up", failure=failure)

    async def _follow(self, most: int, until: str = "") -> bool:
        """:param until: a cursor to stop at; empty to go on as long as more comes.
        :return: whether all of the journal has been read, so far.
        """
        log, count, is_end = self._log, 0, False
        cursor = await self.in_thread(log.cursor)
        while count < most and not is_end:
            try:
                page = await self._journal.after(cursor, PACE)
            except CursorGone as gone:
                cursor = gone.oldest  # what has gone from the journal is in the log, or nowhere
                page = await self._journal.after(cursor, PACE)
            if page.cursor != cursor:
                lines, cursor = page.lines, page.cursor
                await self.in_thread(partial(log.add, lines, cursor))
            count += len(page.lines)
            is_end = page.is_end or "" < until <= cursor
        if count:
            await self.in_thread(log.trim)
        self._is_failing = False
        return is_end

    async def _asked(self, work: Callable[[], Any]) -> Any:
        """Ask the log, which knows all that has been answered for.

        :raise Refused: it does not, for now: nobody is told half of it, or that there is no such
            message.
        """

        async def ask() -> Any:
            try:
                is_whole = await self.in_thread(self._flush)
                end = self._journal.end()  # on a busy relay there is always more
                if not (await self._follow(ASKED, end) and is_whole):
                    raise Refused(_BEHIND)
                return await self.in_thread(work)
            except (sqlite3.Error, OSError):
                self._failed(Failure())
                raise Refused(_UNAVAILABLE) from None

        return await self._lock.run(lambda: Deferred.fromCoroutine(ask()))

    # --- answers ---------------------------------------------------------------------------------

    async def whose(self, id: QueueId) -> Whose | None:
        queued = await self._queued(id)
        if queued is not None:
            origin = queued.message.origin
            return Whose(origin.identity, origin.tenant, bool(origin.hold))
        logged: Logged | None = await self._asked(lambda: self._log.find(id))
        return None if logged is None else Whose(logged.message.identity, logged.message.tenant)

    async def timeline(self, id: QueueId) -> tuple[MessageSummary, Sequence[bytes]] | None:
        for _ in range(SETTLES):
            logged, lines = await self._asked(lambda: (self._log.find(id), self._log.events(id)))
            # After the log, so that a message is in one of them.
            queued = await self._queued(id)
            if queued is not None:
                return self._standing(queued, logged), lines
            if logged is None:
                return None
            if _is_over(logged):
                break
            await self._pause()
        return _summary(logged, is_queued=False), lines

    async def look(self, id: QueueId) -> MessageSummary | None:
        """Where a message stands; None where nobody knows of it any more.

        Only what the queue cannot tell is asked of the log, so that this may be asked again and again.
        """
        for _ in range(SETTLES):
            queued = await self._queued(id)
            if queued is not None and None not in queued.statuses:
                return self._standing(queued, None)
            found = await self.timeline(id)
            if found is None:
                return None
            summary, _ = found
            if not summary.is_queued or all(one.status != "ended" for one in summary.recipients):
                break
            await self._pause()
        return summary

    async def list(self, query: MessageQuery, most: int) -> list[MessageSummary]:
        for _ in range(SETTLES):
            found: list[Logged] = await self._asked(lambda: self._log.list(query, most))
            told, is_settled = [], True
            for one in found:
                is_queued = (
                    not _is_over(one) and await self._queued(QueueId(one.message.id)) is not None
                )
                is_settled = is_settled and (is_queued or _is_over(one))
                told.append(_summary(one, is_queued=is_queued))
            if is_settled:
                break
            await self._pause()
        return told

    async def change(self, id: QueueId, action: Action) -> Done | Flaw:
        queued = await self._queued(id)
        if queued is not None:
            try:
                change = await self._hand(action)(queued)
            except (SpoolFailed, SpoolFull):
                return _NOT_STORED
            if change:
                return Done(id, Change.DONE in change, Change.LATER in change)
        return await self._unchanged(id, action)

    def _hand(self, action: Action) -> Callable[[Recovered], Deferred[Change]]:
        desk = self._desk
        match action:
            case "cancel":
                return desk.remove
            case "retry":
                return desk.retry
            case "hold":
                return desk.hold
            case "release":
                return desk.release

    async def _unchanged(self, id: QueueId, action: Action) -> Done | Flaw:
        """Why there was nothing to do: because all is as it is wanted, or because it does not apply
        to a message that stands so."""
        found = await self.timeline(id)
        if found is None:
            return _UNKNOWN
        summary, _ = found
        states = {one.status for one in summary.recipients}
        if not summary.is_queued:
            return Done(id, False) if action == "cancel" and states == {"removed"} else _ENDED
        if "corrupt" in states:
            return _DAMAGED
        if action == "hold" and "held" not in states and "active" in states:
            return _CANCELLED
        if action == "retry" and "active" not in states and "held" in states:
            return _HELD
        return Done(id, False)

    async def open(self, id: QueueId) -> Content | None:
        try:
            return await self._desk.open(id)
        except (NotFound, NoSuchMessage):
            return None

    async def _queued(self, id: QueueId) -> Recovered | None:
        try:
            [looking] = self._desk.chosen(Chosen((id,)))
            return await looking
        except NotFound:
            return None

    def _pause(self) -> Deferred[None]:
        return deferLater(self._clock, SETTLE_S, lambda: None)

    def _standing(self, queued: Recovered, logged: Logged | None) -> MessageSummary:
        row = self._desk.row(queued)
        why = {
            address: one["why"]
            for one in self._desk.standing(queued)
            for address in one.get("recipients", ())
        }
        message, origin = queued.message, queued.message.origin
        fates = {} if logged is None else {one.number: one.status for one in logged.recipients}
        recipients = []
        for index, one in enumerate(row["recipients"]):
            status = one["state"]
            if status == "ended" and fates.get(index) in _FATES:
                status = fates[index]
            recipients.append(
                RecipientStanding(
                    address=one["address"],
                    status=status,
                    attempts=one.get("attempts", 0),
                    next_attempt_at=one.get("next_attempt_at"),
                    last_reply=one.get("cause", ""),
                    why=why.get(one["address"], "") if one["state"] != "ended" else "",
                )
            )
        return MessageSummary(
            id=message.id,
            at=f"{datetime.fromtimestamp(message.arrived_at, UTC):%Y-%m-%dT%H:%M:%SZ}",
            sender=message.envelope.sender,
            subject=message.subject,
            size_octets=message.size_octets,
            source=origin.source,
            identity=origin.identity,
            tenant=origin.tenant,
            campaign=origin.campaign,
            header_message_id=message.header_message_id,
            tags=origin.tags,
            is_queued=True,
            recipients=recipients,
        )


def _is_over(logged: Logged) -> bool:
    """Whether every recipient that is known of has met its fate."""
    return all(one.status in _FATES for one in logged.recipients)


def _summary(logged: Logged, *, is_queued: bool) -> MessageSummary:
    message: LoggedMessage = logged.message
    return MessageSummary(
        id=message.id,
        at=message.at,
        sender=message.sender,
        subject=message.subject,
        size_octets=message.size_octets,
        source=message.source,
        identity=message.identity,
        tenant=message.tenant,
        campaign=message.campaign,
        header_message_id=message.header_message_id,
        tags=message.tags,
        is_queued=is_queued,
        recipients=[
            RecipientStanding(address=one.address, status=one.status) for one in logged.recipients
        ],
    )
