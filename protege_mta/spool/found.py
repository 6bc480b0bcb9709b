"""What recovery has found, read from the segments for those who come after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from ..model.ids import QueueId
from ..model.ports import Position, Recovered
from . import record as records
from .corrupt import Corrupt
from .files import Files
from .index import Index
from .scan import SegmentReader

_log = Logger()

_READERS: Final = 16


def messages(
    files: Files,
    folder: Path,
    index: Index,
    corrupt: Corrupt,
    found_damage: Callable[[QueueId], object],
) -> Iterator[Recovered]:
    """Every message that can be tried again, in the order of the index.

    :param found_damage: told of a message whose header is not where it should be.
    """
    readers: dict[int, SegmentReader] = {}
    try:
        for id in list(index):
            place = index.place(id)
            if place is None or id in corrupt.ids:
                continue
            if place[0] not in readers:
                if len(readers) >= _READERS:
                    readers.pop(next(iter(readers))).close()
                readers[place[0]] = SegmentReader(files, folder, index.uses[place[0]].segment)
            found = readers[place[0]].record(place[1])
            if found is None or found.id != id:
                found_damage(id)
                continue
            message = records.message_of(id, records.content_meta(found.meta))
            yield Recovered(message, index.statuses(id))
    finally:
        for reader in readers.values():
            reader.close()


def events(
    files: Files, folder: Path, index: Index, last: int, after: Position
) -> Iterator[tuple[Sequence[bytes], Position]]:
    """The lines of each durable batch behind a position, and the position behind them.

    :param last: number of the last segment that recovery found.
    """
    first = after[0]
    uses = [
        use
        for number, use in sorted(index.uses.items())
        if first <= number <= last and use.segment.kind == "fresh"
    ]
    for use in uses:
        reader = SegmentReader(files, folder, use.segment)
        try:
            for group in reader.groups():
                commit = group.commit
                if commit is None or not commit.body_octets:
                    continue
                position = (use.segment.number, commit.end)
                if position <= after:
                    continue
                body = reader.body(commit)
                if body is None:
                    _log.error(
                        "events in {name} at {offset} are damaged",
                        name=use.segment.name,
                        offset=commit.offset,
                    )
                    continue
                yield [line + b"\n" for line in body.split(b"\n")[:-1]], position
        finally:
            reader.close()
