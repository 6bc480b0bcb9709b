"""From messages to entries on the schedule: when one is accepted, found at start, or routed anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, gatherResults

from ..model.address import NULL, Address
from ..model.batch import Batch, Update
from ..model.envelope import Message, Notify
from ..model.hop import NextHop
from ..model.ports import Recovered, Spool
from ..model.status import RecipientStatus
from .backoff import RetrySchedule
from .entry import Entry, Health, Report
from .ledger import status_of, waits_until

if TYPE_CHECKING:
    from .scheduler import Scheduler

Hop = Callable[[Address, Message], NextHop]
"""The next hop of one recipient of a message."""

_ALONE: Final = (0,)
LEAVE_UPDATES: Final = 1000
"""So many updates go into one batch at the end."""
RETURN_S: Final = 600.0
"""So long sessions have after our start to come up, before mail that waits for one is too old that
was still young enough when we went down."""


class Enrolment:
    """Makes an entry of the recipients of a message that share a next hop, and has it scheduled.

    :ivar scheduler: set once, before anything is accepted.
    :ivar hop: like :attr:`retry` and :attr:`hold_s` set before anything is accepted, and again when
        the configuration is read again.
    :ivar hold_s: how long mail for one of our agents' addresses waits for its agent, in seconds.
    """

    scheduler: Scheduler
    hop: Hop
    retry: RetrySchedule
    hold_s: Callable[[Address], float]

    def __init__(self, spool: Spool, *, now: Callable[[], float]) -> None:
        self._spool = spool
        self._now = now

    @property
    def has_routes(self) -> bool:
        """Whether routing has been set."""
        return hasattr(self, "hop")

    def accepted(self, message: Message, status: RecipientStatus) -> None:
        """A message is durable: put it on the schedule, due at once, or when its sender would have
        it released (RFC 4865)."""
        envelope = message.envelope
        recipients = envelope.recipients
        due_at = self._now()
        if envelope.hold_until > due_at:
            due_at = envelope.hold_until
        if len(recipients) == 1:
            hop = self.hop(recipients[0].address, message)
            self.scheduler.add(self._entry(message, hop, _ALONE, status, due_at))
            return
        by_hop: dict[NextHop, list[int]] = {}
        for index, recipient in enumerate(recipients):
            by_hop.setdefault(self.hop(recipient.address, message), []).append(index)
        for hop, indexes in by_hop.items():
            self.scheduler.add(self._entry(message, hop, tuple(indexes), status, due_at))

    def recovered(self, found: Recovered) -> None:
        """A message was there at start: put what is open of it on the schedule."""
        groups: dict[tuple[NextHop, RecipientStatus], list[int]] = {}
        for index, status in enumerate(found.statuses):
            if status is not None:
                address = found.message.envelope.recipients[index].address
                hop = self.hop(address, found.message)
                groups.setdefault((hop, status), []).append(index)
        now = self._now()
        for (hop, status), indexes in groups.items():
            due_at = waits_until(found.message, status, now)
            entry = self._entry(found.message, hop, tuple(indexes), status, due_at)
            if hop.kind in ("agent", "tunnel"):
                entry.expires_at = max(entry.expires_at, now + RETURN_S)
            self.scheduler.add_recovered(entry)

    def leave(self) -> Deferred[None]:
        """An orderly end: what has come in and was not tried is due at once for the next process.

        After a crash it waits as its content's record says, so that a message which brings us down
        does not do so again and again.
        """
        now, first_s = self._now(), self.retry.first_s
        untried = [
            Update(entry.id, entry.recipients, status_of(entry))
            for id in self._spool.ids()
            for entry in self.scheduler.entries(id)
            if entry.state == "scheduled" and entry.due_at <= now < entry.arrived_at + first_s
        ]
        stored = [
            self._spool.commit(Batch(tuple(untried[at : at + LEAVE_UPDATES])))
            for at in range(0, len(untried), LEAVE_UPDATES)
        ]
        return gatherResults(stored).addCallback(lambda _: None)

    def _entry(
        self,
        message: Message,
        hop: NextHop,
        recipients: tuple[int, ...],
        status: RecipientStatus,
        due_at: float,
    ) -> Entry:
        envelope, retry = message.envelope, self.retry
        arrived_at = envelope.hold_until or message.arrived_at
        is_bounce = envelope.sender == NULL
        warns = retry.delay_warning_s and not is_bounce and not status.is_warned
        age_s = retry.bounce_max_age_s if is_bounce else retry.max_age_s
        if hop.kind == "agent":
            names = [envelope.recipients[index] for index in recipients]
            age_s = max([self.hold_s(one.address) for one in names])
            # That it waits for an agent is no delay, unless its sender calls it one.
            warns = warns and any(one.notify & Notify.DELAY for one in names)
        return Entry(
            message.id,
            hop,
            recipients,
            arrived_at,
            due_at,
            arrived_at + age_s,
            arrived_at + retry.delay_warning_s if warns else 0.0,
            status.attempts,
            message.origin.tenant,
            message.is_urgent,
            status.transitions,
            status.cause,
            status.state,
        )

    def is_rerouted(self, entry: Entry, message: Message) -> bool:
        """Whether routing has changed since the entry was made, so that others take its place."""
        if self.scheduler.order(entry) is not None:
            return False
        by_hop: dict[NextHop, list[int]] = {}
        for index in entry.recipients:
            hop = self.hop(message.envelope.recipients[index].address, message)
            by_hop.setdefault(hop, []).append(index)
        if list(by_hop) == [entry.hop]:
            return False
        self.scheduler.finished(entry, Report(Health.UNKNOWN))
        now = status_of(entry)
        for hop, indexes in by_hop.items():
            self.scheduler.add(self._entry(message, hop, tuple(indexes), now, self._now()))
        return True
