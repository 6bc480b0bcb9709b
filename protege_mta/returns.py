"""What comes back of sent mail, put together: classification, suppression."""

from __future__ import annotations

import time
from collections.abc import Callable

from .config.bounce_rules import classifier
from .config.model import Settings
from .model.address import Address
from .model.bounce_class import Classify
from .observe.events import EventLines
from .policy.suppression import Suppression
from .state.database import Database
from .state.suppression import StoredSuppressions


class Returns:
    """The parts.

    :param is_own: whether an address is at a domain of ours.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        events: EventLines,
        is_own: Callable[[Address], bool],
    ) -> None:
        self._events = events
        self.suppressions = StoredSuppressions(database, time.time)
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

    def start(self) -> None:
        """After the database is open; blocks.  :raise StateFailed:"""
        self.suppressions.start()
