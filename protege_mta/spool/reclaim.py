"""Gives back the room of segments whose messages are gone.

One segment is cleaned at a time, in small steps that take turns with batches in the writer's line:
read some of its records, carry forward what is still needed of them, and when nothing more is,
remove it.  Needed are, looking at the records of segment S:

* the content of a live message: it is copied whole, with the message's states of today;
* what changed a live message whose content lies elsewhere: its states of today are noted again;
* what ended a dead message whose content still lies in another segment: its death is noted again,
  or the next recovery would bring it back.

Everything goes to segments of the ``kept`` kind, so that mail which is deferred for long is not
mixed with what comes and goes.  The order of events is the order of the line: states are read from
the index when the task is put in line, all that changed them before is before it in the log, and
all that changes them later is behind it.  A message with a change in flight waits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import msgspec
from twisted.logger import Logger

from ..model.ids import QueueId
from ..model.ports import Journal, SpoolFull
from . import record as records
from .index import Index, Place, Use
from .record import COMMIT, CONTENT, Draft, Record
from .scan import SegmentReader
from .segment import Segment
from .states import States
from .writer import Job, Writer

_RECORDS_A_STEP: Final = 512
_OCTETS_A_STEP: Final = 2**20
_LOOK_S: Final = 1.0
_SPARE_SEGMENTS: Final = 4
_SPARE_FILES: Final = 12


class Seen(msgspec.Struct, frozen=True, gc=False):
    kind: int
    id: QueueId
    place: Place


@attrs.define(eq=False)
class _Cleaning:
    """The segment that is being cleaned.  ``reader`` and ``records`` belong to the writer's thread.

    :ivar seen: records whose need is not settled yet.
    :ivar settled: messages about which nothing more has to be carried.
    """

    use: Use
    reader: SegmentReader | None = None
    records: Iterator[Record] = attrs.field(factory=lambda: iter(()))
    seen: list[Seen] = attrs.field(factory=list)
    settled: set[QueueId] = attrs.field(factory=set)
    is_read: bool = False


@attrs.define(eq=False)
class _Scan:
    """Reads the next records."""

    reclaimer: Reclaimer
    cleaning: _Cleaning
    found: list[Seen] = attrs.field(factory=list)

    def run(self, writer: Writer) -> None:
        it, segment = self.cleaning, self.cleaning.use.segment
        if it.reader is None:
            it.reader = SegmentReader(writer.files, writer.folder, segment)
            it.records = it.reader.records()
        count = 0
        for record in itertools.islice(it.records, _RECORDS_A_STEP):
            count += 1
            if record.kind != COMMIT:
                place = (segment.number, record.offset, record.octets)
                self.found.append(Seen(record.kind, record.id, place))
        if count < _RECORDS_A_STEP:
            it.is_read = True

    def done(self, error: Exception | None) -> None:
        if error is None:
            self.cleaning.seen += self.found
            self.reclaimer.go_on()


@attrs.define(eq=False)
class _Carry:
    """Carries forward what is needed.  :ivar moves: messages to copy, with their states."""

    reclaimer: Reclaimer
    cleaning: _Cleaning
    moves: list[tuple[Seen, States]]
    notes: list[Draft]
    copies: dict[QueueId, Draft] = attrs.field(factory=dict)
    written: tuple[Segment, int] | None = None
    is_refused: bool = False

    def run(self, writer: Writer) -> None:
        reader = self.cleaning.reader
        if reader is None:
            raise RuntimeError("nothing was read that could be carried")
        drafts = list(self.notes)
        for seen, states in self.moves:
            record = reader.record(seen.place[1])
            body = None if record is None else reader.body(record)
            if record is None or body is None:
                continue  # damaged: it stays, and so does the segment
            self.copies[seen.id] = copy = records.carried(record, states, body)
            drafts.append(copy)
        if drafts:
            try:
                self.written = writer.carry(drafts)
            except SpoolFull:
                self.is_refused = True
                reader.close()

    def done(self, error: Exception | None) -> None:
        if error is not None:
            return
        if self.is_refused:
            self.reclaimer.put_off()
            return
        if self.written is not None:
            places = {id: copy.place for id, copy in self.copies.items() if copy.place is not None}
            self.reclaimer.carried(places, *self.written)
        self.reclaimer.go_on()


@attrs.define(eq=False)
class _Drop:
    """Removes the segment, unless that would lose something.

    :ivar may_spare: whether its file may stay, to be used again.
    """

    reclaimer: Reclaimer
    cleaning: _Cleaning
    may_spare: bool
    is_dropped: bool = False

    def run(self, writer: Writer) -> None:
        it = self.cleaning
        is_damaged = False
        if it.reader is not None:
            it.reader.close()
            is_damaged = bool(it.reader.damage) or it.reader.end < it.use.end
        if is_damaged and not it.use.is_damaged:
            it.use.is_stuck = True
            return
        # Only a removal that cannot be undone lets other segments forget what ended the messages
        # of this one.
        may_keep = self.may_spare and not is_damaged
        writer.spares.retire(it.use.segment, it.use.end, may_keep=may_keep)
        self.is_dropped = True

    def done(self, error: Exception | None) -> None:
        if error is None:
            self.reclaimer.dropped(self.cleaning.use, self.is_dropped)


@attrs.define(eq=False)
class _Leave:
    """Closes the reader of a segment that has to stay."""

    reclaimer: Reclaimer
    cleaning: _Cleaning

    def run(self, writer: Writer) -> None:
        if self.cleaning.reader is not None:
            self.cleaning.reader.close()

    def done(self, error: Exception | None) -> None:
        if error is None:
            self.reclaimer.dropped(self.cleaning.use, False)


class Reclaimer:
    """Decides what is cleaned, and when.  Owned by the reactor's thread.

    :param put: puts a task in the writer's line.
    :param in_flight: messages that batches in line change, and whose states in the index are
        therefore not those at the line's end.
    :param journal: whose events a segment must outlast.
    :param may_spare: whether there is room for files that wait to be used again.
    """

    log = Logger()

    def __init__(
        self,
        index: Index,
        *,
        put: Callable[[Job], None],
        in_flight: Callable[[], set[QueueId]],
        journal: Journal | None,
        segment_octets: int,
        may_spare: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._index = index
        self._put = put
        self._in_flight = in_flight
        self._journal = journal
        self._segment_octets = segment_octets
        self._may_spare = may_spare
        self._now = now
        self._cleaning: _Cleaning | None = None
        self._is_waiting = False  # for a batch in flight, not for a task
        self._is_stopped = False
        self._looked_at = float("-inf")

    def turn(self, *, has_sealed: bool = False) -> None:
        """A group has become durable: see what can be done now."""
        if self._is_stopped:
            return
        if self._cleaning is None:
            now = self._now()
            if not (has_sealed or self._index.has_emptied) and 0 <= now - self._looked_at < _LOOK_S:
                return
            self._looked_at = now
            self._index.has_emptied = False
            use = self._choose()
            if use is not None:
                self._cleaning = _Cleaning(use)
                self.go_on()
        elif self._is_waiting:
            self.go_on()

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopped = True

    def go_on(self) -> None:
        """The next step of the cleaning under way."""
        it = self._cleaning
        if it is None:
            raise RuntimeError("nothing is being cleaned")
        self._is_waiting = False
        if self._is_stopped:
            return
        moves, notes = self._needed(it)
        if moves or notes:
            self._put(_Carry(self, it, moves, notes))
        elif not it.is_read:
            self._put(_Scan(self, it))
        elif it.seen:
            self._is_waiting = True
        elif it.use.live:
            # Content that could not be read: the messages are live, and stay where they are.
            it.use.is_stuck = True
            self._put(_Leave(self, it))
        else:
            self._put(_Drop(self, it, self._may_spare()))

    def carried(self, places: dict[QueueId, Place], segment: Segment, end: int) -> None:
        """Copies are durable."""
        self._index.written(segment, end)
        for id, place in places.items():
            if id in self._index:
                self._index.put(id, place, self._index.states(id))
            else:
                # It met its end in the meantime; the copy must not outlive what says so.
                self._index.uses[segment.number].dead.add(id)

    def put_off(self) -> None:
        """There is no room for copies: try again later, from the beginning, and first where nothing
        has to be copied."""
        self._cleaning = None

    def dropped(self, use: Use, is_dropped: bool) -> None:
        """The cleaning is over."""
        self._cleaning = None
        if is_dropped:
            self._index.remove(use.segment)
        else:
            self.log.error("{name} is damaged, and stays", name=use.segment.name)
        self.turn(has_sealed=True)

    def _needed(self, it: _Cleaning) -> tuple[list[tuple[Seen, States]], list[Draft]]:
        """What to carry of the records seen so far; those that have to wait stay in ``seen``."""
        moves: list[tuple[Seen, States]] = []
        notes: list[Draft] = []
        index, number = self._index, it.use.segment.number
        later: list[Seen] = []
        octets = 0
        in_flight = self._in_flight() if it.seen else set()
        for seen in it.seen:
            id = seen.id
            if id in it.settled:
                continue
            place = index.place(id)
            if place is None:
                if seen.kind != CONTENT and index.is_dead_elsewhere(id, number):
                    notes.append(records.gone_draft(id))
                    it.settled.add(id)
            elif place[0] == number and place != seen.place:
                continue  # its content comes with a later record
            elif id in in_flight or octets >= _OCTETS_A_STEP:
                later.append(seen)
            elif place == seen.place:
                moves.append((seen, index.states(id)))
                octets += place[2]
                it.settled.add(id)
            elif seen.kind != CONTENT:
                notes.append(records.states_draft(id, index.states(id)))
                it.settled.add(id)
        it.seen = later
        return moves, notes

    def _choose(self) -> Use | None:
        """The segment to clean next: one without live messages; else, where too much of the disk
        is taken by what nobody needs, or by too many files, the emptiest one."""
        synced = None if self._journal is None else self._journal.synced()
        ready = [
            use
            for use in self._index.uses.values()
            if use.is_sealed
            and not use.is_stuck
            and (
                synced is None
                or not use.events_end
                or synced >= (use.segment.number, use.events_end)
            )
        ]
        if not ready:
            return None
        best = min(ready, key=lambda use: use.live_octets / max(1, use.end))
        if best.live == 0:
            return best
        uses = self._index.uses.values()
        taken, live = sum(use.end for use in uses), self._index.live_octets
        spare = _SPARE_SEGMENTS * self._segment_octets
        if taken > 2 * live + spare and best.live_octets < 0.9 * best.end:
            return best
        if len(uses) > 2 * (taken // self._segment_octets) + _SPARE_FILES:
            return min(ready, key=lambda use: use.live_octets)
        return None
