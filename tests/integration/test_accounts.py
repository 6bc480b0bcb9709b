"""Two processes and one database: what a command changes, a service that runs sees.

protege-mta user ...  ->  state.sqlite  <-  Database, StoredAccounts, Logins (this process)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Events, LoggedIn, PasswordProof, Peer
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.policy.guessing import LoginSettings
from protege_mta.policy.login import AT_ONCE, Logins
from protege_mta.state.accounts import StoredAccounts
from protege_mta.state.database import Database
from protege_mta.transport.crew import Crew

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from protege_mta.cli import main; sys.exit(main(sys.argv[1:]))"
WAIT_S = 30.0


class Deaf:
    """Events that nobody reads."""

    def rejected(self, peer: Peer, sender: str, recipient: str, reply: Reply) -> None:
        pass


class TwoProcessesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.touch()
        self.calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self.database = Database(
            self.folder / "state", in_reactor=self.in_reactor, monotonic=time.monotonic
        )
        self.database.open()
        self.accounts = StoredAccounts(self.database)
        self.accounts.load()
        self.addCleanup(self.close)
        crew = Crew(AT_ONCE, self.in_reactor, "hasher")
        self.addCleanup(crew.stop)
        self.logins = Logins(
            self.accounts,
            cast(Events, Deaf()),
            Tally(),
            LoginSettings(delay_s=0),
            renew=self.accounts.renew,
            clock=Clock(),
            now=time.monotonic,
            in_thread=crew,
            random_octets=os.urandom,
            made_up_key=self.database.secret("scram", os.urandom(32)),
        )

    def in_reactor(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.calls.put(lambda: call(*arguments))

    def wait_for(self, work: Deferred[Any]) -> Any:
        while not work.called:
            self.calls.get(timeout=WAIT_S)()
        return self.successResultOf(work)

    def close(self) -> None:
        self.wait_for(self.database.close())

    def user(self, *arguments: str, password: str = "") -> None:
        piped = ["--password-stdin"] if password else []
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "user", *arguments, *piped, "--config", self.config],
            input=password.encode(),
            cwd=ROOT,
            check=True,
            capture_output=True,
        )

    def login(self, password: str) -> Reply:
        peer = Peer("192.0.2.1", 40000, "submission", "s-1")
        answer = self.logins.login(peer, PasswordProof("alice", password))
        assert not isinstance(answer, LoggedIn), answer
        return answer if isinstance(answer, Reply) else cast(Reply, self.wait_for(answer))

    def within_a_second(self, is_so: Callable[[], bool]) -> None:
        """As the service is asked again and again."""
        end = time.monotonic() + 1.0
        while not is_so():
            self.assertLess(time.monotonic(), end)

    def test_a_change_by_a_command_shows(self) -> None:
        """Addition, password, removal, each within a second, the remembered password included."""
        self.assertIsNone(self.accounts.get("alice"))
        self.user("add", "alice", password="correct horse")
        self.within_a_second(lambda: self.accounts.get("alice") is not None)
        self.assertEqual(self.login("correct horse"), TABLE["logged-in"])
        self.assertEqual(self.login("correct horse"), TABLE["logged-in"])
        self.user("passwd", "alice", password="battery staple")
        self.within_a_second(lambda: self.login("correct horse") == TABLE["login-failed"])
        self.assertEqual(self.login("battery staple"), TABLE["logged-in"])
        self.user("remove", "alice")
        self.within_a_second(lambda: self.login("battery staple") == TABLE["login-failed"])

    def test_both_write(self) -> None:
        """While the service writes, commands wait for their turn, and nothing is lost."""
        work = []
        for number in range(200):

            def change(connection: Any, number: int = number) -> None:
                row = ("n", number, 60, 1, 1)
                connection.execute("INSERT INTO usage VALUES (?, ?, ?, ?, ?)", row)

            work.append(self.database.write(change))
            if number in (50, 100):
                self.user("add", f"user-{number}", password="correct horse")
        for each in work:
            self.wait_for(each)
        with self.database.snapshot() as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM usage")
        self.assertEqual(count, 200)
        self.within_a_second(lambda: self.accounts.get("user-50") is not None)
        self.assertIsNotNone(self.accounts.get("user-100"))
