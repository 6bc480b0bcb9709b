"""What the scheduler tells people: where mail stands, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs

from ..model.hop import HopKind, NextHop

from .entry import EntryState


@attrs.frozen
class Standing:
    """One entry, for ``explain`` and ``queue show``.

    :ivar site: the key of the site it waits for or is active at; empty where none is known.
    :ivar why: one sentence, without a full stop.
    """

    hop: NextHop
    recipients: tuple[int, ...]
    site: str
    state: EntryState
    due_at: float
    attempts: int
    why: str


@attrs.frozen
class Depth:
    """The whole queue in figures.

    :ivar oldest_arrived_at: POSIX seconds; 0 for an empty queue.
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


def clock_time(at: float) -> str:
    """A time for people, to the second and in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
