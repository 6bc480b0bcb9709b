"""Mail that is due when we start goes out ever faster, not all at once."""

from __future__ import annotations

import math


class Ramp:
    """Gives one entry after the other its time.

    :param pace: so many starts a second more each second.
    """

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._given = 0
        self._since = 0.0

    def next_at(self, now: float) -> float:
        """When the next one is due.  The ramp begins with the first that is asked for.

        :param now: the present, POSIX seconds.
        :return: POSIX seconds; now or later.
        """
        if not self._given:
            self._since = now
        self._given += 1
        # A pace that grows by so much each second has started pace * t**2 / 2 after t seconds.
        return max(now, self._since + math.sqrt(2.0 * self._given / self._pace))
