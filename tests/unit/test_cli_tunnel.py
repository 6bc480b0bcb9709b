"""``tunnel``: the agents of a relay server, from the command line."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.toml import ConfigError, load, load_identities
from protege_mta.model.identity import Agent, identity_of
from protege_mta.state.agents import _PUT
from protege_mta.state.database import connect

from .console import Ran, control, run, service

ANN: Final = identity_of(b"\1" * 32)
BOB: Final = identity_of(b"\2" * 32)
EVE: Final = identity_of(b"\3" * 32)

CONFIG: Final = """\
hostname = "mx.test"
state_dir = "state"
[[listener]]
kind = "http"
[domains."agents.test"]
deliver = "tunnel"
[tunnel_server]
enabled = true
"""

WRITTEN: Final = f"""\
# Agents of the house.  Ask Ann before you change anything!

[[identity]]  # the first
key = "{ANN}"  # her laptop
aliases = [
    "ann",  # for people
]

# Bob has left us, and may come back.
[[identity]]
key = "{BOB}"
send_per_hour = 5   # he sends too much

# the end
"""


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text(CONFIG)
        self.file = self.folder / "identities.toml"

    def tunnel(self, *arguments: str) -> Ran:
        return run("tunnel", *arguments, "--config", str(self.config))

    def done(self, *arguments: str) -> str:
        ran = self.tunnel(*arguments)
        self.assertEqual((ran.code, ran.err), (0, ""))
        return ran.out

    def agents(self) -> list[Agent]:
        return list(load_identities(self.file))

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.tunnel("list", "--json").json()
        return rows


class AllowTests(Case):
    def test_first_one(self) -> None:
        """The file is made; it has no secrets, and the service's user has to read it."""
        self.assertEqual(self.done("allow", ANN), f"allowed {ANN}\n")
        self.assertEqual(self.agents(), [Agent(ANN)])
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o644)
        self.assertTrue(self.file.read_text().startswith("# The agents that may log in"))
        self.assertEqual(os.listdir(self.folder), ["c.toml", "identities.toml"])

    def test_everything(self) -> None:
        options = ("--alias", "Ann", "--alias", "sales@Shop.test", "--alias", "ann")
        self.done("allow", ANN, *options, "--send-per-hour", "7", "--tenant", "acme")
        self.assertEqual(self.agents(), [Agent(ANN, ("ann", "sales@shop.test"), 7, "acme")])

    def test_key_as_people_have_it(self) -> None:
        for text in (ANN.upper(), f"{ANN}@agents.test"):
            self.done("allow", text)
            self.assertEqual(self.agents(), [Agent(ANN)])

    def test_what_people_have_written_stays(self) -> None:
        self.file.write_text(WRITTEN)
        self.file.chmod(0o640)
        self.done("allow", EVE, "--alias", "eve")
        self.assertEqual(
            self.file.read_text(), f'{WRITTEN}\n[[identity]]\nkey = "{EVE}"\naliases = ["eve"]\n'
        )
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o640)

    def test_change(self) -> None:
        """Of what is given, where it stands; the rest is left alone."""
        self.file.write_text(WRITTEN)
        self.done("allow", BOB, "--send-per-hour", "9", "--tenant", "acme")
        self.assertEqual(
            self.file.read_text(),
            WRITTEN.replace(
                "= 5   # he sends too much\n", '= 9   # he sends too much\ntenant = "acme"\n'
            ),
        )
        self.done("allow", BOB, "--tenant", "")
        self.done("allow", ANN, "--alias", "")
        self.assertEqual(self.agents(), [Agent(ANN), Agent(BOB, send_per_hour=9)])
        self.assertIn("# Bob has left us", self.file.read_text())
        before = self.file.stat().st_ino
        self.done("allow", ANN)
        self.assertEqual(self.file.stat().st_ino, before)

    def test_inline_tables(self) -> None:
        self.file.write_text(f'identity = [\n  {{ key = "{ANN}" }},  # Ann\n]\n')
        self.done("allow", BOB, "--alias", "bob")
        self.done("allow", ANN, "--tenant", "acme")
        self.assertEqual(self.agents(), [Agent(ANN, tenant="acme"), Agent(BOB, ("bob",))])
        self.assertIn("# Ann", self.file.read_text())
        self.done("revoke", ANN)
        self.assertEqual(self.agents(), [Agent(BOB, ("bob",))])

    def test_link_is_followed(self) -> None:
        other = self.folder / "elsewhere.toml"
        other.write_text(WRITTEN)
        self.file.symlink_to(other)
        self.done("allow", EVE)
        self.assertTrue(self.file.is_symlink())
        self.assertEqual(len(self.agents()), 3)

    def test_file_that_would_be_broken(self) -> None:
        """Stays as it is: an alias belongs to one agent."""
        self.file.write_text(WRITTEN)
        for alias in ("ann", "ann@agents.test"):
            ran = self.tunnel("allow", EVE, "--alias", alias)
            self.assertEqual(ran.code, os.EX_CONFIG)
            self.assertIn(
                f'[[identity]] #3 aliases: wanted aliases of its own, got "{alias}"', ran.err
            )
        self.assertEqual(self.file.read_text(), WRITTEN)

    def test_file_that_is_broken(self) -> None:
        self.file.write_text("[[identity]]\nky = 3\n")
        ran = self.tunnel("allow", EVE)
        self.assertEqual(ran.code, os.EX_CONFIG)
        self.assertIn(
            "identities.toml: [[identity]] #1 ky: unknown key; did you mean key?", ran.err
        )

    def test_wrong_words(self) -> None:
        for arguments in (
            ("allow", "abc"),
            ("allow", ANN[:-1] + "b"),
            ("allow", ANN, "--alias", "a%b"),
            ("allow", ANN, "--alias", BOB),
            ("allow", ANN, "--alias", "a@[192.0.2.1]"),
            ("allow", ANN, "--send-per-hour", "-1"),
            ("revoke", "\u212a" + ANN[1:]),
        ):
            self.assertEqual(self.tunnel(*arguments).code, os.EX_USAGE, arguments)
        self.assertFalse(self.file.exists())

    def test_folder_that_is_not_there(self) -> None:
        self.config.write_text(CONFIG + 'identities_file = "nowhere/identities.toml"\n')
        ran = self.tunnel("allow", ANN)
        self.assertEqual(ran.code, os.EX_CANTCREAT)
        self.assertIn("nowhere/identities.toml: No such file or directory", ran.err)

    def test_no_tunnel_server(self) -> None:
        self.config.write_text('state_dir = "state"\n')
        for words in (("allow", ANN), ("list",), ("revoke", ANN)):
            ran = self.tunnel(*words)
            self.assertEqual(ran.code, os.EX_CONFIG)
            self.assertIn("there is no [tunnel_server]", ran.err)

    def test_not_enabled_yet(self) -> None:
        self.config.write_text(
            CONFIG.replace("true", "false").replace("[domains", "# [").replace("deliver", "#")
        )
        self.assertIn("not enabled yet", self.done("allow", ANN))


class RevokeTests(Case):
    def test_entry_goes(self) -> None:
        """And no comment that stands between entries."""
        self.file.write_text(WRITTEN)
        self.assertEqual(self.done("revoke", ANN), f"revoked {ANN}\n")
        self.assertEqual(self.agents(), [Agent(BOB, send_per_hour=5)])
        left = self.file.read_text()
        for comment in ("Ask Ann before", "# Bob has left us", "# he sends too much", "# the end"):
            self.assertIn(comment, left)
        self.done("revoke", BOB)
        self.assertEqual(self.agents(), [])

    def test_who_is_not_listed(self) -> None:
        self.file.write_text(WRITTEN)
        ran = self.tunnel("revoke", EVE)
        self.assertEqual(ran.code, os.EX_NOINPUT)
        self.assertIn(f"{EVE}: no such agent", ran.err)

    def test_where_anybody_may_come(self) -> None:
        """It takes an entry to keep one out; to allow it again takes the mark away."""
        self.config.write_text(CONFIG + 'identities = "any"\n')
        self.file.write_text(WRITTEN)
        for key in (ANN, EVE):
            self.done("revoke", key)
        self.assertEqual(
            [(agent.identity, agent.is_revoked) for agent in self.agents()],
            [(ANN, True), (BOB, False), (EVE, True)],
        )
        self.done("allow", ANN)
        self.assertEqual(self.agents()[0], Agent(ANN, ("ann",)))
        self.assertEqual(self.file.read_text().count("revoked"), 1)


class ListTests(Case):
    def test_service_that_is_down(self) -> None:
        self.file.write_text(WRITTEN)
        connection = connect(self.folder / "state")
        for key in (ANN, EVE):
            connection.execute(_PUT, (key, 10.0, 20.5))
        connection.close()
        self.assertEqual(
            self.rows(),
            [
                {
                    "key": ANN,
                    "aliases": ["ann"],
                    "send_per_hour": None,
                    "tenant": "",
                    "is_listed": True,
                    "is_revoked": False,
                    "is_connected": False,
                    "last_seen_at": 20.5,
                    "peer_address": "",
                },
                {
                    "key": BOB,
                    "aliases": [],
                    "send_per_hour": 5,
                    "tenant": "",
                    "is_listed": True,
                    "is_revoked": False,
                    "is_connected": False,
                    "last_seen_at": None,
                    "peer_address": "",
                },
            ],
        )
        self.config.write_text(CONFIG + 'identities = "any"\n')
        self.assertEqual([row["key"] for row in self.rows()], [ANN, BOB, EVE])

    def test_service_that_runs(self) -> None:
        self.file.write_text(WRITTEN)
        seen = [
            {"key": ANN, "is_connected": True, "last_seen_at": 20.5, "peer_address": "192.0.2.1"},
            {"key": EVE, "is_connected": False, "last_seen_at": 10.0, "peer_address": ""},
        ]
        lines = [*({"row": row} for row in seen), {"done": {}}]
        with service(self.folder / "state/run/control.sock", control({"tunnel.list": lines})):
            rows = self.rows()
            text = self.done("list")
        self.assertEqual(
            [(row["key"], row["is_connected"], row["peer_address"]) for row in rows],
            [(ANN, True, "192.0.2.1"), (BOB, False, "")],
        )
        self.assertRegex(text, rf"{ANN} +ann +- +connected +now\n")
        self.assertRegex(text, rf"{BOB} +- +- +away +never\n")

    def test_nobody(self) -> None:
        self.assertEqual(self.rows(), [])


class ConfigurationTests(Case):
    """``check-config``, a start and a reload read the agents too."""

    def test_broken_file(self) -> None:
        self.file.write_text(
            f"""\
[[identity]]
key = "{ANN}"
aliases = ["sup", "sup@x.test"]
[[identity]]
key = "{BOB}"
aliases = ["SUP", "a b", 3]
send_per_hour = -1
[[identity]]
key = "{ANN.upper()}"
tennant = "x"
[[identity]]
key = "short"
[domains]
"""
        )
        with self.assertRaises(ConfigError) as caught:
            load(self.config)
        self.assertEqual(
            [f"{one.place}: {one.text}" for one in caught.exception.complaints],
            [
                '[[identity]] #2 aliases: wanted a local-part such as "support", or an address '
                'such as "support@example.org", got "a b"',
                "[[identity]] #2 send_per_hour: wanted a whole number, 0 or more, got -1",
                "[[identity]] #3 tennant: unknown key; did you mean tenant?",
                '[[identity]] #4 key: wanted a key: 52 of a-z and 2-7, the last one "a" or "q", '
                'got "short"',
                "[domains]: unknown key; known here: identity",
            ],
        )
        self.assertEqual({one.file for one in caught.exception.complaints}, {str(self.file)})

    def test_two_agents(self) -> None:
        self.file.write_text(
            f'[[identity]]\nkey = "{ANN}"\naliases = ["sup"]\n'
            f'[[identity]]\nkey = "{BOB}"\naliases = ["Sup@x.test"]\n'
            f'[[identity]]\nkey = "{ANN}"\n'
            f'[[identity]]\nkey = "{EVE}"\naliases = ["sup"]\nrevoked = true\n'
        )
        with self.assertRaises(ConfigError) as caught:
            load(self.config)
        self.assertEqual(
            [f"{one.place}: {one.text}" for one in caught.exception.complaints],
            [
                '[[identity]] #2 aliases: wanted aliases of its own, got "sup@x.test" of #1',
                "[[identity]] #3 key: wanted every key once, got that of #1 again",
            ],
        )

    def test_not_looked_at_where_there_is_no_tunnel_server(self) -> None:
        self.file.write_text("broken")
        self.config.write_text(
            CONFIG.replace("enabled = true", "enabled = false").split("[domains")[0]
        )
        self.assertEqual(load(self.config).hostname, "mx.test")
