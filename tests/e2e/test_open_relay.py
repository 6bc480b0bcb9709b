"""Nobody relays who may not: the whole list of ways that people try, at the real program.

stranger  -->  smtp, submission, submissions, a proxied listener  --x-->  elsewhere.test

Each refused recipient must be refused at RCPT or earlier, or the message at the end of its data;
in the end nothing at all may have been taken for elsewhere.test.
"""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Final

from .service import TOP, ServiceTestCase
from .submission import PASSWORD, open_doors

TABLES: Final = """
[[listener]]
name = "proxied"
kind = "smtp"
port = 0
relay_hosts = ["192.0.2.0/24"]
proxy_protocol_from = ["127.0.0.0/8"]

[retry]
first_s = 3600
"""

AGENT: Final = "agent@local.test"
ELSEWHERE: Final = "victim@elsewhere.test"

RECIPIENTS: Final = (
    ELSEWHERE,
    "<victim@ELSEWHERE.test>",
    # a source route (RFC 5321, appendix C)
    "<@local.test:victim@elsewhere.test>",
    "<@local.test,@mx.local.test:victim@elsewhere.test>",
    # address literals
    "victim@[192.0.2.1]",
    "victim@[IPv6:2001:db8::1]",
    # neither ours nor an address
    "victim@sub.local.test",
    "victim@local.test.elsewhere.test",
    "victim@elsewhere.test.",
)
"""Refused to strangers."""

DISGUISED: Final = (
    "victim%elsewhere.test@local.test",
    "elsewhere.test!victim@local.test",
    '"victim@elsewhere.test"@local.test',
    '"victim%elsewhere.test"@local.test',
    "victim%elsewhere.test@mx.local.test",
    "<@elsewhere.test:victim%elsewhere.test@local.test>",
    '"elsewhere.test!victim"@local.test',
    "victim%elsewhere.test%local.test@local.test",
)
"""Mailboxes of ours by their domain, whatever their local-parts would like to say."""


class OpenRelayTests(ServiceTestCase):
    ca_file: ClassVar[Path]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        top = TOP.replace('recipients = ["*"]', 'recipients = ["agent"]', 1)
        cls.service, cls.ca_file = open_doors(
            stack,
            {
                "agent": ("--allowed-from", AGENT),
                "domain": ("--allowed-from", "local.test"),
            },
            TABLES,
            top,
        )

    def tearDown(self) -> None:
        """Whatever was tried: nothing was taken for anybody elsewhere."""
        for event in self.service.events():
            if event["event"] != "rejected":
                self.assertEqual(event["recipient"].rpartition("@")[2], "local.test")

    @contextmanager
    def client(self, listener: str = "smtp", login: str = "") -> Iterator[smtplib.SMTP]:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        port = self.service.port(listener)
        if listener == "submissions":
            client: smtplib.SMTP = smtplib.SMTP_SSL("127.0.0.1", port, context=context, timeout=30)
        else:
            client = smtplib.SMTP("127.0.0.1", port, timeout=30)
        with client:
            client.ehlo("stranger.test")
            if listener == "submission":
                client.starttls(context=context)
                client.ehlo("stranger.test")
            if login:
                client.login(login, PASSWORD)
            yield client

    def recipient_code(self, client: smtplib.SMTP, recipient: str, sender: str = "<>") -> int:
        client.rset()
        self.assertEqual(client.docmd("MAIL", f"FROM:{sender}")[0], 250)
        path = recipient if recipient.startswith("<") else f"<{recipient}>"
        return client.docmd("RCPT", f"TO:{path}")[0]

    # --- strangers -------------------------------------------------------------------------------

    def test_strangers(self) -> None:
        """From loopback too, and whomever they claim to be."""
        with self.client() as client:
            for sender in ("<>", f"<{AGENT}>", "<a@elsewhere.test>", "<@local.test:a@b.test>"):
                for recipient in RECIPIENTS:
                    code = self.recipient_code(client, recipient, sender)
                    self.assertIn(code, (501, 550), (sender, recipient))

    def test_disguises(self) -> None:
        """They are mailboxes here, and there are no such mailboxes."""
        with self.client() as client:
            for recipient in DISGUISED:
                self.assertEqual(self.recipient_code(client, recipient), 550, recipient)

    def test_strangers_at_submission(self) -> None:
        """Without AUTH not even our own mailboxes are reached there."""
        for listener in ("submission", "submissions"):
            with self.client(listener) as client:
                for sender in ("<>", f"<{AGENT}>"):
                    self.assertEqual(client.docmd("MAIL", f"FROM:{sender}")[0], 530)
                self.assertEqual(client.docmd("RCPT", f"TO:<{AGENT}>")[0], 503)

    def test_no_auth_at_the_public_door(self) -> None:
        with self.client() as client:
            self.assertNotIn("auth", client.esmtp_features)
            self.assertEqual(client.docmd("AUTH", "PLAIN AGFnZW50AHg=")[0], 502)

    # --- proxies ---------------------------------------------------------------------------------

    def proxied(self, address: str) -> int:
        """What a client of this address hears when it wants to relay."""
        port = self.service.port("proxied")
        with socket.create_connection(("127.0.0.1", port), 30) as channel:
            kind = "TCP6" if ":" in address else "TCP4"
            mine = "::1" if ":" in address else "127.0.0.1"
            header = f"PROXY {kind} {address} {mine} 4711 {port}\r\n"
            channel.sendall(header.encode())
            with channel.makefile("rb") as lines:
                lines.readline()
                code = 0
                for command in ("EHLO a.test", "MAIL FROM:<>", f"RCPT TO:<{ELSEWHERE}>"):
                    channel.sendall(f"{command}\r\n".encode())
                    while True:
                        line = lines.readline()
                        if line[3:4] != b"-":
                            break
                    code = int(line[:3])
                return code

    def test_proxied_peers(self) -> None:
        """What the proxy says of them counts, not where the proxy is; loopback is no credential."""
        for address in ("203.0.113.9", "127.0.0.1", "::1", "::ffff:203.0.113.9", "2001:db8::1"):
            self.assertEqual(self.proxied(address), 550, address)
        # The listener's own relay_hosts, so that the refusals above are known to say something.
        self.assertEqual(self.proxied("192.0.2.7"), 250)

    def test_a_strangers_proxy_header(self) -> None:
        """From a client that is no proxy it is a command of no sense."""
        with self.client() as client:
            code, _ = client.docmd("PROXY", "TCP4 192.0.2.7 127.0.0.1 4711 25")
            self.assertEqual(code, 500)
            self.assertEqual(self.recipient_code(client, ELSEWHERE), 550)

    # --- passwords -------------------------------------------------------------------------------

    def plain(self, authzid: str, name: str, password: str) -> str:
        octets = "\0".join((authzid, name, password)).encode()
        return "PLAIN " + base64.b64encode(octets).decode("ascii")

    def test_no_password(self) -> None:
        """Neither an empty password nor half a response lets anybody in."""
        for argument in (
            self.plain("", "agent", ""),
            self.plain("", "", ""),
            self.plain("agent", "", ""),
            self.plain("", "nobody", ""),
            self.plain("", "agent", "\0" + PASSWORD),
            self.plain("domain", "agent", PASSWORD),
            "PLAIN =",
            "PLAIN",
            "LOGIN",
            "ANONYMOUS",
            "EXTERNAL =",
            "GSSAPI",
        ):
            with self.client("submissions") as client:
                code, _ = client.docmd("AUTH", argument)
                while code == 334:
                    code, _ = client.docmd("")
                self.assertIn(code, (454, 501, 504, 535), argument)
                self.assertEqual(client.docmd("MAIL", f"FROM:<{AGENT}>")[0], 530, argument)

    # --- our own users ---------------------------------------------------------------------------

    def content_code(self, client: smtplib.SMTP, header: str, sender: str = AGENT) -> int:
        """The answer to a message for elsewhere with this header."""
        client.rset()
        code, _ = client.docmd("MAIL", f"FROM:<{sender}>")
        if code == 250:
            code, _ = client.docmd("RCPT", f"TO:<{AGENT}>")
            self.assertEqual(code, 250)
            code, _ = client.data(f"{header}Subject: x\r\n\r\nhello\r\n")
        return code

    def test_senders_of_others(self) -> None:
        """The envelope of one account may not be that of another, nor of another domain."""
        for account, senders in {
            "agent": ("other@local.test", "agent@elsewhere.test", "agent@sub.local.test"),
            "domain": ("a@elsewhere.test", "a@sub.local.test", "a@notlocal.test", "a@[127.0.0.1]"),
        }.items():
            with self.client("submissions", account) as client:
                for sender in senders:
                    self.assertEqual(
                        self.content_code(client, f"From: {AGENT}\r\n", sender), 550, sender
                    )

    def test_header_from_of_others(self) -> None:
        """From, and Sender, in whatever form; the envelope is right each time."""
        for account in ("agent", "domain"):
            with self.client("submissions", account) as client:
                for header in (
                    f"From: {ELSEWHERE}\r\n",
                    f"from : {ELSEWHERE}\r\n",
                    f"FROM:\r\n {ELSEWHERE}\r\n",
                    f"From: {AGENT}\r\nFrom: {ELSEWHERE}\r\n",
                    f"From: {ELSEWHERE}\r\nFrom: {AGENT}\r\n",
                    f"From: {AGENT}, {ELSEWHERE}\r\n",
                    f"From: {ELSEWHERE}, {AGENT}\r\n",
                    f'From: "{AGENT}" <{ELSEWHERE}>\r\n',
                    f"From: {AGENT} <{ELSEWHERE}>\r\n",
                    f"From: <{AGENT}> <{ELSEWHERE}>\r\n",
                    f"From: {ELSEWHERE} ({AGENT})\r\n",
                    f"From: ({AGENT}) {ELSEWHERE}\r\n",
                    f"From: <@local.test:{ELSEWHERE}>\r\n",
                    f"From: us: {AGENT}, {ELSEWHERE};\r\n",
                    "From: us:;\r\n",
                    "From: agent@local.test@elsewhere.test\r\n",
                    'From: "agent@local.test"@elsewhere.test\r\n',
                    f"From: {AGENT}\r\nSender: {ELSEWHERE}\r\n",
                ):
                    code = self.content_code(client, header)
                    self.assertIn(code, (550, 554), (account, header))

    def test_what_they_may(self) -> None:
        """So that the refusals above are known to say something."""
        for header in (
            f"From: {AGENT}\r\n",
            f"From: The Agent <{AGENT}>\r\n",
            f"From: The Agent (a comment)\r\n <{AGENT}>\r\nSender: {AGENT}\r\n",
        ):
            with self.client("submissions", "agent") as client:
                self.assertEqual(self.content_code(client, header), 250, header)
        with self.client("submission", "domain") as client:
            sender = "anybody@local.test"
            self.assertEqual(self.content_code(client, f"From: {sender}\r\n", sender), 250)
