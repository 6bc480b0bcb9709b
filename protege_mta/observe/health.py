"""Whether the service can do its work: a probe that really writes and syncs.

Answers are shared: whoever asks while a probe is under way, or shortly after it, gets that one's
answer, so that health checks cost the disk one sync a second at most.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.ports import Stats

_PROBE: Final = b"written and synced by the health check\n"

Problems = Sequence[str]
"""What is wrong, for people; empty when nothing is."""

InThread = Callable[[Callable[[], None]], "Deferred[None]"]


def write_and_sync(path: Path) -> None:
    """Overwrite a small file and wait until the disk has it; blocks.  :raise OSError:"""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, _PROBE, 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


class ReactorLag:
    """How late the reactor runs what is due.

    :param clock: ticks once a second, and says how much later than that it was.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._late_s: deque[float] = deque([0.0], maxlen=15)
        self._due_at = 0.0
        self._call = LoopingCall(self._tick)
        self._call.clock = clock

    def start(self) -> None:
        self._due_at = self._clock.seconds() + 1.0
        self._call.start(1.0, now=False).addErrback(_log_failure)

    def stop(self) -> None:
        if self._call.running:
            self._call.stop()

    def worst_s(self) -> float:
        """The worst of the last quarter of a minute, in seconds."""
        return max(self._late_s)

    def _tick(self) -> None:
        now = self._clock.seconds()
        self._late_s.append(max(0.0, now - self._due_at))
        self._due_at = now + 1.0


@attrs.frozen
class HealthLimits:
    """What is still healthy.

    :ivar free_octets: the spool's floors, below which it takes nothing in;
    :ivar free_inodes: likewise.
    :ivar probe_s: how long a write and its sync may take.
    :ivar lag_s: how late the reactor may be.
    :ivar fresh_s: how long an answer is given again.
    """

    free_octets: int
    free_inodes: int
    probe_s: float = 5.0
    lag_s: float = 5.0
    fresh_s: float = 1.0


class Health:
    """One service's health.

    :param path: the file to write, in the spool's folder.
    :param in_thread: runs what blocks; its Deferred fails as that does.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        limits: HealthLimits,
        *,
        clock: IReactorTime,
        in_thread: InThread,
        stats: Callable[[], Stats],
        lag: ReactorLag,
    ) -> None:
        self._path = path
        self._limits = limits
        self._clock = clock
        self._in_thread = in_thread
        self._stats = stats
        self._lag = lag
        self._probing_since: float | None = None
        self._is_stuck = False  # the probe has outlived its time, and its thread is still busy
        self._waiting: list[Deferred[Problems]] = []
        self._answer: tuple[float, Problems] | None = None
        self._is_stopping = False

    def stopping(self) -> None:
        """From now on the answer is that we are going away."""
        self._is_stopping = True

    def check(self) -> Deferred[Problems]:
        """What is wrong now, or was a second ago.  Never fails, and answers in time even where the
        disk never does."""
        now = self._clock.seconds()
        if self._answer is not None and now - self._answer[0] < self._limits.fresh_s:
            return succeed(self._answer[1])
        waiter: Deferred[Problems] = Deferred(self._forget)
        if self._is_stuck:
            waiter.callback(self._judge(self._stuck(now)))
            return waiter
        self._waiting.append(waiter)
        if self._probing_since is None:
            self._probe(now)
        return waiter

    def _forget(self, waiter: Deferred[Problems]) -> None:
        self._waiting.remove(waiter)

    def _probe(self, now: float) -> None:
        self._probing_since = now
        timeout = self._clock.callLater(self._limits.probe_s, self._timed_out)

        def ended(problem: str | None) -> None:
            self._probing_since, self._is_stuck = None, False
            if timeout.active():
                timeout.cancel()
                self._settle(problem)

        def failed(failure: Failure) -> str:
            error = failure.value
            if isinstance(error, OSError):
                return f"cannot write to the spool's disk: {error.strerror}"
            self.log.failure("health probe failed", failure=failure)
            return "the probe failed"

        probe = self._in_thread(lambda: write_and_sync(self._path))
        probe.addErrback(failed).addCallback(ended).addErrback(_log_failure)

    def _timed_out(self) -> None:
        self._is_stuck = True
        self._settle(self._stuck(self._clock.seconds()))

    def _stuck(self, now: float) -> str:
        waited_s = 0.0 if self._probing_since is None else now - self._probing_since
        return f"a write to the spool's disk has taken {waited_s:.0f} s and has not ended"

    def _settle(self, problem: str | None) -> None:
        problems = self._judge(problem)
        self._answer = (self._clock.seconds(), problems)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(problems)

    def _judge(self, problem: str | None) -> Problems:
        stats, limits = self._stats(), self._limits
        lag_s = self._lag.worst_s()
        found = (
            (self._is_stopping, "shutting down"),
            (problem is not None, problem or ""),
            (stats.is_failed, "the spool has stopped, as its disk broke a promise"),
            (stats.is_full, "the spool's disk is full"),
            (
                stats.free_octets < limits.free_octets,
                f"{stats.free_octets} octets free, below the floor of {limits.free_octets}",
            ),
            (
                stats.free_inodes < limits.free_inodes,
                f"{stats.free_inodes} inodes free, below the floor of {limits.free_inodes}",
            ),
            (lag_s > limits.lag_s, f"the reactor was {lag_s:.1f} s late"),
        )
        return tuple(text for is_wrong, text in found if is_wrong)


def _log_failure(failure: Failure) -> None:
    Health.log.failure("bug in the health check", failure=failure)
