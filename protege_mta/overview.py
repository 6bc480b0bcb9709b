"""How the whole of a service is: what ``status`` says, and how much is queued."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import attrs

from . import __version__
from .config.model import Settings
from .event_feed import EventFeed
from .gateway import Gateway
from .model.tally import Tally
from .observe.metrics import Depth
from .relay_server import RelayServer
from .schedule.scheduler import Scheduler
from .spool.disk import DiskSpool


@attrs.frozen(kw_only=True)
class Overview:
    """Asks the parts.

    :ivar settings: those in force.
    :ivar started_at: the service, POSIX seconds.
    """

    settings: Callable[[], Settings]
    started_at: float
    scheduler: Scheduler
    spool: DiskSpool
    tally: Tally
    gateway: Gateway
    relay_server: RelayServer
    feed: EventFeed

    def depth(self) -> Depth:
        """How much is queued."""
        depth = self.scheduler.depth()
        entries = {
            "scheduled": depth.scheduled,
            "active": depth.active,
            "deferred": depth.deferred,
            "held": depth.held,
        }
        oldest = depth.oldest_arrived_at
        return Depth(entries, time.time() - oldest if oldest else 0.0)

    def status(self) -> dict[str, Any]:
        """The one row of ``status``."""
        settings, queued = self.settings(), self.depth()
        depth, stats = self.scheduler.depth(), self.spool.stats()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "hostname": settings.hostname,
            "mode": settings.mode,
            "uptime_s": time.time() - self.started_at,
            "configuration": str(settings.source or ""),
            "queue": {
                "messages": stats.messages,
                **queued.entries,
                "oldest_age_s": queued.oldest_age_s,
                "sites": depth.sites,
                "paused_sites": depth.paused_sites,
            },
            "spool": {
                "content_octets": stats.content_octets,
                "disk_octets": stats.disk_octets,
                "free_octets": stats.free_octets,
                "segments": stats.segments,
                "corrupt": stats.corrupt,
                "is_failed": stats.is_failed,
            },
            **({"relay": self.gateway.status()} if settings.mode == "relay" else {}),
            "connections": {
                "in": self.tally.connections_in_open,
                "out": self.tally.connections_out_open,
            },
            "tunnel": self.relay_server.status(),
            "webhooks": self.feed.status(),
        }
