"""From the files that a dead process left to the state that it had acknowledged.

Both kinds of segments are read from their beginnings and replayed together in the order of their
groups' sequence numbers, which is the order in which they were written.  Only the last group of all
can be torn, for the one before it was synced before it was begun: its bodies are verified, and
unless it is whole, it is cut off.  What is unreadable elsewhere is damage; and where a later segment
has been written to, though nothing in it can be read, the last group that can be is not the last.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

import attrs
from twisted.logger import Logger

from . import record as records
from .corrupt import Corrupt
from .files import Files
from .index import Index
from .record import CONTENT, END, GONE, STATES, UPDATE, Record
from .scan import Group, SegmentReader
from .segment import SEGMENT_HEADER_OCTETS, Kind, Segment, parse

log = Logger()


@attrs.frozen
class Replayed:
    """:ivar sequence: of the last group; 0 if there is none.
    :ivar number: of the last segment; 0 if there is none.
    """

    sequence: int
    number: int


@attrs.define(eq=False)
class _Pass:
    """What reading one segment showed.

    :ivar end: of the last group that was replayed.
    :ivar tail: what lies behind the last group that was found, from where to where: torn, damaged,
        or a spare's old records.
    :ivar is_empty: nothing was ever written to it; or, where a later one was, its beginning is lost.
    """

    segment: Segment
    end: int = SEGMENT_HEADER_OCTETS
    damage: list[tuple[int, int]] = attrs.field(factory=list)
    tail: tuple[int, int] = (0, 0)
    is_empty: bool = True
    size: int = 0


def replay(files: Files, folder: Path, index: Index, corrupt: Corrupt) -> Replayed:
    """Fill ``index``, and leave files in ``folder`` that need no recovery.

    Safe to be killed at any point and run again.  :raise OSError:
    """
    found = filter(None, map(parse, files.names(folder)))
    segments = sorted(found, key=lambda segment: segment.number)
    passes = {segment.number: _Pass(segment) for segment in segments}

    def groups(kind: Kind) -> Iterator[Group]:
        for segment in segments:
            if segment.kind == kind:
                index.use(segment)
                yield from _read(files, folder, passes[segment.number])

    last: Group | None = None
    merged = heapq.merge(groups("fresh"), groups("kept"), key=lambda group: group.sequence)
    for group in merged:
        if last is not None:
            _apply(index, last, passes)
        last = group
    sequence = 0
    if last is not None:
        sequence = last.sequence
        if _was_followed(last.segment, passes) or _is_intact(files, folder, last):
            _apply(index, last, passes)
    for kind in ("fresh", "kept"):
        mine = [passes[segment.number] for segment in segments if segment.kind == kind]
        _settle(files, folder, index, corrupt, mine)
    return Replayed(sequence, segments[-1].number if segments else 0)


def apply(index: Index, segment: Segment, record: Record) -> None:
    """Do to the index what a record says."""
    id = record.id
    if record.kind == CONTENT:
        meta = records.content_meta(record.meta)
        index.put(id, (segment.number, record.offset, record.octets), bytes(meta.s))
        if meta.big:
            size_octets = records.message_of(id, meta).size_octets - record.body_octets
            index.put_big(id, meta.big, size_octets)
    elif record.kind == UPDATE:
        change = records.update_meta(record.meta)
        index.update(id, change.recipients or (), change.status())
    elif record.kind == END:
        if index.end(id, records.end_meta(record.meta).recipients):
            index.pop_big(id)
    elif record.kind == STATES:
        index.restate(id, record.meta)
    elif record.kind == GONE:
        index.forget(id)
        index.pop_big(id)


def remove_orphans(files: Files, folder: Path, index: Index) -> list[str]:
    """Remove big files that no message names.  :return: the names of those that are there."""
    wanted = {name for name, _ in index.big.values()}
    names = files.names(folder)
    for name in names:
        if name not in wanted:
            files.unlink(folder / name)
    return [name for name in names if name in wanted]


def _read(files: Files, folder: Path, found: _Pass) -> Iterator[Group]:
    reader = SegmentReader(files, folder, found.segment)
    try:
        for group in reader.groups():
            found.is_empty = False
            yield group
        found.damage = reader.damage
        found.tail = (reader.end, reader.end + reader.tail)
        found.size = reader.size
        if not reader.is_blank():
            found.is_empty = False
    finally:
        reader.close()


def _apply(index: Index, group: Group, passes: dict[int, _Pass]) -> None:
    for record in group.records:
        apply(index, group.segment, record)
    commit = group.commit
    if commit is not None and commit.body_octets:
        index.uses[group.segment.number].events_end = commit.end
    passes[group.segment.number].end = (commit or group.records[-1]).end


def _was_followed(segment: Segment, passes: dict[int, _Pass]) -> bool:
    """Whether later segments of its kind were written to, so that all of it had been synced."""
    return any(
        one.segment.kind == segment.kind
        and one.segment.number > segment.number
        and not one.is_empty
        for one in passes.values()
    )


def _is_intact(files: Files, folder: Path, group: Group) -> bool:
    if group.commit is None or not group.is_whole:
        return False
    reader = SegmentReader(files, folder, group.segment)
    try:
        return all(reader.body(one) is not None for one in (*group.records, group.commit))
    finally:
        reader.close()


def _settle(
    files: Files, folder: Path, index: Index, corrupt: Corrupt, passes: list[_Pass]
) -> None:
    """Cut off the torn tail, set damage aside, remove segments that were never used."""
    is_last = True
    for found in reversed(passes):
        segment, path = found.segment, found.segment.path(folder)
        if found.is_empty and (is_last or found.tail[0] == found.tail[1]):
            del index.uses[segment.number]
            files.unlink(path)
            files.sync_folder(folder)
            continue
        if not is_last and found.tail[1] > found.tail[0]:
            found.damage.append(found.tail)
            found.end = max(found.end, found.tail[1])
        reader = SegmentReader(files, folder, segment)
        try:
            for start, end in found.damage:
                if start < found.end:
                    log.error(
                        "{name} is damaged from {start} to {end}; the octets go to corrupt/",
                        name=segment.name,
                        start=start,
                        end=end,
                    )
                    name = f"{segment.name}-{start:010d}"
                    try:
                        is_new = corrupt.save(name, reader.octets(start, end - start))
                    except OSError:
                        log.failure("cannot copy them to corrupt/: {name} stays", name=segment.name)
                        is_new = index.uses[segment.number].is_stuck = True
                    corrupt.count += is_new
        finally:
            reader.close()
        if is_last or found.size > found.end:
            # The last one's end may be nowhere but in the memory of a kernel whose process was
            # killed before its sync.
            fd = files.open(path, to_write=True)
            try:
                if found.size > found.end:
                    files.truncate(fd, found.end)
                files.sync(fd)
            finally:
                files.close(fd)
        is_last = False
        use = index.uses[segment.number]
        use.end = found.end
        use.is_sealed = True
        use.is_damaged = bool(found.damage)
