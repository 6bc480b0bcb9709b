"""Messages in the queue and those that were, put together for the HTTP API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
from klein import Klein
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .http import timeline
from .http.timeline import (
    Action,
    AuthenticateAny,
    MessageSummary,
    Query,
    RecipientStanding,
    Whose,
)
from .model.ids import QueueId
from .model.ports import Content, CursorGone, JournalReader, NoSuchMessage, Recovered
from .schedule.desk import Chosen, Desk, NotFound
from .state.log import Logged, LoggedMessage, TransactionLog, Wanted

TICK_S: Final = 1.0
PACE: Final = 1000
"""So many events go into the log a tick, some 26 ms of a processor: what comes faster waits until it
is quieter, or until somebody asks."""

ASKED: Final = 50_000
"""So many are read first where somebody asks."""


class MessageLog:
    """:class:`~.http.timeline.Records`.

    :param in_thread: runs what blocks.
    """

    log = Logger()

    def __init__(
        self,
        folder: Path,
        journal: JournalReader,
        desk: Desk,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
        clock: IReactorTime,
    ) -> None:
        self._log = TransactionLog(folder)
        self._journal = journal
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

    def _tick(self) -> Deferred[None]:
        return self._lock.run(lambda: Deferred.fromCoroutine(self._follow(PACE))).addErrback(
            self._failed
        )

    def _failed(self, failure: Failure) -> None:
        if not self._is_failing:
            self._is_failing = True
            self.log.failure("the transaction log cannot be kept up", failure=failure)

    async def _follow(self, most: int) -> None:
        log, count = self._log, 0
        cursor = await self.in_thread(log.cursor)
        while count < most:
            try:
                page = await self._journal.after(cursor, PACE)
            except CursorGone as gone:
                cursor = gone.oldest  # what has gone from the journal is in the log, or nowhere
                page = await self._journal.after(cursor, PACE)
            if page.cursor != cursor:
                lines, cursor = page.lines, page.cursor
                await self.in_thread(partial(log.add, lines, cursor))
            count += len(page.lines)
            if page.is_end:
                break
        if count:
            await self.in_thread(log.trim)
        self._is_failing = False

    async def _asked(self, work: Callable[[], Any]) -> Any:
        """Ask the log, once it has caught up."""

        async def ask() -> Any:
            await self._follow(ASKED)
            return await self.in_thread(work)

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
        logged: Logged | None = await self._asked(lambda: self._log.find(id))
        lines: Sequence[bytes] = await self._asked(lambda: self._log.events(id))
        # After the log, so that a message is in one of them.
        queued = await self._queued(id)
        if queued is None:
            return None if logged is None else (_summary(logged, None), lines)
        return self._standing(queued, logged), lines

    async def list(self, query: Query, most: int) -> list[MessageSummary]:
        wanted = Wanted(**attrs.asdict(query))
        found: list[Logged] = await self._asked(lambda: self._log.list(wanted, most))
        return [_summary(one, await self._queued(QueueId(one.message.id))) for one in found]

    async def change(self, id: QueueId, action: Action) -> bool | None:
        queued = await self._queued(id)
        if queued is None:
            return None
        desk = self._desk
        match action:
            case "cancel":
                return await desk.remove(queued)
            case "retry":
                return await desk.retry(queued)
            case "hold":
                return await desk.hold(queued)
            case "release":
                return await desk.release(queued)

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

    def _standing(self, queued: Recovered, logged: Logged | None) -> MessageSummary:
        row = self._desk.row(queued)
        why = {
            address: one["why"]
            for one in self._desk.standing(queued)
            for address in one.get("recipients", ())
        }
        message, origin = queued.message, queued.message.origin
        fates = [] if logged is None else [one.status for one in logged.recipients]
        recipients = []
        for index, one in enumerate(row["recipients"]):
            status = one["state"]
            if status == "ended" and index < len(fates):
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
            is_queued=True,
            recipients=recipients,
        )


def _summary(logged: Logged, queued: Recovered | None) -> MessageSummary:
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
        is_queued=queued is not None,
        recipients=[
            RecipientStanding(address=one.address, status=one.status) for one in logged.recipients
        ],
    )
