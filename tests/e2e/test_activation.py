"""Sockets that systemd has opened, and what systemd wants to hear.

systemd-socket-activate -l mx -l http --> twistd -n protege-mta --READY=1--> us
send() --SMTP--> the inherited socket --Maildir--> local.test
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from urllib.request import urlopen

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.peers import free_port

from .service import PROGRAM, Service, needs, send, until

TOP = """\
hostname = "mx.local.test"
state_dir = "state"
run_dir = "run"

[[listener]]
name = "mx"
kind = "smtp"
port = {smtp}

[[listener]]
name = "http"
kind = "http"
port = {http}

[domains."local.test"]
deliver = "maildir"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["agent"]

[policy]
authenticate = false

[limits]
free_octets = 0
free_inodes = 0
"""


class ActivationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.activate = needs("systemd-socket-activate", "systemd")
        self.service = Service(top="")
        self.addCleanup(shutil.rmtree, self.service.folder, ignore_errors=True)
        self.ports = [free_port(), free_port()]
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.notices.close)
        self.notices.bind(str(self.service.folder / "notices"))
        self.notices.settimeout(30)

    def started(
        self, names: str, *, smtp: int, http: int, ports: list[int], tables: str = ""
    ) -> None:
        """Have systemd's program listen, and start the service with the first connection.

        :param names: those of the sockets, joined by colons.
        :param ports: those of the sockets; ``smtp`` and ``http`` are those of the configuration.
        """
        self.service.configure(tables, top=TOP.format(smtp=smtp, http=http))
        listen = [word for port in ports for word in ("-l", f"127.0.0.1:{port}")]
        notify = f"NOTIFY_SOCKET={self.notices.getsockname()}"
        twistd = [PROGRAM.with_name("twistd"), "--nodaemon", "--pidfile=", "protege-mta"]
        with (self.service.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(self.activate, f"--fdname={names}", *listen, "-E", notify),
                    *map(str, twistd),
                    *("--config", str(self.service.config)),
                ],
                cwd=self.service.folder,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(self.end, process)
        until(lambda: "Listening on" in self.service.log() or None, "systemd-socket-activate")
        until(lambda: self.service.log().count("Listening on") == len(ports), "its sockets")
        self.assertFalse((self.service.folder / "state").exists(), "nobody has connected yet")
        # The connection that starts it waits in the socket's queue until it is served.
        message = b"Subject: first\r\n\r\nHello.\r\n"
        send(ports[0], "a@far.test", "agent@local.test", message)
        [mail] = self.service.wait_for_mail("agent")
        self.assertTrue(mail.endswith(b"Subject: first\n\nHello.\n"), mail)
        self.assertEqual(self.notices.recv(999), b"READY=1\nMAINPID=%d" % process.pid)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM, and it says goodbye."""
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        self.assertIn(status, (0, -signal.SIGTERM), self.service.log_tail())
        self.assertEqual(self.notices.recv(999), b"STOPPING=1")

    def given_ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads((self.service.folder / "state/ports.json").read_bytes())
        return ports

    def healthy(self, port: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            self.assertEqual(answer.status, 200)

    def test_by_name(self) -> None:
        """A socket belongs to the listener of its name, whatever the port there."""
        http, smtp = self.ports
        self.started("mx:http", smtp=0, http=0, ports=[smtp, http])
        self.assertEqual(self.given_ports(), {"mx": smtp, "http": http})
        self.healthy(http)
        log = self.service.log()
        self.assertNotIn("no listener", log)

        # A reload tells systemd, and leaves the sockets alone.
        os.kill(self.given_pid(), signal.SIGHUP)
        self.assertEqual(self.notices.recv(999), b"RELOADING=1")
        self.assertEqual(self.notices.recv(999), b"READY=1")
        send(smtp, "a@far.test", "agent@local.test", b"Subject: second\r\n\r\nHello.\r\n")
        self.service.wait_for_mail("agent", 2)

    def given_pid(self) -> int:
        return int(json.loads(self.service.cli("status", "--json").stdout)["pid"])

    def test_by_address(self) -> None:
        """Names that say nothing: the address decides; what nobody gave is bound by ourselves."""
        smtp, http = self.ports
        self.started("connection", smtp=smtp, http=http, ports=[smtp])
        self.assertEqual(self.given_ports(), {"mx": smtp, "http": http})
        self.healthy(http)

    def test_all_of_one_name(self) -> None:
        """As from one unit, in whatever order: the one of the listener's name and address, and for
        other listeners those of their addresses."""
        smtp, http = self.ports
        submission = free_port()
        self.started(
            "mx:mx",
            smtp=smtp,
            http=http,
            ports=[smtp, submission],
            tables=f'[[listener]]\nkind = "submission"\nport = {submission}\n',
        )
        self.assertEqual(self.given_ports(), {"mx": smtp, "submission": submission, "http": http})
        self.assertNotIn("no listener", self.service.log())

    def test_left_over(self) -> None:
        """A socket that belongs to no listener is closed, and the log tells."""
        smtp, other = self.ports
        self.started("mx:what", smtp=0, http=0, ports=[smtp, other])
        self.assertIn("a socket that no listener is named after", self.service.log())
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other), 1)
