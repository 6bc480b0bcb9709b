"""The listeners of our users, and the certificates that all listeners show.

swaks, smtplib     -- STARTTLS                --> submission  \\
swaks, smtplib     -- TLS from the first octet --> submissions  > protege-mta --> Maildir
openssl s_client   -- STARTTLS                --> smtp        /

Nobody authenticates here: loopback is let in by ``relay_hosts``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final
from unittest import SkipTest
from urllib.request import urlopen

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.authority import Authority

from .service import WAIT_S, Service, ServiceTestCase, needs, until

LISTENERS: Final = """
[[listener]]
kind = "submission"
port = 0
relay_hosts = ["127.0.0.0/8"]

[[listener]]
kind = "submissions"
port = 0
relay_hosts = ["127.0.0.0/8"]
hide_client = true
"""

TLS: Final = """
[tls]
certificate = "cert.pem"
private_key = "key.pem"
certificates = [{ certificate = "two.test.pem", private_key = "two.test.key" }]
"""

MESSAGE: Final = b"Subject: %s\r\n\r\nHello.\r\n"


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "ca.pem")


def fingerprint(channel: socket.socket | None) -> str:
    """Of the certificate that a client was shown."""
    assert isinstance(channel, ssl.SSLSocket)
    return hashlib.sha256(channel.getpeercert(True) or b"").hexdigest()


def fingerprint_of(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def put_in_place(pair: tuple[Path, Path], folder: Path) -> None:
    """Where the configuration expects the main certificate and its key."""
    for path, name in zip(pair, ("cert.pem", "key.pem"), strict=True):
        path.rename(folder / name)


class SubmissionTests(ServiceTestCase):
    """Both kinds, with a certificate that clients verify."""

    folder: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        service = cls.service = Service(LISTENERS + TLS)
        stack.callback(service.close)
        cls.folder = service.folder
        authority = Authority(service.folder)
        put_in_place(authority.issue("127.0.0.1"), service.folder)
        authority.issue("two.test")
        service.start()

    def delivered(self, local_part: str) -> bytes:
        [found] = self.service.wait_for_mail(local_part)
        return found

    def test_submission(self) -> None:
        """smtplib, with STARTTLS; the trace tells of it."""
        port = self.service.port("submission")
        with smtplib.SMTP("127.0.0.1", port, "client.test", WAIT_S) as client:
            client.starttls(context=trusting(self.folder))
            client.sendmail("a@local.test", ["starttls@local.test"], MESSAGE % b"x")
        mail = self.delivered("starttls")
        self.assertIn(b"Received: from client.test ([127.0.0.1])\n", mail)
        self.assertIn(b"with ESMTPS id", mail)

    def test_submissions(self) -> None:
        """smtplib, with TLS from the first octet; and nobody learns whose machine it was."""
        port = self.service.port("submissions")
        with smtplib.SMTP_SSL(
            "127.0.0.1", port, "client.test", timeout=WAIT_S, context=trusting(self.folder)
        ) as client:
            client.ehlo()
            self.assertFalse(client.has_extn("starttls"))
            client.sendmail("a@local.test", ["implicit@local.test"], MESSAGE % b"x")
        mail = self.delivered("implicit")
        self.assertIn(b"\nReceived: from mx.local.test\n\tby mx.local.test with ESMTPS id", mail)
        self.assertNotIn(b"client.test", mail)
        self.assertNotIn(b"127.0.0.1", mail)

    def test_swaks(self) -> None:
        """Verifying, by name, over both."""
        swaks = needs("swaks")
        support = subprocess.run([swaks, "--support"], capture_output=True, timeout=60).stdout
        if b"=== TLS supported" not in support:
            raise SkipTest("swaks has no TLS (Debian package libnet-ssleay-perl)")
        for listener, flag in (("submission", "--tls"), ("submissions", "--tls-on-connect")):
            done = subprocess.run(
                [
                    swaks,
                    *("--server", "127.0.0.1", "--port", str(self.service.port(listener)), flag),
                    *("--tls-verify", "--tls-ca-path", str(self.folder / "ca.pem")),
                    *("--tls-sni", "two.test", "--ehlo", "swaks.test"),
                    *("--from", "a@local.test", "--to", f"swaks-{listener}@local.test"),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
            )
            said = (done.stdout + done.stderr).decode("utf-8", "replace")
            self.assertIn("TLS started with cipher TLSv1.3", said)
            self.assertIn("CN=two.test", said)
            self.assertEqual(done.returncode, 0, said)
            self.delivered(f"swaks-{listener}")

    def test_every_listener_shows_the_certificate_of_the_name(self) -> None:
        openssl = needs("openssl")
        for listener in ("smtp", "submission", "submissions"):
            for name, expected in (("two.test", "two.test"), ("other.test", "127.0.0.1")):
                start = [] if listener == "submissions" else ["-starttls", "smtp"]
                done = subprocess.run(
                    [
                        openssl,
                        *("s_client", "-connect", f"127.0.0.1:{self.service.port(listener)}"),
                        *("-servername", name, "-ign_eof", *start),
                    ],
                    input=b"QUIT\r\n",
                    capture_output=True,
                    timeout=60,
                )
                said = (done.stdout + done.stderr).decode("utf-8", "replace")
                self.assertRegex(said, rf"subject=CN ?= ?{re.escape(expected)}\n", listener)
                self.assertIn("221 2.0.0", said)

    def test_metric(self) -> None:
        with urlopen(f"http://127.0.0.1:{self.service.port('http')}/metrics", timeout=10) as got:
            text = got.read().decode()
        for name in ("cert.pem", "two.test"):
            self.assertRegex(
                text,
                rf'protege_mta_certificate_expires_at\{{algorithm="ecdsa",name="{name}"\}} 1\.\d+e',
            )

    def test_the_log_tells_of_certificates_that_end_soon(self) -> None:
        self.assertRegex(
            self.service.log(), r"TLS certificate of two\.test \(ecdsa, .*\) is not renewed"
        )


class RenewalTests(SynchronousTestCase):
    """Whoever renews a certificate does not tell us."""

    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.service = Service(LISTENERS + TLS.partition("certificates =")[0])
        self.stack.callback(self.service.close)
        self.folder = self.service.folder
        self.authority = Authority(self.folder)
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        put_in_place(self.fresh(), self.folder)
        self.service.start()

    def fresh(self) -> tuple[Path, Path]:
        return self.authority.issue("127.0.0.1", file="fresh")

    def connected(self) -> smtplib.SMTP_SSL:
        client = smtplib.SMTP_SSL(
            "127.0.0.1",
            self.service.port("submissions"),
            "client.test",
            timeout=WAIT_S,
            context=trusting(self.folder),
        )
        self.stack.callback(client.close)
        return client

    def shown(self) -> str:
        client = self.connected()
        found = fingerprint(client.sock)
        client.quit()
        return found

    def test_files_that_change_under_an_open_connection(self) -> None:
        """New connections are shown the new certificate, without a signal; the old one goes on."""
        old = self.connected()
        first = fingerprint(old.sock)
        self.assertEqual(first, fingerprint_of(self.certificate))
        certificate, key = self.fresh()
        certificate.rename(self.certificate)

        # Half a pair: the old one stays, and the log says why.
        until(lambda: "not the key of" in self.service.log(), "word of half a pair")
        self.assertEqual(self.shown(), first)

        key.rename(self.key)
        expected = fingerprint_of(self.certificate)
        until(lambda: self.shown() == expected, "the new certificate")
        old.sendmail("a@local.test", ["old@local.test"], MESSAGE % b"x")
        self.service.wait_for_mail("old")
        self.assertEqual(self.service.log().count("not the key of"), 1)

    def test_health_does_not_depend_on_it(self) -> None:
        self.certificate.unlink()
        until(lambda: "cannot be used" in self.service.log(), "word of what is missing")
        url = f"http://127.0.0.1:{self.service.port('http')}/healthz"
        with urlopen(url, timeout=10) as answer:
            self.assertEqual(answer.status, 200)


class SelfSignedTests(SynchronousTestCase):
    """Submission is never without TLS, whatever the configuration leaves out."""

    def started(self, tables: str) -> Service:
        service = Service(tables)
        self.addCleanup(service.close)
        service.start()
        return service

    def shown(self, service: Service, listener: str) -> dict[str, object]:
        """The certificate, as a client sees it that trusts the file."""
        file = service.folder / "state/tls/cert.pem"
        context = ssl.create_default_context(cafile=file)
        context.check_hostname = False
        port = service.port(listener)
        client: smtplib.SMTP
        if listener == "submissions":
            client = smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=10, context=context)
        else:
            client = smtplib.SMTP("127.0.0.1", port, "client.test", timeout=10)
            client.starttls(context=context)
        with client:
            self.assertEqual(fingerprint(client.sock), fingerprint_of(file))
            assert isinstance(client.sock, ssl.SSLSocket)
            return dict(client.sock.getpeercert() or {})

    def test_it_is_made_and_kept(self) -> None:
        service = self.started(LISTENERS)
        for listener in ("submission", "submissions", "smtp"):
            shown = self.shown(service, listener)
            self.assertEqual(shown["subjectAltName"], (("DNS", "mx.local.test"),))
        self.assertIn("certificate:   self-signed: ", service.log())
        self.assertIn("made a self-signed certificate for mx.local.test", service.log())
        folder = service.folder / "state/tls"
        self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((folder / "key.pem").stat().st_mode), 0o600)
        first = fingerprint_of(folder / "cert.pem")
        service.restart()
        self.assertEqual(fingerprint_of(folder / "cert.pem"), first)
        service.reload()
        self.shown(service, "submission")
        self.assertEqual(service.log().count("made a self-signed"), 1)

    def test_no_submission_no_certificate(self) -> None:
        service = self.started("")
        self.assertFalse((service.folder / "state/tls").exists())
        with smtplib.SMTP("127.0.0.1", service.port(), "client.test", timeout=10) as client:
            client.ehlo()
            self.assertFalse(client.has_extn("starttls"))

    def test_a_reload_that_names_no_certificate_any_more(self) -> None:
        """Listeners live on until a restart, and so do those that cannot do without."""
        service = Service(LISTENERS + TLS.partition("certificates =")[0])
        self.addCleanup(service.close)
        put_in_place(Authority(service.folder).issue("127.0.0.1"), service.folder)
        service.start()
        service.configure()
        service.reload()
        for listener in ("submission", "submissions", "smtp"):
            self.shown(service, listener)


EMBEDDED: Final = """
import attrs, pathlib
from protege_mta.config.embedded import embedded
from protege_mta.tap import run_foreground

settings = embedded(pathlib.Path("data"))
free = tuple(attrs.evolve(each, port=0) for each in settings.listeners)
run_foreground(attrs.evolve(settings, listeners=free), lambda: None)
"""


class EmbeddedTests(SynchronousTestCase):
    def test_submission_without_any_configuration(self) -> None:
        """But for the ports, which others may have; the certificate is one for this machine."""
        folder = Path(tempfile.mkdtemp(prefix="e2e-"))
        self.addCleanup(shutil.rmtree, folder)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", EMBEDDED], cwd=folder, stdout=log, stderr=log
            )
        self.addCleanup(process.wait, 60)
        self.addCleanup(process.terminate)
        ports = folder / "data/ports.json"
        until(ports.exists, "its port")
        port = json.loads(ports.read_text())["submission"]
        context = ssl.create_default_context(cafile=folder / "data/tls/cert.pem")
        for host in ("127.0.0.1", "localhost"):
            with smtplib.SMTP(host, port, "client.test", timeout=10) as client:
                client.starttls(context=context)
                self.assertEqual(client.ehlo()[0], 250)
