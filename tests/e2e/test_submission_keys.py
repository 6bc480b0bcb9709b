"""API keys by SMTP: what a program may not do over HTTP it may not do by submission either, and both
count together.

smtplib  -- STARTTLS, AUTH with a key -->  submission  \\
sockets  -- POST /v1/message          -->  http         -->  service  -->  Maildirs
protege-mta apikey ...                -->              /
"""

from __future__ import annotations

import json
import smtplib
import ssl
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final
from urllib.error import HTTPError

from protege_mta.register import SAVE_S

from .service import ServiceTestCase, needs, until
from .submission import open_doors
from .test_submission_clients import SEEN_S, run

SENDER: Final = "agent@local.test"


class KeyCase(ServiceTestCase):
    ca_file: ClassVar[Path]
    made: ClassVar[int] = 0

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service, cls.ca_file = open_doors(stack, {})

    def key(self, *options: str) -> tuple[str, str]:
        """A new key's name and its secret, once the service knows it."""
        KeyCase.made += 1
        name = f"s{KeyCase.made}"
        done = self.service.cli("apikey", "create", name, *options, "--json")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        secret = str(json.loads(done.stdout)["key"])
        until(lambda: self.post(secret, "") != 401, "the key")
        return name, secret

    def post(self, secret: str, *to: str) -> int:
        body = {"from": SENDER, "to": to, "subject": "Hi", "text": "Hello."}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.service.port('http')}/v1/message",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {secret}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return int(response.status)
        except HTTPError as error:
            with error:
                return error.code

    def session(self, secret: str, user: str = "apikey") -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.service.port("submission"), timeout=30)
        client.starttls(context=ssl.create_default_context(cafile=str(self.ca_file)))
        client.login(user, secret)
        return client

    def submit(
        self, secret: str, *to: str, sender: str = SENDER, author: str = SENDER, shown: str = ""
    ) -> tuple[int, str]:
        """Code and enhanced code of the reply that it ended with."""
        content = f"From: {author}\r\nTo: {shown or ', '.join(to)}\r\n\r\nHello.\r\n"
        with self.session(secret) as client:
            try:
                refused = client.sendmail(sender, to, content)
            except smtplib.SMTPRecipientsRefused as error:
                refused = error.recipients
            except smtplib.SMTPResponseException as error:
                return error.smtp_code, _enhanced(error.smtp_error)
        for code, text in refused.values():
            return code, _enhanced(text)
        return 250, "2.0.0"


def _enhanced(text: bytes | str) -> str:
    return (text if isinstance(text, str) else text.decode()).partition(" ")[0]


class LoginTests(KeyCase):
    def test_names_that_go_with_a_key(self) -> None:
        name, secret = self.key("--allowed-from", SENDER)
        for user in ("apikey", "APIKEY", name, f"key:{name}"):
            with self.session(secret, user) as client:
                client.sendmail(SENDER, ["to@other.test"], f"From: {SENDER}\r\n\r\nhello\r\n")
        event = self.service.event("received", recipient="to@other.test")
        self.assertEqual((event["source"], event["identity"]), ("submission", f"key:{name}"))
        almost = secret[:-1] + ("b" if secret.endswith("a") else "a")
        for user, password in (("another", secret), ("apikey", almost)):
            with self.assertRaises(smtplib.SMTPAuthenticationError) as caught:
                self.session(password, user)
            self.assertEqual(caught.exception.smtp_code, 535)

    def test_swaks(self) -> None:
        _, secret = self.key()
        for mechanism in ("PLAIN", "LOGIN"):
            run(
                needs("swaks"),
                *("--server", "127.0.0.1", "--port", str(self.service.port("submission"))),
                *("--ehlo", "swaks.test", "--from", SENDER, "--to", f"{mechanism}@other.test"),
                *("--tls", "--tls-ca-path", str(self.ca_file), "--tls-verify"),
                *("--auth", mechanism, "--auth-user", "apikey", "--auth-password", secret),
            )

    def test_revoked(self) -> None:
        """At the next message of a session that it has opened, too."""
        name, secret = self.key()
        with self.session(secret) as client:

            def code() -> int:
                client.rset()
                return client.docmd("MAIL", f"FROM:<{SENDER}>")[0]

            self.assertEqual(code(), 250)
            self.assertEqual(self.service.cli("apikey", "revoke", name).returncode, 0)
            until(lambda: code() == 530, "the end of the key", SEEN_S)
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.session(secret)

    def test_a_key_that_may_not_send(self) -> None:
        _, secret = self.key("--scope", "read")
        self.assertEqual(self.submit(secret, "a@other.test"), (550, "5.7.1"))


class PolicyTests(KeyCase):
    def test_lists(self) -> None:
        name, secret = self.key(
            "--allowed-from", SENDER, "--denied-to", "eve@other.test", "--no-bcc"
        )
        for more in ({"sender": "x@local.test"}, {"author": "x@local.test"}):
            self.assertEqual(self.submit(secret, "a@other.test", **more), (550, "5.7.1"))
        self.assertEqual(self.submit(secret, "eve@other.test"), (550, "5.7.1"))
        self.assertEqual(self.submit(secret, "a@other.test", shown="b@other.test"), (550, "5.7.1"))
        event = self.service.event("rejected", identity=f"key:{name}")
        self.assertEqual(event["reply"]["enhanced"], "5.7.1")
        self.assertEqual(self.submit(secret, "a@other.test"), (250, "2.0.0"))

    def test_strangers(self) -> None:
        _, secret = self.key("--first-time-per-day", "2")
        self.assertEqual(self.post(secret, "a@other.test"), 202)
        self.assertEqual(self.submit(secret, "b@other.test"), (250, "2.0.0"))
        self.assertEqual(self.submit(secret, "c@other.test"), (450, "4.7.1"))
        self.assertEqual(self.post(secret, "c@other.test"), 429)
        self.assertEqual(self.submit(secret, "a@other.test"), (250, "2.0.0"))

    def test_approval(self) -> None:
        name, secret = self.key("--approval", "all")
        self.assertEqual(self.submit(secret, "held@other.test"), (250, "2.0.0"))
        held = self.service.event("held", recipient="held@other.test")
        self.assertTrue(held["reason"].startswith("approval: "))
        self.assertEqual(held["identity"], f"key:{name}")
        self.service.cli("queue", "release", held["message_id"])
        self.service.wait_for_mail("held", domain="other.test")

    def test_sandbox(self) -> None:
        _, secret = self.key("--sandbox")
        self.assertEqual(self.submit(secret, "bounced+s@other.test"), (250, "2.0.0"))
        event = self.service.event("bounced", recipient="bounced+s@other.test")
        self.assertTrue(event["sandbox"])
        self.assertEqual(self.submit(secret, "sandboxed@other.test"), (250, "2.0.0"))
        self.service.event("delivered", recipient="sandboxed@other.test", route="sandbox")
        self.assertEqual(self.service.maildir("other.test", "sandboxed"), [])

    def test_fifty_at_once_by_both_doors(self) -> None:
        """Get exactly what the limit leaves."""
        _, secret = self.key("--per-hour", "10")

        def send(number: int) -> bool:
            to = f"race{number}@other.test"
            if number % 2:
                return self.post(secret, to) == 202
            return self.submit(secret, to) == (250, "2.0.0")

        with ThreadPoolExecutor(50) as threads:
            accepted = list(threads.map(send, range(50)))
        self.assertEqual(accepted.count(True), 10)
        self.assertEqual(self.submit(secret, "race@other.test"), (450, "4.7.1"))
        self.assertEqual(self.post(secret, "race@other.test"), 429)


class KilledTests(KeyCase):
    def test_counts_outlive_it(self) -> None:
        """But for those of the last second."""
        _, secret = self.key("--per-hour", "4", "--first-time-per-day", "4")
        for to in ("a@other.test", "b@other.test"):
            self.assertEqual(self.submit(secret, to), (250, "2.0.0"))
            self.assertEqual(self.post(secret, to), 202)
        time.sleep(SAVE_S + 0.5)
        self.service.kill()
        self.service.start()
        self.assertEqual(self.submit(secret, "a@other.test"), (450, "4.7.1"))
        self.assertEqual(self.post(secret, "a@other.test"), 429)
