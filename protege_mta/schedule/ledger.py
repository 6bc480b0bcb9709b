"""Writes fates and moves down: operations, event lines and bounces of one transition in one batch.

Used by whoever decides them: the dispatcher after an attempt, the clock's expiry, a person at the
desk.  It knows no scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..model.batch import Batch, End, Operation, Update
from ..model.envelope import Message
from ..model.hop import Site
from ..model.ids import QueueId
from ..model.outcome import Fate, Outcome
from ..model.ports import Content, Events, Spool
from ..model.return_path import sent_of
from ..model.sandbox import play_of
from ..model.status import RecipientStatus
from .bounces import Bounce, Bounces
from .entry import Entry
from .verdict import Ended

PASSED_ON: Final = Site("agent", "agent")
"""Where mail went that was passed on while its sender waited."""


@attrs.define
class Page:
    """What goes into one batch."""

    operations: list[Operation]
    lines: list[bytes]
    bounces: Sequence[Bounce] = ()


class Ledger:
    """Makes transitions durable.

    :ivar accepted: told of each bounce once it is durable; the enrolment's, while mail is sent.
    """

    log = Logger()

    def __init__(self, spool: Spool, events: Events, bounces: Bounces) -> None:
        self._spool = spool
        self._events = events
        self._bounces = bounces
        self.accepted: Callable[[Message, RecipientStatus], None] = lambda message, status: None

    def page(
        self,
        content: Content,
        transition: int,
        attempt: int,
        site: Site | None,
        ended: Sequence[Ended],
    ) -> Page:
        """The fates of some recipients, with the bounces that tell of them."""
        message = content.message
        bounces = self._bounces.of_fates(content, transition, ended)
        lines = []
        for one in ended:
            dsn = self._bounces.told(bounces, message, one)
            lines.append(
                self._events.ended(
                    message, one.recipient, transition, one.fate, attempt, site, one.outcome, dsn
                )
            )
            if message.origin.is_sandbox and _complains(message, one):
                address = message.envelope.recipients[one.recipient].address
                lines.append(
                    self._events.feedback(
                        sent_of(message),
                        one.recipient,
                        address,
                        "abuse",
                        report=message.id,
                        user_agent="sandbox",
                    )
                )
        return Page(ends(message.id, ended), lines, bounces)

    def end(self, entry: Entry, ended: Sequence[Ended]) -> Deferred[None]:
        """Record fates that no attempt brought; nobody else has the entry in hand.

        Fails as :meth:`~..model.ports.Spool.open` and :meth:`~..model.ports.Spool.commit` do.
        """

        def opened(content: Content) -> Deferred[None]:
            try:
                page = self.page(content, entry.transitions, entry.attempts, None, ended)
            finally:
                content.close()
            return self.commit(page)

        return self._spool.open(entry.id).addCallback(opened)

    def passed_on(
        self,
        content: Content,
        outcomes: Sequence[tuple[int, Outcome]],
        tell: Callable[[bytes], None],
    ) -> None:
        """Tell of recipients who have a message that was never in the spool; a DSN that its sender
        asked for is queued.

        :param tell: takes an event's line, which no batch carries.
        """
        message = content.message
        ended = [Ended(index, "delivered", outcome) for index, outcome in outcomes]
        page = self.page(content, 1, 1, PASSED_ON, ended)
        for index, _ in outcomes:
            tell(self._events.received(message, index))
        for line in page.lines:
            tell(line)
        if page.bounces:
            self.commit(Page([], [], page.bounces)).addErrback(
                lambda failure: self.log.failure(
                    "nobody tells the sender of {id}", failure=failure, id=message.id
                )
            )

    def removed(self, message: Message, entry: Entry) -> Deferred[None]:
        """A person took it out of the queue: nobody is told, and nothing is read, so that this ends
        damaged mail too."""
        ended = [Ended(index, "removed", None) for index in entry.recipients]
        lines = [
            self._events.ended(
                message, index, entry.transitions, "removed", entry.attempts, None, None, ""
            )
            for index in entry.recipients
        ]
        return self.commit(Page(ends(entry.id, ended), lines))

    def delayed(self, entry: Entry) -> Deferred[None]:
        """Tell the sender, where that is wanted, that an entry has waited for long."""

        def opened(content: Content) -> Deferred[None]:
            if entry.state in ("active", "gone"):
                # It has been started since, and may meet its fate before the sender hears of a
                # delay; where it comes back, it is late again.
                entry.warn_at = content.message.arrived_at
                content.close()
                return succeed(None)
            try:
                bounce = self._bounces.of_delay(content, entry)
            finally:
                content.close()
            bounces = () if bounce is None else (bounce,)
            page = Page([], [], bounces)
            # What is held waits for a person, and mail for a session for that.
            has_no_time = entry.state == "held" or entry.hop.kind in ("agent", "tunnel")
            for index in entry.recipients:
                dsn = bounce.id if bounce is not None and index in bounce.recipients else "none"
                page.lines.append(
                    self._events.delayed(
                        content.message,
                        index,
                        entry.transitions,
                        entry.attempts,
                        dsn,
                        0.0 if has_no_time else entry.due_at,
                    )
                )
            entry.transitions += 1
            page.operations.append(Update(entry.id, entry.recipients, status_of(entry)))
            return self.commit(page)

        return self._spool.open(entry.id).addCallback(opened)

    def moved(
        self,
        message: Message,
        entry: Entry,
        recipients: Sequence[int],
        event: Literal["held", "released"],
    ) -> list[bytes]:
        """The lines of one more transition, which is counted."""
        transition = entry.transitions
        entry.transitions += 1
        next_attempt_at = entry.due_at if event == "released" else 0.0
        return [
            self._events.moved(
                message,
                index,
                transition,
                event,
                entry.attempts,
                next_attempt_at=next_attempt_at,
            )
            for index in recipients
        ]

    def commit(self, page: Page, *, is_lazy: bool = False) -> Deferred[None]:
        """One transition, one batch; its bounces go on the schedule once it is durable."""
        if not page.bounces:
            batch = Batch(tuple(page.operations), tuple(page.lines), is_lazy)
            return self._spool.commit(batch)
        operations = (*page.operations, *[bounce.append for bounce in page.bounces])
        lines = (*page.lines, *[line for bounce in page.bounces for line in bounce.lines])

        def durable(_: None) -> None:
            for bounce in page.bounces:
                self.accepted(bounce.append.message, bounce.append.status)

        return self._spool.commit(Batch(operations, lines)).addCallback(durable)


def _complains(message: Message, one: Ended) -> bool:
    """Whether a recipient of a sandbox is one that gets its mail and reports it as abuse."""
    address = message.envelope.recipients[one.recipient].address
    return one.fate == "delivered" and play_of(address) == "complained"


def waits_until(message: Message, status: RecipientStatus, now: float) -> float:
    """When a recipient is to be tried next, as far as the spool tells, POSIX seconds.

    What was not tried waits for a while behind its arrival, or its release, for it may be what
    brought a process down; while the release lies ahead it cannot.
    """
    hold_until = message.envelope.hold_until
    if hold_until > now and not status.attempts:
        return min(hold_until, status.due_at)
    return status.due_at


def status_of(entry: Entry, *, is_held: bool = False) -> RecipientStatus:
    """What is durable about an entry's recipients."""
    state: Literal["scheduled", "deferred"] = "deferred" if entry.attempts else "scheduled"
    return RecipientStatus(
        "held" if is_held or entry.state == "held" else state,
        entry.attempts,
        entry.due_at,
        entry.transitions,
        not entry.warn_at,
        entry.cause,
    )


def ends(id: QueueId, ended: Sequence[Ended]) -> list[Operation]:
    """The operations that record fates, one a fate."""
    by_fate: dict[Fate, list[int]] = {}
    for one in ended:
        by_fate.setdefault(one.fate, []).append(one.recipient)
    return [End(id, tuple(indexes), fate) for fate, indexes in by_fate.items()]
