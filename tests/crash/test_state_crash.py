"""A command that is killed before any of its SQL statements leaves an old account or a new one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]


class KilledCommandTests(SynchronousTestCase):
    timeout = 300

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "c.toml").touch()

    def kill(self, *arguments: str, password: str = "-") -> list[list[dict[str, Any]]]:
        """What each crash leaves, and at last what the whole command does."""
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "tests.crash.killed_command", self.folder, password),
                *arguments,
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        told = [json.loads(line) for line in ran.stdout.splitlines()]
        self.assertEqual([one["status"] for one in told], [9] * (len(told) - 1) + [0])
        return [one["accounts"] for one in told]

    def do(self, *arguments: str, password: str = "") -> None:
        program = "import sys; from protege_mta.cli import main; sys.exit(main(sys.argv[1:]))"
        subprocess.run(
            [sys.executable, "-c", program, *arguments, "--config", self.folder / "c.toml"],
            cwd=ROOT,
            input=password.encode(),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def assert_old_or_new(self, states: list[list[dict[str, Any]]]) -> None:
        """As far as chance and the clock let two runs be compared."""
        chance = ("password_hash", "salt", "created_at")
        old, new = states[0], states[-1]
        self.assertGreater(len(states), 5)
        for state in states:
            if state == old:
                continue
            for account, expected in zip(state, new, strict=True):
                for name, value in account.items():
                    if name not in chance:
                        self.assertEqual(value, expected[name], name)
                self.assertTrue(account["password_hash"] and account["salt"])

    def test_first_account(self) -> None:
        """The file and its tables are made by the way."""
        states = self.kill("user", "add", "alice", "--password-stdin", password="correct horse")
        self.assertEqual((states[0], len(states[-1])), ([], 1))
        self.assert_old_or_new(states)

    def test_change(self) -> None:
        self.do("user", "add", "alice", "--password-stdin", password="correct horse")
        options = ("--allowed-from", "a.example", "--tenant", "t", "--recipients", "3")
        states = self.kill("user", "change", "alice", *options)
        self.assertEqual(states[-1][0]["tenant"], "t")
        self.assert_old_or_new(states)
        hashes = {(state[0]["password_hash"], state[0]["salt"]) for state in states}
        self.assertEqual(len(hashes), 1)

    def test_password(self) -> None:
        """Hash, verifier and secret are of one password."""
        options = ("--password-stdin", "--cram-md5")
        self.do("user", "add", "alice", *options, password="correct horse")
        states = self.kill("user", "passwd", "alice", "--password-stdin", password="battery staple")
        old = states[0][0]
        self.assertEqual(states[-1][0]["cram_secret"], "battery staple")
        self.assert_old_or_new(states)
        for [account] in states:
            is_old = account["cram_secret"] == "correct horse"
            self.assertEqual(is_old, account["password_hash"] == old["password_hash"])
            self.assertEqual(is_old, account["salt"] == old["salt"])

    def test_removal(self) -> None:
        self.do("user", "add", "alice", "--password-stdin", password="correct horse")
        states = self.kill("user", "remove", "alice")
        self.assertEqual((len(states[0]), states[-1]), (1, []))
        self.assertEqual([state for state in states if state not in (states[0], [])], [])
