"""How long a gateway waits before it calls its relay again: pure, and for each reason its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    import random

Loss = Literal["lost", "replaced", "refused", "limited"]
"""Why there is no session: the connection, or the relay itself, is gone or was never there, or the
login took too long; another gateway came with the same key (4400); the relay will not have us (4401);
we came too often (4408).
"""

STEADY_S: Final = 5.0
"""A session that lasted so long shows that the relay is well: the waits begin anew."""

_LONG_S: Final[dict[Loss, tuple[float, float]]] = {
    # Of two gateways with one key, each login cuts the other's session: seldom, then, and ever
    # more seldom, but often enough to be there soon after the other one has gone.
    "replaced": (30.0, 900.0),
    "refused": (15.0, 300.0),
    "limited": (60.0, 300.0),
}
"""The first wait and the longest, for reasons that a quick repetition would make worse."""


@attrs.define
class Patience:
    """The waits of one identity.

    :ivar base_s: the first wait after a loss.
    :ivar max_s: the longest.
    """

    base_s: float
    max_s: float
    _losses: int = 0
    _long: dict[Loss, int] = attrs.field(factory=dict)
    _last_s: float = 0.0

    def after(self, loss: Loss, lasted_s: float, rng: random.Random) -> float:
        """Seconds to wait: doubled with each loss up to the longest, less up to a quarter, so that
        many who were cut off at once do not come back at once.

        :param lasted_s: how long the session stood; 0 where there was none.
        """
        if lasted_s >= STEADY_S:
            self._losses = 0
            # One that stood no longer than we had stayed away is still part of the same quarrel.
            if lasted_s > self._last_s:
                self._long.clear()
        if loss == "lost":
            first_s, most_s, times = self.base_s, self.max_s, self._losses
            self._losses += 1
        else:
            first_s, most_s = _LONG_S[loss]
            times = self._long.get(loss, 0)
            self._long[loss] = times + 1
        wait_s: float = min(first_s * 2.0 ** min(times, 64), most_s)
        self._last_s = wait_s
        return wait_s * rng.uniform(0.75, 1.0)


QUICK_S: Final = 0.05
SLOW_S: Final = 6.5
"""Between two logins of one gateway, before and after the relay has complained: an original relay
counts two messages a login, and takes twenty a minute from one address."""


@attrs.define
class Pace:
    """When each login may begin, since a relay counts by address and all come from one.

    :ivar next_at: on a clock that never jumps back.
    """

    next_at: float = 0.0
    _gap_s: float = QUICK_S

    def turn(self, now: float) -> float:
        """Take the next turn.  :return: seconds until it comes."""
        at = max(now, self.next_at)
        self.next_at = at + self._gap_s
        return at - now

    def limited(self, now: float) -> None:
        """The relay says that we come too often: nobody calls for a while, then slowly."""
        self._gap_s = SLOW_S
        self.next_at = max(self.next_at, now + _LONG_S["limited"][0])
