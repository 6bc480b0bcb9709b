"""A private Postfix on loopback: its own configuration, queue and log, no other instance touched."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self
from unittest import SkipTest

from .peers import ADDRESS, START_S, free_port

_PATH: Final = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
_DAEMONS: Final = Path("/usr/lib/postfix/sbin")

_MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = {commands}
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {folder}
maillog_file = {folder}/log
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
local_transport = error:no local mail
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
disable_dns_lookups = yes
biff = no
# Octets are to arrive as they were sent, lines of any length too.
smtp_line_length_limit = 0
default_transport = error:5.1.2 no route to this domain
transport_maps = inline:{{ {routes} }}
{tls}
"""

_NO_TLS: Final = """\
smtp_tls_security_level = none
smtpd_tls_security_level = none
"""

_TLS: Final = """\
smtp_tls_security_level = encrypt
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {key}, {certificate}
smtpd_tls_received_header = yes
"""

_MASTER: Final = """\
{address}:{port} inet n - n - - smtpd
pickup     unix  n - n 60 1 pickup
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
tlsmgr     unix  - - n 1000? 1 tlsmgr
rewrite    unix  - - n - - trivial-rewrite
bounce     unix  - - n - 0 bounce
defer      unix  - - n - 0 bounce
trace      unix  - - n - 0 bounce
verify     unix  - - n - 1 verify
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n - - proxymap
smtp       unix  - - n - - smtp
relay      unix  - - n - - smtp
showq      unix  n - n - - showq
error      unix  - - n - - error
retry      unix  - - n - - error
anvil      unix  - - n - 1 anvil
scache     unix  - - n - 1 scache
postlog    unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """Takes mail from loopback for any domain and relays it by the domain.

    :param routes: the port on 127.0.0.1 that a domain's mail goes to; recipients of other domains
        are refused with 5.1.2.
    :param certificate: PEM files of a chain and a key.  With them it insists on STARTTLS, from
        clients and servers; without, it does not speak TLS.
    :param settings: more lines for main.cf(5).
    :ivar port: of its smtpd(8), on 127.0.0.1.
    :raise SkipTest: Postfix is not installed, or we are not root, whom master(8) wants to be.
    """

    def __init__(
        self,
        routes: Mapping[str, int],
        certificate: tuple[Path, Path] | None = None,
        settings: str = "",
    ) -> None:
        program = shutil.which("postfix", path=_PATH)
        if program is None or not (_DAEMONS / "master").exists():
            raise SkipTest("postfix is not installed")
        if os.geteuid() != 0:
            raise SkipTest("Postfix wants to be started by root")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.folder.chmod(0o755)
        for name in ("etc", "spool", "data"):
            (self.folder / name).mkdir(mode=0o755)
        os.chown(self.folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
        tls = _NO_TLS
        if certificate is not None:
            tls = _TLS.format(certificate=certificate[0], key=certificate[1])
        main = _MAIN.format(
            tls=tls + settings,
            folder=self.folder,
            commands=Path(program).parent,
            daemons=_DAEMONS,
            routes=", ".join(
                f"{{ {name} = relay:[{ADDRESS}]:{to} }}" for name, to in routes.items()
            ),
        )
        (self.folder / "etc" / "main.cf").write_text(main, "utf-8")
        master = _MASTER.format(address=ADDRESS, port=self.port)
        (self.folder / "etc" / "master.cf").write_text(master, "utf-8")
        try:
            self._start(program)
        except BaseException:
            self.stop()
            raise

    def _start(self, program: str) -> None:
        done = subprocess.run(
            [program, "-c", str(self.folder / "etc"), "start"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"postfix does not start: {done.stderr!r}\n{self.log()}")
        give_up_at = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"postfix does not answer:\n{self.log()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((ADDRESS, self.port), 1) as channel:
                return channel.recv(3) == b"220"
        except OSError:
            return False

    def log(self) -> str:
        """What it has written of itself."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def stop(self) -> None:
        """End it and remove its folder; harmless when done before."""
        pid_file = self.folder / "spool" / "pid" / "master.pid"
        if pid_file.exists():
            pid = int(pid_file.read_text("ascii"))
            try:
                os.kill(pid, signal.SIGTERM)
                give_up_at = time.monotonic() + START_S
                while time.monotonic() < give_up_at:
                    os.kill(pid, 0)
                    time.sleep(0.02)
            except ProcessLookupError:
                pid = 0  # it is gone, as it shall be
            if pid:
                raise RuntimeError(f"postfix's master, process {pid}, does not end")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
