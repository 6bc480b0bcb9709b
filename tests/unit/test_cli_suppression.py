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

    def import_octets(self, octets: bytes, *options: str) -> Ran:
        path = self.folder / "in"
        path.write_bytes(octets)
        return self.do("import", str(path), *options)

    def addresses(self) -> list[str]:
        return [json.loads(line)["address"] for line in self.do("export").out.splitlines()]

    def test_what_spreadsheets_write(self) -> None:
        for octets in (
            b"\xef\xbb\xbfaddress,reason\r\nj\xc3\xbcrg@b.test,policy\r\n",
            "address;reason\r\njürg@b.test;policy\r\n".encode("utf-16"),
            "\n\n address\treason\njürg@b.test\tpolicy".encode(),
        ):
            done = self.import_octets(octets, "--csv")
            self.assertEqual((done.code, done.err), (0, ""))
            self.assertEqual(self.addresses(), ["jürg@b.test"])
            self.do("remove", "jürg@b.test")

    def test_another_encoding(self) -> None:
        """Is told, and what can be read is added; no name is kept that nobody has."""
        for form, octets in (
            ("--csv", b"address\na@b.test\nj\xfcrg@b.test\n"),
            ("--tenant=", b'{"address":"a@b.test"}\n{"address":"j\xfcrg@b.test"}\n'),
        ):
            done = self.import_octets(octets, form)
            self.assertEqual(done.code, 65)
            self.assertIn("address is not UTF-8", done.err)
            self.assertEqual(self.addresses(), ["a@b.test"])

    def test_a_line_that_is_no_csv_ends_nothing(self) -> None:
        done = self.import_octets(b'address\n"a"x@b.test\nc@b.test\n"open\nd@b.test\n', "--csv")
        self.assertEqual(done.code, 65)
        self.assertIn("line 2: is not CSV", done.err)
        self.assertIn("line 4: is not CSV: unexpected end of data (up to line 5)", done.err)
        self.assertEqual(self.addresses(), ["c@b.test"])

    def test_columns_that_are_none(self) -> None:
        done = self.import_octets(b"address,shoe\na@b.test,44\n", "--csv")
        self.assertEqual((done.code, self.addresses()), (65, []))
        self.assertEqual(done.err.count("\n"), 1)

    def test_names_in_quotes(self) -> None:
        """Go out as they came in, by either form."""
        self.assertEqual(self.do("add", '"a \\\\ \\" b"@b.test').code, 0)
        for form in (["--csv"], []):
            exported = self.do("export", *form).out
            self.do("remove", '"a \\\\ \\" b"@b.test')
            self.assertEqual(self.addresses(), [])
            self.assertEqual(self.import_octets(exported.encode(), *form).code, 0)
            self.assertEqual(self.do("export", *form).out, exported)

    def test_what_broke_off_is_taken_up(self) -> None:
        """The same file once more leaves the list as one whole import would."""
        lines = [f"r{number}@b.test" for number in range(6000)]
        self.import_octets("\n".join(["address", *lines[:5500]]).encode(), "--csv")
        done = self.import_octets("\n".join(["address", *lines]).encode(), "--csv", "--json")
        self.assertEqual(json.loads(done.out), {"added": 6000, "refused": 0})
        self.assertEqual(sorted(self.addresses()), sorted(lines))
