"""The delivery process: ``python -m protege_mta.deliverer``, started by the service.

It holds no state that anybody would miss.  It ends when the service says so or is gone, whatever
signals come meanwhile: those that end the service reach the whole group of its processes.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, eventAsText, globalLogBeginner
from twisted.python.threadable import isInIOThread
from zope.interface import provider

from . import outbound
from .config.model import Settings
from .model.hop import HopKind
from .model.outcome import Outcome
from .model.ports import Attempt
from .model.tally import Tally
from .routing.networks import OwnListeners
from .schedule.prepare import Preparer
from .spool.content import MemoryContent
from .transport import fast
from .transport.addresses import is_local
from .transport.delegate import Channel
from .transport.link import (
    Counted,
    Done,
    Fated,
    Job,
    Link,
    Noted,
    Ready,
    Setup,
    encode,
    pair,
    to_child,
)
from .transport.relay import SmtpTransport

LINK_FD: Final = 3
"""Where a child finds its end of the link."""

SWITCH_INTERVAL_S: Final = 0.0005
"""As the service's: its threads are signatures, which should not wait for the interpreter."""


# --- the service's half --------------------------------------------------------------------------


class _Child(ProcessProtocol):
    """Nothing comes by its pipes, of which there are none, and its end shows in the link's."""


def spawner(reactor: Any) -> Callable[[Callable[[bytes], None], Callable[[], None]], Channel]:
    """What starts delivery processes; see :data:`.transport.delegate.Spawn`."""

    def spawn(received: Callable[[bytes], None], lost: Callable[[], None]) -> Channel:
        ours, theirs = pair()
        with theirs, open(os.devnull, "rb") as nothing:
            try:
                reactor.spawnProcess(
                    _Child(),
                    sys.executable,
                    [sys.executable, "-m", __name__],
                    env=None,  # ours
                    childFDs={0: nothing.fileno(), 1: 1, 2: 2, LINK_FD: theirs.fileno()},
                )
            except BaseException:
                ours.close()
                raise
        return Link(reactor, ours, received, lost)

    return spawn


# --- the child's half ----------------------------------------------------------------------------


class Deliverer:
    """Carries out jobs, each as it comes.

    :param send: takes frames for the service.
    :param left: called when there is no more to do: after a goodbye, once everything has ended that
        was under way.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, send: Callable[[bytes], None], left: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._send = send
        self._left = left
        self._tally = Tally()
        self._crew = outbound.signer_crew(reactor)
        self._transports: dict[HopKind, SmtpTransport] = {}
        self._preparer: Preparer
        self._is_counting = False

    def received(self, frame: bytes) -> None:
        """The service said something."""
        said = to_child(frame)
        if isinstance(said, Job):
            self._deliver(said)
        elif isinstance(said, Setup):
            self._set_up(said)
        else:
            self._close().addCallback(lambda _: self._left())

    def _set_up(self, setup: Setup) -> None:
        settings: Settings = pickle.loads(setup.settings)  # from our own parent alone
        own = OwnListeners(is_local)
        for address, port in setup.own:
            own.add(address, port)
        try:
            signers = outbound.signers(settings)
            transports = outbound.transports(self._reactor, settings, own=own, tally=self._tally)
        except (ValueError, OSError) as error:
            # The service could read them a moment ago; the next child will try again.
            self.log.error("a key or password cannot be read: {error}", error=error)
            self._left()
            return
        self._preparer = Preparer(signers, self._crew)
        old = list(self._transports.values())
        self._transports = transports
        for transport in old:
            transport.close()
        self._send(encode(Ready(os.getpid())))

    def _deliver(self, job: Job) -> None:
        message = job.message
        content = MemoryContent(message, (job.octets,))
        recipients = tuple(range(len(message.envelope.recipients)))
        prepare = self._preparer.of(content, recipients)
        attempt = Attempt(job.site, job.domain, content, recipients, prepare)
        self._transports[job.site.kind].deliver(attempt).addCallback(self._ended, job.number)

    def _ended(self, outcomes: Sequence[tuple[int, Outcome]], number: int) -> None:
        fated = [Fated.of(index, outcome) for index, outcome in outcomes]
        self._send(encode(Done(number, fated)))
        if not self._is_counting:
            self._is_counting = True
            self._reactor.callLater(0, self._count)

    def _count(self) -> None:
        """At the end of a turn, for all that it brought."""
        self._is_counting = False
        self._send(encode(Counted(self._tally)))

    def _close(self) -> Deferred[Any]:
        closing = gatherResults([one.close() for one in self._transports.values()])
        return closing.addCallback(lambda _: self._crew.stop())


def main() -> None:
    """Serve the parent that has put its link at :data:`LINK_FD`."""
    from twisted.internet import reactor as it

    reactor: Any = it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    fast.install(reactor)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    def gone() -> None:
        # Not a moment later: whoever takes the service's place may be sending the same mail.
        os._exit(os.EX_OK)

    end = socket.socket(fileno=LINK_FD)
    link = Link(reactor, end, lambda frame: deliverer.received(frame), gone)
    deliverer = Deliverer(reactor, link.send, link.drop)
    globalLogBeginner.beginLoggingTo([_teller(reactor, link)], redirectStandardIO=False)
    gc.collect()
    gc.freeze()
    reactor.run(installSignalHandlers=False)


def _teller(reactor: Any, link: Link) -> ILogObserver:
    """Has the service log it."""

    @provider(ILogObserver)
    def tell(event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < LogLevel.info:
            return
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        frame = encode(Noted(level.name, event.get("log_namespace", __name__), text))
        if isInIOThread():
            link.send(frame)
        else:
            reactor.callFromThread(link.send, frame)

    return cast(ILogObserver, tell)


if __name__ == "__main__":
    main()
