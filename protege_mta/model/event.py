"""The names of events."""

from __future__ import annotations

from typing import Final

EVENTS: Final = (
    *("received", "scheduled", "deferred", "delayed", "delivered", "relayed", "bounced"),
    *("expired", "suppressed", "returned", "feedback", "held", "released", "removed"),
    "rejected",
)
