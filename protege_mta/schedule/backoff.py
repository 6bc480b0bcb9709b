"""When to try again (RFC 5321, 4.5.4.1): arithmetic on times that are handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
from attrs import validators

if TYPE_CHECKING:
    import random


@attrs.frozen(kw_only=True)
class Backoff:
    """Waits that grow with each failure in a row, up to a longest one.

    :ivar first_s: wait after the first failure, in seconds.
    :ivar factor: each further wait is so many times the one before it.
    :ivar max_interval_s: no wait is longer than this before jitter, in seconds.
    :ivar jitter: greatest share added at random, 0.0 to 1.0, so that what failed together is not
        tried again together.
    """

    first_s: float = attrs.field(default=300.0, validator=validators.gt(0))
    factor: float = attrs.field(default=2.0, validator=validators.ge(1.0))
    max_interval_s: float = attrs.field(default=14_400.0, validator=validators.gt(0))
    jitter: float = attrs.field(default=0.1, validator=[validators.ge(0.0), validators.le(1.0)])

    def wait_s(self, failures: int, rng: random.Random) -> float:
        """The wait after so many failures in a row, in seconds.

        :param failures: 1 or more.
        :param rng: source of jitter; seed it in tests.
        """
        if failures < 1:
            raise ValueError(f"failures must be 1 or more, not {failures}")
        try:
            wait = self.first_s * self.factor ** (failures - 1)
        except OverflowError:  # a count beyond what a float can hold is the longest wait too
            wait = self.max_interval_s
        return min(wait, self.max_interval_s) * (1.0 + self.jitter * rng.random())


@attrs.frozen(kw_only=True)
class RetrySchedule(Backoff):
    """A message's attempts, from its arrival to its greatest age.

    The fields are those of the configuration's ``[retry]`` table.

    :ivar max_age_s: age at which the last attempt is made, and the message returned.
    :ivar bounce_max_age_s: the same for mail with a null reverse-path.
    :ivar delay_warning_s: age at which the sender is told of the delay; 0 for never.
    """

    max_age_s: float = attrs.field(default=432_000.0, validator=validators.gt(0))
    bounce_max_age_s: float = attrs.field(default=86_400.0, validator=validators.gt(0))
    delay_warning_s: float = attrs.field(default=14_400.0, validator=validators.ge(0))

    def next_attempt(
        self, *, failures: int, arrived: float, now: float, rng: random.Random, max_age_s: float
    ) -> float | None:
        """Compute the next attempt's time.

        Where the next wait would pass the greatest age, the next attempt is the last one, and is
        made exactly at that age.

        :param failures: attempts that have failed, 1 or more.
        :param arrived: when we took responsibility, POSIX seconds.
        :param now: the present, POSIX seconds.
        :param rng: source of jitter; seed it in tests.
        :param max_age_s: this message's greatest age, :attr:`max_age_s` or
            :attr:`bounce_max_age_s`.
        :return: POSIX seconds, or None when the message is to be returned.
        """
        end = arrived + max_age_s
        if now >= end:
            return None
        return min(now + self.wait_s(failures, rng), end)


AGENTS: Final = Backoff(first_s=1.0, max_interval_s=300.0)
"""Of mail that has failed on the way to an agent, and of agents that have no room just now: another
attempt troubles nobody else's machine, and whoever waits for the mail is there."""


def for_agents(retry: RetrySchedule) -> RetrySchedule:
    """The attempts of mail for an agent that is there; while it is away there are none."""
    return attrs.evolve(
        retry,
        first_s=min(AGENTS.first_s, retry.first_s),
        factor=AGENTS.factor,
        max_interval_s=min(AGENTS.max_interval_s, retry.max_interval_s),
    )


@attrs.define(eq=False)
class Pause:
    """A back-off of something that many messages share; in memory only.

    :ivar failures: in a row.
    :ivar until: POSIX seconds; 0 where there is no pause.
    :ivar remembered_until: a failure after this time counts as the first one again.
    :ivar cause: the last failure in words; empty where there was none.
    """

    failures: int = 0
    until: float = 0.0
    remembered_until: float = 0.0
    cause: str = ""

    def fail(self, cause: str, *, now: float, backoff: Backoff, rng: random.Random) -> None:
        """Begin the next, longer pause."""
        self.failures = self.failures + 1 if now < self.remembered_until else 1
        wait_s = backoff.wait_s(self.failures, rng)
        self.until = now + wait_s
        # Who is not tried again for as long as it was left alone is not known any more.
        self.remembered_until = self.until + wait_s
        self.cause = cause

    def end(self) -> None:
        """The time has come for another try; the failures are remembered."""
        self.until = 0.0

    def clear(self) -> None:
        """All is well again."""
        self.failures = 0
        self.until = self.remembered_until = 0.0
        self.cause = ""
