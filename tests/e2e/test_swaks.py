"""The public door, knocked at with other people's tools.

swaks              -- SMTP, STARTTLS -->  protege-mta  -->  Maildir of agent@local.test
openssl s_client   -- STARTTLS      -->  protege-mta

The certificate is the self-signed one that ``protege-mta init`` makes.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from typing import ClassVar, Final
from unittest import SkipTest

from .service import TOP, Service, ServiceTestCase, needs

TABLES: Final = """
[tls]
certificate = "made/tls/cert.pem"
private_key = "made/tls/key.pem"
"""

STRICT_TOP: Final = (
    'postmaster = "agent@local.test"\n'
    + TOP.replace('recipients = ["*"]', 'recipients = ["agent"]')
    + "message_octets = 20000\n"
)


def open_door(cls: type[ServiceTestCase], stack: ExitStack) -> None:
    service = cls.service = Service(TABLES, top=STRICT_TOP)
    stack.callback(service.close)
    made = service.cli("init", "made", "--domain", "local.test")
    if made.returncode:
        raise RuntimeError(made.stderr.decode())
    service.start()


class SwaksTests(ServiceTestCase):
    swaks: ClassVar[str]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.swaks = needs("swaks")
        support = subprocess.run([cls.swaks, "--support"], capture_output=True, timeout=60).stdout
        if b"=== TLS supported" not in support:
            raise SkipTest("swaks has no TLS (Debian package libnet-ssleay-perl)")
        open_door(cls, stack)

    def run_swaks(self, *arguments: str, recipient: str = "agent@local.test") -> str:
        """The dialogue."""
        done = subprocess.run(
            [
                self.swaks,
                *("--server", "127.0.0.1", "--port", str(self.service.port())),
                *("--ehlo", "swaks.test", "--from", "a@elsewhere.test", "--to", recipient),
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def delivered(self, subject: str) -> bytes:
        """The message of this subject, once it is there."""
        event = self.service.event("received", subject=subject)
        self.service.event("delivered", message_id=event["message_id"])
        wanted = f"\nSubject: {subject}\n".encode()
        [found] = [one for one in self.service.maildir("local.test", "agent") if wanted in one]
        return found

    def test_starttls(self) -> None:
        said = self.run_swaks("--tls", "--header", "Subject: tls", "--body", "in\n.\nsecret")
        self.assertIn("TLS started with cipher TLSv1.3", said)
        self.assertIn("CN=mx.local.test", said)
        message = self.delivered("tls")
        self.assertIn(b"with ESMTPS", message)
        self.assertIn(b"\nin\n.\nsecret\n", message)

    def test_pipelining(self) -> None:
        """Also behind STARTTLS."""
        for more in ([], ["--tls"]):
            subject = " ".join(["pipelined", *more])
            said = self.run_swaks("--pipeline", "--header", f"Subject: {subject}", *more)
            self.assertIn("250 2.1.0 sender ok", said)
            self.delivered(subject)

    def test_helo(self) -> None:
        said = self.run_swaks("--protocol", "SMTP", "--header", "Subject: old")
        self.assertIn(" -> HELO swaks.test", said)
        self.assertIn(b"with SMTP id", self.delivered("old"))

    def test_nobody_relays(self) -> None:
        for sender in ("a@elsewhere.test", "agent@local.test", "<>"):
            said = self.run_swaks("--from", sender, recipient="b@elsewhere.test")
            self.assertIn("<** 550 5.7.1 relaying denied", said)
            self.assertNotIn(" -> DATA", said)
        event = self.service.event("rejected", recipient="b@elsewhere.test")
        self.assertEqual(event["reply"]["enhanced"], "5.7.1")

    def test_unknown_mailbox(self) -> None:
        said = self.run_swaks(recipient="stranger@local.test")
        self.assertIn("<** 550 5.1.1 no such mailbox here", said)

    def test_postmaster(self) -> None:
        """Always there, and with us where the configuration says."""
        for number, recipient in enumerate(("postmaster", "PostMaster@local.test")):
            self.run_swaks("--header", f"Subject: post {number}", recipient=recipient)
            self.assertIn(b"Delivered-To: agent@local.test\n", self.delivered(f"post {number}"))

    def test_too_big(self) -> None:
        said = self.run_swaks("--body", "x" * 70 + "\\n" + "y\\n" * 15_000)
        self.assertIn("<** 552 5.3.4 message exceeds the maximum size", said)
        self.assertIn(" -> QUIT\n<-  221", said)


class TlsTests(ServiceTestCase):
    openssl: ClassVar[str]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.openssl = needs("openssl")
        open_door(cls, stack)

    def handshake(self, *arguments: str) -> str:
        done = subprocess.run(
            [
                self.openssl,
                *("s_client", "-connect", f"127.0.0.1:{self.service.port()}"),
                *("-starttls", "smtp", "-name", "client.test", "-ign_eof", *arguments),
            ],
            input=b"QUIT\r\n",
            capture_output=True,
            timeout=60,
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def test_new_versions(self) -> None:
        """With the P-256 certificate that init has made."""
        for flag, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            said = self.handshake(flag)
            self.assertIn(f"New, {version}, Cipher is", said)
            self.assertIn("Server public key is 256 bit", said)
            self.assertIn("221 2.0.0", said)

    def test_old_versions(self) -> None:
        """It is we who refuse, not this client."""
        for flag in ("-tls1", "-tls1_1"):
            said = self.handshake(flag, "-cipher", "ALL:@SECLEVEL=0")
            self.assertIn("alert protocol version", said)
            self.assertIn("Cipher is (NONE)", said)
