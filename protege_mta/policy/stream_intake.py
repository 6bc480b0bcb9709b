"""One message as it comes through a tunnel: its line ends, its size, and an answer in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..message.line_ends import LineEnds
from ..model.ports import Intake
from ..model.reply import TABLE, Reply

LISTENER: Final = "tunnel"
"""What stands for the listener's name where a tunnel's end is a :class:`~..model.ports.Peer`."""

ANSWER_S: Final = 15.0
"""An original gateway takes 20 s without an answer for success, so that trouble of ours has to be
told before."""

_T = TypeVar("_T")


class StreamIntake:
    """An :class:`~..model.ports.Intake` in front of another one.

    What is refused is read to its end, and nothing of it kept.

    :param lines: what makes its line ends.
    :param clock: None where the sender waits for as long as it takes.
    :param came: told once that the content is here, or is given up.
    :param ended: told once how it ended, and how many octets came: what the sender is told, or None
        where there is nobody to be told.
    """

    log = Logger()

    __slots__ = (
        "_came",
        "_clock",
        "_ended",
        "_flaw",
        "_intake",
        "_lines",
        "_most_octets",
        "_size_octets",
    )

    def __init__(
        self,
        intake: Intake,
        lines: LineEnds,
        *,
        most_octets: int,
        clock: IReactorTime | None,
        ended: Callable[[Reply | None, int], None],
        came: Callable[[], None] = lambda: None,
    ) -> None:
        self._intake = intake
        self._most_octets = most_octets
        self._clock = clock
        self._came = came
        self._ended = ended
        self._lines = lines
        self._size_octets = 0
        self._flaw: Reply | None = None

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._flaw is not None:
            return None
        waiting = self._pass_on(self._lines.feed(octets))
        if waiting is None or self._clock is None:
            return waiting
        return self._in_time(waiting, None, self._stuck)

    def finish(self) -> Deferred[Reply]:
        self._came()
        waiting = None if self._flaw is not None else self._pass_on(self._lines.end())
        if self._flaw is not None:
            answer = succeed(self._flaw)
        elif waiting is None:
            answer = self._intake.finish()
        else:
            answer = waiting.addCallback(lambda _: self._intake.finish())
        if self._clock is not None:
            answer = self._in_time(answer, TABLE["spool-failed"], self._late)
        return answer.addCallbacks(self._tell, self._fail)

    def abort(self) -> None:
        self._came()
        if self._flaw is None:
            self._intake.abort()
        self._ended(None, self._size_octets)

    def _tell(self, reply: Reply) -> Reply:
        self._ended(reply, self._size_octets)
        return reply

    def _fail(self, failure: Failure) -> Failure:
        self._ended(None, self._size_octets)
        return failure

    def _pass_on(self, octets: bytes) -> Deferred[None] | None:
        self._size_octets += len(octets)
        if self._lines.has_bare_cr:
            self._refuse(TABLE["line-endings"])
        elif self._size_octets > self._most_octets:
            self._refuse(TABLE["message-too-big"])
        elif octets:
            return self._intake.write(octets)
        return None

    def _refuse(self, reply: Reply) -> None:
        self._flaw = reply
        self._intake.abort()

    # --- time ------------------------------------------------------------------------------------

    def _in_time(
        self, waiting: Deferred[_T], otherwise: _T, late: Callable[[], None]
    ) -> Deferred[_T]:
        """What it comes to, or ``otherwise`` where that takes too long; it goes on then."""
        assert self._clock is not None

        def give_up() -> None:
            late()
            answer.callback(otherwise)

        def cancel(_: Deferred[_T]) -> None:
            call.cancel()
            waiting.cancel()

        def done(result: _T | Failure) -> None:
            if call.active():
                call.cancel()
                answer.callback(result)
            elif isinstance(result, Failure) and not result.check(CancelledError):
                self.log.failure("a message that nobody waits for any more", failure=result)

        answer: Deferred[_T] = Deferred(cancel)
        call = self._clock.callLater(ANSWER_S, give_up)
        waiting.addBoth(done)
        return answer

    def _stuck(self) -> None:
        if self._flaw is None:
            self._refuse(TABLE["spool-failed"])

    def _late(self) -> None:
        self.log.error("storing a message takes so long that its sender is told to come again")
