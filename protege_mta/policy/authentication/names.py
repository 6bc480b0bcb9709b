"""What checks ask of the DNS: within their time, and never so much that others find no room."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...model.ports import Answer, Resolver, TryAgain
from .spf import Question


class Lane:
    """So many lookups at a time; others wait in line.

    :class:`~twisted.internet.defer.DeferredSemaphore` would not do: answers that are known already
    would each deepen the stack.
    """

    def __init__(self, resolver: Resolver, most: int) -> None:
        self._resolver = resolver
        self._most = most
        self._line: deque[tuple[Deferred[Answer], Question]] = deque()
        self._open: dict[Deferred[Answer], Deferred[Answer]] = {}  # lookups by who waits for them
        self._is_turning = False

    def lookup(self, question: Question) -> Deferred[Answer]:
        """As :meth:`Resolver.lookup`; may be cancelled."""
        waiter: Deferred[Answer] = Deferred(self._cancel)
        self._line.append((waiter, question))
        self._turn()
        return waiter

    def _turn(self) -> None:
        if self._is_turning:
            return
        self._is_turning = True
        try:
            while self._line and len(self._open) < self._most:
                waiter, question = self._line.popleft()
                if not waiter.called:  # not cancelled meanwhile
                    self._open[waiter] = lookup = self._resolver.lookup(*question)
                    lookup.addBoth(self._answered, waiter)
        finally:
            self._is_turning = False

    def _answered(self, answer: Answer | Failure, waiter: Deferred[Answer]) -> None:
        del self._open[waiter]
        waiter.callback(answer)
        self._turn()

    def _cancel(self, waiter: Deferred[Answer]) -> None:
        lookup = self._open.get(waiter)
        if lookup is not None:
            lookup.cancel()


class Names:
    """What one message has asked.

    :param deadline_s: what is not answered by then is not to be found out.
    :ivar known: the answers so far; read in threads too.
    """

    def __init__(self, lane: Lane, clock: IReactorTime, deadline_s: float) -> None:
        self.known: dict[Question, Answer] = {}
        self._lane = lane
        self._clock = clock
        self._ends_at = clock.seconds() + deadline_s
        self._asked: dict[Question, Deferred[None]] = {}

    def ask(self, question: Question) -> None:
        """Begin to find it out, if nobody has yet."""
        if question in self._asked:
            return
        if self.is_late():
            self._asked[question] = succeed(None)
            self.known[question] = _TOO_LATE
            return
        answer = self._lane.lookup(question)
        if not answer.called:
            rest_s = max(0.0, self._ends_at - self._clock.seconds())
            answer.addTimeout(rest_s, self._clock, onTimeoutCancel=lambda *_: _TOO_LATE)
        self._asked[question] = answer.addCallback(partial(self.known.__setitem__, question))

    def is_late(self) -> bool:
        """Whether time is up.  Any thread."""
        return self._clock.seconds() >= self._ends_at

    async def get(self, question: Question) -> Answer:
        """The answer.  One at a time may wait."""
        self.ask(question)
        await self._asked[question]
        return self.known[question]

    def close(self) -> None:
        """Want no more answers."""
        for asked in self._asked.values():
            asked.addErrback(lambda failure: failure.trap(CancelledError))
            asked.cancel()


_TOO_LATE: Final = TryAgain("no answer in time")
