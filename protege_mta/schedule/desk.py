"""The queue as people see it: list, show, and every way to put a hand in.

Works on a running service and, with no scheduler, on a spool that nobody else has open.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import attrs
from twisted.internet.defer import Deferred, DeferredLock, gatherResults, succeed
from twisted.python.failure import Failure

from ..model import ids
from ..model.address import domain_of
from ..model.batch import Update
from ..model.envelope import Message
from ..model.hop import NextHop
from ..model.ids import QueueId
from ..model.outcome import PermanentFailure, Scope
from ..model.ports import Content, Damaged, NoSuchMessage, Recovered, Spool
from ..model.reply import Reply
from ..model.status import RecipientStatus
from .entry import Entry
from .intake import Arriving
from .ledger import Ledger, Page, status_of, waits_until
from .scheduler import Order, Scheduler
from .standing import why_held
from .verdict import Ended

Row = dict[str, Any]
SLICE: Final = 500
"""So many messages are tried again before others have their turn."""


LOUDNESS: Final = ("corrupt", "active", "held", "deferred", "scheduled")

RETURNED: Final = PermanentFailure(
    Scope.MESSAGE, Reply(554, "5.7.0", ("returned by the postmaster",))
)
NOWHERE: Final = NextHop("mx", "")


class NotFound(Exception):
    """No queued message has this id."""


@attrs.frozen
class Chosen:
    """Which messages a command is about.

    :ivar ids: as typed; empty to choose by the rest.
    :ivar domain: those with an open recipient at it; empty for any.
    :ivar state: those with a recipient in it; empty for any.
    """

    ids: tuple[str, ...] = ()
    domain: str = ""
    state: str = ""


class Change(enum.Flag):
    """What putting a hand in has come to.

    DONE: something is different now, durably.  LATER: an attempt is under way, which nobody breaks
    off; once it is over, so is done to what it has left, if the service lives to see that.
    """

    NOTHING = 0
    DONE = enum.auto()
    LATER = enum.auto()


class Desk:
    """Answers and obeys; every change is durable before it says so.

    :param scheduler: None while the service does not run.
    :param arriving: what is on its way in and not ours yet.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        now: Callable[[], float],
        scheduler: Scheduler | None,
        arriving: Callable[[], Iterable[Arriving]] = tuple,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._now = now
        self._scheduler = scheduler
        self._arriving = arriving
        self._hands: dict[QueueId, DeferredLock] = {}

    # --- looking ---------------------------------------------------------------------------------

    def chosen(self, choice: Chosen) -> Iterator[Deferred[Recovered | None]]:
        """The messages that are meant, one after the other; None for one that is not meant.

        :raise NotFound: an id that is no id.
        """
        for id in self._named(choice.ids) if choice.ids else self._spool.ids():
            yield self._spool.statuses(id).addCallbacks(
                lambda found: found if self._is_meant(found, choice) else None,
                lambda failure, id=id: self._gone(failure, id, bool(choice.ids)),
            )

    def _named(self, texts: Iterable[str]) -> list[QueueId]:
        found = []
        for text in texts:
            id = ids.parse(text)
            if id is None:
                raise NotFound(f"{text} is not a message id")
            found.append(id)
        return found

    @staticmethod
    def _gone(failure: Failure, id: QueueId, is_asked_for: bool) -> None:
        failure.trap(NoSuchMessage, Damaged)
        if is_asked_for:
            raise NotFound(f"no message {id} in the queue")

    def _is_meant(self, found: Recovered, choice: Chosen) -> bool:
        return any(
            status is not None
            and (not choice.domain or domain_of(recipient.address) == choice.domain.lower())
            and (not choice.state or self._state(found.message.id, index, status) == choice.state)
            for index, (recipient, status) in enumerate(
                zip(found.message.envelope.recipients, found.statuses, strict=True)
            )
        )

    def row(self, found: Recovered) -> Row:
        """One message for ``queue list`` and ``queue show``."""
        message = found.message
        recipients = []
        for index, (recipient, status) in enumerate(
            zip(message.envelope.recipients, found.statuses, strict=True)
        ):
            one: Row = {"address": recipient.address}
            if status is None:
                one["state"] = "ended"
            else:
                one["state"] = self._state(message.id, index, status)
                one["attempts"] = status.attempts
                one["next_attempt_at"] = self._next_attempt_at(message, index, status)
                one["cause"] = status.cause
                absence = self._absence(message.id, index)
                if absence:
                    one["absence"] = absence
            recipients.append(one)
        return {
            "id": message.id,
            "state": _loudest([one["state"] for one in recipients]),
            "arrived_at": message.arrived_at,
            "size_octets": message.size_octets,
            "sender": message.envelope.sender,
            "source": message.origin.source,
            "identity": message.origin.identity,
            "peer_address": message.origin.peer_address,
            "subject": message.subject,
            "header_message_id": message.header_message_id,
            "recipients": recipients,
        }

    def incoming(self) -> list[Row]:
        """What clients are sending just now; nothing has been promised for it."""
        return [
            {
                "id": one.id,
                "state": "incoming",
                "arrived_at": one.arrived_at,
                "size_octets": one.size_octets,
                "sender": one.envelope.sender,
                "source": one.origin.source,
                "identity": one.origin.identity,
                "peer_address": one.origin.peer_address,
                "subject": "",
                "header_message_id": "",
                "recipients": [
                    {"address": recipient.address, "state": "incoming"}
                    for recipient in one.envelope.recipients
                ],
            }
            for one in self._arriving()
        ]

    def standing(self, found: Recovered) -> list[Row]:
        """Why each part of a message waits, in a sentence, for ``explain``.

        Its way is empty where nobody looks for one: while the service does not run, and of what is
        damaged.
        """
        message = found.message
        if self._scheduler is None or message.id in self._spool.corrupt_ids():
            return [self._standing_still(found, entry) for entry in self._made(found)]
        return [
            {
                "recipients": [message.envelope.recipients[n].address for n in one.recipients],
                "route": one.hop.kind,
                "next_hop": one.hop.name,
                "site": one.site,
                "state": one.state,
                "attempts": one.attempts,
                "next_attempt_at": one.next_attempt_at,
                "why": one.why,
            }
            for one in self._scheduler.standing(message.id)
        ]

    def _standing_still(self, found: Recovered, entry: Entry) -> Row:
        """A part of a message that nobody tries."""
        message, first, status = found.message, entry.recipients[0], status_of(entry)
        state = self._state(message.id, first, status)
        if state == "corrupt":
            why = "damaged on the disk, and set aside"
        else:
            why = why_held(entry) if state == "held" else "the service is not running"
        return {
            "recipients": [message.envelope.recipients[n].address for n in entry.recipients],
            "route": "",
            "next_hop": "",
            "site": "",
            "state": state,
            "attempts": entry.attempts,
            "next_attempt_at": self._next_attempt_at(message, first, status),
            "why": why,
        }

    def open(self, text: str) -> Deferred[Content]:
        """A message's octets, for ``queue cat``."""
        [id] = self._named([text])

        def gone(failure: Failure) -> Content:
            failure.trap(NoSuchMessage)
            raise NotFound(f"no message {id} in the queue")

        return self._spool.open(id).addErrback(gone)

    # --- hands in --------------------------------------------------------------------------------

    def hold(self, found: Recovered) -> Deferred[Change]:
        """Stop trying until :meth:`release`.  What is being tried just now is held after that."""
        return self._in_turn(self._hold, found)

    def _hold(self, found: Recovered) -> Deferred[Change]:
        if self._scheduler is not None:
            entries: Sequence[Entry] = self._scheduler.hold(found.message.id)
        else:
            entries = [entry for entry in self._entries(found) if entry.state != "held"]
            for entry in entries:
                entry.state = "held"
        later = self._ordered(found, "hold")
        return self._record(found, entries, "held").addCallback(lambda change: change | later)

    def release(self, found: Recovered) -> Deferred[Change]:
        """Held mail is due now, or when its sender would have it released; what was to be held after
        its attempt is not."""
        return self._in_turn(self._release, found)

    def _release(self, found: Recovered) -> Deferred[Change]:
        is_withdrawn = bool(self._ordered(found, "hold"))
        entries = [entry for entry in self._entries(found) if entry.state == "held"]
        for entry in entries:
            entry.due_at = max(self._now(), entry.arrived_at)
            if not entry.attempts:
                entry.cause = ""  # it was what it was held for
        stored = self._record(found, entries, "released")
        if self._scheduler is None:
            return stored
        scheduler = self._scheduler

        def durable(change: Change) -> Change:
            scheduler.release(found.message.id)
            return change | Change.DONE if is_withdrawn else change

        return stored.addCallback(durable)

    def retry(self, found: Recovered) -> Deferred[Change]:
        """Waiting mail is due now, whatever its site's back-off, and whenever its sender would have
        it released."""
        return self._in_turn(self._retry, found)

    def _retry(self, found: Recovered) -> Deferred[Change]:
        if self._scheduler is not None:
            tried = self._scheduler.retry(found.message.id)
            return succeed(Change.DONE if tried else Change.NOTHING)
        entries = [entry for entry in self._entries(found) if entry.state != "held"]
        for entry in entries:
            entry.due_at = self._now()
        return self._record(found, entries, None)

    def retry_released(self, found: Recovered) -> Deferred[Change]:
        """:meth:`retry`, unless its sender would have it released later."""
        if found.message.envelope.hold_until > self._now():
            return succeed(Change.NOTHING)
        return self.retry(found)

    def retry_all(self) -> Iterator[int] | None:
        """:meth:`retry_released` for everything, without a look at what is on the disk.

        :return: does it as it is gone through, a slice at a time, and yields how many messages
            were waiting; None while the service does not run.
        """
        scheduler = self._scheduler
        if scheduler is None:
            return None
        ids = self._spool.ids()
        return (
            sum(bool(scheduler.retry_released(id)) for id in ids[start : start + SLICE])
            for start in range(0, len(ids), SLICE)
        )

    def remove(self, found: Recovered) -> Deferred[Change]:
        """Take it out of the queue; nobody is told.  What is being tried just now goes after it."""
        return self._in_turn(self._remove, found)

    def _remove(self, found: Recovered) -> Deferred[Change]:
        id = found.message.id
        if self._scheduler is None or id in self._spool.corrupt_ids():
            entries: Sequence[Entry] = self._made(found)
        else:
            entries = self._scheduler.remove(id)
        change = self._ordered(found, "remove")
        if entries:
            change |= Change.DONE
        ending = [self._ledger.removed(found.message, entry) for entry in entries]
        return gatherResults(ending).addCallback(lambda _: change)

    def bounce(self, found: Recovered) -> Deferred[Change]:
        """Return it to its sender now.  What is being tried just now is left alone."""
        return self._in_turn(self._bounce, found)

    def _bounce(self, found: Recovered) -> Deferred[Change]:
        id = found.message.id
        if id in self._spool.corrupt_ids():
            return succeed(Change.NOTHING)
        if self._scheduler is None:
            entries: Sequence[Entry] = self._made(found)
        elif self._scheduler.is_active(id):
            return succeed(Change.NOTHING)
        else:
            entries = self._scheduler.remove(id)
        ending = [
            self._ledger.end(
                entry, [Ended(index, "bounced", RETURNED) for index in entry.recipients]
            )
            for entry in entries
        ]
        change = Change.DONE if entries else Change.NOTHING
        return gatherResults(ending).addCallback(lambda _: change)

    def _in_turn(
        self, change: Callable[[Recovered], Deferred[Change]], found: Recovered
    ) -> Deferred[Change]:
        """One hand at a time on a message: each finds what the one before it has left."""
        id = found.message.id
        lock = self._hands.setdefault(id, DeferredLock())

        def over(result: Change | Failure) -> Change | Failure:
            if not lock.locked:
                self._hands.pop(id, None)
            return result

        return lock.run(change, found).addBoth(over)

    def _ordered(self, found: Recovered, order: Order) -> Change:
        """LATER where that is to be done to what is being tried just now."""
        scheduler = self._scheduler
        if scheduler is None:
            return Change.NOTHING
        entries = scheduler.entries(found.message.id)
        is_any = any(scheduler.order(entry) == order for entry in entries)
        return Change.LATER if is_any else Change.NOTHING

    def _record(
        self,
        found: Recovered,
        entries: Sequence[Entry],
        event: Literal["held", "released"] | None,
    ) -> Deferred[Change]:
        page = Page([], [])
        for entry in entries:
            if event is not None:
                page.lines += self._ledger.moved(found.message, entry, entry.recipients, event)
            now = status_of(entry)
            if event == "released":
                now = attrs.evolve(now, state="deferred" if entry.attempts else "scheduled")
            page.operations.append(Update(entry.id, entry.recipients, now))
        if not entries:
            return succeed(Change.NOTHING)
        return self._ledger.commit(page).addCallback(lambda _: Change.DONE)

    # --- entries ---------------------------------------------------------------------------------

    def _entries(self, found: Recovered) -> list[Entry]:
        """The scheduler's; without one, such as it would make."""
        if self._scheduler is not None:
            return list(self._scheduler.entries(found.message.id))
        return self._made(found)

    @staticmethod
    def _made(found: Recovered) -> list[Entry]:
        groups: dict[RecipientStatus, list[int]] = {}
        for index, one in enumerate(found.statuses):
            if one is not None:
                groups.setdefault(one, []).append(index)
        return [
            Entry(
                found.message.id,
                NOWHERE,
                tuple(indexes),
                found.message.envelope.hold_until or found.message.arrived_at,
                one.due_at,
                expires_at=0.0,
                warn_at=0.0 if one.is_warned else 1.0,
                attempts=one.attempts,
                transitions=one.transitions,
                cause=one.cause,
                state=one.state,
            )
            for one, indexes in groups.items()
        ]

    def _entry_of(self, id: QueueId, index: int) -> Entry | None:
        if self._scheduler is None:
            return None
        for entry in self._scheduler.entries(id):
            if index in entry.recipients:
                return entry
        return None

    def _state(self, id: QueueId, index: int, status: RecipientStatus) -> str:
        if id in self._spool.corrupt_ids():
            return "corrupt"
        entry = self._entry_of(id, index)
        return status.state if entry is None else entry.state

    def _absence(self, id: QueueId, index: int) -> str:
        entry = self._entry_of(id, index)
        if entry is None or self._scheduler is None:
            return ""
        return self._scheduler.absence(entry)

    def _next_attempt_at(
        self, message: Message, index: int, status: RecipientStatus
    ) -> float | None:
        """POSIX seconds; None where there will be none unless something happens before."""
        if self._state(message.id, index, status) in ("held", "corrupt"):
            return None
        entry = self._entry_of(message.id, index)
        if entry is None or self._scheduler is None:
            return waits_until(message, status, self._now())
        return self._scheduler.next_attempt_at(entry)


def _loudest(states: Sequence[str]) -> str:
    """One word for a message whose recipients stand differently."""
    return next((state for state in LOUDNESS if state in states), "ended")
