"""What the DNS has told us, for as long as it said that it holds (RFC 1035, 3.2.1; RFC 2308)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from ..model.ports import Answer, Found

POSITIVE_TTL_S: Final = 86_400
"""Nothing is kept longer than a day."""

NEGATIVE_TTL_S: Final = 900
"""What does not exist may come to exist: RFC 2308 allows hours, a sender waits for minutes."""

FAILURE_TTL_S: Final = 5
"""A failure is kept just long enough not to ask for each message of a burst (RFC 2308, 7)."""

_ENTRY_OCTETS: Final = 300


@attrs.frozen
class _Entry:
    answer: Answer
    expires_at: float
    size_octets: int


class Cache:
    """Answers by name and type, the least recently used going first.

    :param seconds: a clock that never jumps back.
    :param limit_octets: of all answers together, roughly.
    """

    def __init__(self, seconds: Callable[[], float], limit_octets: int = 16 * 2**20) -> None:
        self._seconds = seconds
        self._limit_octets = limit_octets
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._size_octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: tuple[str, str]) -> Answer | None:
        """What is known and still holds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        del self._entries[key]
        if entry.expires_at <= self._seconds():
            self._size_octets -= entry.size_octets
            return None
        self._entries[key] = entry  # the order of the dictionary is the order of use
        return entry.answer

    def put(self, key: tuple[str, str], answer: Answer, ttl_s: float, size_octets: int) -> None:
        """Keep an answer for ``ttl_s`` at most; a TTL of 0 is obeyed."""
        longest_s = POSITIVE_TTL_S if isinstance(answer, Found) else NEGATIVE_TTL_S
        ttl_s = min(ttl_s, longest_s)
        self._drop(key)
        if ttl_s <= 0:
            return
        entry = _Entry(answer, self._seconds() + ttl_s, _ENTRY_OCTETS + size_octets)
        self._entries[key] = entry
        self._size_octets += entry.size_octets
        while self._size_octets > self._limit_octets:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size_octets -= entry.size_octets
