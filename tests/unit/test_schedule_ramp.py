"""Mail that is due at start goes out ever faster."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.schedule.ramp import Ramp


class RampTests(SynchronousTestCase):
    def test_after_t_seconds_half_the_pace_times_t_squared_are_due(self) -> None:
        ramp = Ramp(20.0)
        due = [ramp.next_at(1000.0) for _ in range(40)]
        self.assertEqual([due[9], due[39]], [1001.0, 1002.0])
        self.assertEqual(due, sorted(due))

    def test_it_begins_with_the_first_that_is_asked_for_and_never_gives_the_past(self) -> None:
        ramp = Ramp(2.0)
        self.assertEqual(ramp.next_at(500.0), 501.0)
        self.assertEqual(ramp.next_at(600.0), 600.0)
