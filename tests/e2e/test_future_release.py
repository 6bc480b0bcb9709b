"""Mail that its sender has put off (RFC 4865), through restarts.

smtplib  -- STARTTLS, HOLDFOR -->  submission of protege-mta, which ends and begins  -->  Maildir

Nobody authenticates here: loopback is let in by ``relay_hosts``.
"""

from __future__ import annotations

import json
import re
import smtplib
import ssl
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.authority import Authority

from .service import WAIT_S, Event, Service, send

TABLES: Final = """
[[listener]]
kind = "submission"
port = 0
relay_hosts = ["127.0.0.0/8"]

[tls]
certificate = "127.0.0.1.pem"
private_key = "127.0.0.1.key"
"""
CONTENT: Final = b"Subject: later\r\n\r\nHello.\r\n"
HOLD_S: Final = 8
"""Long enough for the service to end and begin again."""


def posix_s(event: Event, member: str = "at") -> float:
    return datetime.fromisoformat(event[member]).timestamp()


class FutureReleaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.service = service = Service(TABLES)
        stack.callback(service.close)
        self.folder: Path = service.folder
        Authority(self.folder).issue("127.0.0.1")
        service.start()

    def client(self) -> smtplib.SMTP:
        port = self.service.port("submission")
        client = smtplib.SMTP("127.0.0.1", port, "client.test", WAIT_S)
        client.starttls(context=ssl.create_default_context(cafile=str(self.folder / "ca.pem")))
        client.ehlo()
        return client

    def submit(self, to: str, *options: str) -> None:
        with self.client() as client:
            client.sendmail("a@local.test", [f"{to}@local.test"], CONTENT, options)

    def delivered_in(self, to: str) -> float:
        """Seconds from our 250 to the delivery."""
        received = self.service.event("received", recipient=f"{to}@local.test")
        return posix_s(self.service.fate(f"{to}@local.test")) - posix_s(received)

    def test_held_over_an_orderly_restart(self) -> None:
        with self.client() as client:
            offer = client.esmtp_features["futurerelease"]
            self.assertRegex(offer, r"^2592000 \d{4}-\d\d-\d\dT\d\d:\d\d:00Z$")
            client.sendmail("a@local.test", ["b@local.test"], CONTENT, [f"HOLDFOR={HOLD_S}"])
        received = self.service.event("received", recipient="b@local.test")
        scheduled = self.service.event("scheduled", recipient="b@local.test")
        wait_s = posix_s(scheduled, "next_attempt_at") - posix_s(received)
        self.assertLess(abs(wait_s - HOLD_S), 1)
        [row] = json.loads(self.service.cli("queue", "list", "--json").stdout)
        self.assertEqual(row["state"], "scheduled")
        explained = self.service.cli("explain", row["id"]).stdout.decode()
        self.assertIn("scheduled for 2", explained)
        self.service.restart()
        self.assertGreaterEqual(self.delivered_in("b"), HOLD_S - 0.01)
        self.assertEqual(len(self.service.wait_for_mail("b")), 1)

    def test_held_through_a_crash(self) -> None:
        at = time.time() + HOLD_S
        until = datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")
        self.submit("b", f"HOLDUNTIL={until}")
        self.service.kill()
        self.service.start()
        delivered = self.service.fate("b@local.test")
        self.assertEqual(delivered["event"], "delivered")
        self.assertGreaterEqual(posix_s(delivered), at - 0.002)

    def test_sent_before_by_who_names_it(self) -> None:
        self.submit("b", "HOLDFOR=3600")
        self.submit("c", "HOLDFOR=3600")
        self.assertEqual(self.service.cli("queue", "retry", "--all").returncode, 0)
        self.assertEqual(self.service.cli("queue", "retry", "--domain", "local.test").returncode, 0)
        rows = json.loads(self.service.cli("queue", "list", "--json").stdout)
        self.assertEqual([row["state"] for row in rows], ["scheduled", "scheduled"])
        self.service.cli("queue", "retry", rows[1]["id"])
        self.service.wait_for_mail("c")
        self.assertEqual(self.service.maildir("local.test", "b"), [])

    def test_refused_at_once(self) -> None:
        for options, code in (("HOLDFOR=2592001", 554), ("HOLDFOR=0", 501)):
            with self.assertRaises(smtplib.SMTPSenderRefused) as caught:
                self.submit("b", options)
            self.assertEqual(caught.exception.smtp_code, code)
        with self.assertRaises(smtplib.SMTPSenderRefused) as caught:
            send(
                self.service.port(), "a@x.test", "b@local.test", CONTENT, mail_options=["HOLDFOR=1"]
            )
        self.assertEqual(caught.exception.smtp_code, 555)
        self.assertTrue(re.match(rb"5\.5\.4 ", bytes(caught.exception.smtp_error)))
