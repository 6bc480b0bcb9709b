"""Who is tried when: the sole owner of scheduling state and of its one timer.

The scheduler knows ids, next hops, times, tenant and priority, nothing else.  It starts attempts
through a callback; workers report with :meth:`Scheduler.finished` and own nothing.  How it works
is told in ``docs/explanation/scheduling.md``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal

import attrs
from attrs import validators
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..model.hop import HopKind, NextHop, Site
from ..model.ids import QueueId
from ..model.outcome import PermanentFailure, TransientFailure

from .backoff import Backoff
from .entry import Entry, Report
from .standing import Depth, SiteSummary, Standing
from .window import WINDOWS, WindowSettings

Order = Literal["hold", "remove"]
"""What a person wants of an entry that is active, once it comes back."""

Locate = Callable[[NextHop], Deferred[Site | TransientFailure | PermanentFailure]]
"""Finds a next hop's hosts.  A cache lies below it: it is asked again every ``located_s``."""


@attrs.frozen(kw_only=True)
class SchedulerSettings:
    """Limits and paces.

    :ivar concurrency: attempts under way at a time, all sites together.
    :ivar windows: attempts under way at a site, by its kind.
    :ivar backoff: of sites and of lookups, which live in memory only.
    :ivar located_s: for how long a located next hop is not looked up again.
    :ivar ramp: mail that is due after a restart is started ever faster, by so many starts a
        second more each second.
    """

    concurrency: int = attrs.field(default=500, validator=validators.ge(1))
    windows: Mapping[HopKind, WindowSettings] = WINDOWS
    backoff: Backoff = attrs.field(factory=lambda: Backoff(first_s=30.0))
    located_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    ramp: float = attrs.field(default=20.0, validator=validators.gt(0))


class Scheduler:
    """Starts each entry's attempts at the right time.

    :param clock: for the one timer.
    :param now: POSIX seconds.
    :param rng: source of jitter.
    :param locate: finds a hop's site; asked once for all entries that wait for it.
    :param start: begin an attempt.  The entry is in the worker's hands until :meth:`finished`,
        which may be called at once, from inside ``start``.
    :param unlocated: the hop of a due entry has no site, for now or for ever.  The entry is in the
        callee's hands, without a slot, until :meth:`finished` with a report of UNKNOWN health.
    :param expired: its age has passed and it is out of the scheduler; it was not active.
    :param late: its sender should be told of the delay.  The entry stays where it is, and its
        ``warn_at`` is 0 from now on.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        rng: random.Random,
        locate: Locate,
        start: Callable[[Entry, Site], None],
        unlocated: Callable[[Entry, TransientFailure | PermanentFailure], None],
        expired: Callable[[Entry], None],
        late: Callable[[Entry], None],
        settings: SchedulerSettings,
    ) -> None:
        raise NotImplementedError

    def add(self, entry: Entry) -> None:
        """Take an entry; if it is due and its site has room, ``start`` is called in here."""
        raise NotImplementedError

    def add_recovered(self, entry: Entry) -> None:
        """As :meth:`add`, for mail found at start: what is due is spread over a ramp, and what
        has expired while we were down gets one last attempt."""
        raise NotImplementedError

    def finished(self, entry: Entry, report: Report) -> None:
        """A worker gives the entry back.  :raise RuntimeError: it was not active."""
        raise NotImplementedError

    def hold(self, id: QueueId) -> list[Entry]:
        """Stop trying.  :return: the entries that are held now; active ones are once they come
        back with recipients left (see :meth:`order`)."""
        raise NotImplementedError

    def release(self, id: QueueId) -> list[Entry]:
        """Held entries are due now; orders to hold active ones are withdrawn."""
        raise NotImplementedError

    def retry(self, id: QueueId) -> list[Entry]:
        """Waiting entries (not held ones) are due now, and their sites' back-off is lifted."""
        raise NotImplementedError

    def remove(self, id: QueueId) -> list[Entry]:
        """:return: the entries that are out of the scheduler now; active ones are once they come
        back, whatever their report says (see :meth:`order`)."""
        raise NotImplementedError

    def order(self, entry: Entry) -> Order | None:
        """What a person wants of an active entry: whoever has it in hand obeys when storing what
        remains, before reporting it as finished."""
        raise NotImplementedError

    def entries(self, id: QueueId) -> tuple[Entry, ...]:
        """The message's entries; empty where it has none."""
        raise NotImplementedError

    def is_active(self, id: QueueId) -> bool:
        """Whether any entry of the message is in a worker's hands."""
        raise NotImplementedError

    def standing(self, id: QueueId) -> list[Standing]:
        """Where the message stands, one for each entry."""
        raise NotImplementedError

    def depth(self) -> Depth:
        """The queue in figures; cheap."""
        raise NotImplementedError

    def sites(self) -> list[SiteSummary]:
        """Every site known at the moment."""
        raise NotImplementedError

    def stop(self) -> Deferred[None]:
        """Start nothing more from now on; resolves when nothing is active."""
        raise NotImplementedError
