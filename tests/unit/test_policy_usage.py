"""How much an account has sent: exact, over restarts and with sessions side by side."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import Account, AccountLimits
from protege_mta.model.account import Usage as Row
from protege_mta.policy.usage import Reservation, Usage

NOON = 1_790_000_000


class UsageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOON + 0.25
        self.usage = Usage(lambda: self.now)
        self.account = Account(
            name="bot", password_hash="", limits=AccountLimits(messages_per_hour=1)
        )

    def begin(self, recipients: int = 0) -> Reservation:
        reservation = self.usage.begin(self.account.name, self.account.limits)
        assert reservation is not None
        for _ in range(recipients):
            self.assertTrue(reservation.add_recipient())
        return reservation

    def test_nothing_is_counted_before_it_is_settled(self) -> None:
        reservation = self.begin(2)
        self.assertEqual(self.usage.rows(), [])
        self.now += 5
        reservation.settle()
        self.assertEqual(self.usage.rows(), [("bot", NOON, 3600, 1, 2), ("bot", NOON, 86400, 1, 2)])

    def test_place_is_held_and_given_back(self) -> None:
        reservation = self.begin()
        self.assertIsNone(self.usage.begin(self.account.name, self.account.limits))
        reservation.release()
        self.begin()

    def test_window_opens_with_a_message_and_not_with_the_clock(self) -> None:
        """A day's end is no time at which twice as much may be sent."""
        self.now += 1000
        self.begin().settle()
        self.now += 3599.5
        self.assertIsNone(self.usage.begin(self.account.name, self.account.limits))
        self.now += 0.5
        self.begin()

    def test_message_that_ends_in_another_window(self) -> None:
        """Counts where it began, and takes nothing from the one that is open."""
        slow = self.begin(1)
        self.account = Account(name="bot", password_hash="")
        lost = self.begin(1)
        self.now += 3600
        self.begin(3).settle()
        slow.settle()
        lost.release()
        self.assertEqual(
            self.usage.rows(), [("bot", NOON + 3600, 3600, 1, 3), ("bot", NOON, 86400, 2, 4)]
        )

    def test_restart(self) -> None:
        self.begin(2).settle()
        rows = self.usage.rows()
        self.now += 1800
        self.usage = Usage(lambda: self.now)
        self.usage.restore(rows)
        self.assertIsNone(self.usage.begin(self.account.name, self.account.limits))
        self.assertEqual(self.usage.rows(), rows)
        self.now += 1800
        self.begin()

    def test_rows_are_of_windows_that_are_open(self) -> None:
        self.begin().settle()
        self.now += 3600
        self.assertEqual(self.usage.rows(), [("bot", NOON, 86400, 1, 0)])
        self.now += 86400
        self.assertEqual(self.usage.rows(), [])

    def test_clock_that_was_wrong(self) -> None:
        """A window in the future is not waited for."""
        self.usage.restore([Row("bot", NOON + 10**9, 3600, 1, 1)])
        self.begin().settle()
        self.assertIsNone(self.usage.begin(self.account.name, self.account.limits))

    def test_limits_that_change(self) -> None:
        """What was sent before there was a limit counts."""
        self.account = Account(name="bot", password_hash="")
        for _ in range(3):
            self.begin().settle()
        self.account = Account(
            name="bot", password_hash="", limits=AccountLimits(messages_per_day=4)
        )
        self.begin().settle()
        self.assertIsNone(self.usage.begin(self.account.name, self.account.limits))
