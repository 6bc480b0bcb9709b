"""A spool in memory: the same contract, no disk.  For tests, and for looking things up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred

from ..model.batch import Append, Batch, BigFile, End, Update
from ..model.envelope import Message
from ..model.ids import QueueId
from ..model.ports import (
    Content,
    Damaged,
    Held,
    Incoming,
    Journal,
    NoSuchMessage,
    Position,
    Recovered,
    SpoolFailed,
    SpoolFull,
    SpoolLocked,
    Stats,
)
from ..model.status import RecipientStatus
from .content import MemoryContent, MemoryOctets


@attrs.define(eq=False)
class _Queued:
    message: Message
    pieces: tuple[bytes, ...]
    statuses: list[RecipientStatus | None]


@attrs.define(eq=False)
class _MemoryIncoming:
    _spool: MemorySpool
    _pieces: list[bytes] = attrs.field(factory=list, init=False)
    size_octets: int = attrs.field(default=0, init=False)

    def write(self, octets: bytes) -> None:
        self._pieces.append(octets)
        self.size_octets += len(octets)

    def sealed(self) -> Deferred[tuple[bytes, ...] | BigFile]:
        try:
            self._spool.check_room(0)
        except (SpoolFull, SpoolFailed) as error:
            return defer.fail(error)
        return defer.succeed(tuple(self._pieces))

    def look(self) -> Deferred[Held]:
        return defer.succeed(MemoryOctets(tuple(self._pieces)))

    def at_hand(self) -> tuple[bytes, ...] | None:
        return None if self._spool.is_full or self._spool.is_failed else tuple(self._pieces)

    def discard(self) -> None:
        self._pieces.clear()


class MemorySpool:
    """:class:`~..model.ports.Spool` in memory.

    What it holds survives :meth:`close` and another :meth:`acquire`, as a disk would.

    :param journal: gets the batches' events.
    :ivar is_full: set it, and appends fail with :class:`SpoolFull`.
    :ivar is_failed: set it, and every commit fails with :class:`SpoolFailed`.
    :ivar batches: everything committed, in order, for tests to look at.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.is_full = False
        self.is_failed = False
        self.batches: list[Batch] = []
        self._journal = journal
        self._queued: dict[QueueId, _Queued] = {}
        self._corrupt: set[QueueId] = set()
        self._is_acquired = False
        self._operations = 0

    def acquire(self, shard: int = 0) -> None:
        if self._is_acquired:
            raise SpoolLocked("this spool is in use")
        self._is_acquired = True

    def recover(self, shard: int = 0) -> Iterator[Recovered]:
        return iter(
            [
                Recovered(it.message, tuple(it.statuses))
                for id, it in sorted(self._queued.items())
                if id not in self._corrupt
            ]
        )

    def recover_events(self, after: Position) -> Iterator[tuple[Sequence[bytes], Position]]:
        for at, batch in enumerate(self.batches):
            if batch.events and (1, at + 1) > after:
                yield batch.events, (1, at + 1)

    def receive(self) -> Incoming:
        return _MemoryIncoming(self)

    def check_room(self, size_octets: int) -> None:
        if self.is_failed:
            raise SpoolFailed("the spool has failed")
        if self.is_full:
            raise SpoolFull("the spool is full")

    def commit(self, batch: Batch) -> Deferred[None]:
        if self.is_failed:
            return defer.fail(SpoolFailed("the spool has failed"))
        if self.is_full and any(isinstance(one, Append) for one in batch.operations):
            return defer.fail(SpoolFull("the spool is full"))
        for operation in batch.operations:
            self._apply(operation)
        self._operations += len(batch.operations)
        self.batches.append(batch)
        if batch.events and self._journal is not None:
            self._journal.publish(batch.events, (1, len(self.batches)))
        return defer.succeed(None)

    def note(self, batch: Batch) -> Deferred[None] | None:
        answer = self.commit(batch)
        return None if answer.called and answer.result is None else answer

    def _apply(self, operation: Append | Update | End) -> None:
        match operation:
            case Append(message=message, content=content, status=status):
                if isinstance(content, BigFile):
                    raise ValueError("this spool has no files")
                count = len(message.envelope.recipients)
                self._queued[message.id] = _Queued(message, content, [status] * count)
            case Update(id=id, recipients=recipients, status=status) if id in self._queued:
                statuses = self._queued[id].statuses
                for recipient in recipients:
                    if statuses[recipient] is not None:
                        statuses[recipient] = status
            case End(id=id, recipients=recipients) if id in self._queued:
                statuses = self._queued[id].statuses
                for recipient in recipients:
                    statuses[recipient] = None
                if not any(statuses):
                    del self._queued[id]
                    self._corrupt.discard(id)
            case _:
                pass  # the message is gone already

    def damage(self, id: QueueId) -> None:
        """From now on the content of ``id`` is found damaged, as on a bad disk."""
        self._corrupt.add(id)

    def open(self, id: QueueId) -> Deferred[Content]:
        found = self._queued.get(id)
        if found is None:
            return defer.fail(NoSuchMessage(id))
        if id in self._corrupt:
            return defer.fail(Damaged(id))
        return defer.succeed(MemoryContent(found.message, found.pieces))

    def at_hand(self, id: QueueId) -> Content | None:
        found = self._queued.get(id)
        if found is None or id in self._corrupt:
            return None
        return MemoryContent(found.message, found.pieces)

    def statuses(self, id: QueueId) -> Deferred[Recovered]:
        found = self._queued.get(id)
        if found is None:
            return defer.fail(NoSuchMessage(id))
        return defer.succeed(Recovered(found.message, tuple(found.statuses)))

    def ids(self) -> Sequence[QueueId]:
        return list(self._queued)

    def corrupt_ids(self) -> Sequence[QueueId]:
        return sorted(self._corrupt)

    def stats(self) -> Stats:
        octets = sum(it.message.size_octets for it in self._queued.values())
        return Stats(
            messages=len(self._queued),
            content_octets=octets,
            disk_octets=0,
            free_octets=0 if self.is_full else 2**40,
            free_inodes=0 if self.is_full else 2**20,
            segments=0,
            corrupt=len(self._corrupt),
            commits=len(self.batches),
            operations=self._operations,
            is_failed=self.is_failed,
        )

    def close(self) -> Deferred[None]:
        self._is_acquired = False
        return defer.succeed(None)
