"""The delivery process: ``python -m protege_mta.deliverer``, started by the service.

It holds no state that anybody would miss.  It ends when the service says so or is gone, whatever
signals come meanwhile: those that end the service reach the whole group of its processes.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from . import child, outbound
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
from .transport.link import (
    Counted,
    Done,
    Fated,
    Job,
    Ready,
    Setup,
    encode,
    to_child,
)
from .transport.relay import SmtpTransport

SWITCH_INTERVAL_S: Final = 0.0005
"""As the service's: its threads are signatures, which should not wait for the interpreter."""


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
    """Serve the parent."""
    from twisted.internet import reactor as it

    reactor: Any = it
    fast.install(reactor)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    child.serve(reactor, lambda link: Deliverer(reactor, link.send, link.drop).received)


if __name__ == "__main__":
    main()
