"""``suppression`` from the command line, with no service anywhere."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .console import Ran, run


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text('state_dir = "state"\n')

    def do(self, *arguments: str, stdin: bytes = b"") -> Ran:
        return run("suppression", *arguments, "--config", str(self.config), stdin=stdin)

    def test_nothing_yet(self) -> None:
        self.assertEqual(json.loads(self.do("list", "--json").out), [])
        self.assertEqual(self.do("check", "a@b.test").code, 0)
        self.assertFalse((self.folder / "state").exists())

    def test_added_seen_and_removed(self) -> None:
        self.assertEqual(self.do("add", "Bob@B.test", "--reason", "policy").code, 0)
        [row] = json.loads(self.do("list", "--json").out)
        self.assertEqual((row["address"], row["reason"]), ("bob@b.test", "policy"))
        found = self.do("check", "bob@b.test", "--json")
        self.assertEqual((found.code, json.loads(found.out)["suppressed"]), (1, True))
        self.assertIn("bob@b.test", self.do("list").out)
        self.assertEqual(self.do("remove", "BOB@b.test").code, 0)
        self.assertEqual(self.do("remove", "bob@b.test").code, 66)
        self.assertEqual(self.do("check", "bob@b.test").code, 0)

    def test_tenants(self) -> None:
        self.do("add", "a@b.test", "--tenant", "t", "--for", "1")
        self.assertEqual(self.do("check", "a@b.test").code, 0)
        self.assertEqual(self.do("check", "a@b.test", "--tenant", "t").code, 1)
        self.assertEqual(self.do("remove", "a@b.test", "--tenant", "u").code, 66)
        self.assertEqual(self.do("remove", "a@b.test").code, 0)

    def test_import_and_export(self) -> None:
        text = "address,reason,tenant\na@b.test,complaint,t\nb@b.test,,\nwrong,,\n"
        (self.folder / "in.csv").write_text(text)
        done = self.do("import", str(self.folder / "in.csv"), "--csv", "--json")
        self.assertEqual((done.code, json.loads(done.out)), (65, {"added": 2, "refused": 1}))
        self.assertIn("line 4: address wanted an address", done.err)
        exported = self.do("export").out
        self.assertEqual(
            [json.loads(line)["address"] for line in exported.splitlines()],
            ["a@b.test", "b@b.test"],
        )
        (self.folder / "out.jsonl").write_text(exported)
        self.do("remove", "a@b.test")
        self.assertEqual(self.do("import", str(self.folder / "out.jsonl")).code, 0)
        self.assertEqual(self.do("export").out, exported)
        self.assertTrue(self.do("export", "--csv").out.startswith("address,reason,tenant,"))

    def test_a_file_that_is_not_there(self) -> None:
        done = self.do("import", str(self.folder / "gone.csv"))
        self.assertNotEqual(done.code, 0)
        self.assertIn("No such file", done.err)

    def test_no_address(self) -> None:
        for command in ("add", "remove", "check"):
            self.assertEqual(self.do(command, "nobody").code, 64)
