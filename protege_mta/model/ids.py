"""Names of queued messages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final, NewType

QueueId = NewType("QueueId", str)
"""26 characters of Crockford's base 32 that sort by time of arrival: 10 for the milliseconds since
1970, 16 that tell messages of one millisecond apart."""

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_SHAPE: Final = re.compile(f"[{_DIGITS}]{{26}}")
_PAIRS: Final = [a + b for a in _DIGITS for b in _DIGITS]


def _base32(number: int, digits: int) -> str:
    """``digits`` must be even: two digits are written at a time."""
    pairs = []
    for _ in range(digits // 2):
        pairs.append(_PAIRS[number & 1023])
        number >>= 10
    return "".join(reversed(pairs))


def parse(text: str) -> QueueId | None:
    """Accept what a person typed, in either case."""
    lower = text.strip().lower()
    return QueueId(lower) if _SHAPE.fullmatch(lower) else None


def first_at(at: float) -> str:
    """What sorts before every id of that time or a later one, and behind all others.

    :param at: POSIX seconds.
    """
    return _base32(max(0, round(at * 1000)), 10)


def derived(parent: QueueId, transition: str) -> QueueId:
    """The one name of what ``transition`` of ``parent`` brought forth.

    A bounce made again after a crash has the same name as the one made before it, so that there
    are never two.
    """
    digest = hashlib.blake2b(f"{parent} {transition}".encode(), digest_size=10).digest()
    return QueueId(parent[:10] + _base32(int.from_bytes(digest, "big"), 16))


class IdSource:
    """Makes ids that never repeat.

    :param now: POSIX seconds.
    :param random_octets: a source of ``n`` octets that differ at every start of the process.
    """

    def __init__(self, now: Callable[[], float], random_octets: Callable[[int], bytes]) -> None:
        self._now = now
        self._boot = _base32(int.from_bytes(random_octets(7), "big") & (2**50 - 1), 10)
        self._count = 0
        self._age = -1
        self._prefix = ""  # what the ids of this age, 17 minutes long, begin with

    def __call__(self) -> QueueId:
        ms = int(self._now() * 1000)
        age = ms >> 20
        if age != self._age:
            self._age = age
            self._prefix = _base32(age, 6)
        self._count = count = self._count + 1
        # _base32 of four and of six digits, in a third of its time.
        return QueueId(
            f"{self._prefix}{_PAIRS[ms >> 10 & 1023]}{_PAIRS[ms & 1023]}{self._boot}"
            f"{_PAIRS[count >> 20 & 1023]}{_PAIRS[count >> 10 & 1023]}{_PAIRS[count & 1023]}"
        )


class SessionIds:
    """Names for connections in the log, unlike those of the last start.

    :param random_octets: as :class:`IdSource`'s.
    """

    def __init__(self, random_octets: Callable[[int], bytes]) -> None:
        self._boot = random_octets(3).hex()
        self._count = 0

    def __call__(self) -> str:
        self._count = count = self._count + 1
        return f"{self._boot}-{count}"
