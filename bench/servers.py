"""The servers under test, each a relay from loopback to a sink on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Protocol

OURS: Final = """\
hostname = "relay.bench.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = {port}
relay_hosts = ["127.0.0.0/8"]
[outbound]
route = "smarthost"
smarthost = {{ host = "127.0.0.1", port = {sink_port}, tls = "none" }}
[limits]
connections_per_ip = 500
free_octets = 67108864
"""
"""Nothing is off: events, metrics, policy and syncs as ever.  ``connections_per_ip`` is raised since
all load comes from one address, ``free_octets`` lowered for small disks."""

POSTFIX_MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {root}/spool
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {root}
maillog_file = {root}/maillog
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = relay.bench.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
local_transport = error:no local mail
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{sink_port}
smtp_tls_security_level = none
smtpd_tls_security_level = none
message_size_limit = 52428800
smtpd_client_connection_count_limit = 0
biff = no
# tuned for throughput
default_process_limit = 150
default_destination_concurrency_limit = 50
initial_destination_concurrency = 20
smtp_connection_cache_destinations = static:all
smtp_connection_cache_on_demand = yes
enable_long_queue_ids = yes
in_flow_delay = 0s
qmgr_message_active_limit = 20000
qmgr_message_recipient_limit = 20000
"""

_SERVICES: Final = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Server(Protocol):
    """One relay.

    :ivar port: where it takes mail.
    """

    name: str
    port: int

    def start(self) -> None: ...

    @property
    def pid(self) -> int:
        """The root of its processes."""

    def stop(self) -> None: ...


class Ours:
    """This program, under twistd as an operator would run it."""

    name = "protege-mta"

    def __init__(self, folder: Path, sink_port: int) -> None:
        self.port = free_port()
        self._folder = folder / "ours"
        self._sink_port = sink_port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        config = self._folder / "protege-mta.toml"
        config.write_text(OURS.format(port=self.port, sink_port=self._sink_port))
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "-n", "--pidfile=", "protege-mta", "--config", str(config)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        wait_for(self.port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)


class Postfix:
    """A private Postfix, tuned; needs root and Debian's package."""

    name = "postfix"

    def __init__(self, folder: Path, sink_port: int) -> None:
        self.port = free_port()
        self._root = folder / "postfix"
        self._sink_port = sink_port

    def start(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        for name in ("etc", "spool", "data"):
            (self._root / name).mkdir(parents=True)
        for path in (self._root, self._root / "spool"):
            path.chmod(0o755)
        shutil.chown(self._root / "data", "postfix")
        etc = self._root / "etc"
        main = POSTFIX_MAIN.format(root=self._root, sink_port=self._sink_port)
        (etc / "main.cf").write_text(main)
        master = f"127.0.0.1:{self.port} inet n - n - - smtpd\n{_SERVICES}"
        (etc / "master.cf").write_text(master)
        subprocess.run(["postfix", "-c", str(etc), "start"], check=True, capture_output=True)
        wait_for(self.port)

    @property
    def pid(self) -> int:
        return int((self._root / "spool/pid/master.pid").read_text())

    def stop(self) -> None:
        try:
            pid = self.pid
        except OSError:
            return
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)


def free_port() -> int:
    """A TCP port on loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(port: int, seconds: float = 30.0) -> None:
    """:raise TimeoutError: nobody listens there in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody listens on port {port}")
