"""The servers under test, each a relay from loopback to a sink on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from protege_mta.dkim import keys

from . import configurations
from .machine import free_port, run_path, wait_for
from .processes import cpu_s

Kind = Literal["rsa", "ed25519"]

DAEMONS: Final = Path("/usr/lib/postfix/sbin")
STOP_S: Final = 60.0


class Server(Protocol):
    """One relay.

    :ivar port: where it takes mail.
    :ivar configuration: as an operator would write it.
    :ivar log: what it says of itself.
    """

    name: str
    port: int
    configuration: str
    log: Path

    def start(self) -> None:
        """Start, or start again with what is queued; returns when it greets."""

    @property
    def roots(self) -> Sequence[int]:
        """The processes from which all of its others come."""

    def retry_all(self) -> None:
        """Try everything that is deferred at once."""

    def stop(self) -> None:
        """Harmless when it does not run."""


class Ours:
    """This program, under twistd as an operator would run it.

    :param configuration: with its ``port`` filled in by us, and ``dkim`` behind it.
    :param signing: kinds of keys, each of which adds a signature.
    :param pair: a certificate and its key, for STARTTLS.
    """

    def __init__(
        self,
        folder: Path,
        template: str = configurations.RELAY,
        *,
        signing: Sequence[Kind] = (),
        pair: tuple[Path, Path] | None = None,
        connections: int = 500,
        **values: object,
    ) -> None:
        self.name = " + ".join(["protege-mta", *signing])
        self.port = free_port()
        self._folder = folder
        self._folder.mkdir(parents=True)
        text = template.format(port=self.port, connections=connections, **values)
        for kind in signing:
            pem = keys.generate_ed25519() if kind == "ed25519" else keys.generate_rsa(2048)
            (folder / f"{kind}.pem").write_bytes(pem)
            text += configurations.SELECTOR.format(kind=kind)
        if pair is not None:
            certificate, private_key = pair
            text += configurations.TLS.format(certificate=certificate, private_key=private_key)
        self.configuration = text
        self.config = folder / "protege-mta.toml"
        self.config.write_text(text)
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [run_path("twistd"), "-n", "--pidfile="]
        command += ["protege-mta", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        wait_for(self.port, 300)

    @property
    def roots(self) -> Sequence[int]:
        return [self._process.pid] if self._process is not None else []

    def retry_all(self) -> None:
        command = [run_path("protege-mta"), "queue", "retry", "--all", "--yes"]
        subprocess.run(
            [*command, "--config", str(self.config)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process)


class Postfix:
    """A private Postfix, tuned; needs root and Debian's package.

    :param is_signing: whether OpenDKIM signs, as a milter.
    :param pair: a certificate and its key, for STARTTLS.
    """

    def __init__(
        self,
        folder: Path,
        sink_port: int,
        *,
        is_signing: bool = False,
        pair: tuple[Path, Path] | None = None,
    ) -> None:
        self.name = "Postfix + OpenDKIM" if is_signing else "Postfix"
        self.port = free_port()
        self._root = folder
        self._etc = folder / "etc"
        for name in ("etc", "spool", "data"):
            (folder / name).mkdir(mode=0o755, parents=True)
        shutil.chown(folder / "data", "postfix")
        main = configurations.POSTFIX_MAIN.format(
            root=folder,
            sink_port=sink_port,
            commands=Path(run_path("postfix")).parent,
            daemons=DAEMONS,
        )
        if pair is not None:
            certificate, private_key = pair
            main += configurations.POSTFIX_TLS.format(
                certificate=certificate, private_key=private_key
            )
        self._milter = Milter(folder / "milter") if is_signing else None
        self.configuration = main
        if self._milter is not None:
            main += configurations.POSTFIX_MILTER.format(socket=self._milter.socket)
            self.configuration = f"{main}\n# opendkim.conf\n{self._milter.configuration}"
        (self._etc / "main.cf").write_text(main)
        master = configurations.POSTFIX_MASTER.format(port=self.port)
        (self._etc / "master.cf").write_text(master)
        self.log = folder / "maillog"

    def start(self) -> None:
        if self._milter is not None:
            self._milter.start()
        self._run("start")
        wait_for(self.port)

    @property
    def roots(self) -> Sequence[int]:
        try:
            master = [int((self._root / "spool/pid/master.pid").read_text())]
        except FileNotFoundError:
            return []
        return master if self._milter is None else [*master, *self._milter.roots]

    def retry_all(self) -> None:
        self._run("flush")

    def stop(self) -> None:
        for pid in self.roots[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                _wait_until_gone(pid)
            (self._root / "spool/pid/master.pid").unlink(missing_ok=True)
        if self._milter is not None:
            self._milter.stop()

    def _run(self, command: str) -> None:
        done = subprocess.run(
            [run_path("postfix"), "-c", str(self._etc), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"postfix {command}: {done.stderr.strip()}")


class Milter:
    """OpenDKIM, signing with RSA-2048 over a socket of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        (folder / "rsa.pem").write_bytes(keys.generate_rsa(2048))
        self.socket = folder / "socket"
        self.configuration = configurations.OPENDKIM.format(root=folder, socket=self.socket)
        (folder / "conf").write_text(self.configuration)
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "opendkim")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [run_path("opendkim"), "-f", "-x", str(self._folder / "conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user="opendkim",
                extra_groups=[],
            )
        give_up_at = time.monotonic() + 10
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"opendkim: {(self._folder / 'log').read_text()}")
            time.sleep(0.01)

    @property
    def roots(self) -> Sequence[int]:
        return [self._process.pid] if self._process is not None else []

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process)


@contextlib.contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Start them, and stop them at the end whatever happens."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield


def wait_quiet(server: Server, share: float = 0.05, limit_s: float = 600.0) -> None:
    """Wait until a server does nothing any more: until it has used less of a processor for 2 s.

    :raise TimeoutError: it goes on.
    """
    end_at = time.monotonic() + limit_s
    while time.monotonic() < end_at:
        before = cpu_s(server.roots)
        time.sleep(2)
        if cpu_s(server.roots) - before < 2 * share:
            return
    raise TimeoutError(f"{server.name} is still busy after {limit_s:.0f} s")


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for one that does not hear."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _wait_until_gone(pid: int) -> None:
    """:raise ProcessLookupError: it is gone, as it shall be."""
    give_up_at = time.monotonic() + STOP_S
    while time.monotonic() < give_up_at:
        os.kill(pid, 0)
        time.sleep(0.02)
    raise TimeoutError(f"Postfix's master, process {pid}, does not end")
