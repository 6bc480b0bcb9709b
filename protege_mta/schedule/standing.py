"""What the scheduler tells people: where mail stands, and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import attrs

from ..model.hop import HopKind, NextHop
from .entry import Entry, EntryState
from .register import Register
from .sitequeue import HopQueue, Line, SiteQueue


@attrs.frozen
class Standing:
    """One entry, for ``explain`` and ``queue show``.

    :ivar site: the key of the site it waits for or is active at; empty where none is known.
    :ivar next_attempt_at: as :func:`next_attempt_at`.
    :ivar why: one sentence, without a full stop.
    """

    hop: NextHop
    recipients: tuple[int, ...]
    site: str
    state: EntryState
    next_attempt_at: float | None
    attempts: int
    why: str


@attrs.frozen
class Depth:
    """The whole queue in figures.

    :ivar oldest_arrived_at: POSIX seconds; 0 where there is nothing but what waits for its release.
    :ivar sites: how many are known at the moment.
    :ivar paused_sites: how many of them back off.
    """

    scheduled: int
    deferred: int
    active: int
    held: int
    oldest_arrived_at: float
    sites: int
    paused_sites: int


@attrs.frozen
class SiteSummary:
    """One site, for ``status``.

    :ivar waiting: due entries that wait for it.
    :ivar active: attempts under way.
    :ivar window: how many may be.
    :ivar failures: in a row.
    :ivar paused_until: POSIX seconds; 0 where it does not back off.
    :ivar cause: the last failure in words; empty where there was none.
    """

    key: str
    kind: HopKind
    waiting: int
    active: int
    window: int
    failures: int
    paused_until: float
    cause: str


def depth_of(register: Register, sites: Mapping[str, SiteQueue], now: float) -> Depth:
    """The queue in figures; cheap.

    :param now: the present, POSIX seconds.
    """
    counts = register.counts
    return Depth(
        scheduled=counts["scheduled"],
        deferred=counts["deferred"],
        active=counts["active"],
        held=counts["held"],
        oldest_arrived_at=register.oldest_arrived_at(now),
        sites=len(sites),
        paused_sites=sum(queue.pause.until > 0.0 for queue in sites.values()),
    )


def summary_of(queue: SiteQueue) -> SiteSummary:
    return SiteSummary(
        key=queue.site.key,
        kind=queue.site.kind,
        waiting=queue.waiting,
        active=queue.active,
        window=queue.window.size,
        failures=queue.pause.failures,
        paused_until=queue.pause.until,
        cause=queue.pause.cause,
    )


def clock_time(at: float) -> str:
    """A time for people, to the second and in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def standing_of(
    entry: Entry,
    hop: HopQueue | None,
    order: Literal["hold", "remove"] | None,
) -> Standing:
    """Describe where an entry stands.

    :param hop: the entry's, where it is known at the moment.
    :param order: what a person wants of it once it comes back.
    """
    queue = _queue(entry, hop)
    return Standing(
        hop=entry.hop,
        recipients=entry.recipients,
        site="" if queue is None else queue.site.key,
        state=entry.state,
        next_attempt_at=next_attempt_at(entry, hop),
        attempts=entry.attempts,
        why=_why(entry, hop, queue, order),
    )


def next_attempt_at(entry: Entry, hop: HopQueue | None) -> float | None:
    """When an entry is to be tried next, POSIX seconds; in the past where it waits for its turn.

    None where it waits for something else than its time or its turn: for a person, while it is held;
    for the end of the attempt under way; for somebody to come; for a site, or the lookup of its hop,
    to be tried again.

    :param hop: the entry's, where it is known at the moment.
    """
    if entry.state not in ("scheduled", "deferred") or is_absent(entry, hop):
        return None
    if entry.place is not None and hop is not None:
        line = hop if entry.place is hop.line else _queue(entry, hop)
        if line is not None and line.pause.until:
            return None
    return entry.due_at


def is_absent(entry: Entry, hop: HopQueue | None) -> bool:
    """Whether an entry waits for somebody to come.

    :param hop: the entry's.
    """
    return hop is not None and hop.absence is not None and entry.place is hop.line


def why_held(entry: Entry) -> str:
    """Why held mail waits, in a sentence; where it was held before it was tried, for what."""
    why = "" if entry.attempts else entry.cause
    return f"held until it is released: {why}" if why else "held until it is released"


def _queue(entry: Entry, hop: HopQueue | None) -> SiteQueue | None:
    match entry.place:
        case SiteQueue() as queue:
            return queue
        case Line(lane=lane) if lane is not None:
            return lane.queue
    return None if hop is None else hop.site


def _why(
    entry: Entry,
    hop: HopQueue | None,
    queue: SiteQueue | None,
    order: Literal["hold", "remove"] | None,
) -> str:
    if entry.state == "held":
        return why_held(entry)
    if entry.state == "active":
        where = (
            "being given up for now" if queue is None else f"being delivered to {queue.site.key}"
        )
        match order:
            case "hold":
                return f"{where}; what remains will be held"
            case "remove":
                return f"{where}; what remains will be removed"
        return where
    if entry.place is None and entry.state == "scheduled":
        return f"scheduled for {clock_time(entry.due_at)}"
    if entry.place is None:
        return f"next attempt at {clock_time(entry.due_at)}"
    if hop is not None and entry.place is hop.line:
        if hop.absence is not None:
            since, until = clock_time(hop.absent_since), clock_time(entry.expires_at)
            return f"{hop.absence.cause.text}, nor has it been since {since}; held until {until}"
        if hop.pause.until:
            until = clock_time(hop.pause.until)
            return f"{entry.hop.name} is looked up again at {until}: {hop.pause.cause}"
        return f"waits for the lookup of {entry.hop.name}"
    if queue is None:
        return f"waits for {entry.hop.name}"
    if queue.pause.until:
        return (
            f"{queue.site.key} backs off until {clock_time(queue.pause.until)}: {queue.pause.cause}"
        )
    if not queue.has_room:
        return (
            f"waits for one of {queue.window.size} connections to {queue.site.key}, "
            f"with {queue.waiting - 1} others"
        )
    if queue.site.kind == "agent":
        return f"waits for one of {queue.slots.size} streams to all agents together"
    return f"waits for one of {queue.slots.size} connections to all sites together"
