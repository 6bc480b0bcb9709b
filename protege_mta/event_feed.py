"""The events as programs get them, put together: journal, endpoints, and webhooks in a process of
their own."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel

from . import notifier
from .child import ChildLink, Spawn, spawner
from .config.model import Settings
from .http import events as http_events
from .http.endpoint import Authenticate
from .model.webhook import Figures
from .notifier import ALIVE_S, Hooks, read_secrets
from .observe.journal import FileJournal
from .observe.segments import SegmentReader, Segments, StoredJournal
from .state.hooks import HookStore
from .transport.delegate import MOST_RESTART_S, RESTART_S
from .transport.link import Leave, Noted, Setup, encode
from .transport.poster import certificates_in
from .webhook.messages import Told, from_notifier

SILENT_S: Final = 6 * ALIVE_S
"""A child that has said nothing for so long hangs."""


def journal_of(settings: Settings, failed: Callable[[], None]) -> FileJournal:
    """The event journal, not opened yet.

    :param failed: called, in any thread, for each write or sync that failed.
    """
    segments = Segments(
        settings.journal_dir,
        now=time.time,
        failed=failed,
        keep_octets=settings.journal.keep_octets,
        keep_s=settings.journal.keep_s,
    )
    return FileJournal(settings.events_log, failed=failed, segments=segments)


class Webhooks:
    """The child that posts events, as far as the service sees it."""

    log = Logger()

    def __init__(self, spawn: Spawn, clock: IReactorTime) -> None:
        self._spawn = spawn
        self._clock = clock
        self._hooks: Hooks | None = None
        self._setup: Setup | None = None
        self._link: ChildLink | None = None
        self._is_leaving = False
        self._failures = 0  # children in a row that never got ready
        self._restart: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._closing: Deferred[None] | None = None
        self._unheeded = 0  # setups that this child has not put into force
        self._settling: list[Deferred[None]] = []
        self._figures: Sequence[Figures] = ()
        self._behind: frozenset[str] = frozenset()

    def set_up(self, hooks: Hooks) -> None:
        """Have these webhooks served, and no others.

        :raise ValueError, OSError: a file that one of them names cannot be used, or no place can be
            kept for it.
        """
        check(hooks)
        if not hooks.webhooks:
            self._setup, self._figures = None, ()
            self._leave()
            return
        store = HookStore(hooks.state_dir)
        try:
            end = SegmentReader(hooks.journal_dir).end()
            for one in hooks.webhooks:
                store.begin(one.name, end)
        finally:
            store.close()
        self._hooks = hooks
        self._setup = Setup(pickle.dumps(hooks), [])
        if self._link is None:
            if self._restart is None:
                self._start()
        elif not self._is_leaving:
            self._send_setup(self._link)

    def settled(self) -> Deferred[None]:
        """Resolves once nothing is posted any more by what was in force before :meth:`set_up`: the
        child says so, or is gone."""
        if self._link is None or not (self._unheeded or self._is_leaving):
            return succeed(None)
        settled: Deferred[None] = Deferred()
        self._settling.append(settled)
        return settled

    def figures(self) -> Sequence[Figures]:
        """How each was when the child last said so."""
        return self._figures

    def close(self) -> Deferred[None]:
        """Have the child end its requests, and go."""
        self._setup = None
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._link is None:
            return succeed(None)
        self._closing = Deferred(lambda _: self._drop())
        self._leave()
        return self._closing

    def _drop(self) -> None:
        if self._link is not None:
            self._link.drop()

    def _leave(self) -> None:
        if self._link is not None and not self._is_leaving:
            self._is_leaving = True
            self._link.send(encode(Leave()))

    def _start(self) -> None:
        self._restart = None
        if self._setup is None:
            return
        try:
            self._link = self._spawn(self._received, self._lost)
        except OSError as error:
            self.log.error("no process for webhooks can be started: {error}", error=error)
            self._start_later()
        else:
            self._silence = self._clock.callLater(SILENT_S, self._hung)
            self._send_setup(self._link)

    def _send_setup(self, link: ChildLink) -> None:
        self._unheeded += 1
        link.send(encode(self._setup))

    def _start_later(self) -> None:
        wait_s = min(MOST_RESTART_S, RESTART_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._restart = self._clock.callLater(wait_s, self._start)

    def _hung(self) -> None:
        """It has not said anything, be it stopped or caught in a loop: another one takes its place."""
        self._silence = None
        self.log.error(
            "the process for webhooks has said nothing for {seconds:.0f} s, and is killed",
            seconds=SILENT_S,
        )
        if self._link is not None:
            self._link.kill()

    def _lost(self) -> None:
        self._link = None
        self._unheeded = 0
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        was_leaving, self._is_leaving = self._is_leaving, False
        closing, self._closing = self._closing, None
        self._settle()
        if closing is not None:
            closing.callback(None)
        elif was_leaving:
            self._start()  # if there are webhooks again
        else:
            self.log.error("the process for webhooks is gone; another one goes on where it was")
            self._start_later()

    def _settle(self) -> None:
        settling, self._settling = self._settling, []
        for one in settling:
            one.callback(None)

    def _received(self, frame: bytes) -> None:
        if self._silence is not None:
            self._silence.reset(SILENT_S)
        said = from_notifier(frame)
        if isinstance(said, Told):
            self._figures = said.hooks
            self._look_behind()
        elif isinstance(said, Noted):
            Logger(said.namespace).emit(
                LogLevel.levelWithName(said.level), "{text}", text=said.text
            )
        else:
            if self._failures or not self._figures:
                self.log.info("process {pid} serves webhooks", pid=said.pid)
            self._failures = 0
            self._unheeded = max(0, self._unheeded - 1)
            if not self._unheeded and not self._is_leaving:
                self._settle()

    def _look_behind(self) -> None:
        """Say at once, and not only when its turn comes, that a webhook has events to be told of
        that are no longer kept."""
        if self._hooks is None:
            return
        reader = SegmentReader(self._hooks.journal_dir)
        behind = frozenset(
            one.name for one in self._figures if one.cursor and not reader.keeps(one.cursor)
        )
        for name in sorted(behind - self._behind):
            self.log.error(
                "webhook {name} is so far behind that events it has not had are no longer kept "
                "([journal] keep_octets and keep_s)",
                name=name,
            )
        self._behind = behind


def check(hooks: Hooks) -> None:
    """Whether webhooks can be served.

    :raise ValueError, OSError: a file that one names cannot be used.
    """
    for one in hooks.webhooks:
        read_secrets(one.secret_file)
        if one.ca_file is not None:
            certificates_in(one.ca_file)


def hooks_of(settings: Settings) -> Hooks:
    """What the process for webhooks works by."""
    return Hooks(settings.state_dir, settings.journal_dir, settings.webhooks)


class EventFeed:
    """The events as programs get them.

    :param in_thread: runs a function that blocks elsewhere.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        in_thread: Callable[[Callable[[], Any]], Deferred[Any]],
    ) -> None:
        self.journal = StoredJournal(settings.journal_dir, in_thread)
        self.webhooks = Webhooks(spawner(reactor, notifier.__name__), reactor)
        self._reactor = reactor
        self._has_started = False

    def start(self, settings: Settings) -> None:
        """Begin with webhooks, once the journal is whole.  :raise ValueError, OSError:"""
        self._has_started = True
        self.webhooks.set_up(hooks_of(settings))

    def check(self, settings: Settings) -> None:
        """Whether these settings can be put into force.  :raise ValueError, OSError:"""
        check(hooks_of(settings))

    def configure(self, settings: Settings) -> None:
        """Put settings into force, if we have started.

        :raise ValueError, OSError: as :meth:`check`, or no place can be kept for a new webhook.
        """
        if self._has_started:
            self.webhooks.set_up(hooks_of(settings))

    def add(self, app: Klein, authenticate: Authenticate) -> None:
        """Serve ``/v1/events``."""
        http_events.add(app, self.journal, authenticate, self._reactor)

    def status(self) -> list[dict[str, Any]]:
        """A row for each webhook."""
        return [msgspec.structs.asdict(one) for one in self.webhooks.figures()]
