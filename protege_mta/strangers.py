"""What is asked about mail of clients that may not relay: who they are, and who it is from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import from_settings
from .config.listeners import SmtpListener
from .config.model import Settings
from .config.policy import Policy
from .model.envelope import Envelope, Origin
from .model.ports import Arrival, Events, Peer, Resolver
from .model.reply import Reply
from .observe.metrics import Counts
from .policy.dns_lists import DnsLists
from .policy.door import Begin
from .policy.greylist import Greylist
from .policy.guard import Guard
from .policy.verified import Verification
from .transport.crew import Crew

if TYPE_CHECKING:
    from .policy.authentication.checks import SenderChecks


class Strangers:
    """:param accept: opens the way for their messages, once all has been asked.
    :param chance: even numbers from 0 to below 1.
    :ivar guard: asks about clients; None where there is nothing to ask.
    :ivar begin: opens the way for their messages; whom they are from is asked there.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        resolver: Resolver,
        events: Events,
        counts: Counts,
        accept: Callable[[Peer, Envelope, Origin], Arrival | Reply],
        chance: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._events = events
        self._counts = counts
        self._accept = accept
        self._greylist = Greylist(from_settings.greylist(settings), time.monotonic)
        self._chance = chance
        self._crew = Crew(2, reactor.callFromThread, "authentication")
        self._checks: SenderChecks | None = None
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Put settings into force; :attr:`guard` and :attr:`begin` are others then."""
        self._greylist.settings = from_settings.greylist(settings)
        self.guard = self._new_guard(settings.policy)
        self.begin: Begin = self._accept
        if settings.policy.authenticate and _has_strangers(settings):
            self._checks = checks = self._checks or self._new_checks(settings.hostname)
            checks.hostname = settings.hostname
            self.begin = Verification(
                checks,
                self._events,
                self._accept,
                hostname=settings.hostname,
                actions=from_settings.actions(settings),
            ).begin

    def _new_checks(self, hostname: str) -> SenderChecks:
        # What knows SPF and DKIM takes a tenth of a second to import.
        from .policy.authentication.checks import SenderChecks
        from .policy.authentication.organisation import organisation

        return SenderChecks(
            self._resolver,
            hostname=hostname,
            clock=self._reactor,
            now=time.time,
            chance=self._chance,
            in_thread=self._crew,
            organisation=organisation,
            counted=self._counts.authenticated,
            skipped=self._counts.authentication_skipped,
        )

    def _new_guard(self, policy: Policy) -> Guard | None:
        lists = from_settings.dns_lists(policy)
        has_greylist = policy.greylist.enabled
        if not (lists or has_greylist or policy.helo != "off"):
            return None
        return Guard(
            self._resolver,
            self._reactor,
            helo=policy.helo,
            lists=DnsLists(lists, self._counts.dns_list_answered) if lists else None,
            greylist=self._greylist if has_greylist else None,
        )

    def stop(self) -> None:
        """Let the threads end."""
        self._crew.stop()


def _has_strangers(settings: Settings) -> bool:
    return any(isinstance(listener, SmtpListener) for listener in settings.listeners)
