"""Delivery by a process of its own: the service's half.

Signing and speaking to other hosts takes as much of the processor as taking mail in, and needs
nothing of the spool or the schedule.  So a child does it, on another processor: attempts go to it
over a :mod:`.link`, outcomes come back.  The scheduler stays the one that knows who is tried when,
and a site's connections are all the child's, so that limits and reuse are what they would be
without it.

The child promises nothing: what it had in hand when it was lost is tried again, as after a lost
connection.  While there is none, the service delivers by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from ..model.outcome import Outcome, Scope, TransientFailure
from ..model.ports import Attempt, Transport
from ..model.tally import Tally
from ..wire.client import our_reply
from .link import Counted, Done, Job, Leave, Noted, Setup, encode, from_child

MOST_OCTETS: Final = 131_072
"""Larger content is delivered by the service itself, block by block as the next hop takes it; so
what lies between the two processes stays small."""

RESTART_S: Final = 1.0
"""A child that is lost is replaced after so long, twice as long after each that never got ready,"""

MOST_RESTART_S: Final = 60.0
"""and so long at most."""

LOST: Final = TransientFailure(
    Scope.MESSAGE, our_reply("4.3.0", "the delivery process was lost on the way")
)

Outcomes = Sequence[tuple[int, Outcome]]


class Channel(Protocol):
    """The way to a child."""

    def send(self, frame: bytes) -> None: ...
    def drop(self) -> None: ...


Spawn = Callable[[Callable[[bytes], None], Callable[[], None]], Channel]
"""Starts a child; it gets what to do with each frame, and what when the child is gone."""


class Delegate:
    """The child, as far as the service sees it.

    :param tally: takes the child's counts.
    """

    log = Logger()

    def __init__(self, spawn: Spawn, *, clock: IReactorTime, tally: Tally) -> None:
        self._spawn = spawn
        self._clock = clock
        self._tally = tally
        self._setup: Setup | None = None
        self._channel: Channel | None = None
        self._is_ready = False
        self._failures = 0  # children in a row that never got ready
        self._restart: IDelayedCall | None = None
        self._numbers = 0
        self._jobs: dict[int, tuple[Deferred[Outcomes], tuple[int, ...]]] = {}
        self._counts = Tally()  # the present child's, when it last told them
        self._closing: Deferred[None] | None = None

    def set_up(self, setup: Setup) -> None:
        """Start a child that works by these settings, or have the one there is go by them."""
        self._setup = setup
        if self._channel is not None:
            self._channel.send(encode(setup))
        elif self._restart is None:
            self._start()

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes] | None:
        """Give an attempt to the child.

        :return: None where it cannot have it.
        """
        channel = self._channel
        if channel is None or not self._is_ready:
            return None
        recipients, message = attempt.recipients, attempt.content.message
        if len(message.envelope.recipients) > 1:
            # In the attempt's order, which need not be the envelope's: the child counts from 0.
            envelope = message.envelope
            chosen = tuple([envelope.recipients[index] for index in recipients])
            message = attrs.evolve(message, envelope=attrs.evolve(envelope, recipients=chosen))
        self._numbers = number = self._numbers + 1
        job = Job(number, attempt.site, attempt.domain, message, attempt.content.read())
        try:
            frame = encode(job)
        except UnicodeEncodeError:
            return None  # a lone surrogate in what a peer called text
        done: Deferred[Outcomes] = Deferred()
        self._jobs[number] = (done, recipients)
        channel.send(frame)
        return done

    def close(self) -> Deferred[None]:
        """Have the child end what is under way, and go."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self._setup = None
        if self._channel is None:
            return succeed(None)
        self._closing = Deferred(lambda _: self._drop())
        self._channel.send(encode(Leave()))
        return self._closing

    # --- the child -------------------------------------------------------------------------------

    def _start(self) -> None:
        self._restart = None
        if self._setup is None:
            return
        try:
            self._channel = self._spawn(self._received, self._lost)
        except OSError as error:
            self.log.error("no delivery process can be started: {error}", error=error)
            self._start_later()
        else:
            self._channel.send(encode(self._setup))

    def _start_later(self) -> None:
        wait_s = min(MOST_RESTART_S, RESTART_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._restart = self._clock.callLater(wait_s, self._start)

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.drop()

    def _lost(self) -> None:
        self._channel, self._is_ready = None, False
        gone, self._counts = self._counts, Tally()
        self._tally.connections_out_open -= gone.connections_out_open
        jobs, self._jobs = self._jobs, {}
        closing, self._closing = self._closing, None
        if closing is None:
            self.log.error(
                "the delivery process is gone; {count} deliveries are tried again", count=len(jobs)
            )
            self._start_later()
        for done, recipients in jobs.values():
            done.callback([(index, LOST) for index in recipients])
        if closing is not None:
            closing.callback(None)

    def _received(self, frame: bytes) -> None:
        said = from_child(frame)
        if isinstance(said, Done):
            self._done(said)
        elif isinstance(said, Counted):
            self._tally.add_out(said.tally, self._counts)
            self._counts = said.tally
        elif isinstance(said, Noted):
            log = Logger(said.namespace)
            log.emit(LogLevel.levelWithName(said.level), "{text}", text=said.text)
        else:
            if not self._is_ready:
                self.log.info("process {pid} delivers", pid=said.pid)
            self._is_ready, self._failures = True, 0

    def _done(self, said: Done) -> None:
        done, recipients = self._jobs.pop(said.number)
        done.callback([(recipients[one.index], one.outcome) for one in said.outcomes])


class DelegatedTransport:
    """:class:`~..model.ports.Transport` that has the child do what it can have.

    :param own: does the rest.
    """

    def __init__(self, delegate: Delegate, own: Transport) -> None:
        self._delegate = delegate
        self._own = own

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        if attempt.content.size_octets <= MOST_OCTETS:
            delivering = self._delegate.deliver(attempt)
            if delivering is not None:
                return delivering
        return self._own.deliver(attempt)

    def close(self) -> Deferred[None]:
        """The child's connections are the delegate's to close."""
        return self._own.close()
