"""A real authoritative name server (NSD) on loopback, for tests that speak to real peers.

It blocks while it starts and stops (some tens of milliseconds), answers for its one zone, and says
REFUSED for every other name, which a resolver takes as "try again".
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self
from unittest import SkipTest

import dns.exception
import dns.message
import dns.query

START_S: Final = 10.0
"""How long NSD may take to give its first answer."""

_CONFIGURATION: Final = """\
server:
    ip-address: {address}@{port}
    port: {port}
    server-count: 1
    username: ""
    chroot: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: ""
    logfile: "{folder}/log"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    zonelistfile: "{folder}/zone.list"
    hide-version: yes
remote-control:
    control-enable: no
zone:
    name: "{origin}"
    zonefile: "zone"
"""


class NameServer:
    """NSD serving one zone until :meth:`stop`; a context manager too.

    It needs no privileges: a test that runs as root gives them up for it.

    :param zone_text: a master file (RFC 1035, section 5), with its SOA.
    :param origin: the zone's name; ``.`` serves any name at all.
    :param folder: for its files; left out, a temporary one that :meth:`stop` removes.  It must be
        one that everybody may enter.
    :ivar address: where it listens, with UDP and TCP.
    :raise SkipTest: where NSD is not installed.
    """

    address: Final = "127.0.0.1"

    def __init__(self, zone_text: str, origin: str = ".", folder: Path | None = None) -> None:
        program = shutil.which(
            "nsd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
        )
        if program is None:
            raise SkipTest("nsd is not installed")
        self._is_own_folder = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="nsd-"))
        self._folder.mkdir(exist_ok=True)
        (self._folder / "zone").write_text(zone_text, "utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            for _ in range(3):  # somebody may take the free port before NSD does
                self.port = _free_port(self.address)
                if self._start(program, origin):
                    return
            raise RuntimeError(f"nsd does not answer:\n{self.log()}")
        except BaseException:
            self.stop()
            raise

    def log(self) -> str:
        """What NSD has written of itself."""
        path = self._folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def stop(self) -> None:
        """End it and remove its own folder; harmless when done before."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._is_own_folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _start(self, program: str, origin: str) -> bool:
        configuration = self._folder / "nsd.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                address=self.address, port=self.port, folder=self._folder, origin=origin
            ),
            "utf-8",
        )
        user = "nobody" if os.geteuid() == 0 else None
        if user:
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [program, "-d", "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                user=user,
                group=self._folder.stat().st_gid if user else None,
                extra_groups=[] if user else None,
            )
        question = dns.message.make_query(origin, "SOA")
        give_up_at = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < give_up_at:
            try:
                dns.query.udp(question, self.address, timeout=0.05, port=self.port)
            except (OSError, dns.exception.DNSException):
                time.sleep(0.01)  # refused, or not yet listening
            else:
                return True
        return False


def _free_port(address: str) -> int:
    """A port that is free for UDP and TCP alike at this moment."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            stream.bind((address, 0))
            port: int = stream.getsockname()[1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
                try:
                    datagram.bind((address, port))
                except OSError:
                    continue
                return port
