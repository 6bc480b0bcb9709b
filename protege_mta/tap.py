"""How the service starts and stops: twistd's plugin, and ``protege-mta run``.

The order is twistd's: :func:`makeService` only parses, since twistd forks after it; sockets are
bound while we may still be root; the spool is opened, and everything begins, after fork and setuid.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python import usage
from twisted.python.failure import Failure

from . import steady
from .cli.faults import Fault, shown
from .cli.options import find_config, of_project
from .compose import House
from .config.embedded import embedded
from .config.environment import data_folder, log_level, with_environment
from .config.listeners import HttpListener
from .config.model import Settings
from .config.sockets import address_of
from .config.source import load
from .config.toml import ConfigError
from .model.ports import SpoolLocked
from .recovery import recover
from .spool.lock import ForeignOwner, check_owner
from .transport import fast
from .transport.control import ControlFactory, ControlFault
from .transport.listening import (
    BoundSocket,
    CannotBind,
    bind,
    first_environ,
    inherited,
    matching,
    tell_systemd,
)
from .transport.submit import SubmitFactory, SubmitLimits
from .transport.unix import SocketTaken, claim, endpoint

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread keeps the interpreter from another; the spool's writer waits for it after each
sync, and Python's own 5 ms would be ten times the sync itself."""

CLOSE_S: Final = 5.0
"""How long connections to other hosts get for their QUIT."""


class CannotStart(Exception):
    """Why there is no service, in words for whoever started it."""


class Options(usage.Options):
    """Options of ``twistd protege-mta``."""

    synopsis = "[--config FILE | --project DIR]"
    longdesc = (
        "--project names the folder of a Protege project, whose own files are the configuration: "
        "configs/gateway.json, configs/security.json, configs/system.json and personas. "
        "Without either the file is $PROTEGE_MTA_CONFIG, ./protege-mta.toml or "
        "/etc/protege-mta/protege-mta.toml; without any, an embedded default serves "
        "localhost.test on 127.0.0.1:2525 and 2587 with its data in ./protege-mta-data."
    )
    optParameters = [  # noqa: RUF012
        ["config", "c", None, "The configuration (TOML)."],
        ["project", "p", None, "The folder of a Protege project, in place of --config."],
    ]

    settings: Settings

    def postOptions(self) -> None:
        given, project = self["config"], self["project"]
        config = Path(given) if given else None
        try:
            self.settings = read_settings(of_project(Path(project), config) if project else config)
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(os.EX_CONFIG)
        except Fault as fault:
            sys.stderr.write(shown(fault))
            sys.exit(fault.exit_code)


def read_settings(given: Path | None) -> Settings:
    """The configuration that a start without more words means.

    :raise ConfigError: with every complaint.  :raise Fault: a file was named that is not there.
    """
    path = find_config(given)
    settings = embedded(data_folder(os.environ)) if path is None else load(path)
    return with_environment(settings, os.environ)


def makeService(options: Options) -> MailService:
    """What twistd calls."""
    from twisted.internet import reactor

    sys.excepthook = _tell_why
    return MailService(reactor, options.settings)


def _tell_why(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """twistd lets what keeps a service from starting pass, as a bug of ours would, after it has
    told its parent and removed its pid file; an operator needs the reason and no traceback.

    It has sent stderr to the log by now.
    """
    if not isinstance(error, CannotStart):
        sys.__excepthook__(kind, error, traceback)
        return
    text = f"protege-mta: {error}\n"
    sys.stderr.write(text)
    if sys.__stderr__ is not None:
        sys.__stderr__.write(text)


@contextmanager
def _reasons() -> Iterator[None]:
    """What the machine or another process is in the way with becomes :class:`CannotStart`."""
    try:
        yield
    except (CannotBind, ForeignOwner, SpoolLocked, SocketTaken, OSError, ValueError) as error:
        raise CannotStart(str(error)) from error


class MailService(Service):
    """The whole of it.

    :param ready: called once everything listens.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, settings: Settings, ready: Callable[[], None] = lambda: None
    ) -> None:
        self.setName("protege-mta")
        self._reactor = reactor
        self._settings = settings
        self._ready = ready
        self._sockets: list[BoundSocket] = []
        self._ports: list[IListeningPort] = []
        self._given = inherited(first_environ(), os.getpid())
        self._control: ControlFactory | None = None
        self._house: House | None = None

    # --- start -----------------------------------------------------------------------------------

    @_reasons()
    def privilegedStartService(self) -> None:
        """Bind, so that nobody else can; accept nothing yet.

        :raise CannotStart:
        """
        super().privilegedStartService()
        for listener in self._settings.listeners:
            found = matching(self._given, listener.name, listener.address, listener.port)
            if found is None:
                found = bind(listener.name, listener.address, listener.port)
            self._sockets.append(found)
        for left_over in self._given:
            self.log.warn("systemd gave us a socket that no listener is named after")
            left_over.close()

    @_reasons()
    def startService(self) -> None:
        """Lock and recover the spool, then open the doors.

        :raise CannotStart:
        """
        settings = self._settings
        if settings.source is not None and settings.source.is_dir():
            check_owner(settings.source)  # what we would leave in a project, its owner must manage
        settings.state_dir.mkdir(0o700, parents=True, exist_ok=True)
        if not settings.run_dir.is_dir():
            settings.run_dir.mkdir(parents=True)
            # Whatever the umask, which is 077 with twistd: everybody may come to submit.sock.
            settings.run_dir.chmod(0o755)
        for path in (settings.control_socket, settings.submit_socket):
            claim(Path(address_of(path)))
        fast.install(self._reactor)
        steady.install(self._reactor)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._reactor.suggestThreadPoolSize(16)
        house = self._house = House(self._reactor, settings)
        self.log.info("{count} messages were in the queue", count=recover(house))
        house.register.start()
        house.requests.start()
        house.relay_server.start()
        house.feed.start(settings)
        house.message_log.start()
        house.lag.start()
        house.listeners.certificates.start()
        self._listen(house)
        self._listen_locally(house)
        if house.delegate is not None:
            house.delegate.set_up(house.delegated())
        house.gateway.start()
        signal.signal(signal.SIGHUP, self._hangup)
        gc.collect()
        gc.freeze()  # what lives from here to the end is never looked through again
        super().startService()
        # Not before the reactor answers signals: until then SIGTERM would end us without a drain.
        self._reactor.callWhenRunning(self._tell_ready)

    def _tell_ready(self) -> None:
        tell_systemd(os.environ, f"READY=1\nMAINPID={os.getpid()}")
        self._ready()

    def _listen(self, house: House) -> None:
        names = {listener.name: listener for listener in self._settings.listeners}
        ports: dict[str, int] = {}
        for bound in self._sockets:
            listener = names[bound.name]
            factory = (
                house.listeners.serve_http(listener)
                if isinstance(listener, HttpListener)
                else house.listeners.serve_smtp(listener)
            )
            address, port = bound.address
            house.own.add(address, port)
            ports[bound.name] = port
            self._ports.append(bound.accept(self._reactor, factory))
            self.log.info(
                "{kind} on {address} port {port}", kind=listener.kind, address=address, port=port
            )
        self._sockets.clear()
        path = self._settings.state_dir / "ports.json"
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(ports) + "\n", "utf-8")
        fresh.replace(path)

    def _listen_locally(self, house: House) -> None:
        settings, reactor = self._settings, self._reactor
        handlers = {**house.clerk(self._reload).handlers(), **house.relay_server.handlers()}
        self._control = ControlFactory(handlers, reactor)
        submit = SubmitFactory(
            house.entrance.submission,
            domain=settings.hostname,
            limits=SubmitLimits(settings.limits.message_octets),
            clock=reactor,
        )
        doors = (
            (settings.control_socket, self._control, False),
            (settings.submit_socket, submit, True),
        )
        for path, factory, is_public in doors:
            listening = endpoint(reactor, Path(address_of(path)), is_public=is_public).listen(
                factory
            )
            listening.addCallbacks(self._ports.append, self._not_listening)

    def _not_listening(self, failure: Failure) -> None:
        self.log.failure("a local socket is not there", failure=failure)

    # --- reload ----------------------------------------------------------------------------------

    def _hangup(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload_or_log)

    def _reload_or_log(self) -> None:
        maybeDeferred(self._reload).addErrback(lambda failure: failure.trap(ControlFault))

    async def _reload(self) -> None:
        """Read the configuration again; what cannot be used changes nothing.  Done once no event is
        posted by the old one any more.

        :raise ControlFault: why it cannot.
        """
        house = self._house
        if house is None:
            return
        tell_systemd(os.environ, "RELOADING=1")
        try:
            house.journal.reopen()
            source = self._settings.source
            if source is not None:
                house.configure(with_environment(load(source), os.environ))
                await house.feed.webhooks.settled()
        except (ConfigError, ValueError, OSError) as error:
            self.log.error("the configuration stays as it was: {error}", error=error)
            raise ControlFault("usage", str(error)) from error
        finally:
            tell_systemd(os.environ, "READY=1")
        self.log.info("configuration read again")

    # --- stop ------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Accept nothing more, let transfers end for ``drain_s``, close the spool."""
        super().stopService()
        tell_systemd(os.environ, "STOPPING=1")
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        house = self._house
        for bound in self._sockets:
            bound.close()
        if house is None:
            return
        house.health.stopping()
        if self._control is not None:
            self._control.close()
        await self._within(CLOSE_S, [maybeDeferred(port.stopListening) for port in self._ports])
        transfers = [factory.drain() for factory in house.listeners.smtp.values()]
        transfers.append(house.relay_server.drain(house.settings.drain_s / 2))
        transfers.append(house.scheduler.stop())
        await self._within(house.settings.drain_s, transfers)
        for factory in house.listeners.smtp.values():
            factory.abort()
        closing: list[Deferred[Any]] = [one.close() for one in house.transports.values()]
        closing.append(house.gateway.stop())
        closing.append(house.feed.webhooks.close())
        if house.delegate is not None:
            closing.append(house.delegate.close())
        await self._within(CLOSE_S, closing)
        last: tuple[Callable[[], object], ...] = (
            house.resolver.close,
            house.lag.stop,
            house.message_log.close,
            house.listeners.certificates.stop,
            house.relay_server.stop,
            house.register.stop,
            house.requests.stop,
            house.enrolment.leave,
            house.spool.close,
            house.database.close,  # what came last into the spool is still remembered here
            house.journal.close,
            house.signers.stop,
            house.strangers.stop,
        )
        for close in last:
            await maybeDeferred(close).addErrback(self._not_closed)
        self.log.info("stopped")

    def _not_closed(self, failure: Failure) -> None:
        """Whatever is wrong with one part, the others are closed as they should be."""
        self.log.failure("a part of the service does not stop well", failure=failure)

    async def _within(self, seconds: float, ending: Sequence[Deferred[Any]]) -> None:
        """Wait for all of these, but not for ever."""
        for one in ending:
            one.addErrback(self._not_closed)
        together = DeferredList(ending)
        together.addTimeout(seconds, self._reactor, lambda result, waited: None)
        await together


def run_foreground(settings: Settings, ready: Callable[[], None]) -> int:
    """The service in this process, until a signal ends it.

    :param ready: called once everything listens.
    :return: the exit status.
    :raise CannotStart: with the reason.
    :raise ConfigError: the environment wants a level of logging that there is not.
    """
    from twisted.internet import reactor

    level = LogLevel.levelWithName(log_level(os.environ))
    observer = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(level)]
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    service = MailService(reactor, settings, ready)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return os.EX_OK
