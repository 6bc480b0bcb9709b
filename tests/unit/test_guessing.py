"""Waits and locks after failed logins, and whom they do not concern."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.policy.guessing import (
    KNOWN_S,
    Guesser,
    Guesses,
    LoginSettings,
    Recent,
)


def owner(place: str = "home", revision: int = 7) -> Guesser:
    return Guesser("alice", place, revision)


def stranger(place: str, name: str = "alice", revision: int = 7) -> Guesser:
    return Guesser(name, place, revision)


class GuessesTests(SynchronousTestCase):
    """Ten failures in 600 s lock for 900 s."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.guesses = Guesses(LoginSettings(), self.clock.seconds)

    def fail(self, who: Guesser, times: int = 1) -> list[float | None]:  # type: ignore[override]
        """What each of so many attempts has to wait before it fails."""
        waits = []
        for _ in range(times):
            waits.append(self.guesses.wait_s(who))
            if waits[-1] is not None:
                self.guesses.failed(who)
        return waits

    def test_waits_double(self) -> None:
        """And the name is locked at that place in the end."""
        self.assertEqual(
            self.fail(stranger("here"), 12), [0, 1, 2, 4, 8, 16, 16, 16, 16, 16, None, None]
        )

    def test_waits_are_those_of_the_settings(self) -> None:
        self.guesses.settings = LoginSettings(delay_s=0.5, failures=3)
        self.assertEqual(self.fail(stranger("here"), 4), [0, 0.5, 1, None])
        self.guesses.settings = LoginSettings(delay_s=0, lock_s=0, failures=3)
        self.assertEqual(self.fail(stranger("there"), 5), [0, 0, 0, 0, 0])

    def test_a_lock_ends(self) -> None:
        """And the count begins anew."""
        self.fail(stranger("here"), 10)
        self.clock.advance(899)
        self.assertIsNone(self.guesses.wait_s(stranger("here")))
        self.clock.advance(1)
        self.assertEqual(self.fail(stranger("here"), 2), [0, 1])

    def test_failures_are_forgotten(self) -> None:
        """A slow guesser has all the time in the world, and needs it."""
        self.fail(stranger("here"), 9)
        self.clock.advance(600)
        self.assertEqual(self.fail(stranger("here"), 2), [0, 1])

    def test_strangers_elsewhere_lock_nobody_out(self) -> None:
        """However many guess at a name from however many places, its owner gets in where he is, at
        once, and from a place where he never was after the longest wait."""
        self.guesses.succeeded(owner("home"))
        for number in range(500):
            self.fail(stranger(f"bot {number}"), 10)
        self.assertEqual(self.guesses.wait_s(owner("home")), 0)
        self.assertEqual(self.guesses.wait_s(owner("hotel")), 16)
        self.assertFalse(self.guesses.is_locked(owner("hotel")))

    def test_a_botnet_is_slowed_down(self) -> None:
        """Each ten failures of a name anywhere are one for those who come from a new place."""
        waits = []
        for number in range(50):
            waits += self.fail(stranger(f"bot {number}"))
        self.assertEqual(waits, [0] * 10 + [1] * 10 + [2] * 10 + [4] * 10 + [8] * 10)

    def test_spraying_locks_the_place(self) -> None:
        """Guesses at many names from one place: thirty in all."""
        waits = [self.fail(stranger("here", f"name {n}", 0))[0] for n in range(31)]
        self.assertEqual(waits[:6], [0, 1, 2, 4, 8, 16])
        self.assertEqual(waits[29:], [16, None])
        self.assertEqual(self.guesses.wait_s(stranger("there", "name 1", 0)), 0)

    def test_neighbours(self) -> None:
        """A name that has logged in from a place is not held up by what others do there."""
        self.guesses.succeeded(owner("office"))
        for number in range(40):
            self.fail(stranger("office", f"name {number}", 0))
        self.assertIsNone(self.guesses.wait_s(stranger("office", "bob", 3)))
        self.assertEqual(self.guesses.wait_s(owner("office")), 0)

    def test_guesses_at_the_owners_own_name_and_place(self) -> None:
        """Slow the owner down to one attempt in 16 s, and do not lock him out."""
        self.guesses.succeeded(owner())
        self.assertEqual(self.fail(owner(), 10)[:4], [0, 1, 2, 4])
        self.assertEqual(self.guesses.wait_s(owner()), 0)
        self.assertFalse(self.guesses.is_locked(owner()))
        self.assertIsNone(self.guesses.wait_s(owner()))
        self.clock.advance(16)
        self.assertEqual(self.guesses.wait_s(owner()), 0)
        self.guesses.succeeded(owner())
        self.assertEqual(self.guesses.wait_s(owner()), 0)
        self.assertEqual(self.guesses.wait_s(owner()), 0)

    def test_a_device_with_an_old_password(self) -> None:
        """Does not lock its neighbours out, if it tries every 17 s for a day."""
        self.guesses.succeeded(owner("office"))
        for _ in range(86_400 // 17):
            self.fail(owner("office"))
            self.clock.advance(17)
            self.assertFalse(self.guesses.is_locked(stranger("office", "bob", 3)))

    def test_a_changed_account_is_not_known(self) -> None:
        """Who had the old password does not profit from it."""
        self.guesses.succeeded(owner(revision=7))
        self.fail(owner(revision=8), 10)
        self.assertIsNone(self.guesses.wait_s(owner(revision=8)))
        self.assertTrue(self.guesses.is_locked(owner(revision=8)))

    def test_a_long_forgotten_success(self) -> None:
        self.guesses.succeeded(owner())
        self.clock.advance(KNOWN_S)
        self.fail(owner(), 10)
        self.assertIsNone(self.guesses.wait_s(owner()))

    def test_a_success_does_not_wipe_the_slate_of_the_place(self) -> None:
        """Who has an account of his own guesses at others no faster for it."""
        waits: list[float | None] = []
        for number in range(6):
            waits += self.fail(stranger("here", f"name {number}", 0))
            self.guesses.succeeded(Guesser("eve", "here", 5))
        self.assertEqual(waits, [0, 1, 2, 4, 8, 16])

    def test_a_success_wipes_that_of_the_name_there(self) -> None:
        self.fail(owner(), 4)
        self.guesses.succeeded(owner())
        self.assertEqual(self.fail(owner(), 2), [0, 1])

    def test_strangers_do_not_push_owners_out_of_memory(self) -> None:
        self.guesses.succeeded(owner())
        for number in range(20_001):
            self.guesses.failed(stranger(f"bot {number}", f"name {number}", 0))
        self.fail(owner(), 10)
        self.assertEqual(self.guesses.wait_s(owner()), 0)


class RecentTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        recent: Recent[str, int] = Recent(2)
        recent.put("a", 1)
        recent.put("b", 2)
        recent.put("a", 3)
        recent.put("c", 4)
        self.assertEqual([recent.get(key) for key in "abc"], [3, None, 4])
        self.assertEqual(len(recent), 2)
        recent.drop("a")
        recent.drop("a")
        self.assertIsNone(recent.get("a"))
