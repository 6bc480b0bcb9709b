"""What the service's child processes have in common: how they are started, and how they log.

A child inherits one end of a socket pair and talks over it (:mod:`.transport.link`).  It ends when
the service says so or is gone, whatever signals come meanwhile: those that end the service reach
the whole group of its processes.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, globalLogBeginner
from twisted.python.threadable import isInIOThread
from zope.interface import provider

from . import steady
from .transport.link import Link, Noted, encode, pair

LINK_FD: Final = 3
"""Where a child finds its end of the link."""

Received = Callable[[bytes], None]


class ChildLink(Link):
    """Our end of the link to a child.  :ivar process: the child's, once it has been started."""

    process: IProcessTransport | None = None

    def kill(self) -> None:
        """End it for good, whatever it is doing."""
        if self.process is not None:
            try:
                self.process.signalProcess("KILL")
            except ProcessExitedAlready:
                return  # the link's end says so too


Spawn = Callable[[Received, Callable[[], None]], ChildLink]


class _Child(ProcessProtocol):
    """Nothing comes by its pipes, of which there are none, and its end shows in the link's."""


def spawner(reactor: Any, module: str, environment: dict[str, str] | None = None) -> Spawn:
    """What starts children that run a module; see :data:`.transport.delegate.Spawn`.

    :param environment: theirs; None for ours.
    """

    def spawn(received: Received, lost: Callable[[], None]) -> ChildLink:
        ours, theirs = pair()
        with theirs, open(os.devnull, "rb") as nothing:
            try:
                process = reactor.spawnProcess(
                    _Child(),
                    sys.executable,
                    [sys.executable, "-m", module],
                    env=environment,
                    childFDs={0: nothing.fileno(), 1: 1, 2: 2, LINK_FD: theirs.fileno()},
                )
            except BaseException:
                ours.close()
                raise
        link = ChildLink(reactor, ours, received, lost)
        link.process = process
        return link

    return spawn


def serve(reactor: Any, make: Callable[[Link], Received]) -> None:
    """Serve the parent that has put its link at :data:`LINK_FD`, by a clock that nobody sets.

    :param make: gets the link, and gives what takes the parent's frames.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    steady.install(reactor)

    def gone() -> None:
        # Not a moment later: whoever takes the service's place may be doing the same work.
        os._exit(os.EX_OK)

    end = socket.socket(fileno=LINK_FD)
    link = Link(reactor, end, lambda frame: received(frame), gone)
    received = make(link)
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
