"""How long a gateway stays away from its relay."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.tunnel.patience import Loss, Pace, Patience


class Unhurried(random.Random):
    """No jitter: the longest of each range."""

    def uniform(self, a: float, b: float) -> float:
        return b


def again(loss: Loss, lasted_s: float, times: int) -> list[tuple[Loss, float]]:
    return [(loss, lasted_s)] * times


class PatienceTests(SynchronousTestCase):
    def waits(self, patience: Patience, *losses: tuple[Loss, float]) -> list[float]:
        return [patience.after(loss, lasted_s, Unhurried()) for loss, lasted_s in losses]

    def test_losses_double_the_wait_up_to_the_longest(self) -> None:
        patience = Patience(0.25, 8.0)
        self.assertEqual(
            self.waits(patience, *again("lost", 0.0, 8)),
            [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0],
        )

    def test_a_session_that_stood_begins_anew(self) -> None:
        patience = Patience(1.0, 60.0)
        self.assertEqual(
            self.waits(patience, ("lost", 0), ("lost", 0), ("lost", 3600.0), ("lost", 0)),
            [1.0, 2.0, 1.0, 2.0],
        )

    def test_a_session_that_falls_at_once_does_not(self) -> None:
        """A relay that takes the login and dies of it is not called four times a second."""
        patience = Patience(0.25, 8.0)
        self.assertEqual(self.waits(patience, *again("lost", 0.1, 4)), [0.25, 0.5, 1.0, 2.0])

    def test_the_quarrel_with_another_gateway_dies_down(self) -> None:
        """Whether the other one wins back at once, or waits as long as we do."""
        patience = Patience(0.25, 8.0)
        self.assertEqual(
            self.waits(patience, ("replaced", 3600.0), ("replaced", 0.3), ("replaced", 30.0)),
            [30.0, 60.0, 120.0],
        )
        self.assertEqual(self.waits(patience, *again("replaced", 1.0, 4))[-1], 900.0)

    def test_a_quarrel_is_over_once_we_were_left_alone(self) -> None:
        patience = Patience(0.25, 8.0)
        self.assertEqual(
            self.waits(patience, ("replaced", 0.3), ("replaced", 0.3), ("replaced", 4000.0)),
            [30.0, 60.0, 30.0],
        )

    def test_refusals_are_answered_slowly(self) -> None:
        patience = Patience(0.25, 8.0)
        self.assertEqual(
            self.waits(patience, *again("refused", 0.0, 6)), [15.0, 30.0, 60.0, 120.0, 240.0, 300.0]
        )

    def test_no_wait_has_no_end(self) -> None:
        patience = Patience(0.25, 8.0)
        self.assertEqual(self.waits(patience, *again("lost", 0.0, 5000))[-1], 8.0)

    def test_jitter_only_shortens(self) -> None:
        rng = random.Random(1)
        waits = [Patience(8.0, 8.0).after("lost", 0.0, rng) for _ in range(1000)]
        self.assertTrue(all(6.0 <= wait <= 8.0 for wait in waits))
        self.assertGreater(max(waits) - min(waits), 1.5)


class PaceTests(SynchronousTestCase):
    def test_many_personas_do_not_come_in_one_instant(self) -> None:
        pace = Pace()
        turns = [pace.turn(100.0) for _ in range(4)]
        self.assertEqual([round(turn, 3) for turn in turns], [0.0, 0.05, 0.1, 0.15])

    def test_a_relay_that_complains_is_left_alone_then_called_slowly(self) -> None:
        pace = Pace()
        pace.turn(100.0)
        pace.limited(100.0)
        self.assertEqual([pace.turn(100.0) for _ in range(3)], [60.0, 66.5, 73.0])

    def test_time_that_has_passed_is_not_waited_for(self) -> None:
        pace = Pace()
        pace.turn(100.0)
        self.assertEqual(pace.turn(200.0), 0.0)
