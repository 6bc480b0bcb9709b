"""Whom callers have written to, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..model.address import Address
from ..model.ports import StateFailed


class MemoryContacts:
    """:class:`~..model.ports.Contacts` that keeps nothing longer than itself.

    :ivar is_broken: whether it cannot be read.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.since_at: dict[tuple[str, Address], float] = {}
        self.known: set[tuple[str, Address]] = set()
        self.is_broken = False

    def strangers(
        self, identity: str, recipients: Iterable[Address], *, is_known: bool = False
    ) -> list[Address]:
        if self.is_broken:
            raise StateFailed("gone")
        there = self.known if is_known else self.since_at
        return [one for one in recipients if (identity, one) not in there]

    def since(self, identity: str, at: float) -> int:
        return sum(who == identity and first > at for (who, _), first in self.since_at.items())

    def add(self, identity: str, recipients: Sequence[Address], *, is_known: bool) -> None:
        for one in recipients:
            self.since_at.setdefault((identity, one), self.now())
            if is_known:
                self.known.add((identity, one))
