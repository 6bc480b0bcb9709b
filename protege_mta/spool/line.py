"""The line of jobs between the reactor's thread, which puts them in, and the writer's.

What came in while the last sync ran is taken out together: that is group commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .writer import Job


class Worker(Protocol):
    is_closed: bool

    def turn(self, jobs: Sequence[Job]) -> None: ...


class Line(Protocol):
    def put(self, job: Job, *, is_lazy: bool = False) -> None:
        """Put a job in line.  Reactor's thread.

        :param is_lazy: it may wait for the next one that is not, for a while.
        """

    def close(self) -> None:
        """The worker is closed.  Reactor's thread."""


class ThreadLine:
    """A line with a thread at its other end, from construction until the worker is closed.

    The thread is woken once the reactor's turn is over: so it finds all that the turn brought, and
    does not quarrel over the interpreter with the turn itself.  Nobody wakes it for a job that is
    lazy, unless it sleeps: after each turn of its own it looks again when such a job is due.
    """

    def __init__(self, worker: Worker, lazy_s: float, in_reactor: Callable[..., object]) -> None:
        self._worker = worker
        self._lazy_s = lazy_s
        self._in_reactor = in_reactor
        self._is_ringing = False  # the reactor's thread's own
        self._jobs: deque[Job] = deque()  # appended here, popped there; both are atomic
        self._is_urgent = False  # set here, cleared there before it looks into the deque
        self._is_asleep = False  # the thread's word, before its last look, that it needs the bell
        # Held while there is nothing to do; the reactor's thread alone releases it.
        self._bell = threading.Lock()
        self._bell.acquire()
        threading.Thread(target=self._run, name="spool-writer", daemon=True).start()

    def put(self, job: Job, *, is_lazy: bool = False) -> None:
        self._jobs.append(job)
        if not is_lazy:
            self._is_urgent = True
        elif not self._is_asleep:
            return
        if not self._is_ringing:
            self._is_ringing = True
            self._in_reactor(self._ring)

    def close(self) -> None:
        """The thread sees it by itself."""

    def _ring(self) -> None:
        self._is_ringing = False
        if self._bell.locked():
            self._bell.release()

    def _run(self) -> None:
        worker, jobs, bell = self._worker, self._jobs, self._bell
        while not worker.is_closed:
            is_rung = bell.acquire(timeout=self._lazy_s)
            if not is_rung and not jobs:
                self._is_asleep = True
                if not jobs:
                    bell.acquire()
                self._is_asleep = False
                is_rung = True
            if is_rung and not self._is_urgent:
                bell.acquire(timeout=self._lazy_s)  # what is lazy waits for company
            self._is_urgent = False
            taken = []
            while jobs:
                taken.append(jobs.popleft())
            if taken:
                worker.turn(taken)


class DirectLine:
    """A line without a thread: jobs are done inside :meth:`put`, for tests and short programs."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._jobs: deque[Job] = deque()
        self._is_running = False

    def put(self, job: Job, *, is_lazy: bool = False) -> None:
        self._jobs.append(job)
        # What is put in by what a job calls is done by the loop further out.
        if is_lazy or self._is_running:
            return
        self._is_running = True
        try:
            while self._jobs:
                taken = list(self._jobs)
                self._jobs.clear()
                self._worker.turn(taken)
        finally:
            self._is_running = False

    def close(self) -> None:
        """There is nothing to let go of."""


LineMaker = Callable[[Worker, float, Callable[..., object]], Line]
