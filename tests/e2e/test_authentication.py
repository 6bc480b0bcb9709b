"""Mail from strangers whose sender is checked against a real name server.

swaks, smtplib     -- SMTP -->  protege-mta  -- DNS -->  nsd with SPF, DKIM and DMARC records
                                    |
                                    +--> Maildirs of open.test, marked.test and strict.test
"""

from __future__ import annotations

import re
import smtplib
import subprocess
from contextlib import ExitStack
from typing import ClassVar, Final

from protege_mta.dkim import keys
from protege_mta.dkim.record import zone_line
from protege_mta.dkim.sign import Signer, sign
from protege_mta.testing.nameserver import NameServer

from .service import TOP, Service, ServiceTestCase, needs, send

ZONE: Final = """\
$TTL 60
. SOA ns.test. admin.test. 1 3600 600 86400 60
. NS ns.test.
ns.test. A 127.0.0.1
good.test. TXT "v=spf1 a:client.test -all"
client.test. A 127.0.0.1
_dmarc.good.test. TXT "v=DMARC1; p=reject"
other.test. TXT "v=spf1 -all"
"""

DOMAINS: Final = """
[dns]
nameservers = ["127.0.0.1:{port}"]
"""

DOMAIN: Final = """
[domains."{name}.test"]
deliver = "maildir"
maildir = "mail/{{domain}}/{{local_part}}"
recipients = ["*"]
authentication = "{action}"
"""

FOREIGN: Final = b"Authentication-Results: MX.local.test; dmarc=pass header.from=bank.test\r\n"
ANOTHER: Final = b"Authentication-Results: mx.elsewhere.test; spf=pass\r\n"


class AuthenticationTests(ServiceTestCase):
    signer: ClassVar[Signer]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        key = keys.load(keys.generate_rsa())
        cls.signer = Signer("good.test", "one", key)
        zone = ZONE + zone_line("one", "good.test", key) + "\n"
        server = stack.enter_context(NameServer(zone))
        tables = DOMAINS.format(port=server.port)
        for name, action in (("open", "none"), ("marked", "quarantine"), ("strict", "reject")):
            tables += DOMAIN.format(name=name, action=action)
        top = TOP.replace("authenticate = false", "authenticate = true")
        cls.service = cls.started(stack, tables, top=top)

    def send(self, content: bytes, *domains: str, sender: str = "a@good.test") -> None:
        send(self.service.port(), sender, [f"agent@{one}.test" for one in domains], content)

    def delivered(self, subject: str, domain: str) -> bytes:
        recipient = f"agent@{domain}.test"
        event = self.service.event("received", subject=subject, recipient=recipient)
        self.service.event("delivered", message_id=event["message_id"], recipient=recipient)
        wanted = f"\nSubject: {subject}\n".encode()
        found = self.service.maildir(f"{domain}.test", "agent")
        [message] = [one for one in found if wanted in one]
        return message

    def results(self, message: bytes) -> str:
        """Our field's value, on one line."""
        found = re.search(rb"^Authentication-Results: mx\.local\.test;(.*\n(?:[ \t].*\n)*)", message, re.MULTILINE)  # fmt: skip
        assert found is not None, message
        return " ".join(found[1].decode().split())

    def test_a_stranger_with_swaks(self) -> None:
        """What SPF and DMARC say stands above Received, and in the event."""
        swaks = needs("swaks")
        done = subprocess.run(
            [
                *(swaks, "--server", "127.0.0.1", "--port", str(self.service.port())),
                *("--ehlo", "client.test", "--from", "a@good.test", "--to", "agent@strict.test"),
                *("--header", "Subject: swaks"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        message = self.delivered("swaks", "strict")
        self.assertEqual(
            self.results(message),
            "spf=pass smtp.mailfrom=a@good.test; dkim=none; dmarc=pass header.from=good.test",
        )
        self.assertLess(message.index(b"Authentication-Results:"), message.index(b"Received:"))
        event = self.service.event("received", subject="swaks")
        self.assertEqual([event[one] for one in ("spf", "dkim", "dmarc")], ["pass", "none", "pass"])

    def test_signed(self) -> None:
        """A signature stands for the author, whoever sends, for a big message too."""
        for subject, lines in (("signed", 1), ("big", 150_000)):
            content = b"From: b@good.test\r\nSubject: %b\r\n\r\n" % subject.encode()
            content += b"A word, and another.\r\n" * lines
            signed = sign(content, [self.signer], 1_700_000_000) + content
            self.send(signed, "strict", sender="x@other.test")
            message = self.delivered(subject, "strict")
            said = self.results(message)
            self.assertIn("spf=fail smtp.mailfrom=x@other.test; dkim=pass header.d=good.test", said)
            self.assertIn("dmarc=pass header.from=good.test", said)
            self.assertTrue(message.endswith(b"A word, and another.\n" * lines))
            event = self.service.event("received", subject=subject)
            self.assertEqual(event["size_octets"], len(message.replace(b"\n", b"\r\n")) - len(b"Return-Path: <x@other.test>\r\nDelivered-To: agent@strict.test\r\n"))  # fmt: skip

    def test_changed_on_the_way(self) -> None:
        content = b"From: b@good.test\r\nSubject: changed\r\n\r\nA word.\r\n"
        signed = sign(content, [self.signer], 1_700_000_000) + content
        self.send(signed + b"More.\r\n", "open", sender="x@other.test")
        said = self.results(self.delivered("changed", "open"))
        self.assertIn('dkim=fail reason="body hash did not verify" header.d=good.test', said)
        self.assertIn("dmarc=fail policy.dmarc=reject header.from=good.test", said)

    def test_forged(self) -> None:
        """Refused, marked or let by, as each domain has it."""
        content = b"From: boss@good.test\r\nSubject: %b\r\n\r\nPay.\r\n"
        with self.assertRaises(smtplib.SMTPDataError) as caught:
            self.send(content % b"forged", "strict", sender="x@other.test")
        self.assertEqual(caught.exception.smtp_code, 550)
        self.assertIn(b"5.7.1", caught.exception.smtp_error)
        event = self.service.event("rejected", sender="x@other.test")
        self.assertEqual(event["reply"]["code"], 550)
        self.send(content % b"both", "strict", "marked", sender="x@other.test")
        for domain in ("strict", "marked"):
            self.assertIn(b"\nX-Protege-Quarantine: dmarc\n", self.delivered("both", domain))
        self.send(content % b"let by", "open", sender="x@other.test")
        self.assertNotIn(b"X-Protege-Quarantine", self.delivered("let by", "open"))

    def test_words_in_our_name(self) -> None:
        """They go, and those of others stay."""
        content = FOREIGN + ANOTHER + b"From: b@good.test\r\nX-Protege-Quarantine: no\r\n"
        self.send(content + b"Subject: named\r\n\r\nA word.\r\n", "open")
        message = self.delivered("named", "open")
        self.assertNotIn(b"bank.test", message)
        self.assertNotIn(b"Quarantine", message)
        self.assertIn(b"\n" + ANOTHER.replace(b"\r\n", b"\n"), message)
        self.assertEqual(message.count(b"uthentication-Results"), 2)

    def test_own_hosts_are_not_asked_about(self) -> None:
        content = b"From: boss@good.test\r\nSubject: own\r\n\r\nPay.\r\n"
        send(self.service.port("relay"), "x@other.test", "agent@strict.test", content)
        self.assertNotIn(b"Authentication-Results", self.delivered("own", "strict"))

    def test_metrics(self) -> None:
        self.send(b"From: b@good.test\r\nSubject: counted\r\n\r\n.\r\n", "open")
        self.delivered("counted", "open")
        import urllib.request

        url = f"http://127.0.0.1:{self.service.port('http')}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            said = answer.read().decode()
        self.assertRegex(
            said, r'protege_mta_authentications_total{method="dmarc",result="pass"} [1-9]'
        )


class NoDnsTests(ServiceTestCase):
    """Where no name server answers, mail comes in after the deadline, and nothing is refused."""

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        from protege_mta.testing.peers import free_port

        tables = DOMAINS.format(port=free_port()) + DOMAIN.format(name="strict", action="reject")
        top = TOP.replace("authenticate = false", "authenticate = true")
        cls.service = cls.started(stack, tables, top=top)

    service: ClassVar[Service]

    def test_accepted(self) -> None:
        content = b"From: boss@good.test\r\nSubject: dark\r\n\r\nPay.\r\n"
        send(self.service.port(), "x@other.test", "agent@strict.test", content)
        [message] = self.service.wait_for_mail("agent", domain="strict.test")
        self.assertIn(b"spf=temperror", message)
        self.assertIn(b"dmarc=temperror", message)
        self.assertNotIn(b"Quarantine", message)
