"""``apikey``: keys, from the command line, with no service anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.cli.apikey import span_s
from protege_mta.cli.run import first_key
from protege_mta.config.embedded import embedded
from protege_mta.model.apikey import ApiKey, fingerprint
from protege_mta.state.apikeys import every, find, remove
from protege_mta.state.database import NAME, connect

from .console import Ran, run

NOON = 1_790_000_000.0
LIMITS = (
    "connections",
    "recipients",
    "messages_per_hour",
    "messages_per_day",
    "recipients_per_hour",
    "recipients_per_day",
)


class ApiKeyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text('state_dir = "state"\n')
        patcher = patch("time.time", return_value=NOON)
        self.now = patcher.start()
        self.addCleanup(patcher.stop)

    def apikey(self, *arguments: str) -> Ran:
        return run("apikey", *arguments, "--config", str(self.config))

    def key(self, name: str = "bot") -> ApiKey:
        connection = connect(self.folder / "state")
        self.addCleanup(connection.close)
        found = find(connection, name)
        assert found is not None
        return found

    def test_create(self) -> None:
        """The key stands alone on its line, once; what is kept opens nothing."""
        ran = self.apikey("create", "Bot")
        self.assertEqual((ran.code, ran.err), (0, ""))
        [secret] = ran.out.splitlines()
        [kept] = self.key().secrets
        self.assertEqual(kept.digest, fingerprint(secret))
        self.assertEqual(self.key().scopes, {"send"})
        octets = b"".join(path.read_bytes() for path in (self.folder / "state").glob(f"{NAME}*"))
        self.assertNotIn(secret.encode(), octets)
        for command in ("list", "show"):
            told = self.apikey(command, *(["bot"] if command == "show" else []))
            self.assertEqual(told.code, 0)
            self.assertNotIn(secret, told.out)

    def test_json(self) -> None:
        row = self.apikey("create", "bot", "--json").json()
        self.assertEqual(list(row), ["name", "key"])
        self.assertEqual(row["name"], "bot")
        self.assertIsNotNone(fingerprint(row["key"]))

    def test_what_it_may(self) -> None:
        ran = self.apikey(
            *("create", "bot", "--scope", "read, send", "--allowed-from", "Bot@A.test,.b.test"),
            *("--allowed-to", "c.test", "--denied-to", "x@c.test", "--per-hour", "5"),
            *("--recipients-per-day", "7", "--tenant", "t", "--sandbox", "--approval"),
            *(
                "first-time",
                "--no-bcc",
                "--first-time-per-day",
                "3",
                "--expires",
                "90d",
                "--no-wait",
            ),
        )
        self.assertEqual(ran.code, 0, ran.err)
        [row] = self.apikey("list", "--json").json()
        [secret] = row.pop("secrets")
        self.assertEqual(secret, {"id": secret["id"], "created_at": NOON, "expires_at": None})
        self.assertEqual(
            row,
            {
                "name": "bot",
                "scopes": ["send", "read"],
                "created_at": NOON,
                "expires_at": NOON + 90 * 86_400,
                "last_used_at": None,
                "allowed_from": ["bot@a.test", ".b.test"],
                "allowed_to": ["c.test"],
                "denied_to": ["x@c.test"],
                "tenant": "t",
                "limits": dict.fromkeys(LIMITS, 0)
                | {"messages_per_hour": 5, "recipients_per_day": 7},
                "policy": {"approval": "first_time", "may_bcc": False, "first_time_per_day": 3},
                "sandbox": True,
                "waits": False,
            },
        )

    def test_shown_to_people(self) -> None:
        """What is not as usual is told."""
        self.apikey("create", "plain")
        self.apikey("create", "portal", "--no-wait")
        told = "/api/send:           answers at once"
        self.assertIn(told, self.apikey("show", "portal").out)
        self.assertNotIn("/api/send", self.apikey("show", "plain").out)

    def test_one_word_for_one_thing(self) -> None:
        """What is shown is what the option takes, which may have a hyphen too."""
        for name, word in (("a", "first_time"), ("b", "first-time")):
            self.apikey("create", name, "--approval", word, "--first-time-per-day", "3")
            self.assertEqual(self.key(name).policy.approval, "first_time")
            told = self.apikey("show", name).out
            self.assertIn("approval:            first_time\n", told)
            self.assertIn("first time per day:  3\n", told)
        self.apikey("set", "a", "--approval", "none", "--first-time-per-day", "0")
        self.assertIn("first time per day:  no limit\n", self.apikey("show", "a").out)

    def test_listed_for_people(self) -> None:
        """Which keys send nothing to anybody is to be seen."""
        self.apikey("create", "live")
        self.apikey("create", "trial", "--sandbox")
        names, *rows = [line.split() for line in self.apikey("list").out.splitlines()]
        at = names.index("SANDBOX")
        self.assertEqual([(row[0], row[at]) for row in rows], [("live", "-"), ("trial", "yes")])

    def test_set(self) -> None:
        """What is not given stays, the secret too."""
        self.apikey("create", "bot", "--allowed-from", "a.test", "--no-bcc", "--expires", "1d")
        before = self.key()
        ran = self.apikey("set", "bot", "--approval", "all", "--expires", "never")
        self.assertEqual((ran.code, ran.out), (0, "changed bot\n"))
        key = self.key()
        self.assertEqual((key.policy.approval, key.policy.may_bcc), ("all", False))
        self.assertEqual(key.expires_at, None)
        self.assertEqual((key.secrets, key.allowed_from), (before.secrets, ("a.test",)))
        self.apikey("set", "bot", "--allowed-from", "", "--bcc")
        self.assertEqual((self.key().allowed_from, self.key().policy.may_bcc), ((), True))
        self.assertEqual(self.apikey("set", "bot").code, os.EX_USAGE)

    def test_rotate(self) -> None:
        first = self.apikey("create", "bot").out.strip()
        second = self.apikey("rotate", "bot", "--overlap", "1h").out.strip()
        old, new = self.key().secrets
        self.assertEqual((old.digest, new.digest), (fingerprint(first), fingerprint(second)))
        self.assertEqual((old.expires_at, new.expires_at), (NOON + 3600, None))
        third = self.apikey("rotate", "bot", "--overlap", "0", "--json").json()["key"]
        self.assertEqual([one.digest for one in self.key().secrets], [fingerprint(third)])

    def test_revoke(self) -> None:
        self.apikey("create", "bot")
        self.assertEqual(self.apikey("revoke", "bot").out, "revoked bot\n")
        again = self.apikey("revoke", "bot")
        self.assertEqual(
            (again.code, again.err), (os.EX_NOINPUT, "protege-mta: bot: no such key\n")
        )
        self.assertEqual(self.apikey("list", "--json").json(), [])

    def test_a_name_twice(self) -> None:
        self.apikey("create", "bot")
        before = self.key()
        ran = self.apikey("create", "bot", "--tenant", "t")
        self.assertEqual(ran.code, os.EX_CANTCREAT)
        self.assertIn("there is such a key", ran.err)
        self.assertEqual(self.key(), before)

    def test_nobody_yet(self) -> None:
        self.assertEqual(self.apikey("list", "--json").json(), [])
        self.assertEqual(self.apikey("show", "bot").code, os.EX_NOINPUT)
        self.assertFalse((self.folder / "state").exists())

    def test_wrong_options(self) -> None:
        for option, value in (
            ("--scope", "write"),
            ("--scope", ""),
            ("--expires", "soon"),
            ("--allowed-from", "not an address"),
            ("--approval", "some"),
            ("--per-hour", "-1"),
        ):
            ran = self.apikey("create", "bot", option, value)
            self.assertEqual(ran.code, os.EX_USAGE, option)
            self.assertIn(option, ran.err)
        self.assertEqual(self.apikey("create", "b:t").code, os.EX_USAGE)
        self.assertFalse((self.folder / "state").exists())

    def test_spans(self) -> None:
        self.assertEqual(
            [span_s(text) for text in ("5s", "2m", "1h", "3d", "1w")],
            [5, 120, 3600, 259_200, 604_800],
        )
        self.assertEqual([span_s(text) for text in ("", "5", "h", "-1h", "1.5h", "1y")], [None] * 6)

    def test_dates(self) -> None:
        for text, end in (
            ("2030-01-31", 1_896_048_000.0),
            ("2030-01-31T12:00:00+01:00", 1_896_087_600.0),
        ):
            self.apikey("create", f"k{end:.0f}", "--expires", text)
            self.assertEqual(self.key(f"k{end:.0f}").expires_at, end)


class FirstKeyTests(SynchronousTestCase):
    def test_made_once(self) -> None:
        """Not again where it has been revoked."""
        settings: Any = embedded(Path(self.mktemp()).absolute())
        secret = first_key(settings)
        connection = connect(settings.state_dir)
        self.addCleanup(connection.close)
        [key] = every(connection)
        self.assertEqual((key.name, key.secrets[0].digest), ("first", fingerprint(secret)))
        self.assertEqual(key.scopes, {"send", "read", "admin"})
        self.assertEqual(first_key(settings), "")
        remove(connection, "first")
        self.assertEqual(first_key(settings), "")
        self.assertEqual(list(every(connection)), [])
