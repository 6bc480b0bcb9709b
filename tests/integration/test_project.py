"""A Protege project through the commands as processes, and served.

setup, relay bootstrap --> configs/, personas/     as root, as another user, with any umask
smtplib --SMTP--> protege-mta run --project --> memory/<persona>/maildir
                         |--smarthost--> nobody listens there
twistd protege-mta --project: the same, with AUTH
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..unit.console import run
from ..unit.projects import RELAY, SCAFFOLD, URL, ProjectFolder, keys

PROGRAM = "import sys; from protege_mta.cli import main; sys.exit(main(sys.argv[1:]))"
ROOT = Path(__file__).parents[2]
NOBODY = 65534
WAIT_S = 60


def command(*arguments: str, umask: int = 0o022, user: int | None = None) -> Any:
    """Run the console script as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        umask=umask,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )


class ProcessTests(SynchronousTestCase):
    def project(self) -> ProjectFolder:
        # Where other users may go, unlike trial's own temporary folders.
        folder = Path(tempfile.mkdtemp(prefix="protege-mta-"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        return ProjectFolder.made(folder / "p")

    def nobodys(self) -> ProjectFolder:
        if os.geteuid() != 0:
            raise SkipTest("needs root, to be somebody else")
        project = self.project()
        for path in [project.path, *project.path.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        return project

    def test_any_umask(self) -> None:
        """Secrets are their owner's alone, and the service's user can use the rest."""
        for umask in (0o000, 0o022, 0o077):
            project = self.project()
            project.write(
                "configs/gateway.json", {"transport": {"host": "x.test", "port": 25}, "port": 1}
            ).chmod(0o640)
            done = command("setup", "--relay-ws-url", URL, "--path", str(project.path), umask=umask)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            modes = {
                str(path.relative_to(project.path)).replace(path.parent.name, "ID")
                if path.parent.parent.name == "personas"
                else str(path.relative_to(project.path)): stat.S_IMODE(path.stat().st_mode)
                for path in project.path.rglob("*")
                if path.is_file()
            }
            self.assertEqual(
                modes,
                {
                    "configs/gateway.json": 0o640,
                    ".protege-mta/transport.json": 0o600,
                    "personas/ID/passport.key": 0o600,
                    "personas/ID/persona.json": 0o644 & ~umask,
                },
            )

    def test_as_its_owner(self) -> None:
        project = self.nobodys()
        done = command(
            "relay", "bootstrap", "--relay-ws-url", URL, "--path", str(project.path), user=NOBODY
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual({path.stat().st_uid for path in project.path.rglob("*")}, {NOBODY})

    def test_as_root(self) -> None:
        """Refused, whole: nothing of root's is left."""
        project = self.nobodys()
        before = project.snapshot()
        done = command("setup", "--relay-ws-url", URL, "--path", str(project.path))
        self.assertEqual((done.returncode, done.stdout), (77, ""))
        self.assertIn(f"belongs to user {NOBODY}, and this is user 0", done.stderr)
        self.assertEqual(project.snapshot(), before)

    def test_folders_that_may_not_be_written(self) -> None:
        """One line that names the file; every file is as it was or as it is to be."""
        for name, file in (
            ("configs", "configs/.gateway.json.new"),
            (".", "personas"),
        ):
            project = self.nobodys()
            (project.path / name).chmod(0o555)
            done = command("setup", "--relay-ws-url", URL, "--path", str(project.path), user=NOBODY)
            self.assertEqual((done.returncode, done.stdout), (73, ""))
            self.assertEqual(
                done.stderr, f"protege-mta: {project.path}/{file}: Permission denied\n"
            )
            self.assertEqual(project.text(), SCAFFOLD)
            (project.path / name).chmod(0o755)
            again = command(
                "setup", "--relay-ws-url", URL, "--path", str(project.path), user=NOBODY
            )
            self.assertEqual(again.returncode, 0, again.stderr)
            self.assertEqual(len(list((project.path / "personas").iterdir())), 1)

    def test_file_that_may_not_be_read(self) -> None:
        project = self.nobodys()
        (project.path / "configs/gateway.json").chmod(0)
        done = command("setup", "--relay-ws-url", URL, "--path", str(project.path), user=NOBODY)
        self.assertEqual(done.returncode, 77)
        self.assertIn("configs/gateway.json: Permission denied", done.stderr)

    def test_two_at_once(self) -> None:
        """One persona, whichever came first."""
        project = self.project()
        arguments = [sys.executable, "-c", PROGRAM, "setup", "--relay-ws-url", URL]
        both = [
            subprocess.Popen(
                [*arguments, "--path", str(project.path)],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        codes = {process.wait(WAIT_S) for process in both}
        self.assertLessEqual(codes, {0, 75})
        self.assertIn(0, codes)
        self.assertEqual(len(list((project.path / "personas").iterdir())), 1)


class ServiceTests(SynchronousTestCase):
    """The project's own files are the configuration."""

    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="protege-mta-"))
        self.addCleanup(shutil.rmtree, folder)
        transport = {"host": "127.0.0.1", "port": 1, "secure": False}
        self.project = ProjectFolder.made(
            folder / "p", {"mailDomain": "agents.test", "port": 0, "transport": transport}
        )
        self.persona = self.project.persona(0)
        self.key = keys()[0].text
        self.log = folder / "log"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            service = subprocess.Popen(words, cwd=self.project.path, stdout=log, stderr=log)
        self.addCleanup(self.stop, service)
        self.until(lambda: run("status", "--config", str(self.project.path)).code == 0)
        return service

    def run_it(self) -> subprocess.Popen[bytes]:
        return self.start(
            *(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {PROGRAM}"),
            *("run", "--project", str(self.project.path)),
        )

    def stop(self, service: subprocess.Popen[bytes]) -> None:
        if service.poll() is None:
            service.send_signal(signal.SIGTERM)
        service.wait(WAIT_S)

    def until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(self.log.read_text())
            time.sleep(0.05)

    def connect(self) -> smtplib.SMTP:
        ports = json.loads((self.project.path / ".protege-mta/ports.json").read_text())
        client = smtplib.SMTP("127.0.0.1", next(iter(ports.values())), timeout=WAIT_S)
        self.addCleanup(client.close)
        return client

    def delivered(self, count: int) -> None:
        box = self.project.path / "memory" / self.persona.name / "maildir/new"
        self.until(lambda: box.is_dir() and len(list(box.iterdir())) == count)

    def test_dev(self) -> None:
        """Personas have their Maildirs; loopback may send to anybody; an alias that is added counts
        from the next reload on."""
        service = self.run_it()
        state = self.project.path / ".protege-mta"
        self.assertEqual(stat.S_IMODE(state.stat().st_mode), 0o700)
        client = self.connect()
        content = b"Subject: x\r\n\r\nHello.\r\n"
        refused = client.sendmail(
            "a@b.test", [f"{self.key.upper()}@Agents.test", "x@far.test"], content
        )
        self.assertEqual(refused, {})
        self.delivered(1)
        # Somebody at the same domain who is not here goes the way out.
        client.sendmail("a@b.test", [f"{keys()[1].text}@agents.test", "sales@agents.test"], content)
        rows = run("queue", "list", "--json", "--config", str(self.project.path)).json()
        self.assertEqual(len(rows), 2)

        self.project.persona(0, aliases=["sales@agents.test"])
        service.send_signal(signal.SIGHUP)
        self.until(lambda: b"configuration read again" in self.log.read_bytes())
        client.sendmail("a@b.test", ["Sales@agents.test"], content)
        self.delivered(2)

        self.project.write("configs/gateway.json", '{"mailDomain": ')
        service.send_signal(signal.SIGHUP)
        self.until(lambda: b"the configuration stays as it was: " in self.log.read_bytes())
        client.sendmail("a@b.test", ["sales@agents.test"], content)
        self.delivered(3)

    def test_default_under_twistd(self) -> None:
        """The listener wants AUTH, and knows the accounts that are made for it."""
        gateway = self.project.json()
        self.project.write("configs/gateway.json", {**gateway, "mode": "default"})
        twistd = Path(sys.executable).with_name("twistd")
        self.start(
            *(str(twistd), "--nodaemon", "--pidfile=", "protege-mta"),
            *("--project", str(self.project.path)),
        )
        added = run(
            *("user", "add", "agent", "--password-stdin", "--config", str(self.project.path)),
            *("--allowed-from", f"{self.key}@agents.test"),
            stdin=b"correct horse\n",
        )
        self.assertEqual(added.code, 0, added.err)
        client = self.connect()
        client.ehlo()
        code, _ = client.mail("a@b.test")
        self.assertEqual(code, 530)
        client.starttls()

        def is_known() -> bool:
            try:
                client.login("agent", "correct horse")
            except smtplib.SMTPAuthenticationError:
                return False  # a change takes effect within a second
            return True

        self.until(is_known)
        content = f"From: {self.key}@agents.test\r\nSubject: x\r\n\r\nHello.\r\n".encode()
        client.sendmail(f"{self.key}@agents.test", [f"{self.key}@agents.test"], content)
        self.delivered(1)

    def test_wrong_project(self) -> None:
        """Every complaint on stderr, no port, no folder."""
        self.project.write(
            "configs/gateway.json", {"mode": "x", "relay": {**RELAY, "relayWsUrl": 5}}
        )
        twistd = str(Path(sys.executable).with_name("twistd"))
        for words in (
            [sys.executable, "-c", PROGRAM, "run"],
            [twistd, "--nodaemon", "--pidfile=", "protege-mta"],
        ):
            done = subprocess.run(
                [*words, "--project", str(self.project.path)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=WAIT_S,
            )
            self.assertEqual(done.returncode, 78)
            for place in (": mode: wanted", ": relay.relayWsUrl: wanted", ": mailDomain: wanted"):
                self.assertIn(f"configs/gateway.json{place}", done.stderr)
        self.assertFalse((self.project.path / ".protege-mta").exists())

    def test_both_configurations(self) -> None:
        for arguments, complaint in (
            (["--config", "x.toml"], "--config and --project: give one of them"),
            ([], None),
        ):
            folder = self.project.path if complaint else self.project.path / "nowhere"
            done = run("run", *arguments, "--project", str(folder))
            self.assertEqual(done.code, 64 if complaint else 78)
            self.assertIn(complaint or f"{folder}: no such folder, named by --project", done.err)

    def test_of_another_user(self) -> None:
        """Root serves no project of somebody else: what it would leave there, he could not use."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files away")
        os.chown(self.project.path, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "run", "--project", str(self.project.path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )
        self.assertEqual(done.returncode, 69)
        self.assertIn(f"belongs to user {NOBODY}", done.stderr)
        self.assertFalse((self.project.path / ".protege-mta").exists())
