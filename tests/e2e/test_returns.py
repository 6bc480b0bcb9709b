"""What comes back of sent mail finds its message, and who bounced is not written to again.

user     -- submission -->  protege-mta  -- smarthost, signed return path -->  smtp-sink
                              ^    |-- its report, handed on -->  Maildir of the user
another server -- its DSN, by the public listener
                              |-- who bounced -->  suppression list  <-- suppression, by the command
"""

from __future__ import annotations

import json
import re
import smtplib
import ssl
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import Any, ClassVar

import requests

from protege_mta.testing.peers import SmtpSink

from ..corpora import reports
from .api import add_key, ask
from .service import TOP, WAIT_S, Service, ServiceTestCase, send, until

TABLES = """
[outbound]
route = "smarthost"
smarthost = {{ host = "127.0.0.1", port = {port}, tls = "none" }}

[bounces]
verp = true
report_addresses = ["fbl@local.test"]
"""

LINKS = """
[api]
public_url = "https://mx.test"
"""

SUBMISSION = """
[[listener]]
name = "submission"
kind = "submission"
port = 0
relay_hosts = ["127.0.0.0/8"]
"""
CONTENT = b"From: a@local.test\r\nSubject: hello\r\n\r\nHello.\r\n"


class ReturnsTests(ServiceTestCase):
    sink: ClassVar[SmtpSink]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.sink = SmtpSink(keeps=True)
        stack.callback(cls.sink.stop)
        top = TOP.replace("\n[[listener]]", SUBMISSION + "\n[[listener]]", 1)
        cls.service = cls.started(stack, TABLES.format(port=cls.sink.port), top=top)

    def submit(self, recipient: str) -> str:
        """The return path that the message leaves with."""
        count = len(self.sink.captured())
        with self.submission() as client:
            client.sendmail("a@local.test", recipient, CONTENT)
        until(lambda: len(self.sink.captured()) > count, "the message at the sink")
        found = re.search(rb"X-Mail-Args: <(\S+)>", self.sink.captured()[-1])
        assert found is not None
        return found[1].decode()

    def submission(self) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.service.port("submission"), "client.test")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client.starttls(context=context)
        client.ehlo()
        return client

    def report(self, name: str, to: str) -> None:
        octets = reports()[name].replace(b"<PATH>", f"<{to}>".encode()).replace(b"\n", b"\r\n")
        send(self.service.port(), "", to, octets)

    def code_of(self, port: str, recipient: str) -> tuple[int, bytes]:
        if port == "submission":
            with self.submission() as client:
                client.mail("a@local.test")
                return client.rcpt(recipient)
        with smtplib.SMTP("127.0.0.1", self.service.port(port), "client.test") as client:
            client.ehlo()
            client.mail("")
            return client.rcpt(recipient)

    def check(self, address: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(
            self.service.cli("suppression", "check", address, "--json").stdout
        )
        return found

    def test_a_bounce_that_comes_late(self) -> None:
        """It is told, handed on to who sent the message, and suppresses the recipient, a kill
        included; the command lets it be written to again."""
        path = self.submit("gone@example.net")
        self.assertRegex(path, r"\Ab\+[0-9a-z]{50}@local\.test\Z")
        fate = self.service.fate("gone@example.net")
        self.assertEqual(fate["event"], "delivered")
        self.report("postfix", path)
        event = self.service.event("returned", recipient="gone@example.net")
        self.assertEqual(event["message_id"], fate["message_id"])
        self.assertEqual((event["sender"], event["bounce_action"]), ("a@local.test", "suppress"))
        [mail] = self.service.wait_for_mail("a")
        self.assertIn(b"Undelivered Mail Returned to Sender", mail)
        self.service.kill()
        self.service.start()
        self.assertEqual(self.code_of("submission", "Gone@example.net")[0], 550)
        send(self.service.port("relay"), "a@local.test", "gone@example.net", CONTENT)
        event = self.service.event("suppressed", recipient="gone@example.net")
        self.assertEqual(event["reason"], "hard_bounce")
        self.assertNotEqual(event["dsn"], "none")
        self.assertTrue(self.check("gone@example.net")["suppressed"])
        self.assertEqual(
            self.service.cli("suppression", "remove", "gone@example.net").returncode, 0
        )
        until(
            lambda: self.code_of("submission", "gone@example.net")[0] == 250,
            "the change to be seen",
        )

    def test_a_complaint(self) -> None:
        path = self.submit("reader@example.net")
        self.report("arf-yahoo", path)
        event = self.service.event("feedback", recipient="reader@example.net")
        self.assertEqual(event["feedback_type"], "abuse")
        code, text = self.code_of("submission", "reader@example.net")
        self.assertEqual((code, b"complained" in text), (550, True))

    def test_a_feedback_loop(self) -> None:
        """Has an address of its own.  A stranger's complaint there is for a person to read."""
        path = self.submit("loop@example.net")
        octets = reports()["arf-redacted"].replace(b"\n", b"\r\n")
        stranger = octets.replace(b"<PATH>", b"<a@local.test>")
        send(self.service.port(), "", "fbl@local.test", stranger)
        self.service.wait_for_mail("postmaster")
        self.assertFalse(self.check("loop@example.net")["suppressed"])
        send(
            self.service.port(),
            "",
            "FBL@local.test",
            octets.replace(b"<PATH>", f"<{path}>".encode()),
        )
        self.service.event("feedback", recipient="loop@example.net")
        self.assertTrue(self.check("loop@example.net")["suppressed"])

    def test_nobody_else_makes_return_paths(self) -> None:
        """Though every other mailbox of the domain is there."""
        path = self.submit("somebody@example.net")
        self.assertEqual(self.code_of("smtp", path)[0], 250)
        self.assertEqual(self.code_of("smtp", path.upper())[0], 250)
        other = path[:20] + ("0" if path[20] != "0" else "1") + path[21:]
        self.assertEqual(self.code_of("smtp", other)[0], 550)
        self.assertEqual(self.code_of("smtp", "b+tag@local.test")[0], 250)

    def test_a_link_that_is_none(self) -> None:
        url = f"http://127.0.0.1:{self.service.port('http')}/u/AAAA"
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)
        self.addCleanup(caught.exception.close)
        self.assertEqual(caught.exception.code, 404)


class ApiTests(ServiceTestCase):
    """A program sends by HTTP, and its recipient wants no more."""

    sink: ClassVar[SmtpSink]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.sink = SmtpSink(keeps=True)
        stack.callback(cls.sink.stop)
        tables = TABLES.format(port=cls.sink.port) + LINKS
        cls.service = cls.started(stack, tables)

    def post(self, secret: str, to: str) -> dict[str, Any]:
        body = {
            "from": "a@local.test",
            "to": [to],
            "text": "Hello.",
            "unsubscribe": {"one_click": True},
        }
        answer = ask(self.service, secret, "POST", "/v1/message", json=body)
        self.assertEqual(answer.status_code, 202, answer.text)
        told: dict[str, Any] = answer.json()
        return told

    def test_unsubscribed(self) -> None:
        """By the link that the message brought; what comes later is taken, and never sent."""
        secret = add_key(self.service, scopes=frozenset(("send", "read")))
        self.post(secret, "r@example.net")
        until(lambda: len(self.sink.captured()) == 1, "the message at the sink")
        link = re.search(
            rb"^List-Unsubscribe:\s+<https://mx.test(/u/\S+)>",
            self.sink.captured()[0],
            re.MULTILINE,
        )
        assert link is not None
        url = f"http://127.0.0.1:{self.service.port('http')}{link[1].decode()}"
        clicked = requests.post(url, data={"List-Unsubscribe": "One-Click"}, timeout=WAIT_S)
        self.assertEqual(clicked.status_code, 200, clicked.text)
        told = self.post(secret, "r@example.net")
        self.assertEqual(told["recipients"][0]["status"], "suppressed")
        event = self.service.event("suppressed", recipient="r@example.net")
        self.assertEqual((event["message_id"], event["reason"]), (told["id"], "unsubscribe"))
        self.assertNotIn("dsn", event)
        portal = {"from_email": "a@local.test", "to": "r@example.net", "text": "Hello."}
        answer = ask(self.service, secret, "POST", "/api/send", json=portal)
        self.assertEqual(answer.status_code, 502, answer.text)
        self.assertEqual(len(self.sink.captured()), 1)
        found = ask(self.service, secret, "GET", "/v1/suppressions?address=r@example.net").json()[
            "suppressions"
        ]
        self.assertEqual([one["address"] for one in found], ["r@example.net"])
        found = ask(self.service, secret, "GET", "/v1/events?event=suppressed").json()["events"]
        self.assertEqual([one["message_id"] for one in found][:1], [told["id"]])
        found = ask(self.service, secret, "GET", f"/v1/message/{told['id']}").json()
        self.assertEqual(found["recipients"][0]["status"], "suppressed")

    def test_the_sandbox_is_another_world(self) -> None:
        """Nobody is withheld there, and what bounces there suppresses nobody."""
        secret = add_key(self.service, "toy", scopes=frozenset(("send",)), is_sandbox=True)
        self.service.cli("suppression", "add", "s@example.net")
        for address, fate in (("s@example.net", "delivered"), ("bounced@example.net", "bounced")):
            told = self.post(secret, address)
            self.assertEqual(told["recipients"][0]["status"], "queued")
            self.assertEqual(self.service.fate(address)["event"], fate)
        done = self.service.cli("suppression", "check", "bounced@example.net", "--json")
        self.assertFalse(json.loads(done.stdout)["suppressed"])


class StoppedTests(ServiceTestCase):
    """The list is there while no service runs."""

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service = Service()
        stack.callback(cls.service.close)

    def test_added_before_the_first_start(self) -> None:
        self.service.cli("suppression", "add", "b@example.net")
        self.service.start()
        send(self.service.port("relay"), "a@local.test", "b@example.net", CONTENT)
        self.assertEqual(self.service.fate("b@example.net")["event"], "suppressed")
