"""How a webhook is."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "failing", "down"]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook.

    :ivar state: ``down`` after several failures in a row: it is probed with one request now and
        then.
    :ivar delivered: events that were taken, ever; ``failed`` counts requests that were not.
    :ivar dead: requests that were given up and are kept.
    :ivar lost: how often events were no longer kept when it was their turn.
    :ivar lag_events: events of the journal that have not been looked at for it.
    :ivar lag_s: the age of the first event that it has not; 0 where it has all.
    :ivar next_try_at: POSIX seconds; None where nothing waits.
    """

    name: str
    state: State = "ok"
    cursor: str = ""
    delivered: int = 0
    failed: int = 0
    dead: int = 0
    lost: int = 0
    lag_events: int = 0
    lag_s: float = 0.0
    last_error: str = ""
    last_delivered_at: float | None = None
    next_try_at: float | None = None
