"""Back-off is arithmetic: whole schedules, written out."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.schedule.backoff import Backoff, Pause, RetrySchedule


def waits(schedule: RetrySchedule, max_age_s: float, limit: int = 50) -> list[float]:
    """The waits between attempts of a message that arrives at 1,000 and fails at once each time."""
    now, found = 1000.0, list[float]()
    for failures in range(1, limit + 1):
        due = schedule.next_attempt(
            failures=failures,
            arrived=1000.0,
            now=now,
            rng=random.Random(0),
            max_age_s=max_age_s,
        )
        if due is None:
            break
        found.append(due - now)
        now = due
    return found


class RetryScheduleTests(SynchronousTestCase):
    """The times of a message's attempts."""

    def test_default_schedule(self) -> None:
        """Five minutes doubled up to four hours, and the last attempt at the greatest age."""
        schedule = RetrySchedule(jitter=0.0)
        self.assertEqual(
            waits(schedule, schedule.max_age_s),
            [300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0] + [14400.0] * 28 + [9900.0],
        )

    def test_short_schedule(self) -> None:
        """The last wait is cut to what is left of the age."""
        schedule = RetrySchedule(first_s=10, factor=3, max_interval_s=80, jitter=0.0)
        self.assertEqual(waits(schedule, 300.0), [10.0, 30.0, 80.0, 80.0, 80.0, 20.0])

    def test_bounces_are_given_up_sooner(self) -> None:
        schedule = RetrySchedule(first_s=3600, jitter=0.0)
        self.assertEqual(
            waits(schedule, schedule.bounce_max_age_s),
            [3600.0, 7200.0] + [14400.0] * 5 + [3600.0],
        )

    def test_at_the_end_it_is_returned(self) -> None:
        """A failure at the greatest age, or after it, is the last one."""
        schedule = RetrySchedule()
        for now in (1100.0, 1101.0):
            self.assertIsNone(
                schedule.next_attempt(
                    failures=3, arrived=1000.0, now=now, rng=random.Random(0), max_age_s=100.0
                )
            )

    def test_just_before_the_end(self) -> None:
        schedule = RetrySchedule()
        due = schedule.next_attempt(
            failures=3, arrived=1000.0, now=1099.5, rng=random.Random(0), max_age_s=100.0
        )
        self.assertEqual(due, 1100.0)

    def test_jitter_only_adds(self) -> None:
        """A wait of 100 with jitter 0.5 lies between 100 and 150, and is not always the same."""
        rng = random.Random(7)
        found = {round(Backoff(first_s=100, jitter=0.5).wait_s(1, rng)) for _ in range(300)}
        self.assertGreaterEqual(min(found), 100)
        self.assertLessEqual(max(found), 150)
        self.assertGreater(len(found), 40)

    def test_a_huge_count(self) -> None:
        """A count beyond any float is the longest wait, and no error."""
        self.assertEqual(Backoff(jitter=0.0).wait_s(10**6, random.Random(0)), 14_400.0)

    def test_no_failure_has_no_wait(self) -> None:
        with self.assertRaises(ValueError):
            Backoff().wait_s(0, random.Random(0))

    def test_nonsense_is_refused(self) -> None:
        for field in ({"first_s": 0.0}, {"factor": 0.5}, {"jitter": 1.5}, {"max_age_s": -1.0}):
            with self.assertRaises(ValueError):
                RetrySchedule(**field)


class PauseTests(SynchronousTestCase):
    """A back-off that many messages share."""

    def test_grows_with_failures_in_a_row(self) -> None:
        pause, backoff, rng = Pause(), Backoff(first_s=30, jitter=0.0), random.Random(0)
        found, now = [], 0.0
        for _ in range(5):
            pause.fail("refused", now=now, backoff=backoff, rng=rng)
            found.append(pause.until - now)
            now = pause.until
        self.assertEqual(found, [30.0, 60.0, 120.0, 240.0, 480.0])

    def test_forgotten_after_as_long_again(self) -> None:
        """Nobody came for twice the wait: the next failure is a first one."""
        pause, backoff, rng = Pause(), Backoff(first_s=30, jitter=0.0), random.Random(0)
        pause.fail("refused", now=0.0, backoff=backoff, rng=rng)
        pause.fail("refused", now=60.0, backoff=backoff, rng=rng)
        self.assertEqual((pause.failures, pause.until), (1, 90.0))
