"""What lies in the spool, on its way in and out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from ..batch import Batch, BigFile
from ..envelope import Message
from ..ids import QueueId
from ..status import RecipientStatus

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class SpoolFull(Exception):
    """Free space or inodes would fall below the floor: 452 4.3.1."""


class SpoolFailed(Exception):
    """The disk broke a promise (EIO, a failed sync); nothing more is accepted: 451 4.3.0."""


class SpoolLocked(Exception):
    """Another process owns this shard."""


class NoSuchMessage(Exception):
    """The id names nothing in the spool, or its last recipient has met its fate."""


class Damaged(Exception):
    """The content does not match its checksum; it has been moved to ``corrupt/``."""


class Content(Protocol):
    """A message's octets, CRLF line ends, no dot-stuffing.  Small ones are in memory."""

    @property
    def message(self) -> Message: ...

    @property
    def size_octets(self) -> int: ...

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """Octets from ``offset``; all the rest where ``size`` is negative.

        Whoever may meet a big one asks in pieces.  Blocks for a page-cache read at most.
        """

    def close(self) -> None:
        """Give back the file descriptor, if there is one.  May be called more than once."""


@attrs.frozen
class Recovered:
    """A message found at start.

    :ivar statuses: for each recipient its status, or None where it has met its fate.
    """

    message: Message
    statuses: tuple[RecipientStatus | None, ...]


@attrs.frozen
class Stats:
    """Figures for metrics and ``status``.

    :ivar is_full: the disk had no room for what was committed last.
    """

    messages: int
    content_octets: int
    disk_octets: int
    free_octets: int
    free_inodes: int
    segments: int
    corrupt: int
    commits: int
    operations: int
    is_failed: bool
    is_full: bool = False


Position = tuple[int, int]
"""A place in the spool's log, ``(segment, offset)``; later ones compare greater.  Segments count
from 1, so ``(0, 0)`` lies before everything."""


class Journal(Protocol):
    """Where events go once the batch that carries them is durable; the spool keeps them until then.

    At start, between :meth:`Spool.recover` and the first commit, whoever owns the journal asks
    :meth:`Spool.recover_events` for what came after :meth:`synced`, and writes what is missing.
    """

    def publish(self, lines: Sequence[bytes], position: Position) -> None:
        """Take the lines of durable batches, in commit order, each once in the life of a process.

        Called in the spool's writer thread; never raises for a fault of its own disk.

        :param position: the end of those batches in the log.
        """

    def synced(self) -> Position:
        """What lies before this position need not be told again.  Any thread."""


class Octets(Protocol):
    """What can be read.  :class:`Content` is one."""

    @property
    def size_octets(self) -> int: ...

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """As :meth:`Content.read`, in any thread."""


class Held(Octets, Protocol):
    """Content that has come in whole and is not accepted yet."""

    def close(self) -> None:
        """As :meth:`Content.close`."""


class Incoming(Protocol):
    """Content on its way in.  One of :meth:`sealed` and :meth:`discard` ends it, or the latter
    after the former."""

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Take the next octets.

        :return: None to go on at once, or what to wait for before the next ``write``
            (back-pressure of big content).
        """

    @property
    def size_octets(self) -> int: ...

    def sealed(self) -> Deferred[tuple[bytes, ...] | BigFile]:
        """The content as :class:`~..batch.Append` takes it; big files are durable by then.

        Fails with :class:`SpoolFull` or :class:`SpoolFailed`.
        """

    def look(self) -> Deferred[Held]:
        """All of it, to be read before it is sealed; no more writes.

        Fails as :meth:`sealed` does.  Whoever gets it closes it.
        """

    def at_hand(self) -> tuple[bytes, ...] | None:
        """:meth:`sealed` where all is in memory, without the price of a Deferred; None, and
        nothing has been done, where it is not."""

    def discard(self) -> None:
        """Forget it; nothing stays on the disk."""


class Spool(Protocol):
    """Where accepted mail lies until its last recipient has met a fate (design of the spool:
    ``docs/explanation/spool.md``)."""

    def acquire(self, shard: int = 0) -> None:
        """Take the lease on a shard; blocks, touches the disk.  :raise SpoolLocked:"""

    def recover(self, shard: int = 0) -> Iterator[Recovered]:
        """Every message that is there, oldest first.  Once, after :meth:`acquire` and before the
        first commit; blocks."""

    def recover_events(self, after: Position) -> Iterator[tuple[Sequence[bytes], Position]]:
        """The events of every batch that ends after ``after``, in order, as they were or would
        have been published.  After :meth:`recover`, before the first commit; blocks."""

    def receive(self) -> Incoming:
        """A place for content to come in."""

    def check_room(self, size_octets: int) -> None:
        """:raise SpoolFull: where so much more would cross the floor.  :raise SpoolFailed:"""

    def commit(self, batch: Batch) -> Deferred[None]:
        """Resolves, in the order of the calls, once all of ``batch`` is durable (a lazy one: once
        it is in line).  Fails with :class:`SpoolFull`, :class:`SpoolFailed`; then none of it is."""

    def note(self, batch: Batch) -> Deferred[None] | None:
        """:meth:`commit` of a lazy batch, without the price of a Deferred: None where it is in line
        already, else what :meth:`commit` gives."""

    def open(self, id: QueueId) -> Deferred[Content]:
        """Fails with :class:`NoSuchMessage` or :class:`Damaged`."""

    def at_hand(self, id: QueueId) -> Content | None:
        """What :meth:`open` would give at once, without the price of a Deferred; None where only
        :meth:`open` can tell."""

    def statuses(self, id: QueueId) -> Deferred[Recovered]:
        """What :meth:`recover` would say of one message now; fails as :meth:`open` does."""

    def ids(self) -> Sequence[QueueId]:
        """Every queued message, oldest first."""

    def corrupt_ids(self) -> Sequence[QueueId]:
        """Those of :meth:`ids` whose content was found damaged; :meth:`recover` passes them over,
        and only a person's ``remove`` ends them."""

    def stats(self) -> Stats: ...

    def close(self) -> Deferred[None]:
        """Sync what is in line, release the lease."""
