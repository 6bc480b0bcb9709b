"""Proofs of AUTH: what is answered, after what work, at what price, and what is told of it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import cache
from typing import Any, Final, cast

import argon2
import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import Account
from protege_mta.model.ports import (
    Events,
    LoggedIn,
    PasswordProof,
    Peer,
    Proof,
    ResponseProof,
    ScramProof,
    StateFailed,
)
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.policy import password as passwords
from protege_mta.policy.guessing import LoginSettings
from protege_mta.policy.login import AT_ONCE, LINE, REMEMBER_S, Logins
from protege_mta.policy.password import ITERATIONS, with_password

NAMES: Final = {id(reply): name for name, reply in TABLE.items()}


def octets(count: int) -> bytes:
    return bytes(range(count))


@cache
def alice() -> Account:
    """Her password is ``correct horse``."""
    return attrs.evolve(
        with_password(Account(name="alice", password_hash=""), "correct horse", octets), revision=1
    )


def peer(address: str = "192.0.2.7") -> Peer:
    return Peer(address, 40000, "submission", "s-1")


class FakeAccounts:
    """:ivar is_broken: nobody knows what they are."""

    def __init__(self) -> None:
        self.accounts = {"alice": alice()}
        self.is_broken = False
        self.renewed: list[Account] = []

    def get(self, name: str) -> Account | None:
        if self.is_broken:
            raise StateFailed("malformed")
        return self.accounts.get(name)

    def renew(self, account: Account) -> None:
        self.renewed.append(account)


class FakeEvents:
    """Knows what was rejected."""

    def __init__(self) -> None:
        self.rejections: list[tuple[str, str]] = []

    def rejected(self, peer: Peer, sender: str, recipient: str, reply: Reply) -> None:
        self.rejections.append((peer.address, NAMES[id(reply)]))


class Threads:
    """Work is done when the test says so, or at once.

    :ivar jobs: what is being worked at.
    """

    def __init__(self) -> None:
        self.is_held = False
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.count = 0

    def __call__(self, work: Callable[[], Any]) -> Deferred[Any]:
        self.count += 1
        if not self.is_held:
            return execute(work)
        done: Deferred[Any] = Deferred()
        self.jobs.append((work, done))
        return done

    def finish(self, result: Any = None) -> None:
        """End the oldest work, with its own result unless another is given."""
        work, done = self.jobs.pop(0)
        if result is None:
            execute(work).chainDeferred(done)
        else:
            done.callback(result)


class LoginTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.accounts = FakeAccounts()
        self.events = FakeEvents()
        self.tally = Tally()
        self.clock = Clock()
        self.threads = Threads()
        self.lines: list[str] = []
        self.logins = Logins(
            self.accounts,
            cast(Events, self.events),
            self.tally,
            LoginSettings(),
            renew=self.accounts.renew,
            clock=self.clock,
            now=self.clock.seconds,
            in_thread=self.threads,
            random_octets=octets,
            made_up_key=b"k" * 32,
            key_holder=self.holder,
        )
        observer = cast(ILogObserver, self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def holder(self, proof: PasswordProof) -> str | None:
        if self.accounts.is_broken:
            raise StateFailed("malformed")
        return "key:k" if proof == OF_A_KEY else None

    def observe(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").endswith("Logins"):
            self.lines.append(formatEvent(event))

    def ask(self, proof: Proof, address: str = "192.0.2.7") -> Deferred[Reply]:
        answer = self.logins.login(peer(address), proof)
        assert not isinstance(answer, LoggedIn), answer
        if isinstance(answer, Reply):
            done: Deferred[Reply] = Deferred()
            done.callback(answer)
            return done
        return answer

    def answer(self, proof: Proof, address: str = "192.0.2.7") -> str:
        """The name of the reply, once every wait is over."""
        asked = self.ask(proof, address)
        if not asked.called:
            self.clock.advance(16)
        return NAMES[id(self.successResultOf(asked))]


OF_A_KEY: Final = PasswordProof("apikey", "the key's secret")
RIGHT: Final = PasswordProof("alice", "correct horse")
WRONG: Final = PasswordProof("alice", "correct house")
GUESS: Final = ScramProof("alice", False)
"""A failure that costs no hash."""


class PasswordTests(LoginTestCase):
    def test_right_and_wrong(self) -> None:
        self.assertEqual(self.answer(RIGHT), "logged-in")
        self.assertEqual(self.answer(WRONG), "login-failed")
        self.assertEqual(self.tally.logins, {"succeeded": 1, "failed": 1, "locked": 0, "later": 0})
        self.assertEqual(self.events.rejections, [("192.0.2.7", "login-failed")])

    def test_however_it_was_typed(self) -> None:
        """A space of another kind is one, and a soft hyphen nothing (RFC 4013, 2.1)."""
        typed = PasswordProof("alice", "cor\u00adrect\u00a0horse")
        self.assertEqual(self.answer(typed), "logged-in")
        self.assertEqual(self.answer(RIGHT), "logged-in")
        self.assertEqual(self.threads.count, 1)

    def test_what_cannot_be_a_password(self) -> None:
        """Is a wrong one, and all such are one guess."""
        for password in ("", "a\tb", "x\0", "\x7f", "\u00ad", "a\u0085"):
            self.assertEqual(self.answer(PasswordProof("alice", password)), "login-failed")
        self.assertEqual(self.threads.count, 1)
        self.assertEqual(self.tally.logins["failed"], 6)

    def test_a_name_that_nobody_has(self) -> None:
        """Costs a hash, and gets the reply that a wrong password gets."""
        for proof in (
            PasswordProof("bob", "correct horse"),
            PasswordProof("no name at all\r\n", "x"),
            PasswordProof("alice", "\0"),
            PasswordProof("", ""),
        ):
            self.assertEqual(self.answer(proof, f"192.0.2.{self.threads.count}"), "login-failed")
        self.assertEqual(self.threads.count, 4)

    def test_right_is_remembered(self) -> None:
        """For five minutes; then it costs a hash again."""
        for _ in range(3):
            self.assertEqual(self.answer(RIGHT), "logged-in")
        self.assertEqual(self.threads.count, 1)
        self.clock.advance(REMEMBER_S - 1)
        self.assertEqual(self.answer(RIGHT), "logged-in")
        self.assertEqual(self.threads.count, 1)
        self.clock.advance(1)
        self.assertEqual(self.answer(RIGHT), "logged-in")
        self.assertEqual(self.threads.count, 2)

    def test_a_change_ends_what_is_remembered(self) -> None:
        self.assertEqual(self.answer(RIGHT), "logged-in")
        changed = with_password(alice(), "another one", octets)
        self.accounts.accounts["alice"] = attrs.evolve(changed, revision=2)
        self.assertEqual(self.answer(RIGHT), "login-failed")
        self.assertEqual(self.answer(PasswordProof("alice", "another one")), "logged-in")
        del self.accounts.accounts["alice"]
        self.assertEqual(self.answer(PasswordProof("alice", "another one")), "login-failed")

    def test_an_old_password_again_and_again(self) -> None:
        """Is one guess, however often a device tries it, and costs one hash in five minutes."""
        for _ in range(30):
            self.assertEqual(self.answer(WRONG), "login-failed")
        self.assertEqual(self.threads.count, 2)
        self.assertEqual(self.tally.logins["locked"], 0)

    def test_hashes_of_old_parameters_are_renewed(self) -> None:
        old = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        stale = attrs.evolve(alice(), password_hash=old.hash("correct horse"))
        self.accounts.accounts["alice"] = stale
        self.assertEqual(self.answer(WRONG), "login-failed")
        self.assertEqual(self.accounts.renewed, [])
        self.assertEqual(self.answer(RIGHT), "logged-in")
        self.assertEqual(self.accounts.renewed, [alice()])

    def test_takes_the_same_time(self) -> None:
        """A name that nobody has cannot be told by a clock."""

        hashed: list[argon2.Parameters] = []
        matches = passwords.matches

        def noted(password_hash: str, password: str) -> bool:
            hashed.append(argon2.extract_parameters(password_hash))
            return matches(password_hash, password)

        self.patch(passwords, "matches", noted)
        for proof in (WRONG, PasswordProof("bob", "")):
            self.assertEqual(self.answer(proof), "login-failed")
        self.assertEqual(hashed, 2 * [argon2.extract_parameters(passwords.NOBODYS_HASH)])

    def test_memory_holds_no_password(self) -> None:
        self.answer(RIGHT)
        self.answer(WRONG)
        kept = repr(vars(self.logins)) + repr(vars(self.logins._right_ones))
        self.assertNotIn("horse", kept + repr(vars(self.logins._wrong_ones)))


class LineTests(LoginTestCase):
    """Two hashes at a time, the rest in a line that has an end."""

    def setUp(self) -> None:
        super().setUp()
        self.threads.is_held = True

    def guess(self, number: int) -> Deferred[Reply]:
        """Each from a place of its own, at a name of its own."""
        return self.ask(PasswordProof(f"n{number}", "x"), f"10.0.{number // 250}.{number % 250}")

    def test_two_at_once(self) -> None:
        asked = [self.guess(number) for number in range(5)]
        self.assertEqual(len(self.threads.jobs), AT_ONCE)
        for each in asked:
            self.assertNoResult(each)
            self.threads.finish((False, None))
            self.assertEqual(self.successResultOf(each), TABLE["login-failed"])
        self.assertEqual((self.threads.count, self.threads.jobs), (5, []))

    def test_a_full_line(self) -> None:
        """Is our trouble, and the client's for a moment only; it is no failure of theirs."""
        asked = [self.guess(number) for number in range(AT_ONCE + LINE)]
        refused = self.ask(RIGHT)
        self.assertEqual(self.successResultOf(refused), TABLE["login-later"])
        self.assertEqual(
            self.lines, ["login not checked session_id=s-1 peer=192.0.2.7 reason=busy"]
        )
        self.assertEqual(self.tally.logins["later"], 1)
        self.threads.finish((False, None))
        self.assertNoResult(self.ask(RIGHT))
        self.successResultOf(asked[0])

    def test_who_hangs_up_leaves_the_line(self) -> None:
        asked = [self.guess(number) for number in range(AT_ONCE + LINE)]
        for each in asked[AT_ONCE:]:
            each.cancel()
            self.failureResultOf(each)
        for _ in range(AT_ONCE):
            self.threads.finish((False, None))
        self.assertEqual(self.threads.count, AT_ONCE)

    def test_who_hangs_up_during_the_hash_keeps_its_turn(self) -> None:
        """Or any number of hashes could be at work; and the guess counts."""
        asked = [self.guess(number) for number in range(AT_ONCE + 1)]
        asked[0].cancel()
        self.failureResultOf(asked[0])
        self.assertEqual(self.threads.count, AT_ONCE)
        self.threads.finish((False, None))
        self.assertEqual(self.threads.count, AT_ONCE + 1)
        self.assertEqual(self.tally.logins["failed"], 1)

    def test_the_same_password_many_times_at_once(self) -> None:
        """A program that opens fifty connections costs as many hashes as run at once."""
        asked = [self.ask(RIGHT) for _ in range(50)]
        while self.threads.jobs:
            self.threads.finish()
        self.assertEqual({NAMES[id(self.successResultOf(each))] for each in asked}, {"logged-in"})
        self.assertEqual(self.threads.count, AT_ONCE)

    def test_guesses_in_parallel(self) -> None:
        """Who stands in line when the lock falls is not looked at."""
        asked = [self.ask(PasswordProof("alice", f"guess {n}")) for n in range(40)]
        while self.threads.jobs:
            self.threads.finish((False, None))
        names = [NAMES[id(self.successResultOf(each))] for each in asked]
        self.assertEqual(names, ["login-failed"] * 11 + ["login-locked"] * 29)

    def test_a_thread_that_fails(self) -> None:
        """Is our fault."""
        self.accounts.accounts["alice"] = attrs.evolve(alice(), password_hash="broken")
        asked = self.ask(RIGHT)
        self.threads.finish()
        self.assertEqual(self.successResultOf(asked), TABLE["login-later"])
        self.assertEqual(len(self.flushLoggedErrors(argon2.exceptions.InvalidHashError)), 1)
        self.threads.is_held = False
        self.accounts.accounts["alice"] = alice()
        self.assertEqual(self.answer(RIGHT), "logged-in")


class WaitTests(LoginTestCase):
    def test_answers_wait(self) -> None:
        """0, 1, 2, 4, ... seconds, the right one as long as a wrong one would."""
        took = []
        for proof in (GUESS, GUESS, GUESS, GUESS, RIGHT):
            began = self.clock.seconds()
            asked = self.ask(proof)
            while not asked.called:
                self.clock.advance(0.5)
            took.append(self.clock.seconds() - began)
        self.assertEqual(took, [0, 1, 2, 4, 8])
        self.assertEqual(self.successResultOf(asked), TABLE["logged-in"])

    def test_who_hangs_up_while_waiting(self) -> None:
        """Costs nothing more, and has learnt nothing."""
        self.answer(GUESS)
        asked = self.ask(WRONG)
        asked.cancel()
        self.failureResultOf(asked)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.assertEqual((self.threads.count, self.tally.logins["failed"]), (0, 1))

    def test_lock(self) -> None:
        """And the right password is not looked at."""
        for _ in range(10):
            self.answer(GUESS)
        self.assertEqual(self.answer(RIGHT), "login-locked")
        self.assertEqual(self.answer(ScramProof("alice", True)), "login-locked")
        self.assertEqual(self.threads.count, 0)
        self.assertEqual(self.tally.logins["locked"], 2)
        self.assertEqual(self.answer(RIGHT, "192.0.2.8"), "logged-in")
        self.clock.advance(900)
        self.assertEqual(self.answer(RIGHT), "logged-in")

    def test_lock_falls_while_waiting(self) -> None:
        self.answer(GUESS)
        waiting = [self.ask(GUESS) for _ in range(20)]
        self.clock.advance(16)
        names = [NAMES[id(self.successResultOf(each))] for each in waiting]
        self.assertEqual(names, ["login-failed"] * 9 + ["login-locked"] * 11)

    def test_account_goes_while_waiting(self) -> None:
        """A change holds for who is still waiting."""
        self.answer(GUESS)
        asked = self.ask(RIGHT)
        del self.accounts.accounts["alice"]
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(asked), TABLE["login-failed"])

    def test_other_settings(self) -> None:
        self.logins.configure(LoginSettings(failures=1, delay_s=0))
        self.answer(GUESS)
        self.assertEqual(self.answer(RIGHT), "login-locked")


class ScramTests(LoginTestCase):
    def test_verifier(self) -> None:
        self.assertEqual(self.logins.scram(peer(), "alice"), alice().scram)

    def test_made_up(self) -> None:
        """For who is not there, and for who has none: always the same."""
        made = self.logins.scram(peer(), "bob")
        self.assertEqual(made, self.logins.scram(peer("192.0.2.9"), "bob"))
        self.assertEqual(made.iterations, ITERATIONS)
        self.accounts.accounts["bob"] = attrs.evolve(alice(), name="bob", scram=None)
        self.assertEqual(self.logins.scram(peer(), "bob"), made)
        self.assertEqual(self.answer(ScramProof("bob", True)), "login-failed")

    def test_proofs(self) -> None:
        self.assertEqual(self.answer(ScramProof("alice", True)), "logged-in")
        self.assertEqual(self.answer(ScramProof("alice", False)), "login-failed")
        self.assertEqual(self.answer(ScramProof("nobody", True)), "login-failed")
        self.assertEqual(self.threads.count, 0)


class ResponseTests(LoginTestCase):
    """CRAM-MD5, with the example of RFC 2195, 2."""

    CHALLENGE: Final = b"<1896.697170952@postoffice.reston.mci.net>"
    DIGEST: Final = "b913a602c7eda7a495b4e6e7334d3890"

    def test_example(self) -> None:
        tim = attrs.evolve(alice(), name="tim", cram_secret="tanstaaftanstaaf")
        self.accounts.accounts["tim"] = tim
        proof = ResponseProof("tim", self.CHALLENGE, self.DIGEST)
        self.assertEqual(self.answer(proof), "logged-in")
        for wrong in (self.DIGEST.replace("0", "1"), "", "\u00e9", "\ud800"):
            self.assertEqual(self.answer(attrs.evolve(proof, digest=wrong)), "login-failed")

    def test_without_a_secret(self) -> None:
        """Neither an account that keeps none nor a name that nobody has can be told from others."""
        digest = hmac.new(b"\0", self.CHALLENGE, "md5").hexdigest()
        for name in ("alice", "nobody"):
            proof = ResponseProof(name, self.CHALLENGE, digest)
            self.assertEqual(self.answer(proof), "login-failed")
        self.assertEqual(
            self.lines,
            [
                "login failed session_id=s-1 peer=192.0.2.7 reason=not-for-account name=alice",
                "login failed session_id=s-1 peer=192.0.2.7 reason=no-such-account name=nobody",
            ],
        )


class TroubleTests(LoginTestCase):
    def test_accounts_that_cannot_be_read(self) -> None:
        """Nobody is told that a password is wrong that nobody could look at."""
        self.accounts.is_broken = True
        for proof in (RIGHT, ScramProof("alice", True)):
            self.assertEqual(self.answer(proof), "login-later")
        self.assertNotEqual(self.logins.scram(peer(), "alice"), alice().scram)
        self.accounts.is_broken = False
        self.assertEqual(self.answer(RIGHT), "logged-in")

    def test_cannot_be_read_after_the_wait(self) -> None:
        self.answer(GUESS)
        asked = self.ask(RIGHT)
        self.accounts.is_broken = True
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(asked), TABLE["login-later"])


class LogTests(LoginTestCase):
    def test_failures(self) -> None:
        """One line each, in a form that other programs read; never a password."""
        self.logins.configure(LoginSettings(failures=2, delay_s=0))
        self.answer(WRONG)
        self.answer(PasswordProof("bob@example.org", "hunter22"))
        self.answer(GUESS)
        self.answer(RIGHT)
        head = "login failed session_id=s-1 peer=192.0.2.7"
        self.assertEqual(
            self.lines,
            [
                f"{head} reason=wrong-password name=alice",
                f"{head} reason=no-such-account name=bob@example.org",
                f"{head} reason=wrong-password name=alice",
                f"{head} reason=locked name=alice",
            ],
        )
        self.assertEqual(
            [name for _, name in self.events.rejections],
            ["login-failed"] * 3 + ["login-locked"],
        )

    def test_a_name_cannot_forge_a_line(self) -> None:
        """Nor fill the log."""
        name = "x peer=198.51.100.1 \r\n" + "\u00e9\ud800" + "y" * 5000
        self.answer(PasswordProof(name, "x"))
        (line,) = self.lines
        self.assertRegex(
            line, r"^login failed session_id=s-1 peer=192\.0\.2\.7 reason=no-such-account name=\S+$"
        )
        self.assertTrue(line.isascii())
        self.assertLess(len(line), 600)

    def test_success_says_nothing(self) -> None:
        self.answer(RIGHT)
        self.assertEqual((self.lines, self.events.rejections), ([], []))


class KeyTests(LoginTestCase):
    """An API key's secret for a password."""

    def test_is_known_at_once(self) -> None:
        """No hash, and no wait: nobody guesses it, so that no lock keeps its holder out."""
        for number in range(10):
            self.answer(PasswordProof("apikey", f"wrong {number}"))
        self.assertEqual(self.answer(PasswordProof("apikey", "wrong")), "login-locked")
        hashes = self.threads.count
        answer = self.logins.login(peer(), OF_A_KEY)
        self.assertEqual(answer, LoggedIn("key:k"))
        self.assertEqual(self.threads.count, hashes)
        self.assertEqual(self.tally.logins["succeeded"], 1)

    def test_a_wrong_one_is_a_wrong_password(self) -> None:
        self.assertEqual(self.answer(PasswordProof("apikey", "pmta_" + "a" * 59)), "login-failed")
        self.assertEqual(self.threads.count, 1)

    def test_keys_that_cannot_be_read(self) -> None:
        self.accounts.is_broken = True
        self.assertEqual(self.answer(OF_A_KEY), "login-later")
