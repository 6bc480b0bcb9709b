"""What a scheduler may be told."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from attrs import validators

from ..model.hop import HopKind
from .backoff import Backoff
from .window import WINDOWS, WindowSettings


@attrs.frozen(kw_only=True)
class SchedulerSettings:
    """Limits and paces.

    :ivar concurrency: attempts under way at a time, all sites together but for agents.
    :ivar agent_concurrency: the same for agents: their links may be slow, and keep nobody else's
        mail waiting.
    :ivar windows: attempts under way at a site, by its kind.
    :ivar backoff: of sites and of lookups, which live in memory only.
    :ivar located_s: for how long a located next hop is not looked up again.
    :ivar ramp: mail that is due after a restart is started ever faster, by so many starts a
        second more each second.
    """

    concurrency: int = attrs.field(default=500, validator=validators.ge(1))
    agent_concurrency: int = attrs.field(default=500, validator=validators.ge(1))
    windows: Mapping[HopKind, WindowSettings] = WINDOWS
    backoff: Backoff = attrs.field(factory=lambda: Backoff(first_s=30.0))
    located_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    ramp: float = attrs.field(default=20.0, validator=validators.gt(0))
