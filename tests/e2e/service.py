"""The real program as a process of its own, and a test case that keeps one for a whole class.

Times are seconds.  Waiting is polling with short waits and a deadline; what was waited for in vain
is told with the end of the service's own log.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

_T = TypeVar("_T")
Event = dict[str, Any]

PROGRAM: Final = Path(sys.executable).with_name("protege-mta")
"""The console script of the environment that runs the tests."""

START_S: Final = 30.0
STOP_S: Final = 45.0
WAIT_S: Final = 30.0
POLL_S: Final = 0.02

PATH: Final = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin"

TOP: Final = """\
mode = "local"
hostname = "mx.local.test"
state_dir = "state"
run_dir = "run"

[[listener]]
name = "smtp"
kind = "smtp"
port = 0

[[listener]]
name = "relay"
kind = "smtp"
port = 0
relay_hosts = ["127.0.0.0/8"]

[[listener]]
name = "http"
kind = "http"
port = 0

[domains."local.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["*"]

[policy]
authenticate = false

[limits]
free_octets = 0
free_inodes = 0
"""
"""A public door, one that loopback may relay through, HTTP, and Maildirs for everybody at
``local.test``.  Nobody is asked about senders: there is no DNS unless a test brings one."""


def needs(program: str, package: str = "") -> str:
    """The path of a program of somebody else's.

    :param package: the Debian package that has it, where its name differs.
    :raise SkipTest: it is not installed.
    """
    found = shutil.which(program, path=PATH)
    if found is None:
        raise SkipTest(f"{program} is not installed (Debian package {package or program})")
    return found


def until(found: Callable[[], _T | None], what: str, timeout_s: float = WAIT_S) -> _T:
    """Ask again and again until there is something true.

    :param what: what is waited for, for the complaint.
    :raise AssertionError: nothing came in time.
    """
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(POLL_S)


def send(
    port: int,
    sender: str,
    recipients: Sequence[str] | str,
    content: bytes,
    *,
    mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (),
    address: str = "127.0.0.1",
) -> None:
    """Hand in a message by SMTP, with the standard library's client.

    :raise smtplib.SMTPException: it was refused.
    """
    with smtplib.SMTP(address, port, local_hostname="client.test", timeout=WAIT_S) as client:
        client.sendmail(sender, recipients, content, mail_options, rcpt_options)


class Service:
    """``protege-mta run`` over a configuration in a folder of its own.

    Made, then :meth:`start`\\ ed, and in the end :meth:`close`\\ d.  Between the two, files may be
    put in :attr:`folder` for the configuration to name.

    :param tables: what follows :data:`TOP` in the configuration.
    :param top: stands in for :data:`TOP`.
    :param environment: variables for the process beside those of the tests.
    :ivar folder: where configuration, state and mail are; everybody may enter it.
    :ivar config: the configuration file, which a test may write anew.
    """

    def __init__(
        self, tables: str = "", *, top: str = TOP, environment: Mapping[str, str] | None = None
    ) -> None:
        # Not below the tests' own folder: the paths of UNIX sockets are short.
        self.folder = Path(tempfile.mkdtemp(prefix="e2e-"))
        self.folder.chmod(0o755)
        self.config = self.folder / "protege-mta.toml"
        self.configure(tables, top=top)
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._events: list[Event] = []
        self._events_read = 0

    def configure(self, tables: str = "", *, top: str = TOP) -> None:
        """Write the configuration; a running service reads it with the next SIGHUP or start."""
        self.config.write_text(f"{top}\n{tables}", "utf-8")

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it listens everywhere.

        :raise RuntimeError: it did not; with its log.
        """
        if not self.start_or_end():
            self.kill()
            raise RuntimeError(f"the service does not start:\n{self.log_tail()}")

    def start_or_end(self, prefix: Sequence[str] = ()) -> bool:
        """Start the process and wait until it listens everywhere, or is gone, or time is up.

        :param prefix: as for :meth:`launch`.
        :return: whether it listens.
        """
        with self._notices() as notices:
            process = self.launch(notices.getsockname(), prefix)
            give_up_at = time.monotonic() + START_S
            while process.poll() is None and time.monotonic() < give_up_at:
                try:
                    said = notices.recv(4096)
                except TimeoutError:
                    continue
                if b"READY=1" in said.splitlines():
                    return True
        return False

    def has_ended(self) -> bool:
        """Whether the process that was started is gone, whoever ended it."""
        return self._running().poll() is not None

    def launch(self, notify: str = "", prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start the process and wait for nothing.

        :param notify: the path of a socket that is told of readiness, as systemd's is.
        :param prefix: a program that becomes the service's, such as ``strace -D``.
        """
        if self._process is not None:
            raise RuntimeError(f"process {self._process.pid} runs already")
        if not PROGRAM.exists():
            raise RuntimeError(f"{PROGRAM} is not there: install the project, pip install -e .")
        with (self.folder / "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [*prefix, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self._environment, "NOTIFY_SOCKET": notify},
            )
        return process

    def command(self) -> list[str]:
        """The program and its arguments."""
        return [str(PROGRAM), "run", "--config", str(self.config)]

    @property
    def state(self) -> Path:
        """Where its spool, its log of events and the like are."""
        return self.folder / "state"

    def _notices(self) -> socket.socket:
        """Where the service says that it is ready, as it says it to systemd (sd_notify(3))."""
        path = self.folder / "notices"
        path.unlink(missing_ok=True)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(str(path))
        notices.settimeout(0.1)
        return notices

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the service does not run")
        return self._process

    def terminate(self) -> None:
        """SIGTERM, as an init system does it.

        :raise AssertionError: it did not end in time, or not with exit status 0.
        """
        self._running().send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Until it has ended, after a signal that says so.

        :raise AssertionError: it did not end in time, or not with exit status 0.
        """
        process = self._running()
        try:
            status = process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"SIGTERM did not end it:\n{self.log_tail()}") from error
        self._process = None
        if status:
            raise AssertionError(f"exit status {status} after SIGTERM:\n{self.log_tail()}")

    def kill(self) -> None:
        """SIGKILL; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Start again, after SIGTERM where it still runs.  Free ports are other ones then."""
        if self._process is not None:
            self.terminate()
        self.start()

    def reload(self) -> None:
        """SIGHUP; returns once the configuration has been read again."""
        text = "configuration read again"
        before = self.log().count(text)
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: self.log().count(text) > before, "the reload")

    def close(self) -> None:
        """End it as :meth:`terminate` does, and remove the folder (kept with ``$KEEP_E2E``)."""
        try:
            if self._process is not None:
                self.terminate()
        finally:
            if not os.environ.get("KEEP_E2E"):
                shutil.rmtree(self.folder, ignore_errors=True)

    # --- what it shows ---------------------------------------------------------------------------

    def port(self, name: str = "smtp") -> int:
        """The port of a listener; another one after each start."""
        ports: dict[str, int] = json.loads((self.state / "ports.json").read_bytes())
        return ports[name]

    def log(self) -> str:
        """All that its processes have written."""
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def events(self) -> list[Event]:
        """Every event so far, in order; a line that is still being written is not."""
        path = self.state / "events.jsonl"
        if not path.exists():
            return []
        if path.stat().st_size < self._events_read:  # recovery cut it
            self._events, self._events_read = [], 0
        with path.open("rb") as journal:
            journal.seek(self._events_read)
            whole = journal.read().rpartition(b"\n")
        self._events_read += len(whole[0]) + len(whole[1])
        self._events += map(json.loads, whole[0].splitlines())
        return list(self._events)

    def told(self) -> list[Event]:
        """Every event of what has been done so far, as long as the service runs."""
        with socket.socket(socket.AF_UNIX) as asked, asked.makefile("rb") as answers:
            asked.settimeout(WAIT_S)
            asked.connect(str(self.folder / "run" / "control.sock"))
            # A change that is none, and as every change done once the log tells of all before it.
            asked.sendall(b'{"command":"queue.hold","arguments":{"domain":"nobody.invalid"}}\n')
            next(line for line in answers if b'"done"' in line)
        return self.events()

    def wait_for_event(
        self, predicate: Callable[[Event], bool], timeout_s: float = WAIT_S
    ) -> Event:
        """The first event that satisfies the predicate, now or later.

        :raise AssertionError: none came; with all events and the log.
        """
        try:
            return until(lambda: next(filter(predicate, self.events()), None), "event", timeout_s)
        except AssertionError as error:
            events = "\n".join(map(str, self.events()[-20:]))
            raise AssertionError(f"{error}; events:\n{events}\nlog:\n{self.log_tail()}") from error

    def event(self, name: str, timeout_s: float = WAIT_S, **members: object) -> Event:
        """Wait for the event of this name whose members are these."""
        wanted = {"event": name, **members}
        return self.wait_for_event(lambda event: wanted.items() <= event.items(), timeout_s)

    def fate(self, recipient: str, timeout_s: float = WAIT_S) -> Event:
        """Wait for a recipient's final event."""
        final = {"delivered", "relayed", "bounced", "expired", "suppressed", "removed"}
        return self.wait_for_event(
            lambda event: event.get("recipient") == recipient and event["event"] in final,
            timeout_s,
        )

    def maildir(self, domain: str, local_part: str) -> list[bytes]:
        """The messages of a mailbox, in the order of their names."""
        folder = self.folder / "mail" / domain / local_part / "new"
        return [path.read_bytes() for path in sorted(folder.glob("*"))]

    def wait_for_mail(
        self, local_part: str, count: int = 1, *, domain: str = "local.test"
    ) -> list[bytes]:
        """The messages of a mailbox, once there are so many.

        :raise AssertionError: there are fewer; with the log.
        """

        def enough() -> list[bytes] | None:
            found = self.maildir(domain, local_part)
            return found if len(found) >= count else None

        try:
            return until(enough, f"{count} messages for {local_part}")
        except AssertionError as error:
            events = "\n".join(map(str, self.events()[-20:]))
            raise AssertionError(f"{error}; events:\n{events}\nlog:\n{self.log_tail()}") from error

    def cli(
        self, *arguments: str, stdin: bytes = b"", prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one of the commands on this service's configuration.

        :param prefix: a program that runs it, such as setpriv.
        """
        return subprocess.run(
            [*prefix, str(PROGRAM), "--config", str(self.config), *arguments],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            timeout=60,
        )


class ServiceTestCase(SynchronousTestCase):
    """Keeps what a class's tests share from its first test to the next class's first, or the
    process's end: trial knows no setUpClass, and spreads the tests of a class over processes.

    :cvar service: started by :meth:`begin`.
    """

    service: ClassVar[Service]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        """Start what the class needs.

        :param stack: takes what ends it again.
        """
        cls.service = cls.started(stack)

    @classmethod
    def started(cls, stack: ExitStack, tables: str = "", *, top: str = TOP) -> Service:
        """A running service that ends with the stack."""
        service = Service(tables, top=top)
        stack.callback(service.close)
        service.start()
        return service

    def setUp(self) -> None:
        _shared.change_to(type(self))


class _Shared:
    """What is open for the class whose turn it is."""

    def __init__(self) -> None:
        self._owner: type[ServiceTestCase] | None = None
        self._stack = ExitStack()

    def change_to(self, owner: type[ServiceTestCase]) -> None:
        if self._owner is owner:
            return
        self.close()
        try:
            owner.begin(self._stack)
        except BaseException:
            self._stack.close()
            raise
        self._owner = owner

    def close(self) -> None:
        self._owner = None
        self._stack.close()


_shared: Final = _Shared()
atexit.register(_shared.close)
