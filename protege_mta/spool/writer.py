"""The writer: appends groups of batches to segments, and syncs each group once.

Everything here but :meth:`Maker.prepare` runs in the writer's thread, or inside the call that has
work for it, or between its turns in the reactor's thread, as the :mod:`.line` has it: never in two
places at once.  It reads nothing that the reactor's thread owns.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..model.batch import Operation
from ..model.ports import Journal, SpoolFailed, SpoolFull
from . import record as records
from .files import Files
from .record import COMMIT_OCTETS, CONTENT, Draft
from .segment import BLANK_OCTETS, SEGMENT_HEADER_OCTETS, Kind, Segment
from .spares import Spares

NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}


@attrs.define(eq=False)
class Item:
    """A batch in line.

    :ivar octets: what it takes in the log, commit record aside.
    :ivar deferred: None for a lazy one, whose caller has its answer already.
    :ivar unlinks: big files that nobody needs once it is durable.
    """

    operations: tuple[Operation, ...]
    drafts: list[Draft]
    lines: tuple[bytes, ...]
    octets: int
    deferred: Deferred[None] | None = None
    unlinks: tuple[str, ...] = ()


class Task(Protocol):
    """Other work in line, done where its turn comes, everything before it being durable."""

    def run(self, writer: Writer) -> None:
        """In the writer's thread.  :raise OSError: the writer has failed."""

    def done(self, error: Exception | None) -> None:
        """In the reactor's thread."""


Job = Item | Task


class Listener(Protocol):
    """Hears, in the reactor's thread, what became of the items."""

    def written(self, items: Sequence[Item], segment: Segment, end: int) -> None:
        """Durable, in ``segment``, which is now written up to ``end``."""

    def refused(self, items: Sequence[Item], error: SpoolFull | SpoolFailed) -> None: ...

    def failed(self, error: Exception) -> None:
        """The writer has stopped for good."""


@attrs.define(eq=False)
class Group:
    """Batches that are written and synced together.

    :ivar pieces: what is to be written to ``opened.fd`` from ``start`` on.
    :ivar end: where the next group goes.
    :ivar operations: how many there are in it.
    :ivar began: when it was put together.
    """

    items: Sequence[Item]
    lines: Sequence[bytes]
    operations: int
    opened: OpenSegment
    pieces: list[bytes]
    start: int
    end: int
    began: float


@attrs.define(eq=False)
class OpenSegment:
    """:ivar end: where the next record goes.  :ivar limit: how far records may go."""

    segment: Segment
    fd: int
    end: int
    limit: int


class Maker:
    """Makes segments, each on stable storage with its name before it is used.

    :param next_number: greater than that of any segment there has ever been.
    :param spares: files that become fresh segments, as long as there are some.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        *,
        segment_octets: int,
        next_number: int,
        random_octets: Callable[[int], bytes],
        spares: Spares,
    ) -> None:
        self._files = files
        self._folder = folder
        self._segment_octets = segment_octets
        self._next_number = next_number
        self._random_octets = random_octets
        self._spares = spares
        # Guards what follows; held while a segment is being made.
        self._lock = threading.Lock()
        self._ahead: OpenSegment | None = None
        self._is_closed = False

    @property
    def has_ahead(self) -> bool:
        return self._ahead is not None

    def prepare(self) -> None:
        """Make the next fresh segment ahead of its time, so that nobody waits for it.  Any thread.

        :raise OSError:
        """
        with self._lock:
            if self._ahead is None and not self._is_closed:
                self._ahead = self._make("fresh", self._segment_octets)

    def take(self, kind: Kind, octets: int) -> OpenSegment:
        """An empty segment with room for so many octets of records.  :raise OSError:"""
        wanted = max(self._segment_octets, SEGMENT_HEADER_OCTETS + octets + COMMIT_OCTETS)
        with self._lock:
            if kind == "fresh" and wanted == self._segment_octets and self._ahead is not None:
                ahead, self._ahead = self._ahead, None
                return ahead
            if kind == "fresh" and self._ahead is not None:
                # Fresh segments are used in the order of their numbers.
                self._discard(self._ahead)
                self._ahead = None
            return self._make(kind, wanted)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._ahead is not None:
                self._discard(self._ahead)
                self._ahead = None
            self._spares.give_back()

    def _make(self, kind: Kind, octets: int) -> OpenSegment:
        epoch = int.from_bytes(self._random_octets(8), "little")
        segment = Segment(self._next_number, epoch, kind)
        self._next_number += 1
        files, path = self._files, segment.path(self._folder)
        is_ordinary = kind == "fresh" and octets == self._segment_octets
        spare = self._spares.take() if is_ordinary else None
        fd = files.create(path) if spare is None else files.open(spare, to_write=True)
        named = spare or path
        try:
            if kind == "fresh":
                # Kept segments grow: nobody waits for their syncs.
                self._allocate(fd, octets)
            blank = [] if spare is None else [bytes(BLANK_OCTETS)]
            files.write(fd, [segment.header(), *blank], 0)
            files.sync(fd)
            if spare is not None:
                files.rename(spare, path)
                named = path
            files.sync_folder(self._folder)
        except OSError:
            files.close(fd)
            files.unlink(named)
            raise
        return OpenSegment(segment, fd, SEGMENT_HEADER_OCTETS, octets)

    def _allocate(self, fd: int, octets: int) -> None:
        try:
            self._files.allocate(fd, octets)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise

    def _discard(self, unused: OpenSegment) -> None:
        self._files.close(unused.fd)
        self._files.unlink(unused.segment.path(self._folder))


class Log:
    """The segments of one kind, of which the last one is open."""

    def __init__(self, kind: Kind, files: Files, maker: Maker) -> None:
        self._kind = kind
        self._files = files
        self._maker = maker
        self._open: OpenSegment | None = None

    def room(self) -> int:
        """How many octets of records still go into the open segment."""
        return 0 if self._open is None else self._open.limit - self._open.end - COMMIT_OCTETS

    def switch(self, octets: int) -> None:
        """Go on in another segment, with room for so many octets of records.  :raise OSError:"""
        fresh = self._maker.take(self._kind, octets)
        self.close()
        self._open = fresh

    def lay_out(
        self, sequence: int, drafts: Sequence[Draft], lines: Sequence[bytes]
    ) -> tuple[OpenSegment, list[bytes], int]:
        """A group, for which there is room, as it will stand at the end of the open segment.  Each
        draft of a content is told its place.

        :return: with its octets and where its end will be.
        """
        opened = self._open
        if opened is None:
            raise RuntimeError("no segment is open")
        number, epoch = opened.segment.number, opened.segment.epoch
        start = offset = opened.end
        pieces: list[bytes] = []
        for draft in drafts:
            octets = records.write(draft, epoch=epoch, sequence=sequence, to=pieces)
            if draft.kind == CONTENT:
                draft.place = (number, offset, octets)
            offset += octets
        closing = records.commit_draft(start, len(drafts), b"".join(lines))
        offset += records.write(closing, epoch=epoch, sequence=sequence, to=pieces)
        return opened, pieces, offset

    def write(self, opened: OpenSegment, pieces: Sequence[bytes], end: int) -> None:
        """Append a group as it was laid out, and sync it.

        :raise OSError:  :raise SpoolFull: nothing of it is there.
        """
        try:
            self._files.write_through(opened.fd, pieces, opened.end)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # A part of it may lie there, and recovery takes only the last group of all for torn.
            self._files.truncate(opened.fd, opened.end)
            self._files.sync(opened.fd)
            raise SpoolFull("no room in the segment") from error
        opened.end = end

    def close(self) -> None:
        """Give back what was reserved and not used.  :raise OSError:"""
        opened, self._open = self._open, None
        if opened is not None:
            try:
                self._files.truncate(opened.fd, opened.end)
                # Once the next segment is written to, what lies behind this one's last record is
                # taken for damage; so what a spare had there must not come back.
                self._files.sync(opened.fd)
            finally:
                self._files.close(opened.fd)


class Writer:
    """Does the jobs in line.

    :param sequence: that of the last group there is.
    :param in_reactor: calls a function in the reactor's thread, in the order of the calls.
    :param committed: told of each sync's time and operations.
    """

    log = Logger()

    def __init__(
        self,
        files: Files,
        folder: Path,
        maker: Maker,
        spares: Spares,
        *,
        sequence: int,
        now: Callable[[], float],
        in_reactor: Callable[..., object],
        listener: Listener,
        journal: Journal | None,
        committed: Callable[[float, int], None] | None,
    ) -> None:
        self.files = files
        self.folder = folder
        self.spares = spares
        self.is_closed = False
        self._fresh = Log("fresh", files, maker)
        self._kept = Log("kept", files, maker)
        self._maker = maker
        self._sequence = sequence
        self._now = now
        self._in_reactor = in_reactor
        self._listener = listener
        self._journal = journal
        self._committed = committed
        self._failure: SpoolFailed | None = None

    def turn(self, jobs: Sequence[Job]) -> None:
        """Do these jobs, batches that follow each other in one sync.  Never raises."""
        run: list[Item] = []
        room = self._fresh.room()
        for job in jobs:
            if not isinstance(job, Item):
                self._flush(run)
                run = []
                self._perform(job)
                room = self._fresh.room()
                continue
            if job.octets > room:
                self._flush(run)
                run = []
                if not self._switch(job):
                    room = self._fresh.room()
                    continue
                room = self._fresh.room()
            run.append(job)
            room -= job.octets
        self._flush(run)

    # --- a group that somebody else writes -------------------------------------------------------

    def begin(self, jobs: Sequence[Job]) -> Group | None:
        """Put together the group that these jobs are.

        :return: None where they are more than that, and want a :meth:`turn`.
        """
        if self._failure is not None:
            return None
        items: list[Item] = []
        room = self._fresh.room()
        for job in jobs:
            if not isinstance(job, Item) or job.octets > room:
                return None
            room -= job.octets
            items.append(job)
        return self._put_together(items)

    def end(self, group: Group) -> Callable[[], None]:
        """The group is on stable storage; the next one can be begun.

        :return: tells everybody; in the reactor's thread, and in the order of the groups.
        """
        group.opened.end = group.end

        def tell() -> None:
            self._tell(group)
            self._listener.written(group.items, group.opened.segment, group.end)

        return tell

    def broken(self, group: Group, error: OSError) -> None:
        """The group could not be written, or not be synced."""
        self._fail(error)
        self._in_reactor(self._listener.refused, group.items, self._failure)

    # --- what tasks call -------------------------------------------------------------------------

    def carry(self, drafts: Sequence[Draft]) -> tuple[Segment, int]:
        """Write what is carried forward, and sync it.  For tasks.

        :raise OSError:  :raise SpoolFull: nothing of it is there.
        """
        octets = sum(draft.octets for draft in drafts)
        if octets > self._kept.room():
            try:
                self._kept.switch(octets)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                raise SpoolFull("no room for another segment") from error
        self._sequence += 1
        opened, pieces, end = self._kept.lay_out(self._sequence, drafts, ())
        self._kept.write(opened, pieces, end)
        return opened.segment, end

    def close(self) -> None:
        """For the last task."""
        self.is_closed = True
        self._fresh.close()
        self._kept.close()
        self._maker.close()

    # --- within ----------------------------------------------------------------------------------

    def _switch(self, item: Item) -> bool:
        """:return: whether there is a segment for ``item`` now; else it has been answered."""
        if self._failure is None:
            try:
                self._fresh.switch(item.octets)
                return True
            except OSError as error:
                if error.errno in NO_ROOM:
                    # Nothing has been written: an honest no, and the log is as it was.
                    full = SpoolFull("no room for another segment")
                    self._in_reactor(self._listener.refused, [item], full)
                    return False
                self._fail(error)
        self._in_reactor(self._listener.refused, [item], self._failure)
        return False

    def _flush(self, run: list[Item]) -> None:
        if not run:
            return
        if self._failure is None:
            try:
                self._write(run)
                return
            except SpoolFull as full:
                self._in_reactor(self._listener.refused, run, full)
                return
            except Exception as error:
                self._fail(error)
        self._in_reactor(self._listener.refused, run, self._failure)

    def _write(self, run: list[Item]) -> None:
        group = self._put_together(run)
        self._fresh.write(group.opened, group.pieces, group.end)
        self._tell(group)
        self._in_reactor(self._listener.written, run, group.opened.segment, group.end)

    def _put_together(self, run: Sequence[Item]) -> Group:
        drafts = [draft for item in run for draft in item.drafts]
        lines = [line for item in run for line in item.lines]
        began = self._now()
        self._sequence += 1
        opened, pieces, end = self._fresh.lay_out(self._sequence, drafts, lines)
        return Group(run, lines, len(drafts), opened, pieces, opened.end, end, began)

    def _tell(self, group: Group) -> None:
        took_s = self._now() - group.began
        if group.lines and self._journal is not None:
            self._publish(group.lines, group.opened.segment.number, group.end)
        if self._committed is not None:
            self._committed(took_s, group.operations)

    def _publish(self, lines: Sequence[bytes], number: int, end: int) -> None:
        if self._journal is None:
            raise RuntimeError("no journal to publish to")
        try:
            self._journal.publish(lines, (number, end))
        except Exception:
            # They are in the log: the next start tells them again.
            self.log.failure("the event journal refused {count} lines", count=len(lines))

    def _perform(self, task: Task) -> None:
        failed: Exception | None = None
        try:
            task.run(self)
        except Exception as error:
            self._fail(error)
            failed = error
        self._in_reactor(task.done, failed)

    def _fail(self, error: Exception) -> None:
        """Stop for good: after a failed write or sync nobody knows what the disk holds, and a sync
        that succeeds later proves nothing (the kernel drops what it could not write)."""
        if self._failure is None:
            self._failure = SpoolFailed(f"the spool has stopped: {error}")
            self.log.critical(
                "the spool in {folder} has stopped, no mail is accepted until a restart: {error}",
                folder=self.folder,
                error=error,
            )
            self._in_reactor(self._listener.failed, error)
