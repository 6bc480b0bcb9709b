"""The process that posts events to webhooks: ``python -m protege_mta.notifier``, started by the
service.

It reads the journal's files and keeps places and dead letters of its own, so that no endpoint is
anything to those who carry mail; and it is nicer than they are.  What it had in hand when it was
lost is sent again.
"""

from __future__ import annotations

import os
import pickle
import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from . import __version__, child
from .config.http import Webhook
from .model.ports import StateFailed
from .model.webhook import Figures, secrets_of
from .observe.segments import StoredJournal
from .state.hooks import HookStore
from .transport.link import Leave, Ready, Setup, encode, to_child
from .transport.poster import Answered, Poster, Unanswered
from .webhook.consumer import Consumer, Post, Wanted
from .webhook.messages import Told
from .wire.webhook import signed

NICENESS: Final = 10

LOOK_S: Final = 0.5
"""How often we look for what the command line has changed."""

TELL_S: Final = 1.0

ALIVE_S: Final = 5.0
"""We say something at least so often, as long as we can."""

END_S: Final = 3.0
"""How long requests that are under way have when we are to go."""


@attrs.frozen
class Hooks:
    """What a :class:`~.transport.link.Setup` has for us."""

    state_dir: Path
    journal_dir: Path
    webhooks: tuple[Webhook, ...]


def poster(reactor: Any, webhook: Webhook) -> Poster:
    """What makes a webhook's requests.  :raise ValueError, OSError: of its ``ca_file``."""
    return Poster(
        reactor,
        webhook.url,
        timeout_s=webhook.timeout_s,
        ca_file=webhook.ca_file,
        agent=f"protege-mta/{__version__}",
    )


def posting(webhook: Webhook, poster: Poster, now: Callable[[], float]) -> Post:
    """Signs and posts.  :raise ValueError, OSError: of its ``secret_file``."""
    keys = read_secrets(webhook.secret_file)

    def post(id: str, body: bytes) -> Deferred[Answered | Unanswered]:
        return poster.post(body, signed(keys, id, int(now()), (body,)))

    return post


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets in a file.  :raise ValueError, OSError: it names the file."""
    try:
        return secrets_of(path.read_text("ascii"))
    except ValueError as error:
        # A UnicodeDecodeError tells octets of the secret.
        text = "it is not ASCII" if isinstance(error, UnicodeError) else str(error)
        raise ValueError(f"{path}: {text}") from None


class Notifier:
    """All webhooks.

    :param send: takes frames for the service.
    :param left: called when there is no more to do.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, send: Callable[[bytes], None], left: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._send = send
        self._left = left
        self._rng = random.Random(secrets.randbits(64))
        self._store: HookStore | None = None
        self._generation = 0
        self._consumers: dict[str, Consumer] = {}
        self._posters: list[Poster] = []
        self._changing: Deferred[Any] = succeed(None)
        self._told: dict[str, Figures] = {}

    def received(self, frame: bytes) -> None:
        """The service said something."""
        said = to_child(frame)
        if isinstance(said, Setup):
            hooks: Hooks = pickle.loads(said.settings)  # from our own parent alone
            self._then(partial(self._change, hooks))
        elif isinstance(said, Leave):
            self._then(self._leave)

    def _then(self, work: Callable[[], Any]) -> None:
        """One change after another."""
        self._changing.addCallback(lambda _: Deferred.fromCoroutine(work()))
        self._changing.addErrback(self._broken)

    def _broken(self, failure: Any) -> None:
        self.log.failure("webhooks cannot go on", failure=failure)
        self._left()  # the service starts another one

    async def _change(self, hooks: Hooks) -> None:
        if self._store is None:
            self._store = HookStore(hooks.state_dir)
            self._look()
            self._tell()
            self._be_alive()
        await self._stop()
        journal = StoredJournal(hooks.journal_dir, self._in_thread)
        for webhook in hooks.webhooks:
            try:
                self._start(webhook, journal, self._store)
            except (ValueError, OSError) as error:
                # The service could read it a moment ago.
                self.log.error("webhook {name}: {error}", name=webhook.name, error=error)
        self._send(encode(Ready(os.getpid())))

    def _start(self, webhook: Webhook, journal: StoredJournal, store: HookStore) -> None:
        post_by = poster(self._reactor, webhook)
        consumer = Consumer(
            webhook.name,
            Wanted(events=frozenset(webhook.events), tenant=webhook.tenant, batch=webhook.batch),
            journal=journal,
            count=journal.count,
            store=store,
            post=posting(webhook, post_by, time.time),
            clock=self._reactor,
            now=time.time,
            rng=self._rng,
        )
        self._posters.append(post_by)
        self._consumers[webhook.name] = consumer
        consumer.start()

    async def _stop(self) -> None:
        consumers, self._consumers = self._consumers, {}
        posters, self._posters = self._posters, []
        ending = [consumer.stop() for consumer in consumers.values()]
        if ending:
            together = DeferredList(ending)
            together.addTimeout(END_S, self._reactor, lambda result, seconds: None)
            await together
        for one in posters:
            await one.close()

    async def _leave(self) -> None:
        await self._stop()
        if self._store is not None:
            self._store.close()
        self._left()

    # --- now and then ----------------------------------------------------------------------------

    def _look(self) -> None:
        if self._store is None:
            return
        self._reactor.callLater(LOOK_S, self._look)
        try:
            generation = self._store.generation()
            if generation != self._generation:
                self._generation = generation
                for consumer in self._consumers.values():
                    consumer.look()
        except StateFailed as error:
            self.log.error("webhooks: {error}", error=error)

    def _tell(self) -> None:
        counting = [Deferred.fromCoroutine(one.count()) for one in self._consumers.values()]
        for one in counting:
            one.addErrback(self._not_counted)
        DeferredList(counting).addCallback(self._counted)

    def _not_counted(self, failure: Any) -> None:
        self.log.failure("events cannot be counted", failure=failure)

    def _counted(self, _: object) -> None:
        self._reactor.callLater(TELL_S, self._tell)
        store = self._store
        if store is None:
            return
        try:
            told = {name: one.figures() for name, one in self._consumers.items()}
            for name, figures in told.items():
                if figures != self._told.get(name):
                    store.tell(name, time.time(), msgspec.json.encode(figures).decode())
        except StateFailed as error:
            self.log.error("webhooks: {error}", error=error)
            return
        if told != self._told:
            self._told = told
            self._say()

    def _say(self) -> None:
        """How it was when we last could find out, which nothing that is slow here holds up."""
        self._send(encode(Told(list(self._told.values()))))

    def _be_alive(self) -> None:
        self._reactor.callLater(ALIVE_S, self._be_alive)
        self._say()

    def _in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)


def main() -> None:
    """Serve the parent."""
    from twisted.internet import reactor as it

    reactor: Any = it
    os.nice(NICENESS)
    child.serve(reactor, lambda link: Notifier(reactor, link.send, link.drop).received)


if __name__ == "__main__":
    main()
