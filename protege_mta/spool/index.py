"""What is queued, and where: one small entry a message, and the segments' use of their room.

Owned by the reactor's thread.  A message is here from the moment its content is durable until its
last recipient's end has been committed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from ..model.ids import QueueId
from ..model.status import RecipientStatus
from . import states as packed
from .segment import Kind, Segment
from .states import States

_PLACE: Final = struct.Struct("<III")
_PLACE_OCTETS: Final = _PLACE.size

Place = tuple[int, int, int]
"""Of a content record: the segment's number, the offset, and the record's length."""


@attrs.define(eq=False)
class Use:
    """How much of a segment is needed.

    :ivar end: how far it is written.
    :ivar events_end: likewise, by the last group that has events; 0 if none has.
    :ivar live: how many messages' content is here, and
    :ivar live_octets: how long those records are.
    :ivar dead: whose content is here but is not (any more) what the queue needs: while it is here,
        whatever says so must be kept, lest recovery believes it.
    :ivar is_sealed: nothing is appended any more.
    :ivar is_damaged: recovery found damage, and has set it aside.
    :ivar is_stuck: it was found damaged since; it stays until the next recovery.
    """

    segment: Segment
    end: int = 0
    events_end: int = 0
    live: int = 0
    live_octets: int = 0
    dead: set[QueueId] = attrs.field(factory=set)
    is_sealed: bool = False
    is_damaged: bool = False
    is_stuck: bool = False


class Index:
    """:ivar uses: by the segment's number.
    :ivar big: name and size of each queued message's big file.
    :ivar has_emptied: a sealed segment has lost its last live message; whoever acts on it clears it.
    """

    def __init__(self) -> None:
        # An entry is octets and no object, which saves half of the room, and all of the garbage
        # collector's visits.
        self._entries: dict[QueueId, bytes] = {}
        self.uses: dict[int, Use] = {}
        self.big: dict[QueueId, tuple[str, int]] = {}
        self.big_octets = 0
        self.live_octets = 0
        self.has_emptied = False
        self._last: dict[Kind, Use] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: QueueId) -> bool:
        return id in self._entries

    def __iter__(self) -> Iterator[QueueId]:
        return iter(self._entries)

    def sort(self) -> None:
        """Oldest first: ids sort by the time of arrival."""
        self._entries = dict(sorted(self._entries.items()))

    def place(self, id: QueueId) -> Place | None:
        entry = self._entries.get(id)
        if entry is None:
            return None
        number, offset, octets = _PLACE.unpack_from(entry)
        return number, offset, octets

    def states(self, id: QueueId) -> States:
        """:raise KeyError: it is not here."""
        return self._entries[id][_PLACE_OCTETS:]

    def statuses(self, id: QueueId) -> tuple[RecipientStatus | None, ...]:
        """:raise KeyError: it is not here."""
        return packed.unpack(self._entries[id][_PLACE_OCTETS:])

    def use(self, segment: Segment) -> Use:
        found = self.uses.get(segment.number)
        if found is None:
            found = self.uses[segment.number] = Use(segment)
        return found

    def written(self, segment: Segment, end: int, *, has_events: bool = False) -> bool:
        """``segment`` has been written up to ``end``, and its predecessor of the same kind is
        sealed.  :return: whether it is new."""
        use = self.use(segment)
        use.end = end
        if has_events:
            use.events_end = end
        last = self._last.get(segment.kind)
        if last is use:
            return False
        self._last[segment.kind] = use
        if last is not None:
            last.is_sealed = True
        return True

    def remove(self, segment: Segment) -> None:
        """The segment is gone, its dead with it."""
        del self.uses[segment.number]

    def is_dead_elsewhere(self, id: QueueId, number: int) -> bool:
        """Whether content of ``id`` that is not needed lies in another segment than ``number``."""
        return any(id in use.dead for at, use in self.uses.items() if at != number)

    def put(self, id: QueueId, place: Place, states: States) -> None:
        """A message is there, or is there now, its earlier place being out of date."""
        number, offset, octets = place
        use = self.uses[number]
        earlier = self._entries.get(id)
        if earlier is not None:
            self._leave(id, earlier)
        self._entries[id] = _PLACE.pack(number, offset, octets) + states
        use.dead.discard(id)
        use.live += 1
        use.live_octets += octets
        self.live_octets += octets

    def put_big(self, id: QueueId, name: str, size_octets: int) -> None:
        if id not in self.big:
            self.big_octets += size_octets
        self.big[id] = (name, size_octets)

    def restate(self, id: QueueId, states: States) -> None:
        entry = self._entries.get(id)
        if entry is not None:
            self._entries[id] = entry[:_PLACE_OCTETS] + states

    def update(self, id: QueueId, recipients: Iterable[int], status: RecipientStatus) -> None:
        """New statuses; unknown messages and recipients at their end are passed over."""
        entry = self._entries.get(id)
        if entry is not None:
            states = packed.updated(entry[_PLACE_OCTETS:], recipients, status)
            self._entries[id] = entry[:_PLACE_OCTETS] + states

    def end(self, id: QueueId, recipients: Iterable[int]) -> bool:
        """Some recipients' fates.  :return: whether that was the last one of a message here."""
        entry = self._entries.get(id)
        if entry is None:
            return False
        states = packed.ended(entry[_PLACE_OCTETS:], recipients)
        if states is None:
            del self._entries[id]
            self._leave(id, entry)
            return True
        self._entries[id] = entry[:_PLACE_OCTETS] + states
        return False

    def forget(self, id: QueueId) -> None:
        """The message has met its last fate; its big file is still named in :attr:`big`."""
        entry = self._entries.pop(id, None)
        if entry is not None:
            self._leave(id, entry)

    def pop_big(self, id: QueueId) -> str | None:
        """Forget a dead message's big file.  :return: its name, if there is one."""
        found = self.big.pop(id, None)
        if found is None:
            return None
        self.big_octets -= found[1]
        return found[0]

    def _leave(self, id: QueueId, entry: bytes) -> None:
        number, _, octets = _PLACE.unpack_from(entry)
        use = self.uses[number]
        use.live -= 1
        use.live_octets -= octets
        use.dead.add(id)
        if not use.live and use.is_sealed:
            self.has_emptied = True
        self.live_octets -= octets
