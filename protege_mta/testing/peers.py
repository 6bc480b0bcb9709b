"""Real servers for tests to deliver to, each on loopback in a folder of its own.

A program that is not installed raises :class:`unittest.SkipTest` with its name.  Only processes
started here are ended, by their ids.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final
from unittest import SkipTest

ADDRESS: Final = "127.0.0.1"
START_S: Final = 10.0
_LISTENING: Final = "0A"  # in proc(5)'s net/tcp


class _Peer:
    """A process that listens.

    :ivar address: where it listens, an IPv4 address.
    :ivar port: on which TCP port.
    """

    address: str = ADDRESS
    port: int

    def __init__(self, name: str) -> None:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
        program = shutil.which(name, path=path)
        if program is None:
            raise SkipTest(f"{name} is not installed")
        self.program = program
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self, *arguments: str) -> None:
        output = (self.folder / "output").open("wb")
        with output:
            self._process = process = subprocess.Popen(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        give_up_at = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < give_up_at:
            if self._listens():
                return
            time.sleep(0.01)
        words = self.log()
        self.stop()
        raise RuntimeError(f"{self.program} does not listen: {words}")

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), 1).close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        """What it has written of itself."""
        texts = [
            path.read_text("utf-8", "replace")
            for path in (self.folder / "output", self.folder / "log")
            if path.exists()
        ]
        return "\n".join(texts)

    def stop(self) -> None:
        """End it and remove its folder; harmless when done before."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class SmtpSink(_Peer):
    """Postfix's smtp-sink(1).

    :param flags: before the address.
    :param address: any of loopback's.
    :param port: 0 for a free one.
    :param keeps: whether :meth:`captured` shall tell what came.
    """

    def __init__(
        self, *flags: str, address: str = ADDRESS, port: int = 0, keeps: bool = False
    ) -> None:
        super().__init__("smtp-sink")
        self.address = address
        self.port = port or free_port(address)
        kept = self.folder / "kept"
        kept.mkdir()
        user: list[str] = []
        if os.geteuid() == 0:
            user = ["-u", "nobody"]
            self.folder.chmod(0o755)
            os.chown(kept, pwd.getpwnam("nobody").pw_uid, -1)
        dump = ["-d", "kept/%M."] if keeps else []
        self._start(*user, *dump, *flags, f"{address}:{self.port}", "64")

    def captured(self) -> list[bytes]:
        """The messages that came whole, oldest first, lines ending in LF.

        smtp-sink puts its own fields in front: ``X-Mail-Args``, ``X-Rcpt-Args`` and others.
        """
        paths = sorted((self.folder / "kept").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        found = [path.read_bytes() for path in paths]
        # Its end is an empty line; before, as much as a buffer holds may be there.
        return [octets for octets in found if octets.endswith(b"\n\n")]


_HAPROXY: Final = """\
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen smtp
    bind {address}:{port}
    {bind6}
    server mta {to_address}:{to_port} {option}
"""


class HaProxy(_Peer):
    """HAProxy, handing TCP connections on with a PROXY header.

    :param to_port: where it hands them to, on loopback.
    :param option: of its ``server`` line, such as ``send-proxy`` or ``send-proxy-v2``.
    :ivar port: on 127.0.0.1.
    :ivar port6: likewise on ::1; 0 where the machine has no IPv6.
    """

    def __init__(self, to_port: int, option: str) -> None:
        super().__init__("haproxy")
        with ExitStack() as held:  # both at once, so that they differ
            self.port = held.enter_context(_bound(self.address)).getsockname()[1]
            try:
                self.port6 = held.enter_context(_bound("::1")).getsockname()[1]
            except OSError:
                self.port6 = 0
        config = self.folder / "haproxy.cfg"
        text = _HAPROXY.format(
            address=self.address,
            port=self.port,
            bind6=f"bind [::1]:{self.port6}" if self.port6 else "",
            to_address=ADDRESS,
            to_port=to_port,
            option=option,
        )
        config.write_text(text, "utf-8")
        self._start("-db", "-f", str(config))

    def _listens(self) -> bool:
        """As the kernel has it: a connection to see for ourselves would be handed on."""
        wanted = {self.port, self.port6} - {0}
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with suppress(FileNotFoundError):
                for line in Path(table).read_text("ascii").splitlines()[1:]:
                    local, _, state = line.split()[1:4]
                    if state == _LISTENING:
                        wanted.discard(int(local.rpartition(":")[2], 16))
        return not wanted


_DOVECOT: Final = """\
protocols = lmtp
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
default_vsz_limit = 0
first_valid_uid = 0
first_valid_gid = 0
mail_location = maildir:%h
mail_plugins = quota
ssl = {ssl}
{certificate}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
service lmtp {{
  user = {user}
  unix_listener {folder}/lmtp {{
    mode = 0600
  }}
  inet_listener lmtp {{
    address = {address}
    port = {port}
  }}
}}
"""


class DovecotLmtp(_Peer):
    """Dovecot's LMTP server.

    :param users: addresses it has mailboxes for, with their quota in octets; 0 for none.
    :param certificate: PEM files of a chain and a key, for STARTTLS.
    :ivar path: of its socket, beside its port.
    """

    def __init__(self, users: dict[str, int], certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__("dovecot")
        if not Path("/usr/lib/dovecot/lmtp").exists() and not shutil.which("lmtp"):
            self.stop()
            raise SkipTest("dovecot-lmtpd is not installed")
        self.port = free_port()
        self.path = self.folder / "lmtp"
        uid, gid = os.geteuid(), os.getegid()
        (self.folder / "home").mkdir()
        if uid == 0:  # mail never belongs to root
            nobody = pwd.getpwnam("nobody")
            uid, gid = nobody.pw_uid, nobody.pw_gid
            self.folder.chmod(0o755)
            os.chown(self.folder / "home", uid, gid)
        lines = []
        for address, quota in users.items():
            rule = f"userdb_quota_rule=*:bytes={quota}" if quota else ""
            lines.append(f"{address}::{uid}:{gid}::{self._home(address)}::{rule}\n")
        (self.folder / "users").write_text("".join(lines), "utf-8")
        files = ""
        if certificate is not None:
            files = f"ssl_cert = <{certificate[0]}\nssl_key = <{certificate[1]}\n"
        (self.folder / "dovecot.conf").write_text(
            _DOVECOT.format(
                folder=self.folder,
                user=pwd.getpwuid(os.geteuid()).pw_name,
                group=grp.getgrgid(os.getegid()).gr_name,
                ssl="yes" if certificate else "no",
                certificate=files,
                address=ADDRESS,
                port=self.port,
            ),
            "utf-8",
        )
        self._start("-F", "-c", str(self.folder / "dovecot.conf"))

    def _home(self, address: str) -> Path:
        return self.folder / "home" / address

    def mailbox(self, address: str) -> list[bytes]:
        """The messages that have come for an address."""
        return [path.read_bytes() for path in sorted((self._home(address) / "new").glob("*"))]


def _bound(address: str) -> socket.socket:
    """A TCP socket at a free port."""
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        found.bind((address, 0))
    except OSError:
        found.close()
        raise
    return found


def free_port(address: str = ADDRESS) -> int:
    """A TCP port that is free at this moment."""
    with _bound(address) as found:
        port: int = found.getsockname()[1]
        return port
