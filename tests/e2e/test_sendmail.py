"""Programs of this machine hand in mail through ``sendmail``, root's and ordinary users'.

protege-mta sendmail  -- submit.sock -->  protege-mta run  -->  Maildir of agent@local.test
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import Final
from unittest import SkipTest

from protege_mta.testing.peers import SmtpSink

from . import dsns
from .service import Event, Service, ServiceTestCase, send

TABLES: Final = """
[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }
"""

AS_NOBODY: Final = """\
import os, sys
import protege_mta.cli.control, protege_mta.cli.queue, protege_mta.cli.sendmail_message
import protege_mta.cli.sendmail, protege_mta.config.embedded, protege_mta.config.toml
from protege_mta.cli import main
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(sys.argv[2:]))
"""
"""A command in the hands of another user, imported before: he may not enter our folders."""


class SendmailTests(ServiceTestCase):
    event: Event

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        hard = SmtpSink("-f", "RCPT")
        stack.callback(hard.stop)
        cls.service = cls.started(stack, TABLES.replace("PORT", str(hard.port)))

    def submitted(self, subject: str, *arguments: str, prefix: tuple[str, ...] = ()) -> bytes:
        """Send a short message as a program would; what arrives."""
        text = f"Subject: {subject}\n\nhello\n.\nbehind the dot\n".encode()
        done = self.service.cli("sendmail", *arguments, stdin=text, prefix=prefix)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        event = self.service.event("received", subject=subject)
        self.service.event("delivered", message_id=event["message_id"])
        self.event = event
        wanted = f"\nSubject: {subject}\n".encode()
        [found] = [one for one in self.service.maildir("local.test", "agent") if wanted in one]
        return found

    def test_our_own_user(self) -> None:
        found = self.submitted("own", "-f", "me@local.test", "agent@local.test")
        self.assertEqual(self.event["source"], "sendmail")
        self.assertEqual(self.event["identity"], f"uid {os.geteuid()}")
        self.assertTrue(found.startswith(b"Return-Path: <me@local.test>\n"))
        self.assertTrue(found.endswith(b"\n\nhello\n"), found)
        for name in (b"From: ", b"Date: ", b"Message-ID: "):
            self.assertEqual(found.count(b"\n" + name), 1, name)

    def test_dots(self) -> None:
        found = self.submitted("dots", "-i", "agent@local.test")
        self.assertTrue(found.endswith(b"\n\nhello\n.\nbehind the dot\n"), found)

    def test_recipients_from_the_header(self) -> None:
        """Bcc is obeyed and not shown."""
        text = b"To: A <agent@local.test>\nBcc: hidden@local.test\nSubject: t\n\nhello\n"
        self.assertEqual(self.service.cli("sendmail", "-t", stdin=text).returncode, 0)
        [hidden] = self.service.wait_for_mail("hidden")
        self.assertNotIn(b"Bcc", hidden)
        self.assertIn(b"\nTo: A <agent@local.test>\n", hidden)

    def test_a_failure_comes_back(self) -> None:
        """To the envelope's sender."""
        text = b"Subject: x\n\nx\n"
        done = self.service.cli("sendmail", "-f", "me@local.test", "b@far.test", stdin=text)
        self.assertEqual(done.returncode, 0)
        [octets] = self.service.wait_for_mail("me")
        report = dsns.read(octets)
        self.assertEqual(report.recipients[0]["Final-Recipient"], "rfc822; b@far.test")

    def test_another_user(self) -> None:
        """Any user may send, known by the socket itself; the queue is not theirs."""
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        become = (sys.executable, "-c", AS_NOBODY)
        self.submitted("nobody", "agent@local.test", prefix=become)
        self.assertEqual(self.event["identity"], "uid 65534")
        self.assertEqual(self.event["sender"], "nobody@mx.local.test")
        done = self.service.cli("queue", "list", prefix=become)
        self.assertEqual((done.returncode, done.stdout), (os.EX_NOPERM, b""))

    def test_service_is_down(self) -> None:
        """EX_TEMPFAIL: whoever calls keeps the message and comes back."""
        service = Service()
        self.addCleanup(service.close)
        for _ in range(2):  # before its first start, and after a crash
            done = service.cli("sendmail", "agent@local.test", stdin=b"Subject: x\n\nx\n")
            self.assertEqual(done.returncode, os.EX_TEMPFAIL)
            self.assertIn(b"cannot be reached", done.stderr)
            service.start()
            service.kill()

    def test_socket_swept_away(self) -> None:
        """By somebody who tidies up: nothing is lost, and the service still ends as it should."""
        service = Service()
        self.addCleanup(service.close)
        service.start()
        for path in (service.folder / "run").glob("*.sock"):
            path.unlink()
        done = service.cli("sendmail", "agent@local.test", stdin=b"Subject: x\n\nx\n")
        self.assertEqual(done.returncode, os.EX_TEMPFAIL)
        send(service.port(), "a@far.test", "agent@local.test", b"Subject: x\r\n\r\nx\r\n")
        service.terminate()
        self.assertIn("[protege_mta.tap.MailService#info] stopped\n", service.log())

    def test_nothing_to_be_done(self) -> None:
        """Faults of the caller's are not told as temporary."""
        for arguments, text, status in (
            ((), b"x\n", os.EX_USAGE),
            (("no address@x..y",), b"x\n", os.EX_USAGE),
            (("agent@local.test",), b"bare\rcr\n", os.EX_DATAERR),
        ):
            done = self.service.cli("sendmail", *arguments, stdin=text)
            self.assertEqual(done.returncode, status, (arguments, done.stderr))
        self.assertEqual([e for e in self.service.told() if not e.get("recipient")], [])
