"""The wheel, installed where nothing of this checkout is, and served by twistd from an empty folder.

pip wheel -> wheel -> pip install -> a fresh environment -> twistd protege-mta, in every way
send() --SMTP--> it --Maildir--> local.test
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final
from unittest import SkipTest

from .service import PROGRAM, Service, ServiceTestCase, send, until

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "protege_mta", "twisted")
PLUGIN: Final = "twisted/plugins/protege_mta_plugin.py"


class WheelCase(ServiceTestCase):
    """Builds and installs it once.

    :cvar wheel: the file.
    :cvar python: of the environment that it is installed in.
    """

    wheel: ClassVar[Path]
    python: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="wheel-"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        cls.wheel = build(folder)
        cls.python = install(cls.wheel, folder / "venv")

    def made(self) -> Service:
        """A configuration in an empty folder; nothing runs yet."""
        service = Service()
        self.addCleanup(shutil.rmtree, service.folder, ignore_errors=True)
        return service

    def twistd(self, service: Service, *options: str) -> list[str]:
        """The command line of the service."""
        arguments = (*options, "protege-mta", "--config", str(service.config))
        return [str(self.python), str(PROGRAM.with_name("twistd")), *arguments]

    def delivers(self, service: Service) -> None:
        """A message comes all the way: reactor, spool thread and pool work."""
        send(service.port(), "a@far.test", "agent@local.test", b"Subject: x\r\n\r\nHello.\r\n")
        self.assertEqual(service.fate("agent@local.test")["event"], "delivered")
        [mail] = service.wait_for_mail("agent")
        self.assertTrue(mail.endswith(b"Subject: x\n\nHello.\n"), mail)

    @contextlib.contextmanager
    def daemon(self, service: Service, *options: str) -> Iterator[int]:
        """Run in the background, as an init script does it.

        :return: the process id, from the file.
        """
        folder = service.folder
        files = (f"--pidfile={folder}/pid", f"--logfile={folder}/log")
        done = subprocess.run(
            self.twistd(service, *files, *options), cwd=folder, capture_output=True, timeout=60
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""), service.log())
        pid = int((folder / "pid").read_text())
        try:
            until((folder / "state" / "ports.json").exists, "ports.json")
            yield pid
        finally:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not (folder / "pid").exists(), "the end of the daemon")
        until(lambda: not Path(f"/proc/{pid}").exists(), "the end of its process")
        self.assertIn("stopped", service.log_tail())


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(path, source / name, ignore=ignored)
        else:
            shutil.copy(path, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    [wheel] = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel, which sees what it depends on in the one that runs the
    tests.  :return: its Python."""
    # The system's own, where there is one of this version: every user may run that.
    system = Path(f"/usr/bin/python3.{sys.version_info.minor}")
    base = system if system.exists() else sys.executable
    subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    # In this order: pip would take the checkout's own metadata for an older installation.
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def pip(*arguments: object) -> None:
    """:raise AssertionError: with what pip says."""
    words = list(map(str, arguments))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
    )
    if done.returncode:
        raise AssertionError(f"pip {' '.join(words)}:\n{done.stdout}{done.stderr}")


class ContentTests(WheelCase):
    def test_files(self) -> None:
        """The package, its plugin, and nothing else."""
        with zipfile.ZipFile(self.wheel) as archive:
            names = [name for name in archive.namelist() if ".dist-info/" not in name]
            info = {name.partition("/")[2] for name in archive.namelist() if ".dist-info/" in name}
        self.assertIn(PLUGIN, names)
        self.assertIn("protege_mta/py.typed", names)
        others = [name for name in names if not name.startswith("protege_mta/")]
        self.assertEqual(others, [PLUGIN])
        source = self.wheel.parent / "source"
        ours = {
            path.relative_to(source).as_posix()
            for path in (source / "protege_mta").rglob("*")
            if path.is_file()
        }
        self.assertEqual(set(names) - {PLUGIN}, ours)
        self.assertTrue({"entry_points.txt", "licenses/LICENSE"} <= info, info)

    def test_console_script(self) -> None:
        """It is the installed one, not the checkout's."""
        folder = self.mktemp()
        os.mkdir(folder)
        where = "import protege_mta; print(protege_mta.__file__)"
        for command in (["-c", where], [str(self.python.with_name("protege-mta")), "--version"]):
            done = subprocess.run(
                [self.python, *command], cwd=folder, capture_output=True, text=True, check=True
            )
            if command[0] == "-c":
                self.assertTrue(done.stdout.startswith(str(self.python.parents[1])), done.stdout)
            else:
                self.assertEqual(done.stdout, "protege-mta 0.1.0\n")


class TwistdTests(WheelCase):
    def test_help(self) -> None:
        """twistd knows the service where it is installed, and tells of its options."""
        folder = self.mktemp()
        os.mkdir(folder)
        twistd = [str(self.python), str(PROGRAM.with_name("twistd"))]
        for arguments, wanted in (
            (["--help"], "protege-mta"),
            (["protege-mta", "--help"], "--config="),
        ):
            done = subprocess.run(
                [*twistd, *arguments], cwd=folder, capture_output=True, text=True, check=True
            )
            self.assertIn(wanted, done.stdout)
        self.assertEqual(os.listdir(folder), [])

    def test_foreground(self) -> None:
        """``twistd -n``, as the service unit runs it."""
        service = self.made()
        with (service.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self.twistd(service, "--nodaemon", "--pidfile="),
                cwd=service.folder,
                stdout=log,
                stderr=log,
            )
        try:
            until((service.folder / "state" / "ports.json").exists, "ports.json")
            self.delivers(service)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
        # Having stopped as it should, twistd ends by the signal that it got.
        self.assertEqual(status, -signal.SIGTERM, service.log_tail())
        self.assertIn("Server Shut Down", service.log_tail())

    def test_daemon(self) -> None:
        """Threads are started behind the fork, and SIGHUP and SIGTERM reach the process in the
        pid file."""
        service = self.made()
        with self.daemon(service) as pid:
            self.delivers(service)
            os.kill(pid, signal.SIGHUP)
            until(lambda: "configuration read again" in service.log(), "the reload")
            modes = {
                path.name: oct(stat.S_IMODE(path.stat().st_mode))
                for path in (service.folder / "run", *(service.folder / "run").iterdir())
            }
        # Whatever twistd's umask: ordinary users may send, and nobody else may command.
        self.assertEqual(modes, {"run": "0o755", "control.sock": "0o600", "submit.sock": "0o666"})

    def test_sheds_privileges(self) -> None:
        """As root for the port, as another user for all else."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to become another user")
        nobody = pwd.getpwnam("nobody")
        try:
            subprocess.run(
                [self.python, "-c", "import protege_mta.tap"],
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
                capture_output=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest("user nobody may not read this Python's folders") from error
        port = free_low_port()
        service = self.made()
        service.config.write_text(
            service.config.read_text().replace("port = 0", f"port = {port}", 1)
        )
        for name in ("state", "mail", "run"):
            (service.folder / name).mkdir()
        for path in (service.folder, *service.folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        with self.daemon(service, "--uid=nobody", f"--gid={nobody.pw_gid}") as pid:
            status = Path(f"/proc/{pid}/status").read_text()
            ids = [line.split()[1:] for line in status.splitlines() if line[:4] in ("Uid:", "Gid:")]
            self.assertEqual(ids, [[str(nobody.pw_uid)] * 4, [str(nobody.pw_gid)] * 4])
            self.assertEqual(service.port(), port)
            self.delivers(service)
            spool = service.folder / "state" / "spool"
            owners = {path.stat().st_uid for path in (spool, *spool.rglob("*"))}
            self.assertEqual(owners, {nobody.pw_uid})


def free_low_port() -> int:
    """One that only root may bind."""
    for port in range(1023, 600, -1):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise SkipTest("no port under 1024 is free")
