"""The spool on disk: a log of segments, one writer, group commit.

Two threads.  The *reactor's* owns what is queued (index, cache, quota, reclaimer, content coming
in); it turns batches into records, puts them in line, and does them to the index once they are
durable, or at once if they are lazy.  The *writer's* owns the open segments; it takes what is in
line, writes it, syncs it once, and reports.  Cold content and big files are read and written in
whatever threads ``in_thread`` has.

``docs/explanation/spool.md`` tells the format, and what is durable when.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.batch import Append, Batch, BigFile, End, Operation, Update
from ..model.envelope import Message
from ..model.ids import QueueId
from ..model.ports import (
    Content,
    Incoming,
    InThread,
    Journal,
    NoSuchMessage,
    Position,
    Recovered,
    SpoolFailed,
    SpoolFull,
    Stats,
)
from . import record as records
from .big import BigStore
from .cold import Cold
from .content import Cache, MemoryContent
from .corrupt import Corrupt
from .fetch import Fetcher
from .files import Files
from .found import events, messages
from .index import Index
from .line import DirectLine, Line, LineMaker, ThreadLine, Worker
from .lock import lock
from .quota import Quota
from .reclaim import Reclaimer
from .record import CONTENT, Draft
from .recovery import remove_orphans, replay
from .segment import Segment
from .settings import SpoolSettings
from .spares import Spares
from .writer import NO_ROOM, Item, Maker, Writer


def direct(worker: Worker, lazy_s: float, in_reactor: Callable[..., object]) -> Line:
    """For ``line``: no thread; :meth:`DiskSpool.commit` itself writes and syncs."""
    return DirectLine(worker)


@attrs.define(eq=False)
class _Close:
    """The last task in line."""

    spool: DiskSpool

    def run(self, writer: Writer) -> None:
        writer.close()

    def done(self, error: Exception | None) -> None:
        self.spool._closed()


class DiskSpool:
    """:class:`~..model.ports.Spool` in a folder, one folder a shard below it.

    :param now: POSIX seconds; only differences are used.
    :param in_reactor: calls a function in the reactor's thread, in the order of the calls, as
        ``reactor.callFromThread`` does.
    :param in_thread: does blocking work in some thread.
    :param journal: gets the events of durable batches.
    :param committed: told, in any thread, of each sync: its seconds and its operations.
    :param files: stands between us and the disk.
    :param line: :class:`~.line.ThreadLine`, :func:`direct`, or what :func:`~.ring_line.maker` makes,
        which writes past ``files``.
    :param random_octets: a source of that many octets that nobody can foresee.
    """

    log = Logger()

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings,
        *,
        now: Callable[[], float],
        in_reactor: Callable[..., object],
        in_thread: InThread,
        journal: Journal | None = None,
        committed: Callable[[float, int], None] | None = None,
        files: Files | None = None,
        line: LineMaker = ThreadLine,
        random_octets: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._root = folder
        self._settings = settings
        self._now = now
        self._in_reactor = in_reactor
        self._in_thread = in_thread
        self._journal = journal
        self._committed = committed
        self._files = files or Files()
        self._make_line = line
        self._random_octets = random_octets

        self._index = Index()
        self._cache = Cache(settings.cache_octets)
        self._in_flight: deque[Item] = deque()  # what is not lazy, in the order of the calls
        self._commits = 0
        self._operations = 0
        self._failure: SpoolFailed | None = None
        self._is_full = False  # there was no room for the next segment
        self._closing: Deferred[None] | None = None
        self._is_preparing = False
        self._last_recovered = 0  # number of the last segment that recovery found

        # What acquire and recover make.
        self._lock = -1
        self._folder = folder
        self._quota: Quota | None = None
        self._big: BigStore | None = None
        self._corrupt: Corrupt | None = None
        self._spares: Spares | None = None
        self._maker: Maker | None = None
        self._line: Line | None = None
        self._reclaimer: Reclaimer | None = None
        self._cold: Cold | None = None

    # --- start and end ---------------------------------------------------------------------------

    def acquire(self, shard: int = 0) -> None:
        if self._lock >= 0:
            raise RuntimeError("a shard has been acquired already")
        files, folder = self._files, self._root / str(shard)
        files.make_folder(folder)
        self._lock = lock(files, folder / "lock")
        files.make_folder(folder / "big")
        self._corrupt = Corrupt(files, folder / "corrupt")
        for changed in (folder, self._root, self._root.parent):
            files.sync_folder(changed)
        for changed in self._root.parent.parents:
            try:
                files.sync_folder(changed)
            except OSError:
                break  # where we may not do that, it was not we who made anything
        self._folder = folder
        self._cold = Cold(Fetcher(files, folder), self._index, self._corrupt, self._in_thread)
        self._spares = spares = Spares(files, folder, segment_octets=self._settings.segment_octets)
        self._quota = quota = Quota(
            files,
            folder,
            self._settings,
            self._now,
            reserve_octets=spares.most_octets,
            tight=self._give_back,
        )
        self._big = BigStore(
            files,
            folder / "big",
            self._settings,
            boot=self._random_octets(8).hex(),
            quota=quota,
            in_thread=self._in_thread,
        )

    def recover(self, shard: int = 0) -> Iterator[Recovered]:
        spares, quota, cold = self._spares, self._quota, self._cold
        if self._corrupt is None or spares is None or quota is None or cold is None:
            raise RuntimeError("recover comes after acquire")
        if self._line is not None:
            raise RuntimeError("recover comes once")
        files, folder, index = self._files, self._folder, self._index
        spares.sweep()
        replayed = replay(files, folder, index, self._corrupt)
        index.sort()
        present = set(remove_orphans(files, folder / "big", index))
        for id, (name, _) in index.big.items():
            if name not in present:
                self.log.error("the content of {id}, big/{name}, is missing", id=id, name=name)
                self._corrupt.found(id)
        self._corrupt.ids.intersection_update(index)
        self._last_recovered = replayed.number
        synced = (0, 0) if self._journal is None else self._journal.synced()
        self._maker = Maker(
            files,
            folder,
            segment_octets=self._settings.segment_octets,
            # Positions never go back, not even behind a journal that outlived its spool.
            next_number=max(replayed.number, synced[0]) + 1,
            random_octets=self._random_octets,
            spares=spares,
        )
        writer = Writer(
            files,
            folder,
            self._maker,
            spares,
            sequence=replayed.sequence,
            now=self._now,
            in_reactor=self._in_reactor,
            listener=self,
            journal=self._journal,
            committed=self._committed,
        )
        self._line = line = self._make_line(writer, self._settings.lazy_s, self._in_reactor)
        self._reclaimer = Reclaimer(
            index,
            put=line.put,
            in_flight=self._changing,
            journal=self._journal,
            segment_octets=self._settings.segment_octets,
            may_spare=quota.has_reserve,
            now=self._now,
        )
        self._prepare()
        return messages(files, folder, index, self._corrupt, cold.found_damage)

    def recover_events(self, after: Position) -> Iterator[tuple[Sequence[bytes], Position]]:
        return events(self._files, self._folder, self._index, self._last_recovered, after)

    def close(self) -> Deferred[None]:
        if self._closing is not None:
            raise RuntimeError("close comes once")
        closing: Deferred[None] = Deferred()
        self._closing = closing
        if self._line is None or self._reclaimer is None:
            self._closed()
        else:
            self._reclaimer.stop()
            self._line.put(_Close(self))
        return closing

    def _closed(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._lock >= 0:
            self._files.close(self._lock)
            self._lock = -1
        if self._closing is not None:
            self._closing.callback(None)

    # --- batches ---------------------------------------------------------------------------------

    def receive(self) -> Incoming:
        if self._big is None:
            raise RuntimeError("receive comes after acquire")
        return self._big.receive()

    def check_room(self, size_octets: int) -> None:
        if self._failure is not None:
            raise self._failure
        if self._quota is not None:
            self._check_room(self._quota, size_octets)

    def _check_room(self, quota: Quota, octets: int) -> None:
        """What is left of the last segment is for updates and ends."""
        if self._is_full:
            self._prepare()
        if self._is_full:
            raise SpoolFull("no room for another segment")
        quota.check(octets)

    def commit(self, batch: Batch) -> Deferred[None]:
        line = self._line
        if line is None:
            raise RuntimeError("commit comes after recover")
        if batch.is_lazy and self._are_ends(batch.operations):
            return self.note(batch) or defer.succeed(None)
        item = self._item(batch)
        if not isinstance(item, Item):
            return defer.fail(item)
        answer: Deferred[None] = Deferred()
        item.deferred = answer
        self._in_flight.append(item)
        line.put(item)
        return answer

    def note(self, batch: Batch) -> Deferred[None] | None:
        line, operations = self._line, batch.operations
        if line is None or not self._are_ends(operations):
            return self.commit(batch)
        item = self._item(batch)
        if not isinstance(item, Item):
            return defer.fail(item)
        for operation in operations:
            self._end(operation, item)
        line.put(item, is_lazy=True)
        return None

    def _item(self, batch: Batch) -> Item | Exception:
        """A batch as it stands in line, counted already; or why it may not."""
        quota = self._quota
        if quota is None:
            raise RuntimeError("commit comes after acquire")
        if self._failure is not None:
            return self._failure
        if self._closing is not None:
            return SpoolFailed("the spool is closed")
        octets, has_content = 0, False
        drafts = []
        try:
            for operation in batch.operations:
                draft = records.draft(operation)
                drafts.append(draft)
                octets += draft.octets
                if draft.kind == CONTENT:
                    has_content = True
        except ValueError as error:
            return error
        for event in batch.events:
            octets += len(event)
        if has_content:
            try:
                self._check_room(quota, octets)
            except SpoolFull as error:
                self._unlink_unused(batch.operations)
                return error
        quota.accept(octets)
        self._operations += len(drafts)
        return Item(batch.operations, drafts, batch.events, octets)

    def written(self, items: Sequence[Item], segment: Segment, end: int) -> None:
        """The writer's word that a group is durable."""
        index = self._index
        has_events = any(item.lines for item in items)
        is_new = index.written(segment, end, has_events=has_events)
        self._commits += 1
        for item in items:
            deferred = item.deferred
            if deferred is not None:
                self._in_flight.popleft()
                self._do(item)
            if item.unlinks and self._big is not None:
                for name in item.unlinks:
                    self._big.unlink(name)
            if deferred is not None:
                deferred.callback(None)
        if is_new:
            self._prepare()
        if self._reclaimer is not None:
            self._reclaimer.turn(has_sealed=is_new)

    def refused(self, items: Sequence[Item], error: SpoolFull | SpoolFailed) -> None:
        """The writer's word that nobody may rely on these."""
        for item in items:
            if isinstance(error, SpoolFull):
                self._unlink_unused(item.operations)
            # Else nobody knows what the disk holds: a record may well name the big file.
            if item.deferred is not None:
                self._in_flight.popleft()
                item.deferred.errback(error)
            else:
                self.log.error(
                    "{count} deliveries cannot be noted, a restart repeats them: {error}",
                    count=len(item.operations),
                    error=error,
                )
        self._prepare()

    def failed(self, error: Exception) -> None:
        """The writer's word that it has stopped."""
        self._failure = SpoolFailed(f"the spool has stopped: {error}")

    def _are_ends(self, operations: tuple[Operation, ...]) -> TypeGuard[tuple[End, ...]]:
        """Whether a batch may be lazy: it ends messages that are here, and does nothing else."""
        for one in operations:
            if not isinstance(one, End) or one.id not in self._index:
                return False
        return True

    def _do(self, item: Item) -> None:
        """Do to the index what a batch says."""
        index = self._index
        for operation, draft in zip(item.operations, item.drafts, strict=True):
            if isinstance(operation, Append):
                self._appended(operation, draft)
            elif isinstance(operation, Update):
                index.update(operation.id, operation.recipients, operation.status)
            else:
                self._end(operation, item)

    def _end(self, operation: End, item: Item) -> None:
        id = operation.id
        if self._index.end(id, operation.recipients):
            self._cache.drop(id)
            if self._corrupt is not None:
                self._corrupt.ids.discard(id)
            name = self._index.pop_big(id)
            if name is not None:
                item.unlinks = (*item.unlinks, name)

    def _appended(self, operation: Append, draft: Draft) -> None:
        message, content = operation.message, operation.content
        if draft.place is None:
            raise RuntimeError("the writer says of a content that it is durable, and not where")
        self._index.put(message.id, draft.place, draft.states)
        if isinstance(content, BigFile):
            self._index.put_big(message.id, content.name, content.size_octets)
        else:
            self._cache.put(message.id, MemoryContent(message, content))

    def _changing(self) -> set[QueueId]:
        return {
            operation.id
            for item in self._in_flight
            for operation in item.operations
            if not isinstance(operation, Append)
        }

    def _unlink_unused(self, operations: tuple[Operation, ...]) -> None:
        """Nothing names, or ever named, the big files of these."""
        for operation in operations:
            if (
                isinstance(operation, Append)
                and isinstance(operation.content, BigFile)
                and self._big is not None
            ):
                self._big.unlink(operation.content.name)

    def _prepare(self) -> None:
        """Have the next segment made, so that the writer need not."""
        if self._maker is None or self._maker.has_ahead or self._is_preparing:
            return
        self._is_preparing = True

        def prepared(result: Failure | None) -> None:
            self._is_preparing = False
            was_full, self._is_full = self._is_full, False
            if result is None:
                if was_full:
                    self.log.warn("there is room for segments again, mail is accepted")
                return
            error = result.value
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                self._is_full = True
                if not was_full:
                    self.log.critical(
                        "the disk of the spool in {folder} is full, no mail is accepted: {error}",
                        folder=self._folder,
                        error=error,
                    )
                return
            # The writer will try for itself, and say so if it fails.
            self.log.failure("cannot make a segment ahead of time", result)

        self._in_thread(self._maker.prepare).addBoth(prepared)

    def _give_back(self) -> None:
        """Room is tight: mail that comes in has a better use for it than spares."""
        spares = self._spares
        if spares is not None and spares.octets:
            self._in_thread(spares.give_back).addErrback(
                lambda failure: self.log.failure("cannot remove spare segments", failure)
            )

    # --- reading ---------------------------------------------------------------------------------

    def open(self, id: QueueId) -> Deferred[Content]:
        found = self._cache.get(id)
        if found is not None:
            return defer.succeed(found)
        if self._cold is None:
            return defer.fail(NoSuchMessage(id))
        return self._cold.content(id)

    def at_hand(self, id: QueueId) -> Content | None:
        return self._cache.get(id)

    def statuses(self, id: QueueId) -> Deferred[Recovered]:
        found = self._cache.get(id)
        if found is not None:
            return defer.succeed(Recovered(found.message, self._index.statuses(id)))

        if self._cold is None:
            return defer.fail(NoSuchMessage(id))

        def recovered(message: Message) -> Recovered:
            if id not in self._index:
                raise NoSuchMessage(id)
            return Recovered(message, self._index.statuses(id))

        return self._cold.header(id).addCallback(recovered)

    def ids(self) -> Sequence[QueueId]:
        return list(self._index)

    def corrupt_ids(self) -> Sequence[QueueId]:
        return sorted(self._corrupt_ids())

    def stats(self) -> Stats:
        index = self._index
        room = None if self._quota is None else self._quota.room()
        return Stats(
            messages=len(index),
            content_octets=index.live_octets + index.big_octets,
            disk_octets=sum(use.end for use in index.uses.values())
            + index.big_octets
            + (0 if self._spares is None else self._spares.octets),
            free_octets=0 if room is None else room.free_octets,
            free_inodes=0 if room is None else room.free_inodes,
            segments=len(index.uses),
            corrupt=0 if self._corrupt is None else self._corrupt.count,
            commits=self._commits,
            operations=self._operations,
            is_failed=self._failure is not None,
            is_full=self._is_full,
        )

    def _corrupt_ids(self) -> set[QueueId]:
        return set() if self._corrupt is None else self._corrupt.ids
