"""What ``setup`` and ``relay bootstrap`` refuse, and what they leave when they are broken off."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SkipTest

from protege_mta.config.source import load

from .console import run
from .projects import COMMANDS, RELAY, SCAFFOLD, URL, ProjectCase


class RefusalTests(ProjectCase):
    def test_not_ours(self) -> None:
        """Options of the original that are not about mail are refused, not dropped."""
        self.made()
        for arguments in (
            ("--reset",),
            ("--doctor",),
            ("--provider", "openai"),
            ("--inference-api-key", "secret"),
            ("--web-search-provider", "none"),
            ("--web-search-api-key", "secret"),
        ):
            said = self.refused("setup", "--relay-ws-url", URL, *arguments, code=64)
            self.assertIn(f"{arguments[0]}: wanted options about mail", said)
            self.assertNotIn("secret", said)

    def test_no_project(self) -> None:
        folder = Path(self.mktemp()).absolute()
        for path in (folder, folder / "configs/gateway.json"):
            done = run("setup", "--relay-ws-url", URL, "--path", str(path))
            self.assertEqual(done.code, 78)
            self.assertIn(f"{path}: wanted the folder of a Protege project", done.err)
        self.assertFalse(folder.exists())

    def test_broken_files(self) -> None:
        """Half a file, a member twice, the wrong type: a complaint that names it, nothing else."""
        for text, complaint in (
            (SCAFFOLD[:40], "configs/gateway.json: wanted JSON, got: line 3"),
            ("", "configs/gateway.json: wanted JSON, got: line 1 column 1: Expecting value"),
            ("[]", "configs/gateway.json: wanted JSON, got: a value that is no object"),
            ('{"relay": 1, "relay": 2}', 'wanted JSON, got: the member "relay" twice'),
            ('{"relay": []}', "configs/gateway.json: relay: wanted an object, got []"),
            ('{"mailDomain": 5}', "configs/gateway.json: mailDomain: wanted a domain name, got 5"),
        ):
            self.made(text)
            self.project.persona()
            for command in COMMANDS:
                self.assertIn(complaint, self.refused(*command, "--relay-ws-url", URL, code=78))

    def test_broken_personas(self) -> None:
        """All of them are named, and not even the gateway's file is written."""
        project = self.made()
        first, second = project.persona(0), project.persona(1)
        project.write(f"personas/{first.name}/persona.json", '{"personaId":')
        project.write(f"personas/{second.name}/passport.key", "no key")
        said = self.refused("relay", "bootstrap", "--relay-ws-url", URL, code=78)
        self.assertIn(f"personas/{first.name}/persona.json: wanted JSON, got: line 1", said)
        self.assertIn(f"personas/{second.name}/passport.key: wanted a private Ed25519 key", said)

    def test_symbolic_links_out_of_the_project(self) -> None:
        for name in ("configs/gateway.json", "configs", "personas", "persona", "persona.json"):
            project = self.made()
            folder = project.persona()
            path = {
                "persona": folder,
                "persona.json": folder / "persona.json",
            }.get(name, project.path / name)
            outside = Path(self.mktemp()).absolute()
            path.rename(outside)
            path.symlink_to(outside)
            before = {p: p.read_bytes() for p in outside.parent.rglob("*") if p.is_file()}
            done = self.bootstrap("--relay-ws-url", URL, code=77)
            self.assertIn("leads out of the project, to", done.err)
            after = {p: p.read_bytes() for p in outside.parent.rglob("*") if p.is_file()}
            self.assertEqual(after, before)

    def test_symbolic_links_to_folders_outside(self) -> None:
        """Of ours, too: neither a key nor a password gets out."""
        for name in ("personas/.new-persona", ".protege-mta"):
            project = self.made({"transport": {"host": "x.test", "port": 25}})
            outside = Path(self.mktemp()).absolute()
            outside.mkdir()
            (project.path / "personas").mkdir()
            (project.path / name).symlink_to(outside)
            before = project.text()
            done = self.bootstrap("--relay-ws-url", URL, code=77)
            self.assertIn("leads out of the project, to", done.err)
            self.assertEqual((list(outside.iterdir()), project.text()), ([], before))

    def test_symbolic_links_in_the_project(self) -> None:
        """Stay; what they lead to is written."""
        project = self.made()
        shared = project.path / "shared.json"
        (project.path / "configs/gateway.json").rename(shared)
        (project.path / "configs/gateway.json").symlink_to("../shared.json")
        link = Path(self.mktemp()).absolute()
        link.symlink_to(project.path)
        self.assertEqual(run("setup", "--relay-ws-url", URL, "--path", str(link)).code, 0)
        self.assertTrue((project.path / "configs/gateway.json").is_symlink())
        self.assertTrue(json.loads(shared.read_text())["relay"]["enabled"])

    def test_of_another_user(self) -> None:
        """Root leaves no files of root in it: not beside a folder, a file or a persona of his."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files away")
        for name in ("", "configs", "configs/gateway.json", "personas", "persona", "passport.key"):
            project = self.made()
            folder = project.persona()
            path = {"persona": folder, "passport.key": folder / "passport.key"}.get(
                name, project.path / name
            )
            os.chown(path, 65534, 65534)
            said = self.refused("setup", "--relay-ws-url", URL, code=77)
            self.assertIn("belongs to user 65534, and this is user 0", said)
            self.assertIn("Run it as user 65534.", said)

    def test_two_at_a_time(self) -> None:
        project = self.made()
        fd = os.open(project.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        said = self.refused("setup", "--relay-ws-url", URL, code=75)
        self.assertIn("another command is changing it", said)

    def test_disk_full(self) -> None:
        """The old file stays, and no half of a new one."""
        project = self.made()
        project.persona()
        before = project.snapshot()

        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        with patch("os.fsync", full):
            done = self.setup("--relay-ws-url", URL, code=73)
        self.assertIn("configs/gateway.json: No space left on device", done.err)
        self.assertEqual(project.snapshot(), before)
        self.setup("--relay-ws-url", URL)

    def test_killed_at_any_write(self) -> None:
        """Whatever was written by then, the next run comes to the same end."""
        for count in range(1, 8):
            project = self.made(
                {
                    "mailDomain": "mail.old.test",
                    "relay": {**RELAY, "relayWsUrl": "wss://relay.old.test/ws"},
                    "transport": {"host": "x", "port": 5},
                }
            )
            with self.dying_at(count):
                run("setup", "--relay-ws-url", URL, "--path", str(project.path))
            self.setup("--relay-ws-url", URL)
            self.assertEqual(project.json()["mailDomain"], "mail.example.test")
            personas = list((project.path / "personas").iterdir())
            self.assertEqual(len(personas), 1, personas)
            document = json.loads((personas[0] / "persona.json").read_text())
            self.assertTrue(document["emailAddress"].endswith("@mail.example.test"))
            kept = json.loads((project.path / ".protege-mta/transport.json").read_text())
            self.assertEqual(kept, {"host": "x", "port": 5})
            load(project.path)

    @contextlib.contextmanager
    def dying_at(self, count: int) -> Iterator[None]:
        """Break off at the so-manieth rename, before it is made."""
        rename, replace = Path.rename, Path.replace
        left = count

        class Killed(BaseException):
            pass

        def counted(function: Any) -> Any:
            def call(path: Path, target: Path) -> Path:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed
                renamed: Path = function(path, target)
                return renamed

            return call

        with (
            patch.object(Path, "rename", counted(rename)),
            patch.object(Path, "replace", counted(replace)),
            contextlib.suppress(Killed),
        ):
            yield
