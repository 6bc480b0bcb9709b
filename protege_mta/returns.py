"""What comes back of sent mail, put together: classes of failures, the suppression list, signed
return paths and what is sent to them, links to unsubscribe."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

from klein import Klein

from .config.bounce_rules import classifier
from .config.model import Settings
from .http import suppressions, unsubscribe
from .http.endpoint import Authenticate
from .http.reading import ReadLimits
from .model.address import NULL, Address, domain_of
from .model.bounce_class import Classify
from .model.domain import ascii_domain
from .model.envelope import Message
from .model.hop import HopKind
from .model.ids import QueueId
from .model.ports import Spool
from .model.return_path import ReturnPaths, Subscription, UnsubscribeLinks
from .model.suppression import of_address
from .observe.events import EventLines
from .policy.buckets import Buckets
from .policy.returned import Forward, ReturnsTransport
from .policy.suppression import Suppression
from .state.database import Database
from .state.sent import SentMessages
from .state.suppression import StoredSuppressions

_SOURCES: Final = frozenset(("http", "submission"))
_KINDS: Final[frozenset[HopKind]] = frozenset(("mx", "smarthost"))


LINKS_PER_MINUTE: Final = 60
"""So often a client may come with what is no link to unsubscribe."""


class Returns:
    """The parts.

    :param is_own: whether an address is at a domain of ours.
    :param has_mailbox: whether there is such a mailbox.
    :param forward: as :class:`~.policy.returned.ReturnsTransport` has it.
    :ivar paths: like ``links`` there once it has been started.
    """

    paths: ReturnPaths
    links: UnsubscribeLinks

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        spool: Spool,
        events: EventLines,
        is_own: Callable[[Address], bool],
        has_mailbox: Callable[[Address], bool],
        forward: Forward,
    ) -> None:
        self._database = database
        self._spool = spool
        self._events = events
        self._is_own = is_own
        self._has_mailbox = has_mailbox
        self._forward = forward
        self._has_verp = False
        self._links_asked = Buckets(time.monotonic, LINKS_PER_MINUTE)
        self.suppressions = StoredSuppressions(database, time.time)
        self.sent = SentMessages(database, time.time)
        classify = classifier(settings.bounces.rules)
        self.suppression = Suppression(
            self.suppressions,
            is_own=is_own,
            now=time.time,
            classify=classify,
            hard_bounce_s=settings.bounces.hard_bounce_s,
        )
        self.configure(settings, classify)

    def configure(self, settings: Settings, classify: Classify) -> None:
        """Put settings into force."""
        self._events.classify = self.suppression.classify = classify
        self.suppression.hard_bounce_s = settings.bounces.hard_bounce_s
        self._has_verp = settings.bounces.verp
        self._report_addresses = frozenset(map(of_address, settings.bounces.report_addresses))
        self._public_url = settings.api.public_url

    def start(self) -> None:
        """After the database is open, before anything is routed; blocks.  :raise StateFailed:"""
        secret = self._database.secret("returns", secrets.token_bytes(32))
        self.paths = ReturnPaths(secret)
        self.links = UnsubscribeLinks(secret)
        self.suppressions.start()
        self.sent.start()

    # --- HTTP ------------------------------------------------------------------------------------

    def serve_links(self, app: Klein) -> None:
        """Put the links to unsubscribe on an app."""
        unsubscribe.add(
            app,
            read=lambda token: self.links.read(token),
            unsubscribe=lambda found: self.suppression.unsubscribed(
                Address(found.address), found.tenant, found.message_id
            ),
            may=self._links_asked.take,
        )

    def serve_list(
        self, app: Klein, authenticate: Authenticate, limits: Callable[[], ReadLimits]
    ) -> None:
        """Put the suppression list on an app."""
        suppressions.add(
            app, self.suppressions, authenticate=authenticate, now=time.time, limits=limits
        )

    def unsubscribe_url(self, id: QueueId, address: Address, tenant: str) -> str:
        """The link in a message for its recipient; empty where the configuration has no place for
        links to lead to."""
        if not self._public_url:
            return ""
        return self.links.url(self._public_url, Subscription(address, tenant, id))

    # --- signed return paths ---------------------------------------------------------------------

    def signed(self, message: Message, recipients: Sequence[int], kind: HopKind) -> Address:
        """A :class:`~.model.ports.SignsReturnPath`: for mail of our users at a domain of ours."""
        sender = message.envelope.sender
        if (
            not self._has_verp
            or kind not in _KINDS
            or message.origin.source not in _SOURCES
            or sender == NULL
            or not self._is_own(sender)
            or self.paths.shape(sender) is not None
        ):
            return sender
        self.sent.note(message)
        index = recipients[0] if len(recipients) == 1 else None
        domain = ascii_domain(domain_of(sender))
        return self.paths.address(message.id, index, domain, time.time())

    def is_return_path(self, address: Address) -> bool | None:
        """Whether it is one that is still good, or a forged one; None for any other address.  Those
        that the configuration names are good for ever."""
        if self._is_for_reports(address):
            return True
        if self.paths.shape(address) is None or not self._is_own(address):
            return None
        return self.paths.read(address, time.time()) is not None

    def takes(self, address: Address) -> bool:
        """Whether what is in the queue for an address is for :meth:`transport`."""
        if self._is_for_reports(address):
            return True
        return self.paths.shape(address) is not None and self.paths.read(address, None) is not None

    def _is_for_reports(self, address: Address) -> bool:
        named = self._report_addresses
        return bool(named) and of_address(address) in named and self._is_own(address)

    def transport(self) -> ReturnsTransport:
        """What takes reports."""
        return ReturnsTransport(
            lambda address: self.paths.read(address, None),
            find=self.sent.find,
            events=self._events,
            commit=self._spool.commit,
            suppression=self.suppression,
            forward=self._forward,
            has_mailbox=lambda address: self._has_mailbox(address) and not self.takes(address),
        )
