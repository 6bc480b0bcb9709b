"""What time alone does to queued mail: it expires, or its sender is told that it is late."""

from __future__ import annotations

from twisted.logger import Logger

from ..model.reply import TABLE
from .entry import Entry
from .ledger import Ledger
from .verdict import Ended, expired, unclaimed, unreleased


class Overdue:
    """Has it written down; the scheduler says when, of entries that are in nobody's hands."""

    log = Logger()

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def expired(self, entry: Entry) -> None:
        """The scheduler's word that an entry has run out of time and is out of the schedule."""
        to_agent = entry.hop.kind == "agent"
        cause = entry.cause
        is_held = bool(cause) and not entry.attempts
        if not cause and entry.hop.kind == "tunnel":
            cause = TABLE["relay-away"].text
        if is_held:  # what it waited for was a person
            outcome = unreleased(cause)
        else:
            outcome = unclaimed(cause) if to_agent else expired(cause)
        ended = [Ended(index, "expired", outcome) for index in entry.recipients]
        self._ledger.end(entry, ended).addErrback(
            lambda failure: self.log.failure(
                "message {id} has expired, which a restart will tell", failure=failure, id=entry.id
            )
        )

    def late(self, entry: Entry) -> None:
        """The scheduler's word that it is time to tell the sender of a delay."""
        self._ledger.delayed(entry).addErrback(
            lambda failure: self.log.failure(
                "no delay warning for message {id}", failure=failure, id=entry.id
            )
        )
