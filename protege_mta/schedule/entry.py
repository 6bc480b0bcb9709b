"""What the scheduler knows of queued mail, and what a worker tells it.

Ids, next hops, times, tenant and priority; no address, no octet.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal

import attrs

from ..model.hop import NextHop
from ..model.ids import QueueId
from ..model.value import value

if TYPE_CHECKING:
    from .sitequeue import Line, SiteQueue
    from .wheel import Bucket

EntryState = Literal["scheduled", "deferred", "active", "held", "gone"]
"""``scheduled`` before the first failed attempt and ``deferred`` after it, waiting for their time
or for their turn; ``active`` in a worker's hands; ``held`` until a person releases it; ``gone`` out
of the scheduler."""


@attrs.define(eq=False, weakref_slot=False)
class Entry:
    """The recipients of one message that share one next hop and one schedule.

    Mutable, and owned by the scheduler from :meth:`~.scheduler.Scheduler.add` until it is handed
    back for good; others only read it.  A queue holds a million of these: hand in shared values
    where there are any (the message's id, a cached :class:`NextHop`, the tuple ``(0,)``).

    :ivar recipients: indexes into the message's envelope.
    :ivar due_at: when to try next, POSIX seconds; now or in the past for at once.
    :ivar expires_at: the end of the message's age, POSIX seconds; the last attempt may be due at
        this very time.
    :ivar arrived_at: from when its age counts, POSIX seconds: when we took responsibility for the
        message, or the time of release that its sender chose (RFC 4865), which may lie ahead.
    :ivar warn_at: when the sender is to be told of the delay; 0 for never, or told already.
    :ivar attempts: real contacts that have failed.
    :ivar tenant: takes turns with other tenants inside its lane.
    :ivar is_urgent: in the fast lane of its site.
    :ivar transitions: how many transitions of each recipient have events; the dispatcher counts.
    :ivar cause: the last failure, ``code enhanced text``; the dispatcher's.
    :ivar state: set to ``held`` before ``add`` for mail that was held before a restart; otherwise
        the scheduler sets it.
    """

    id: QueueId
    hop: NextHop
    recipients: tuple[int, ...]
    arrived_at: float
    due_at: float
    expires_at: float
    warn_at: float = 0.0
    attempts: int = 0
    tenant: str = ""
    is_urgent: bool = False
    transitions: int = 1
    cause: str = ""
    state: EntryState = "scheduled"

    # The scheduler's own: where the entry waits or which site it occupies, its neighbours there,
    # and the wheel's bucket that will wake it.
    place: Line | SiteQueue | None = attrs.field(default=None, init=False, repr=False)
    ahead: Entry | None = attrs.field(default=None, init=False, repr=False)
    behind: Entry | None = attrs.field(default=None, init=False, repr=False)
    bucket: Bucket | None = attrs.field(default=None, init=False, repr=False)


class Health(enum.Enum):
    """What an attempt taught about its site."""

    GOOD = "good"  # it spoke to us sensibly, whatever it said of the message
    HOST_TROUBLE = "host trouble"  # a host of it refused, timed out or hung up
    DEAD = "dead"  # no host of it could be reached at all
    ABSENT = "absent"  # whoever was there has gone; no host of somebody else's, to be spared
    UNKNOWN = "unknown"  # nothing: the trouble was ours, or the site was never located


@value
class Report:
    """How an attempt ended, as far as scheduling goes.

    :ivar recipients: those that remain; empty when the entry is done with.
    :ivar attempts: real contacts that have failed, this one included if it was one.
    :ivar due_at: when to try what remains again, POSIX seconds.
    :ivar cause: what was wrong with the site, in words for people; for DEAD and HOST_TROUBLE.
    """

    health: Health
    recipients: tuple[int, ...] = ()
    attempts: int = 0
    due_at: float = 0.0
    cause: str = ""


DONE = Report(Health.GOOD)
"""The usual end: the site took or refused every recipient."""
