"""Questions to the DNS that are under way while a client goes on talking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import Answer, Resolver


class Lookups:
    """All that was asked for one client; who has to know waits for the whole.

    Whoever waits may cancel that, and whoever owns this has to close it.
    """

    log = Logger()

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._open: set[Deferred[Answer]] = set()
        self._waiting: Deferred[None] | None = None

    def ask(
        self, name: str, kind: Literal["A", "AAAA", "MX"], heard: Callable[[Answer], None]
    ) -> None:
        """Ask, and have ``heard`` called with the answer, perhaps before this returns."""
        lookup = self._resolver.lookup(name, kind)
        self._open.add(lookup)
        answered = lookup.addCallback(heard).addErrback(self._failed)
        answered.addCallback(lambda _: self._done(lookup))

    def wait(self) -> Deferred[None] | None:
        """What fires once nothing is under way; None where that is so already.  One at a time."""
        if not self._open:
            return None
        self._waiting = Deferred(self._forget)
        return self._waiting

    def close(self) -> None:
        """Want no more answers."""
        for lookup in tuple(self._open):
            lookup.cancel()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self.log.failure("an answer of the DNS could not be used", failure)

    def _done(self, lookup: Deferred[Answer]) -> None:
        self._open.discard(lookup)
        if not self._open and self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting = None
