"""``user``: accounts, from the command line, with no service anywhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import attrs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from protege_mta.cli.rights import pattern
from protege_mta.model.account import Account
from protege_mta.policy.password import matches, scram_verifier
from protege_mta.state.accounts import find
from protege_mta.state.database import NAME, connect

from .console import Ran, run

LIMITS: Final = (
    "connections",
    "recipients",
    "messages_per_hour",
    "messages_per_day",
    "recipients_per_hour",
    "recipients_per_day",
)
ROW: Final[dict[str, Any]] = {
    "name": "alice@example.org",
    "allowed_from": ["alice@example.org", "example.net"],
    "allowed_to": [],
    "denied_to": [],
    "tenant": "",
    "limits": dict.fromkeys(LIMITS, 0),
    "scram": True,
    "cram_md5": False,
}


class UserTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text('state_dir = "deep/state"\n')
        self.state = self.folder / "deep/state"

    def user(self, *arguments: str, password: str | bytes = "", is_terminal: bool = False) -> Ran:
        octets = password if isinstance(password, bytes) else f"{password}\n".encode()
        piped = ["--password-stdin"] if password else []
        return run(
            *("user", *arguments, *piped, "--config", str(self.config)),
            stdin=octets,
            is_terminal=is_terminal,
        )

    def add(self, *more: str, password: str | bytes = "correct horse") -> Ran:
        return self.user("add", "Alice@Example.org", *more, password=password)

    def account(self, name: str = "alice@example.org") -> Account:
        connection = connect(self.state)
        self.addCleanup(connection.close)
        found = find(connection, name)
        assert found is not None
        return found

    def test_add(self) -> None:
        """What is missing is made, for its owner's eyes alone; the password leads in by all ways."""
        ran = self.add("--allowed-from", "Alice@Example.org, example.NET,")
        self.assertEqual((ran.code, ran.out, ran.err), (0, "added alice@example.org\n", ""))
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((self.state / NAME).stat().st_mode), 0o600)
        account = self.account()
        self.assertTrue(matches(account.password_hash, "correct horse"))
        assert account.scram is not None
        salt = account.scram.salt
        self.assertEqual(account.scram, scram_verifier("correct horse", lambda count: salt))
        self.assertIsNone(account.cram_secret)
        self.assertEqual(account.allowed_from, ("alice@example.org", "example.net"))

    def test_salts_differ(self) -> None:
        self.add()
        self.user("add", "bob", password="correct horse")
        one, other = self.account(), self.account("bob")
        self.assertNotEqual(one.password_hash, other.password_hash)
        self.assertNotEqual(one.scram, other.scram)

    def test_add_without_a_list(self) -> None:
        """Says what that means, and how to narrow it."""
        ran = self.user("add", "printer", password="correct horse")
        self.assertEqual(
            ran.out.splitlines(),
            [
                "added printer",
                "It may send as anybody. To narrow that:",
                "  protege-mta user change printer --allowed-from printer@example.org",
            ],
        )

    def test_everything(self) -> None:
        options = (
            *("--allowed-to", "B\u00fccher.example", "--denied-to", "ceo@example.com"),
            *(
                "--tenant",
                "t",
                "--connections",
                "6",
                "--recipients",
                "1",
                "--messages-per-hour",
                "2",
            ),
            *("--messages-per-day", "3", "--recipients-per-hour", "4"),
            *("--recipients-per-day", "5", "--cram-md5", "--json"),
        )
        ran = self.add(*options)
        row = ran.json()
        self.assertIsInstance(row.pop("created_at"), float)
        self.assertEqual(
            row,
            ROW
            | {
                "allowed_from": [],
                "allowed_to": ["xn--bcher-kva.example"],
                "denied_to": ["ceo@example.com"],
                "tenant": "t",
                "limits": dict(zip(LIMITS, (6, 1, 2, 3, 4, 5), strict=True)),
                "cram_md5": True,
            },
        )
        self.assertEqual(self.account().cram_secret, "correct horse")

    def test_add_again(self) -> None:
        self.add()
        before = self.account()
        ran = self.add(password="another password")
        self.assertEqual((ran.code, ran.out), (73, ""))
        self.assertIn("alice@example.org: there is such an account\n", ran.err)
        self.assertIn("user change alice@example.org", ran.err)
        self.assertEqual(self.account(), before)

    def test_list_and_show(self) -> None:
        ran = self.user("list")
        self.assertEqual((ran.code, ran.out), (0, "NAME  SINCE  TENANT  MAY SEND AS\n"))
        self.assertEqual(self.user("list", "--json").json(), [])
        self.assertFalse(self.state.exists())
        self.add("--allowed-from", "alice@example.org,example.net")
        self.user("add", "bob", password="correct horse")
        ran = self.user("list")
        self.assertRegex(
            ran.out,
            r"\ANAME               SINCE                 TENANT  MAY SEND AS\n"
            r"alice@example.org  \d{4}-..-.. ..:..:..Z  -       alice@example.org, example.net\n"
            r"bob                \d{4}-..-.. ..:..:..Z  -       anybody\n\Z",
        )
        rows = self.user("list", "--json").json()
        self.assertEqual([row["name"] for row in rows], ["alice@example.org", "bob"])
        ran = self.user("show", "alice@example.org")
        self.assertIn("logs in by:          PLAIN, LOGIN, SCRAM-SHA-256\n", ran.out)
        row = self.user("show", "ALICE@example.org", "--json").json()
        del row["created_at"]
        self.assertEqual(row, ROW)

    def test_change(self) -> None:
        """What is given, and nothing else."""
        self.add("--allowed-from", "a.example,b.example", "--recipients", "7", "--tenant", "t")
        before = self.account()
        ran = self.user("change", "alice@example.org", "--allowed-from", "c.example")
        self.assertEqual((ran.code, ran.out), (0, "changed alice@example.org\n"))
        after = self.account()
        self.assertEqual(after.allowed_from, ("c.example",))
        self.assertGreater(after.revision, before.revision)
        self.assertEqual(
            attrs.evolve(after, allowed_from=before.allowed_from, revision=before.revision), before
        )
        options = ("--allowed-from", "", "--tenant", "", "--recipients", "0")
        row = self.user("change", "alice@example.org", *options, "--json").json()
        self.assertEqual((row["allowed_from"], row["tenant"]), ([], ""))
        self.assertEqual(row["limits"]["recipients"], 0)

    def test_change_of_nothing(self) -> None:
        self.add()
        self.assertEqual(self.user("change", "alice@example.org").code, 64)

    def test_passwd(self) -> None:
        """Changes the password, and nothing else."""
        self.add("--allowed-from", "a.example")
        before = self.account()
        ran = self.user("passwd", "alice@example.org", password="battery staple")
        self.assertEqual((ran.code, ran.out), (0, "changed the password of alice@example.org\n"))
        after = self.account()
        self.assertTrue(matches(after.password_hash, "battery staple"))
        self.assertNotEqual(after.scram, before.scram)
        self.assertIsNone(after.cram_secret)
        self.assertEqual(
            (after.allowed_from, after.created_at), (("a.example",), before.created_at)
        )

    def test_cram_md5(self) -> None:
        """Needs the password; once there, it follows it, and goes when it is told to."""
        self.add()
        ran = self.user("change", "alice@example.org", "--cram-md5")
        self.assertEqual(ran.code, 64)
        self.assertIn("user passwd alice@example.org --cram-md5", ran.err)
        self.user("passwd", "alice@example.org", "--cram-md5", password="battery staple")
        self.assertEqual(self.account().cram_secret, "battery staple")
        self.user("passwd", "alice@example.org", password="another password")
        self.assertEqual(self.account().cram_secret, "another password")
        self.assertIn("CRAM-MD5", self.user("show", "alice@example.org").out)
        self.assertEqual(self.user("change", "alice@example.org", "--cram-md5").code, 0)
        self.user("change", "alice@example.org", "--no-cram-md5")
        self.assertIsNone(self.account().cram_secret)
        self.user("passwd", "alice@example.org", "--cram-md5", password="battery staple")
        self.user("passwd", "alice@example.org", "--no-cram-md5", password="battery staple")
        self.assertIsNone(self.account().cram_secret)

    def test_remove(self) -> None:
        self.add()
        ran = self.user("remove", "alice@example.org")
        self.assertEqual((ran.code, ran.out), (0, "removed alice@example.org\n"))
        self.assertEqual(self.user("list", "--json").json(), [])
        self.add()
        removed = self.user("remove", "alice@example.org", "--json")
        self.assertEqual(removed.json(), {"name": "alice@example.org"})

    def test_no_such_account(self) -> None:
        """Neither before there is any, nor after; and nothing is made for it."""
        commands = (["show"], ["change", "--tenant", "t"], ["remove"], ["passwd"])
        for first, *more in commands:
            password = "correct horse" if first == "passwd" else ""
            ran = self.user(first, "bob", *more, password=password)
            self.assertEqual((ran.code, ran.out), (66, ""), first)
        self.assertFalse(self.state.exists())
        self.add()
        for first, *more in commands:
            password = "correct horse" if first == "passwd" else ""
            ran = self.user(first, "bob", *more, password=password)
            self.assertEqual(
                (ran.code, ran.err), (66, "protege-mta: bob: no such account\n"), first
            )

    def test_names_that_are_none(self) -> None:
        for name in ("a b", "\u00e4rger", "x" * 129, "a/b"):
            ran = self.user("add", name, password="correct horse")
            self.assertEqual((ran.code, ran.out), (64, ""))
            self.assertIn("wanted up to 128 of a-z, 0-9 and ._@+-", ran.err)

    def test_passwords_that_will_not_do(self) -> None:
        """None of them is ever shown, and no account comes of them."""
        for password, why in (
            (b"\n", "the password is empty"),
            (b"", "the password is empty"),
            (b"sevenno\n", "has 7 characters; wanted 8 at least (NIST SP 800-63B, 5.1.1.2)"),
            (b"x" * 1025, "longer than 1024 characters"),
            (b"x" * 10_000, "longer than 1024 characters"),
            (b"with\0zero-octets\n", "control characters"),
            (b"\xff" * 9, "not UTF-8"),
            ("\U0001f600smileys\n".encode(), "RFC 4013"),
        ):
            ran = run(
                *("user", "add", "bob", "--password-stdin", "--config", str(self.config)),
                stdin=password,
            )
            self.assertEqual((ran.code, ran.out), (65, ""), password[:20])
            self.assertIn(why, ran.err)
            if len(password) > 1:
                self.assertNotIn(password.decode("utf-8", "replace").strip(), ran.err)
        self.assertEqual(self.user("list", "--json").json(), [])

    def test_only_the_first_line(self) -> None:
        """Without its line end, whichever it is; spaces are part of it."""
        for octets, password in (
            (b" pass word \nsecond\n", " pass word "),
            (b"pass word\r\n", "pass word"),
            (b"pass word", "pass word"),
        ):
            self.user("add", "bob", password=octets)
            self.assertTrue(matches(self.account("bob").password_hash, password))
            self.user("remove", "bob")

    def test_composed_or_not(self) -> None:
        """The password is kept as SASL prepares it."""
        self.add(password="u\u0308bersetzung")
        self.assertTrue(matches(self.account().password_hash, "\u00fcbersetzung"))

    def test_asks_on_a_terminal(self) -> None:
        """Twice, unseen, on stderr."""
        answers = iter(["correct horse", "correct hose", "correct horse", "correct horse"])
        with patch("click.termui.hidden_prompt_func", lambda prompt: next(answers)):
            ran = self.user("add", "bob", is_terminal=True)
        self.assertEqual((ran.code, list(answers)), (0, []))
        self.assertIn("added bob\n", ran.out)
        self.assertNotIn("horse", ran.out + ran.err)
        self.assertTrue(matches(self.account("bob").password_hash, "correct horse"))

    def test_no_terminal(self) -> None:
        ran = run("user", "add", "bob", "--config", str(self.config), stdin=b"correct horse\n")
        self.assertEqual((ran.code, ran.out), (64, ""))
        self.assertIn("give --password-stdin", ran.err)

    def test_lists_that_are_wrong(self) -> None:
        for text in ("a b.example", "x@", "*.example.org", "[192.0.2.1]", "a@b@c", "..example"):
            ran = self.add("--allowed-from", text)
            self.assertEqual((ran.code, ran.out), (64, ""), text)
            self.assertIn("wanted an address or a domain", ran.err)
        self.assertFalse((self.state / NAME).exists())

    def test_nothing_of_the_password_is_shown(self) -> None:
        self.add("--cram-md5")
        for command in (["list"], ["show", "alice@example.org"]):
            for more in ([], ["--json"]):
                out = self.user(*command, *more).out
                for text in ("horse", "argon2", "hash", "salt", "key", "secret"):
                    self.assertNotIn(text, out)

    def test_foreign_owner(self) -> None:
        """What another user's service could not read is not written, nor is a folder made for it."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give a folder away")
        self.add()
        os.chown(self.state, 65534, 65534)
        for command in (["list"], ["remove", "alice@example.org"]):
            ran = self.user(*command)
            self.assertEqual((ran.code, ran.out), (77, ""))
            self.assertIn(f"{self.state} belongs to user 65534", ran.err)
        self.config.write_text('state_dir = "elsewhere"\n')
        os.chown(self.folder, 65534, 65534)
        ran = self.add()
        self.assertEqual((ran.code, (self.folder / "elsewhere").exists()), (77, False))

    def test_no_database(self) -> None:
        self.state.mkdir(parents=True)
        (self.state / NAME).write_bytes(b"nonsense" * 1000)
        for ran in (self.add(), self.user("list")):
            self.assertEqual((ran.code, ran.out), (74, ""))
            self.assertEqual(ran.err, f"protege-mta: {self.state / NAME}: file is not a database\n")


class PatternTests(SynchronousTestCase):
    def test_patterns(self) -> None:
        for text, kept in (
            ("Alice@Example.org", "alice@example.org"),
            ("example.org", "example.org"),
            ("@example.org", "example.org"),
            (".Example.org", ".example.org"),
            ("B\u00dcCHER.example", "xn--bcher-kva.example"),
            ("J\u00f6rg@b\u00fccher.example", "j\u00f6rg@xn--bcher-kva.example"),
            ("x@[192.0.2.1]", "x@[192.0.2.1]"),
        ):
            self.assertEqual(pattern(text), kept)
        for text in ("", "@", ".", "a@", "a@.b", "a..b", "*.b", "a b", "\u2603@", "x@\u2603-.y"):
            self.assertIsNone(pattern(text), text)
