"""Every entry by its message's id, and how many there are in each state."""

from __future__ import annotations

from ..model.ids import QueueId
from .entry import Entry, EntryState


class Register:
    """Knows each entry from its coming to its going.

    Nearly every message has one entry, so that a tuple is kept only for the others.

    :ivar counts: entries by state.
    """

    def __init__(self) -> None:
        self.counts: dict[EntryState, int] = {
            "scheduled": 0,
            "deferred": 0,
            "active": 0,
            "held": 0,
        }
        self._by_id: dict[QueueId, Entry | tuple[Entry, ...]] = {}

    def add(self, entry: Entry) -> None:
        """Take in an entry, held or not."""
        if entry.state != "held":
            entry.state = idle_state(entry)
        self.counts[entry.state] += 1
        present = self._by_id.setdefault(entry.id, entry)
        if present is not entry:
            self._by_id[entry.id] = (*_several(present), entry)

    def forget(self, entry: Entry) -> None:
        """The entry is gone."""
        self.counts[entry.state] -= 1
        entry.state = "gone"
        present = self._by_id[entry.id]
        if present is entry:
            del self._by_id[entry.id]
        else:
            rest = tuple([other for other in _several(present) if other is not entry])
            self._by_id[entry.id] = rest[0] if len(rest) == 1 else rest

    def change(self, entry: Entry, state: EntryState) -> None:
        counts = self.counts
        counts[entry.state] -= 1
        counts[state] += 1
        entry.state = state

    def entries(self, id: QueueId) -> tuple[Entry, ...]:
        present = self._by_id.get(id)
        return () if present is None else _several(present)

    def oldest_arrived_at(self, now: float) -> float:
        """POSIX seconds; 0 where there is nothing but what waits for its release."""
        # Mail comes in the order of its arrival, so that the first is the oldest, or nearly so.
        for present in self._by_id.values():
            arrived_at = _several(present)[0].arrived_at
            if arrived_at <= now:
                return arrived_at
        return 0.0


def idle_state(entry: Entry) -> EntryState:
    """What an entry is called that waits for its time or its turn."""
    return "deferred" if entry.attempts else "scheduled"


def _several(present: Entry | tuple[Entry, ...]) -> tuple[Entry, ...]:
    return (present,) if isinstance(present, Entry) else present
