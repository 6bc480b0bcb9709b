"""Postfix hands mail to us, and takes mail from us.

client  -->  Postfix  -->  protege-mta  -->  Maildir of agent@local.test

client  -->  protege-mta  -- smarthost -->  Postfix  -->  smtp-sink (sink.test, hard.test)
                  ^                            |
                  |-------- its DSNs ----------|

Postfix adds a Received field and nothing else; what is behind the header must not change.
"""

from __future__ import annotations

import hashlib
import subprocess
from contextlib import ExitStack
from functools import partial
from typing import ClassVar, Final

from protege_mta.testing.authority import Authority
from protege_mta.testing.peers import SmtpSink, free_port
from protege_mta.testing.postfix import Postfix

from . import dsns
from .service import PATH, TOP, Service, ServiceTestCase, send, until

TABLES: Final = """
[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }

[retry]
first_s = 1
"""

BODIES: Final[dict[str, bytes]] = {
    "dots": b".\r\n..\r\n.a\r\n\r\n.\r\nend.\r\n.",
    "eight-bit": bytes(range(128, 256)) + b"\r\n" + "grüße\r\n".encode() * 50,
    "long-lines": b"x" * 5_000 + b"\r\n" + b"." * 1_200 + b"\r\n" + b"y" * 998,
    "controls": bytes(octet for octet in range(1, 128) if octet not in b"\r\n"),
    "empty-lines": b"\r\n" * 100,
    "two-megabytes": b"".join(
        hashlib.sha256(b"%d" % number).hexdigest().encode() + b"\r\n.\r\n"
        for number in range(2_100_000 // 69)
    ),
}


def octets_of(name: str) -> bytes:
    header = f"From: a@client.test\r\nTo: b@b.test\r\nSubject: {name}\r\n\r\n"
    return header.encode() + BODIES[name] + b"\r\n"


def body_of(stored: bytes) -> bytes:
    """What is behind the header of a message as a Maildir has it, lines as the wire has them."""
    return stored.partition(b"\n\n")[2].replace(b"\n", b"\r\n")


class PostfixTests(ServiceTestCase):
    postfix: ClassVar[Postfix]
    sink: ClassVar[SmtpSink]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        ours = free_port()
        cls.sink = SmtpSink(keeps=True)
        stack.callback(cls.sink.stop)
        refusing = SmtpSink("-f", "RCPT")
        stack.callback(refusing.stop)
        cls.postfix = Postfix(
            {"local.test": ours, "sink.test": cls.sink.port, "hard.test": refusing.port}
        )
        stack.callback(cls.postfix.stop)
        cls.service = Service(
            TABLES.replace("PORT", str(cls.postfix.port)),
            top=TOP.replace("port = 0", f"port = {ours}", 1),
        )
        stack.callback(cls.service.close)
        cls.service.start()

    def same(self, name: str, body: bytes) -> None:
        wanted = BODIES[name] + b"\r\n"
        self.assertEqual(len(body), len(wanted), name)
        self.assertEqual(hashlib.sha256(body).hexdigest(), hashlib.sha256(wanted).hexdigest(), name)

    def test_from_postfix(self) -> None:
        for name in BODIES:
            send(
                self.postfix.port,
                "a@client.test",
                f"{name}@local.test",
                octets_of(name),
                mail_options=["BODY=8BITMIME"],
            )
        for name in BODIES:
            [stored] = self.service.wait_for_mail(name)
            self.assertIn(b"from postfix.test ([127.0.0.1])", stored)
            self.same(name, body_of(stored))

    def test_to_postfix(self) -> None:
        """And from it to a host that speaks of other things than Maildirs."""
        for name in BODIES:
            send(
                self.service.port("relay"),
                "a@client.test",
                f"{name}@sink.test",
                octets_of(name),
                mail_options=["BODY=8BITMIME"],
            )
        for name in BODIES:
            event = self.service.event("delivered", recipient=f"{name}@sink.test")
            self.assertEqual((event["route"], event["attempt"]), ("smarthost", 1))
            [stored] = until(partial(self.written, name), f"{name} at the sink")
            # smtp-sink ends what it keeps with a line of its own.
            self.same(name, body_of(stored)[:-2])

    def written(self, name: str) -> list[bytes] | None:
        """As :meth:`captured`, once the sink has written all of it."""
        found = self.captured(name)
        wanted = len(BODIES[name]) + len("\r\n\r\n")  # its own end, and the sink's
        return found if found and len(body_of(found[0])) >= wanted else None

    def captured(self, name: str, count: int = 1) -> list[bytes] | None:
        """The messages of this subject that the sink got, once there are so many."""
        wanted = f"\nSubject: {name}\n".encode()
        found = [one for one in self.sink.captured() if wanted in one]
        return found if len(found) >= count else None

    def test_many_recipients(self) -> None:
        """One transaction each way."""
        names = [f"r{number}" for number in range(120)]
        recipients = [f"{name}@sink.test" for name in names]
        port = self.service.port("relay")
        send(port, "a@client.test", recipients, b"Subject: all-of-them\r\n\r\nmany\r\n")
        recipients = [f"{name}@local.test" for name in names]
        send(self.postfix.port, "a@client.test", recipients, b"Subject: many\r\n\r\nmany\r\n")
        for name in names:
            self.assertEqual(len(self.service.wait_for_mail(name)), 1)
        # Postfix parts them again, 50 at a time.
        kept = until(lambda: self.captured("all-of-them", 3), "three messages at the sink")
        taken = b"".join(kept)
        for name in names:
            self.assertEqual(taken.count(f"X-Rcpt-Args: <{name}@sink.test>".encode()), 1, name)

    def test_a_refusal_by_postfix(self) -> None:
        """Comes back to the sender in Postfix's own words."""
        send(self.service.port("relay"), "refused@local.test", "b@no.test", octets_of("dots"))
        [octets] = self.service.wait_for_mail("refused")
        report = dsns.read(octets)
        self.assertEqual(report.status, "5.1.2")
        self.assertEqual(report.recipients[0]["Remote-MTA"], "dns; 127.0.0.1")
        self.assertIn("no route to this domain", report.recipients[0]["Diagnostic-Code"])

    def test_a_bounce_of_postfix(self) -> None:
        """Its DSN, which says that the host behind it refused, gets in and to the sender."""
        send(self.service.port("relay"), "returned@local.test", "b@hard.test", octets_of("dots"))
        self.service.event("delivered", recipient="b@hard.test")
        [octets] = self.service.wait_for_mail("returned")
        report = dsns.read(octets)
        self.assertEqual((report.action, report.status), ("failed", "5.3.0"))
        self.assertEqual(report.message_fields["Reporting-MTA"], "dns; postfix.test")
        event = self.service.event("received", recipient="returned@local.test")
        self.assertEqual((event["sender"], event["source"]), ("", "smtp"))


TLS_TABLES: Final = """
[tls]
certificate = "mx.local.test.pem"
private_key = "mx.local.test.key"

[outbound]
route = "smarthost"

[outbound.smarthost]
host = "127.0.0.1"
port = PORT
tls = "starttls"
ca_file = "ca.pem"
"""


class TlsTests(ServiceTestCase):
    """The same over STARTTLS, on which both sides insist."""

    postfix: ClassVar[Postfix]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        ours = free_port()
        cls.service = service = Service()
        stack.callback(service.close)
        authority = Authority(service.folder)
        authority.issue("mx.local.test")
        cls.postfix = Postfix({"local.test": ours}, authority.issue("127.0.0.1"))
        stack.callback(cls.postfix.stop)
        service.configure(
            TLS_TABLES.replace("PORT", str(cls.postfix.port)),
            top=TOP.replace("port = 0", f"port = {ours}", 1),
        )
        service.start()

    def test_there_and_back(self) -> None:
        """Our certificate check is passed; what Postfix refuses comes back from it, encrypted."""
        send(self.service.port("relay"), "asker@local.test", "b@no.test", octets_of("dots"))
        event = self.service.event("bounced", recipient="b@no.test")
        self.assertEqual((event["tls"]["protocol"], event["tls"]["verified"]), ("TLSv1.3", True))
        done = subprocess.run(
            [
                "sendmail",
                "-C",
                self.postfix.folder / "etc",
                "-f",
                "root@local.test",
                "-i",
                "agent@local.test",
            ],
            input=b"Subject: tls\n\nhello\n",
            capture_output=True,
            env={"PATH": PATH},
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        [stored] = self.service.wait_for_mail("agent")
        self.assertIn(b"with ESMTPS", stored)
        self.assertIn(b"TLSv1.3", stored)
