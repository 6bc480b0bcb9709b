"""``state.sqlite``: made, opened, read, written, and what is said when it cannot be."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import Account, AccountLimits, ScramVerifier, Usage
from protege_mta.model.ports import StateFailed
from protege_mta.state.accounts import StoredAccounts, every, find, put, remove
from protege_mta.state.database import NAME, Database, connect, secret, transaction
from protege_mta.state.schema import VERSIONS
from protege_mta.state.usage import StoredUsage

WAIT_S = 30.0

FULL = Account(
    name="alice@example.org",
    password_hash="$argon2id$...",
    scram=ScramVerifier(b"\0salt", 4096, b"stored", b"server"),
    cram_secret="p\u00e4ssword",
    allowed_from=("alice@example.org", ".example.net"),
    allowed_to=("example.com",),
    denied_to=("b\u00f6b@example.com",),
    tenant="t",
    limits=AccountLimits(
        connections=6,
        recipients=1,
        messages_per_hour=2,
        messages_per_day=3,
        recipients_per_hour=4,
        recipients_per_day=5,
    ),
    created_at=1_700_000_000.25,
)


def plain(name: str) -> Account:
    return Account(name=name, password_hash="x")


class StateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.path = self.folder / NAME
        self.clock = Clock()
        self.calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def other(self) -> sqlite3.Connection:
        """Another process's connection."""
        connection = connect(self.folder)
        self.addCleanup(connection.close)
        return connection

    def database(self) -> Database:
        database = Database(
            self.folder,
            in_reactor=lambda call, *arguments: self.calls.put(lambda: call(*arguments)),
            monotonic=self.clock.seconds,
        )
        database.open()
        self.addCleanup(self.close, database)
        return database

    def close(self, database: Database) -> None:
        self.wait_for(database.close())

    def wait_for(self, work: Deferred[Any]) -> Deferred[Any]:
        """Let the reactor's thread do what it is asked to, until the work is done."""
        while not work.called:
            self.calls.get(timeout=WAIT_S)()
        return work


class OpenTests(StateTestCase):
    def test_what_is_missing_is_made(self) -> None:
        """For its owner's eyes alone, whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        with closing(connect(self.folder / "deep" / "down")) as connection:
            put(connection, FULL)
            modes = {
                path.name: oct(stat.S_IMODE(path.stat().st_mode))
                for path in (self.folder / "deep").rglob("*")
            }
        self.assertEqual(
            modes,
            {"down": "0o700", NAME: "0o600", f"{NAME}-wal": "0o600", f"{NAME}-shm": "0o600"},
        )

    def test_durable(self) -> None:
        """Commits wait for the disk, and readers do not wait for writers."""
        connection = self.other()
        self.assertEqual(connection.execute("PRAGMA journal_mode").fetchall(), [("wal",)])
        self.assertEqual(connection.execute("PRAGMA synchronous").fetchall(), [(2,)])
        reader = self.other()
        with transaction(connection):
            put(connection, FULL)
            self.assertIsNone(find(reader, FULL.name))
        self.assertIsNotNone(find(reader, FULL.name))

    def test_many_at_once(self) -> None:
        """Who comes first makes it, and nobody is turned away."""
        barrier, failures = threading.Barrier(8), []

        def start() -> None:
            barrier.wait(WAIT_S)
            try:
                with closing(connect(self.folder)) as connection:
                    put(connection, plain(threading.current_thread().name))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=start, name=f"n{number}") for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        self.assertEqual(failures, [])
        self.assertEqual(len(list(every(self.other()))), 8)

    def test_newer_schema(self) -> None:
        """Is left alone: what it means nobody here knows."""
        with closing(connect(self.folder)) as connection:
            connection.execute(f"PRAGMA user_version = {len(VERSIONS) + 1}")
        error = self.assertRaises(StateFailed, connect, self.folder)
        self.assertEqual(
            str(error),
            f"{self.path}: written by a newer version of this program (its tables are of version "
            f"{len(VERSIONS) + 1}, and {len(VERSIONS)} is the newest known here)",
        )

    def test_no_database(self) -> None:
        self.folder.mkdir()
        self.path.write_bytes(b"nonsense" * 1000)
        error = self.assertRaises(StateFailed, connect, self.folder)
        self.assertEqual(str(error), f"{self.path}: file is not a database")
        self.assertIsInstance(error, OSError)
        self.assertEqual(self.path.read_bytes(), b"nonsense" * 1000)

    def test_no_file(self) -> None:
        self.path.mkdir(parents=True)
        error = self.assertRaises(StateFailed, connect, self.folder)
        self.assertIn(f"{self.path}: ", str(error))

    def test_folder_that_cannot_be_made(self) -> None:
        self.folder.write_text("a file")
        error = self.assertRaises(StateFailed, connect, self.folder)
        self.assertEqual(str(error), f"{self.path}: File exists")

    def test_damaged_rows(self) -> None:
        """A start fails on them, and says which account it was."""
        with closing(connect(self.folder)) as connection:
            put(connection, FULL)
            connection.execute("UPDATE account SET allowed_from = '{'")
        accounts = StoredAccounts(self.database())
        error = self.assertRaises(StateFailed, accounts.load)
        self.assertIn("'alice@example.org'", str(error))

    def test_secret(self) -> None:
        """Made once, the same ever after."""
        self.assertEqual(secret(self.other(), "a", b"first"), b"first")
        self.assertEqual(secret(self.other(), "a", b"second"), b"first")
        self.assertEqual(self.database().secret("a", b"third"), b"first")
        self.assertEqual(self.database().secret("b", b"other"), b"other")


class AccountTests(StateTestCase):
    def test_all_of_it_is_kept(self) -> None:
        connection = self.other()
        for account in (FULL, plain("bob")):
            put(connection, account)
            found = find(self.other(), account.name)
            assert found is not None
            self.assertEqual(attrs.evolve(found, revision=0), account)

    def test_revisions(self) -> None:
        """Grow with every change, and none comes back with an account that was removed."""
        connection = self.other()
        seen = []
        for _ in range(2):
            put(connection, FULL)
            put(connection, FULL)
            account = find(connection, FULL.name)
            assert account is not None
            seen.append(account.revision)
            self.assertTrue(remove(connection, FULL.name))
            self.assertFalse(remove(connection, FULL.name))
        self.assertEqual(seen, [2, 4])


class StoredAccountsTests(StateTestCase):
    def test_a_change_shows_within_a_quarter_of_a_second(self) -> None:
        """Be it an addition, a change or a removal, by whomever."""
        accounts, other = StoredAccounts(self.database()), self.other()
        self.assertIsNone(accounts.get(FULL.name))
        put(other, FULL)
        self.assertIsNone(accounts.get(FULL.name))
        self.clock.advance(0.25)
        found = accounts.get(FULL.name)
        assert found is not None
        self.assertEqual(attrs.evolve(found, revision=0), FULL)
        put(other, attrs.evolve(FULL, tenant="u"))
        put(other, plain("bob"))
        self.clock.advance(0.25)
        self.assertEqual((accounts.get(FULL.name) or FULL).tenant, "u")
        remove(other, FULL.name)
        put(other, plain("carol"))
        self.clock.advance(0.25)
        self.assertEqual(
            [accounts.get(name) is not None for name in (FULL.name, "bob", "carol")],
            [False, True, True],
        )

    def test_what_has_not_changed_is_not_read_again(self) -> None:
        """One question to the file a quarter of a second, whoever asks how often."""
        database = self.database()
        accounts = StoredAccounts(database)
        other = self.other()
        put(other, FULL)
        self.clock.advance(0.25)
        accounts.get("alice")
        asked: list[str] = []
        with database.snapshot() as connection:
            pass
        connection.set_trace_callback(asked.append)
        for _ in range(40):
            self.clock.advance(0.0625)
            accounts.get("alice")
        self.assertEqual(asked, ["PRAGMA data_version"] * 10)
        put(other, plain("bob"))
        self.clock.advance(0.25)
        accounts.get("alice")
        self.assertEqual(len(asked), 15, asked)

    def test_another_file_in_its_place(self) -> None:
        """A backup that is put back is what holds from then on."""
        accounts = StoredAccounts(self.database())
        with closing(connect(self.folder)) as connection:
            put(connection, FULL)
            put(connection, plain("bob"))
        self.clock.advance(0.25)
        self.assertIsNotNone(accounts.get("bob"))
        elsewhere = self.folder.with_name(f"{self.folder.name}-backup")
        with closing(connect(elsewhere)) as connection:
            put(connection, plain("carol"))
        for name in (f"{NAME}-wal", f"{NAME}-shm"):
            (self.folder / name).unlink()
        (elsewhere / NAME).replace(self.path)
        self.clock.advance(0.25)
        self.assertIsNone(accounts.get("bob"))
        self.assertIsNotNone(accounts.get("carol"))

    def test_a_file_that_goes(self) -> None:
        """Nobody says then who has an account, and none is made anew in silence."""
        database = self.database()
        accounts = StoredAccounts(database)
        put(self.other(), FULL)
        self.clock.advance(0.25)
        accounts.get("bob")
        aside = self.folder.with_name(f"{self.folder.name}-aside")
        self.folder.rename(aside)
        self.clock.advance(0.25)
        for _ in range(2):
            error = self.assertRaises(StateFailed, accounts.get, FULL.name)
            self.assertEqual(str(error), f"{self.path}: No such file or directory")
            self.clock.advance(0.25)
        self.assertFalse(self.folder.exists())
        failed = self.wait_for(database.write(lambda connection: None))
        self.failureResultOf(failed, StateFailed)
        aside.rename(self.folder)
        self.clock.advance(0.25)
        self.assertIsNotNone(accounts.get(FULL.name))
        self.successResultOf(self.wait_for(database.write(lambda connection: None)))

    def test_damage(self) -> None:
        """A file that turns to nonsense is no reason to say that a name does not exist."""
        accounts = StoredAccounts(self.database())
        other = self.other()
        put(other, FULL)
        self.clock.advance(0.25)
        accounts.get(FULL.name)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (self.path.stat().st_size - 4096))
        with closing(sqlite3.connect(self.path)) as raw:
            raw.execute("PRAGMA user_version = 1")
            raw.commit()
        self.clock.advance(0.25)
        error = self.assertRaises(StateFailed, accounts.get, FULL.name)
        self.assertIn("malformed", str(error))

    def test_renewal(self) -> None:
        """Fresher hashes are kept, unless somebody has changed the account, or removed it."""
        database = self.database()
        accounts, other = StoredAccounts(database), self.other()
        put(other, FULL)
        first = find(other, FULL.name)
        assert first is not None
        accounts.renew(attrs.evolve(first, password_hash="fresh"))
        self.wait_for(database.write(lambda connection: None))
        second = find(other, FULL.name)
        assert second is not None
        self.assertEqual(second.password_hash, "fresh")
        accounts.renew(attrs.evolve(first, password_hash="late"))
        self.wait_for(database.write(lambda connection: None))
        self.assertEqual(find(other, FULL.name), second)
        remove(other, FULL.name)
        accounts.renew(attrs.evolve(second, password_hash="later"))
        self.wait_for(database.write(lambda connection: None))
        self.assertIsNone(find(other, FULL.name))

    def test_renewal_that_fails(self) -> None:
        """Is logged; the login had its answer."""
        accounts = StoredAccounts(self.database())
        put(self.other(), FULL)
        self.path.rename(self.path.with_name("aside"))
        accounts.renew(FULL)
        self.calls.get(timeout=WAIT_S)()
        self.assertEqual(len(self.flushLoggedErrors(StateFailed)), 1)


class WriterTests(StateTestCase):
    def test_waiting_changes_share_a_transaction(self) -> None:
        """And its sync; results come in the order of the calls."""
        database = self.database()
        begun = threading.Event()
        may_go_on = threading.Event()

        def block(connection: sqlite3.Connection) -> None:
            begun.set()
            may_go_on.wait(WAIT_S)

        first = database.write(block)
        begun.wait(WAIT_S)
        told: list[int] = []
        for number in range(20):
            one = database.write(partial(put, account=plain(f"n{number}")))
            one.addCallback(lambda _, number: told.append(number), number)
        may_go_on.set()
        self.wait_for(first)
        self.calls.get(timeout=WAIT_S)()
        self.assertEqual(told, list(range(20)))
        self.assertEqual(len(list(every(self.other()))), 20)

    def test_not_in_the_reactors_thread(self) -> None:
        done = self.wait_for(self.database().write(lambda connection: threading.get_ident()))
        self.assertNotEqual(self.successResultOf(done), threading.get_ident())

    def test_a_change_that_fails_is_undone_alone(self) -> None:
        database = self.database()

        def broken(connection: sqlite3.Connection) -> None:
            put(connection, plain("half"))
            raise LookupError("no more")

        def wrong(connection: sqlite3.Connection) -> None:
            connection.execute("SELECT nothing")

        good = database.write(lambda connection: put(connection, plain("good")))
        bad = database.write(broken)
        worse = database.write(wrong)
        better = database.write(lambda connection: put(connection, plain("better")))
        self.wait_for(better)
        self.failureResultOf(bad, LookupError)
        self.failureResultOf(worse, StateFailed)
        self.successResultOf(good)
        self.assertEqual([one.name for one in every(self.other())], ["better", "good"])

    def test_a_transaction_that_fails(self) -> None:
        """As on a full disk, where SQLite undoes it of its own: nobody is told that it was done."""
        database = self.database()

        def full(connection: sqlite3.Connection) -> None:
            connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

        begun, may_go_on = threading.Event(), threading.Event()

        def block(connection: sqlite3.Connection) -> None:
            begun.set()
            may_go_on.wait(WAIT_S)

        first = database.write(block)
        begun.wait(WAIT_S)
        good = database.write(lambda connection: put(connection, plain("good")))
        bad = database.write(full)
        may_go_on.set()
        for each in (first, good, bad):
            self.wait_for(each)
        self.failureResultOf(good, StateFailed)
        self.failureResultOf(bad, StateFailed)
        self.assertEqual(list(every(self.other())), [])
        again = self.wait_for(database.write(lambda connection: put(connection, plain("again"))))
        self.successResultOf(again)

    def test_end(self) -> None:
        """Comes after what was asked for before it, and nothing comes after it."""
        database = self.database()
        work = database.write(lambda connection: put(connection, FULL))
        end = database.close()
        self.wait_for(end)
        self.successResultOf(work)
        self.assertIsNotNone(find(self.other(), FULL.name))
        self.assertRaises(RuntimeError, database.write, lambda connection: None)
        self.assertIs(database.close(), end)

    def test_no_thread_before_there_is_work(self) -> None:
        before = set(threading.enumerate())  # some of other tests' databases may still be ending
        database = self.database()
        self.assertEqual(set(threading.enumerate()) - before, set())
        self.successResultOf(database.close())
        self.assertRaises(RuntimeError, database.write, lambda connection: None)


class UsageTests(StateTestCase):
    def test_saved_and_loaded(self) -> None:
        """As a whole: what is not saved again is gone."""
        usage = StoredUsage(self.database())
        self.assertEqual(usage.load(), [])
        hour = Usage("alice", 1_700_000_000, 3600, 3, 9)
        day = Usage("alice", 1_700_000_000, 86_400, 30, 90)
        self.successResultOf(self.wait_for(usage.save([hour, day])))
        self.assertEqual(set(StoredUsage(self.database()).load()), {hour, day})
        self.successResultOf(self.wait_for(usage.save([hour._replace(messages=4)])))
        self.assertEqual(usage.load(), [hour._replace(messages=4)])
