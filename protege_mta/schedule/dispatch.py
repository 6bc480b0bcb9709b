"""From a due entry to recorded fates: the other half of a message's way.

The scheduler says when and where; a transport says what became of it; :mod:`.verdict` says what
that means for each recipient.  It is made durable here in one batch, bounces included, and only
then told to the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.batch import Batch, End, Update
from ..model.envelope import Message, Notify
from ..model.hop import HopKind, Site
from ..model.outcome import (
    Delivered,
    Fate,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from ..model.ports import (
    Attempt,
    Content,
    Damaged,
    Events,
    NoSuchMessage,
    SignsReturnPath,
    Spool,
    Transport,
    Withholding,
)
from ..model.reply import TABLE, Reply
from .backoff import for_agents
from .enrolment import Enrolment, Hop
from .entry import DONE, Entry, Health, Report
from .ledger import Ledger, Page, ends, status_of
from .locator import Locate
from .prepare import Preparer
from .readdressed import Readdressed
from .sitequeue import Location
from .verdict import (
    Ended,
    Verdict,
    health,
    is_absence,
    is_cut,
    judge,
)

if TYPE_CHECKING:
    import random

    from .scheduler import Order, Scheduler

_T = TypeVar("_T")
_GoOn = Callable[[Content, Entry, _T], None]
"""What is done with a message that has been opened for an entry.  It gives both back in the end,
unless it raises."""

LOCAL_TROUBLE: Final = TransientFailure(Scope.MESSAGE, TABLE["local-error"])
_NOBODY: Final[Mapping[int, Reply]] = {}


class Dispatcher:
    """Runs attempts and writes down what became of them.

    :param enrolment: makes the entries of what has to go another way than before.
    :param transports: by kind; every kind that routing names has one.
    :param locate: as the scheduler's.
    :ivar scheduler: set once, before anything is accepted; it calls back into here.
    :ivar preparer: like the routing of :meth:`route_by` set before anything is accepted, and again
        when the configuration is read again.
    :ivar withholding: who is not written to; None where everybody is.
    :ivar signs: makes signed return paths; None for the senders' own.
    """

    log = Logger()
    scheduler: Scheduler
    withholding: Withholding | None
    signs: SignsReturnPath | None
    preparer: Preparer

    def __init__(
        self,
        spool: Spool,
        events: Events,
        ledger: Ledger,
        enrolment: Enrolment,
        *,
        transports: Mapping[HopKind, Transport],
        locate: Locate,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._spool = spool
        self._events = events
        self._ledger = ledger
        self._enrolment = enrolment
        self._is_rerouted = enrolment.is_rerouted
        self._transports = transports
        self._locate = locate
        self._now = now
        self._rng = rng
        self.withholding = None
        self.signs = None

    def route_by(self, hop: Hop) -> None:
        """Routing: the next hop of an address, and whose mail it is.  What is queued follows when it
        is tried next."""
        self._has_old_routes = self._enrolment.has_routes
        self._enrolment.hop = hop

    # --- an attempt ------------------------------------------------------------------------------

    def start(self, entry: Entry, site: Site) -> None:
        """The scheduler's word to begin; ends in exactly one ``finished``."""
        if not entry.attempts:  # the content's own record says when a restart would try it
            self._open(entry, self._deliver, site)
            return
        due_at = self._next_due(entry, entry.attempts + 1) or entry.expires_at
        entry.due_at = due_at
        stored = self._spool.commit(Batch((Update(entry.id, entry.recipients, status_of(entry)),)))
        stored.addCallbacks(
            lambda _: self._open(entry, self._deliver, site),
            lambda failure: self._put_back(entry, due_at, failure),
        )

    def unlocated(self, entry: Entry, failure: TransientFailure | PermanentFailure) -> None:
        """The scheduler's word that the next hop has no site, for now or for ever."""
        self._open(entry, self._unsent, failure)

    # What belongs to an attempt goes from callback to callback as their arguments: functions made
    # for each attempt around it would cost more than some of the work in them.

    def _open(self, entry: Entry, go_on: _GoOn[_T], about: _T) -> None:
        """Read the message and go on with it; whatever happens, the entry is given back."""
        content = self._spool.at_hand(entry.id)
        if content is None:
            opening = self._spool.open(entry.id)
            opening.addCallback(self._opened, entry, go_on, about)
            opening.addErrback(self._unreadable, entry)
        else:
            self._opened(content, entry, go_on, about)

    def _opened(self, content: Content, entry: Entry, go_on: _GoOn[_T], about: _T) -> None:
        try:
            go_on(content, entry, about)
        except Exception:
            self._over(Failure(), content, entry)

    def _over(self, result: Failure | None, content: Content, entry: Entry) -> None:
        content.close()
        if result is not None:
            self._unreadable(result, entry)

    def _unsent(
        self, content: Content, entry: Entry, failure: TransientFailure | PermanentFailure
    ) -> None:
        if self._has_old_routes and self._is_rerouted(entry, content.message):
            content.close()
            return
        stopped = self._stopped(content, entry)
        if stopped:
            self._withhold(content, entry, stopped, lambda: self._put_off(content, entry, failure))
        else:
            self._put_off(content, entry, failure)

    def _put_off(
        self, content: Content, entry: Entry, failure: TransientFailure | PermanentFailure
    ) -> None:
        outcomes = [(index, failure) for index in entry.recipients]
        if self._is_in_vain(entry, outcomes):
            content.close()
            self._set_aside(entry, Health.UNKNOWN)
            return
        self._settle(entry, None, content, outcomes).addBoth(self._over, content, entry)

    def _deliver(self, content: Content, entry: Entry, site: Site) -> None:
        if self._has_old_routes and self._is_rerouted(entry, content.message):
            content.close()
            return
        if site.kind == "mx" and content.message.envelope.requires_tls:
            # What counts is what this very domain says, while a site is many domains'.
            locating = maybeDeferred(self._locate, entry.hop)
            locating.addCallback(self._relocated, content, entry)
            locating.addErrback(self._over, content, entry)
        else:
            self._attempt(content, entry, site)

    def _relocated(self, location: Location, content: Content, entry: Entry) -> None:
        if isinstance(location, Site):
            self._attempt(content, entry, location)
        else:
            self._unsent(content, entry, location)

    def _attempt(self, content: Content, entry: Entry, site: Site) -> None:
        stopped = self._stopped(content, entry)
        if stopped:
            self._withhold(content, entry, stopped, lambda: self._send(content, entry, site))
        else:
            self._send(content, entry, site)

    def _stopped(self, content: Content, entry: Entry) -> Mapping[int, Reply]:
        if self.withholding is None:
            return _NOBODY
        return self.withholding.stopped(content.message, entry.recipients, entry.hop.kind)

    def _withhold(
        self,
        content: Content,
        entry: Entry,
        stopped: Mapping[int, Reply],
        go_on: Callable[[], None],
    ) -> None:
        """Write down who is not written to, and go on with the others, if there are any."""
        ended = [
            Ended(index, "suppressed", PermanentFailure(Scope.RECIPIENT, reply))
            for index, reply in stopped.items()
        ]
        page = self._ledger.page(content, entry.transitions, entry.attempts, None, ended)

        def durable(_: None) -> None:
            entry.recipients = tuple([n for n in entry.recipients if n not in stopped])
            if entry.recipients:
                go_on()
            else:
                content.close()
                self.scheduler.finished(entry, Report(Health.UNKNOWN))

        self._ledger.commit(page).addCallback(durable).addErrback(self._over, content, entry)

    def _send(self, content: Content, entry: Entry, site: Site) -> None:
        sent = content
        if self.signs is not None:
            sender = self.signs(content.message, entry.recipients, site.kind)
            if sender != content.message.envelope.sender:
                sent = Readdressed(content, sender)
        attempt = Attempt(
            site,
            entry.hop.name,
            sent,
            entry.recipients,
            self.preparer.of(content, entry.recipients),
            entry.attempts,
        )
        whose = (content, entry, site)
        delivering = self._transports[site.kind].deliver(attempt)
        delivering.addCallbacks(self._ended, self._broke, whose, errbackArgs=whose)

    def _ended(
        self,
        outcomes: Sequence[tuple[int, Outcome]],
        content: Content,
        entry: Entry,
        site: Site,
    ) -> None:
        try:
            going: Deferred[None] | None
            if len(outcomes) == 1 and isinstance(outcomes[0][1], Delivered):
                going = self._delivered(entry, site, content, outcomes[0][1])
            elif self._is_in_vain(entry, outcomes):
                content.close()
                self._set_aside(entry, Health.ABSENT)
                return
            else:
                going = self._settle(entry, site, content, outcomes)
        except Exception:
            self._over(Failure(), content, entry)
            return
        if going is None:
            content.close()
        else:
            going.addBoth(self._over, content, entry)

    def _broke(self, failure: Failure, content: Content, entry: Entry, site: Site) -> None:
        self.log.failure("{kind} transport failed", failure=failure, kind=site.kind)
        trouble = [(index, LOCAL_TROUBLE) for index in entry.recipients]
        self._ended(trouble, content, entry, site)

    def _unreadable(self, failure: Failure, entry: Entry) -> None:
        """The content cannot be had, or a bug of ours stopped the attempt."""
        if failure.check(NoSuchMessage):
            self.log.error("message {id} has left the spool", id=entry.id)
            self.scheduler.finished(entry, DONE)
        elif failure.check(Damaged):
            self.log.critical("message {id} is damaged and is kept in corrupt/", id=entry.id)
            self.scheduler.finished(entry, DONE)
        else:
            due_at = self._next_due(entry, entry.attempts + 1) or entry.expires_at
            self._put_back(entry, due_at, failure)

    def _put_back(self, entry: Entry, due_at: float, failure: Failure) -> None:
        """Local trouble: nothing was learnt, nothing is counted, try later."""
        self.log.failure("message {id} has to wait", failure=failure, id=entry.id)
        report = Report(Health.UNKNOWN, entry.recipients, entry.attempts, due_at)
        if self.scheduler.order(entry) is None:
            self.scheduler.finished(entry, report)
            return
        self._spool.statuses(entry.id).addCallbacks(
            lambda found: self._give_back(entry, report, found.message),
            lambda failure: self._not_obeyed(failure, entry, report),
        )

    def _is_in_vain(self, entry: Entry, outcomes: Sequence[tuple[int, Outcome]]) -> bool:
        """Whether there was nobody to try it with, and no person wants something else of it."""
        return is_absence(outcomes[0][1]) and self.scheduler.order(entry) is None

    def _set_aside(self, entry: Entry, health: Health) -> None:
        """It was no attempt, and leaves no trace: the entry waits until somebody comes."""
        self.scheduler.finished(
            entry, Report(health, entry.recipients, entry.attempts, self._now())
        )

    def _next_due(self, entry: Entry, failures: int, *, is_cut: bool = False) -> float | None:
        """:param is_cut: whether it was but the way to the relay that failed."""
        is_near = is_cut or entry.hop.kind in ("agent", "sandbox")
        retry = self._enrolment.retry
        if is_near:
            retry = for_agents(retry)
        return retry.next_attempt(
            failures=failures,
            arrived=entry.arrived_at,
            now=self._now(),
            rng=self._rng,
            max_age_s=entry.expires_at - entry.arrived_at,
        )

    # --- what it means ---------------------------------------------------------------------------

    def _delivered(
        self, entry: Entry, site: Site, content: Content, outcome: Delivered
    ) -> Deferred[None] | None:
        """:meth:`_settle` for the ordinary end of an ordinary message, a third of its work: one
        recipient, who has it, and of whom nobody wants to hear."""
        message, (index,) = content.message, entry.recipients
        transition, attempt = entry.transitions, entry.attempts + 1
        if message.envelope.recipients[index].notify or site.kind == "sandbox":
            return self._settle(entry, site, content, [(index, outcome)])
        fate: Fate = "relayed" if outcome.is_relayed else "delivered"
        line = self._events.ended(message, index, transition, fate, attempt, site, outcome, "")
        batch = Batch((End(entry.id, entry.recipients, fate),), (line,), is_lazy=True)
        noting = self._spool.note(batch)
        if noting is None:
            self.scheduler.finished(entry, DONE)
            return None
        return noting.addCallbacks(
            lambda _: self.scheduler.finished(entry, DONE),
            lambda failure: self._not_recorded(
                failure, entry, message, transition, attempt, site, [Ended(index, fate, outcome)]
            ),
        )

    def _settle(
        self,
        entry: Entry,
        site: Site | None,
        content: Content,
        outcomes: Sequence[tuple[int, Outcome]],
    ) -> Deferred[None]:
        """Write down what became of an attempt, and give the entry back."""
        message, transition, attempt = content.message, entry.transitions, entry.attempts + 1
        order = self.scheduler.order(entry)
        due_at = self._next_due(entry, attempt, is_cut=is_cut(outcomes, entry.hop.kind))
        verdict = judge(outcomes, is_last=due_at is None, is_removed=order == "remove")
        page = self._ledger.page(content, transition, attempt, site, verdict.ended)
        report = DONE if site is not None else Report(Health.UNKNOWN)
        if due_at is not None and verdict.waiting:
            remaining = tuple([index for index, _ in verdict.waiting])
            for index, failure in verdict.waiting:
                page.lines.append(
                    self._events.deferred(
                        message, index, transition, attempt, site, failure, due_at
                    )
                )
            entry.attempts, entry.due_at = attempt, due_at
            entry.cause = str(verdict.waiting[0][1].cause)
            entry.transitions += 1
            if order == "hold":
                page.lines += self._ledger.moved(message, entry, remaining, "held")
            page.operations.append(
                Update(entry.id, remaining, status_of(entry, is_held=order == "hold"))
            )
            known = health(outcomes, site.kind) if site is not None else Health.UNKNOWN
            report = Report(known, remaining, attempt, due_at, entry.cause)
        committing = self._learned(message, verdict, site)
        if committing is None:
            committing = self._ledger.commit(page, is_lazy=verdict.is_delivery)
        else:
            committing.addCallback(lambda _: self._ledger.commit(page))
        return committing.addCallbacks(
            lambda _: self._give_back(entry, report, message, order),
            lambda failure: self._not_recorded(
                failure, entry, message, transition, attempt, site, verdict.ended
            ),
        )

    def _give_back(
        self, entry: Entry, report: Report, message: Message, obeyed: Order | None = None
    ) -> None:
        """Give the scheduler an entry whose state is recorded, once that is what people want of it:
        somebody may have said so, or something else, while it was written down.

        :param obeyed: the order that the record follows.
        """
        order = self.scheduler.order(entry)
        if order == obeyed or not report.recipients:
            self.scheduler.finished(entry, report)
            return
        entry.recipients, entry.due_at = report.recipients, report.due_at
        if order == "remove":
            report = attrs.evolve(report, recipients=())
            recording = self._ledger.removed(message, entry)
        else:
            event: Literal["held", "released"] = "held" if order == "hold" else "released"
            lines = self._ledger.moved(message, entry, entry.recipients, event)
            now = status_of(entry, is_held=order == "hold")
            recording = self._ledger.commit(Page([Update(entry.id, entry.recipients, now)], lines))
        recording.addCallbacks(
            lambda _: self._give_back(entry, report, message, order),
            lambda failure: self._not_obeyed(failure, entry, report),
        )

    def _not_obeyed(self, failure: Failure, entry: Entry, report: Report) -> None:
        self.log.failure(
            "what was ordered of {id} cannot be recorded", failure=failure, id=entry.id
        )
        self.scheduler.finished(entry, attrs.evolve(report, recipients=entry.recipients))

    def _learned(
        self, message: Message, verdict: Verdict, site: Site | None
    ) -> Deferred[None] | None:
        """Have it known whom nobody should write to again, before it is written down that this
        message came to nothing: after a crash in between it is tried once more."""
        if self.withholding is None:
            return None
        failures = [
            (one.recipient, one.outcome)
            for one in verdict.ended
            if one.fate == "bounced" and isinstance(one.outcome, PermanentFailure)
        ]
        return self.withholding.learned(message, failures, site) if failures else None

    def _not_recorded(
        self,
        failure: Failure,
        entry: Entry,
        message: Message,
        transition: int,
        attempt: int,
        site: Site | None,
        ended: Sequence[Ended],
    ) -> None:
        """The spool would not take the record, maybe for want of room for the DSNs in it.  What was
        delivered is not sent again by this process, and is recorded without DSN if that can be;
        the rest is tried again."""
        self.log.failure("cannot record the fate of {id}", failure=failure, id=entry.id)
        done = [one for one in ended if one.fate in ("delivered", "relayed")]
        if done:
            lines = []
            for one in done:
                notify = message.envelope.recipients[one.recipient].notify
                dsn = "none" if one.fate == "delivered" and Notify.SUCCESS in notify else ""
                lines.append(
                    self._events.ended(
                        message,
                        one.recipient,
                        transition,
                        one.fate,
                        attempt,
                        site,
                        one.outcome,
                        dsn,
                    )
                )
            operations = tuple(ends(entry.id, done))
            again = self._spool.commit(Batch(operations, tuple(lines), is_lazy=True))
            again.addErrback(lambda failure: None)  # logged above; a restart may deliver twice
        over = {one.recipient for one in done}
        left = tuple([index for index in entry.recipients if index not in over])
        due_at = self._next_due(entry, entry.attempts + 1) or entry.expires_at
        self._give_back(entry, Report(Health.UNKNOWN, left, entry.attempts, due_at), message)
