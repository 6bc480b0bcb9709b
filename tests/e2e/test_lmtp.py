"""Mail for one of our own domains goes to a real LMTP server.

client  -- public listener -->  protege-mta  -- LMTP -->  Dovecot  (over TCP and over a socket)
                                     |--> DSNs for what Dovecot does not take, to local.test
"""

from __future__ import annotations

from contextlib import ExitStack
from smtplib import SMTPRecipientsRefused
from typing import ClassVar, Final

from protege_mta.testing.peers import DovecotLmtp

from . import dsns
from .service import ServiceTestCase, send

USERS: Final = {"agent@tcp.test": 0, "full@tcp.test": 10, "agent@socket.test": 0}

TABLES: Final = """
[domains."tcp.test"]
deliver = "lmtp"
lmtp = "127.0.0.1:PORT"

[domains."socket.test"]
deliver = "lmtp"
lmtp = "unix:PATH"
recipients = ["agent"]
"""

CONTENT: Final = "Message-ID: <{}@client.test>\r\nSubject: {}\r\n\r\n.dot\r\ngrüße\r\n"


class DovecotTests(ServiceTestCase):
    dovecot: ClassVar[DovecotLmtp]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.dovecot = DovecotLmtp(USERS)
        stack.callback(cls.dovecot.stop)
        tables = TABLES.replace("PORT", str(cls.dovecot.port))
        cls.service = cls.started(stack, tables.replace("PATH", str(cls.dovecot.path)))

    def sent(self, sender: str, *recipients: str) -> None:
        content = CONTENT.format(sender, sender).encode()
        port = self.service.port("smtp")
        send(port, f"{sender}@local.test", recipients, content, mail_options=["BODY=8BITMIME"])

    def test_delivered(self) -> None:
        """The only final delivery is Dovecot's; it has all octets."""
        for domain in ("tcp.test", "socket.test"):
            self.sent(domain, f"agent@{domain}")
            event = self.service.event("delivered", recipient=f"agent@{domain}")
            self.assertEqual((event["route"], event["reply"]["code"]), ("lmtp", 250))
            [found] = [
                one
                for one in self.dovecot.mailbox(f"agent@{domain}")
                if f"Subject: {domain}\n".encode() in one
            ]
            self.assertTrue(found.startswith(f"Return-Path: <{domain}@local.test>\n".encode()))
            self.assertTrue(found.endswith("\n\n.dot\ngrüße\n".encode()))

    def test_unknown_there(self) -> None:
        """Accepted by us, who cannot know; its sender is told in Dovecot's words."""
        self.sent("asker", "stranger@tcp.test")
        event = self.service.event("bounced", recipient="stranger@tcp.test")
        self.assertEqual(
            (event["reply"]["enhanced"], event["bounce_class"]), ("5.1.1", "InvalidRecipient")
        )
        [octets] = self.service.wait_for_mail("asker")
        report = dsns.read(octets)
        self.assertEqual((report.action, report.status), ("failed", "5.1.1"))
        self.assertIn("User doesn't exist", report.recipients[0]["Diagnostic-Code"])
        self.assertIn("Message-ID: <asker@client.test>", report.returned)

    def test_each_recipient_fares_by_itself(self) -> None:
        """Of one transaction one is taken, one is unknown, one is full: one report tells of two."""
        self.sent("many", "agent@tcp.test", "stranger@tcp.test", "full@tcp.test")
        self.service.event("delivered", recipient="agent@tcp.test", sender="many@local.test")
        [octets] = self.service.wait_for_mail("many")
        told = [
            (fields["Final-Recipient"], fields["Status"]) for fields in dsns.read(octets).recipients
        ]
        self.assertEqual(
            told, [("rfc822; stranger@tcp.test", "5.1.1"), ("rfc822; full@tcp.test", "5.2.2")]
        )

    def test_recipients_of_the_configuration(self) -> None:
        """Are the only ones, where it names some."""
        with self.assertRaises(SMTPRecipientsRefused) as raised:
            self.sent("asker-2", "stranger@socket.test")
        [(code, text)] = raised.exception.recipients.values()
        self.assertEqual((code, text[:5]), (550, b"5.1.1"))
