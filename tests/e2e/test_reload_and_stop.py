"""The service's life by signals: SIGHUP, SIGTERM, and starts that must not succeed.

clients --SMTP--> protege-mta run, and twistd protege-mta where it is another way in
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.transport.self_signed import self_signed

from .service import PROGRAM, TOP, Service, send, until

TWISTD: Final = PROGRAM.with_name("twistd")

TLS: Final = """
[tls]
certificate = "cert.pem"
private_key = "key.pem"
"""
OPEN: Final = 'relay_hosts = ["127.0.0.0/8"]'


def connected(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, "client.test", timeout=10)
    client.ehlo()
    return client


def size(client: smtplib.SMTP) -> str:
    client.ehlo()
    return client.esmtp_features["size"]


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.service = Service(TLS)
        self.stack.callback(self.service.close)
        self.write_certificate()
        self.service.start()

    def client(self, listener: str = "smtp") -> smtplib.SMTP:
        client = connected(self.service.port(listener))
        self.stack.callback(client.close)
        return client

    def write_certificate(self) -> str:
        """Put a new one in place.  :return: its fingerprint."""
        certificate, key = self_signed(["mx.local.test"], datetime.now(UTC))
        (self.service.folder / "cert.pem").write_bytes(certificate)
        (self.service.folder / "key.pem").write_bytes(key)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).hexdigest()

    def shown_certificate(self) -> str:
        """The fingerprint of the one that a new connection is shown."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = self.client()
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket)
        return hashlib.sha256(client.sock.getpeercert(True) or b"").hexdigest()

    def refused(self) -> None:
        """Send SIGHUP, which must change nothing."""
        text = "the configuration stays as it was"
        before = self.service.log().count(text)
        os.kill(self.service.pid, signal.SIGHUP)
        until(lambda: self.service.log().count(text) > before, "the refusal")

    def test_new_settings(self) -> None:
        """New connections go by them, and those of before live on."""
        old = self.client("relay")
        self.assertEqual(size(old), "52428800")
        self.assertEqual(old.mail("a@far.test")[0], 250)
        fingerprint = self.write_certificate()
        top = TOP.replace(OPEN, "relay_hosts = []")
        self.service.configure(f"message_octets = 1000000\nrecipients = 1\n{TLS}", top=top)
        self.service.reload()

        new = self.client("relay")
        self.assertEqual(size(new), "1000000")
        new.mail("a@far.test")
        self.assertEqual(new.rcpt("b@far.test"), (550, b"5.7.1 relaying denied"))
        self.assertEqual(new.rcpt("b@local.test")[0], 250)
        self.assertEqual(new.rcpt("c@local.test")[0], 452)
        self.assertEqual(self.shown_certificate(), fingerprint)

        self.assertEqual(old.rcpt("old@local.test")[0], 250)
        self.assertEqual(old.data(b"Subject: old\r\n\r\nHello.\r\n")[0], 250)
        self.assertEqual(size(old), "52428800")
        self.service.wait_for_mail("old")

    def test_new_domains(self) -> None:
        """A domain that is ours from now on; the one that was is not."""
        self.service.configure(top=TOP.replace('domains."local.test"', 'domains."new.test"'))
        self.service.reload()
        send(self.service.port(), "a@far.test", "agent@new.test", b"Subject: new\r\n\r\nHello.\r\n")
        self.service.wait_for_mail("agent", domain="new.test")
        client = self.client()
        client.mail("a@far.test")
        self.assertEqual(client.rcpt("agent@local.test")[0], 550)

    def test_broken_file(self) -> None:
        """What cannot be used changes nothing, and the log says why; mended, it is used."""
        self.service.config.write_text(f"{TOP}message_octet = 1\n{TLS}")
        self.refused()
        self.assertIn("[limits] message_octet: unknown key", self.service.log())
        self.assertEqual(size(self.client()), "52428800")
        self.service.config.write_text("= nonsense")
        self.refused()
        self.assertEqual(size(self.client()), "52428800")
        self.service.configure(f"message_octets = 1\n{TLS}")
        self.service.reload()
        self.assertEqual(size(self.client()), "1")

    def test_broken_certificate(self) -> None:
        """All or nothing: where a key does not fit, the limits stay too."""
        (self.service.folder / "cert.pem").rename(self.service.folder / "old.pem")
        fingerprint = self.shown_certificate()
        self.write_certificate()
        (self.service.folder / "old.pem").rename(self.service.folder / "cert.pem")
        self.service.configure(f"message_octets = 1000\n{TLS}")
        self.refused()
        self.assertEqual(size(self.client()), "52428800")
        self.assertEqual(self.shown_certificate(), fingerprint)

    def test_log_is_opened_again(self) -> None:
        """As logrotate wants it: what was moved away is left, and a new file is begun."""
        log = self.service.folder / "state" / "events.jsonl"
        log.rename(log.with_name("events.1"))
        self.service.reload()
        send(self.service.port(), "a@far.test", "agent@local.test", b"Subject: x\r\n\r\nHello.\r\n")
        self.assertEqual(self.service.fate("agent@local.test")["event"], "delivered")


class StopTests(SynchronousTestCase):
    def started(self, top: str = TOP) -> Service:
        service = Service(top=top)
        self.addCleanup(service.close)
        service.start()
        return service

    def test_drain(self) -> None:
        """An idle client is told to go; one in the middle of its message may end it."""
        service = self.started(TOP + "[retry]\nfirst_s = 0.5\n")
        port = service.port()
        idle, busy = connected(port), connected(port)
        self.addCleanup(idle.close)
        self.addCleanup(busy.close)
        busy.mail("a@far.test")
        busy.rcpt("agent@local.test")
        self.assertEqual(busy.docmd("DATA")[0], 354)
        busy.send(b"Subject: survives\r\n\r\nHel")
        os.kill(service.pid, signal.SIGTERM)
        self.assertEqual(idle.getreply()[0], 421)
        # The listener is gone, too.
        with self.assertRaises(ConnectionRefusedError):
            until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), "refusal")
        busy.send(b"lo.\r\n.\r\n")
        self.assertEqual(busy.getreply()[0], 250)
        service.wait()
        service.start()
        [mail] = service.wait_for_mail("agent")
        self.assertTrue(mail.endswith(b"Subject: survives\n\nHello.\n"), mail)

    def test_no_longer_than_that(self) -> None:
        """Whoever never ends is cut off after drain_s."""
        service = self.started("drain_s = 0.5\n" + TOP)
        client = connected(service.port())
        self.addCleanup(client.close)
        client.mail("a@far.test")
        client.rcpt("agent@local.test")
        client.docmd("DATA")
        client.send(b"Subject: never ends\r\n\r\n")
        began = datetime.now(UTC)
        service.terminate()
        self.assertLess((datetime.now(UTC) - began).total_seconds(), 10)
        self.assertEqual([event["event"] for event in service.events()], [])

    def test_interrupt(self) -> None:
        """Ctrl-C ends it as SIGTERM does."""
        service = self.started()
        os.kill(service.pid, signal.SIGINT)
        service.wait()
        self.assertIn("stopped", service.log_tail())


class NoStartTests(SynchronousTestCase):
    """What keeps it from starting is said in a line, never in a traceback."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="e2e-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = self.folder / "c.toml"

    def failing(self, *program: object) -> str:
        """Start what must fail.  :return: what it says on stderr."""
        done = subprocess.run(
            [*map(str, program), "--config", str(self.config)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertGreater(done.returncode, 0)
        self.assertNotIn("Traceback", done.stderr + done.stdout)
        return done.stderr

    def both(self) -> list[str]:
        """The same from each way in."""
        foreground = (TWISTD, "--nodaemon", "--pidfile=", "protege-mta")
        return [self.failing(PROGRAM, "run"), self.failing(*foreground)]

    def test_bad_configuration(self) -> None:
        """Every complaint, and nothing bound or made."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = TOP.replace("port = 0", f"port = {port}", 1) + "message_octets = 'x'\nno = 1\n"
            self.config.write_text(text)
            for said in self.both():
                self.assertIn(f"{self.config}: [limits] message_octets: ", said)
                self.assertIn(f"{self.config}: [limits] no: unknown key", said)
                self.assertNotIn("port", said)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["c.toml"])

    def test_no_file(self) -> None:
        for said in self.both():
            self.assertIn(f"{self.config}: no such file", said)

    def test_port_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.config.write_text(TOP.replace("port = 0", f"port = {port}", 1))
            for said in self.both():
                self.assertIn(
                    f"cannot bind 127.0.0.1 port {port}: another program has this port", said
                )
        self.assertFalse((self.folder / "state" / "spool").exists())

    def test_second_instance(self) -> None:
        """One spool, one service; the first does not notice."""
        service = Service()
        self.addCleanup(service.close)
        service.start()
        self.config = service.config
        for said in self.both():
            self.assertIn(str(service.folder), said)
            self.assertRegex(said, "in use|another process")
        # Another folder for its sockets does not deceive it.
        self.config = service.folder / "second.toml"
        self.config.write_text(TOP.replace('run_dir = "run"', 'run_dir = "run2"'))
        for said in self.both():
            self.assertIn(f"is in use by process {service.pid}", said)
        send(service.port(), "a@far.test", "agent@local.test", b"Subject: x\r\n\r\nHello.\r\n")
        service.wait_for_mail("agent")

    def test_daemon(self) -> None:
        """twistd waits for its child, and reports what it has to say."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.config.write_text(TOP.replace("port = 0", f"port = {port}", 1))
            said = self.failing(TWISTD, "--pidfile=pid", "--logfile=log", "protege-mta")
        log = self.folder / "log"  # what is said on the way to the parent is cut short
        until(
            lambda: (
                "another program has this port" in said + (log.read_text() if log.exists() else "")
            ),
            "the reason",
        )
        until(lambda: not (self.folder / "pid").exists(), "the end of the pid file")
