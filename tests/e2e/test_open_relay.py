"""Nobody relays who may not: the whole list of ways that people try, at the real program.

stranger  -->  smtp, submission, submissions, a proxied listener  --x-->  elsewhere.test
stranger, agent  -->  a relay server  --x-->  elsewhere.test, or as somebody else
a relay  -->  a gateway  --x-->  elsewhere.test

Each refused recipient must be refused at RCPT or earlier, or the message at the end of its data;
in the end nothing at all may have been taken for elsewhere.test.
"""

from __future__ import annotations

import base64
import hashlib
import json
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final
from uuid import uuid4

from protege_mta.testing.agents import Closed, TunnelAgent
from protege_mta.testing.original_relay import OriginalRelay
from tests.integration.gateways import GatewayCase, reactor, until

from .relay_server import RelayServer
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
        for event in self.service.told():
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


# --- tunnels -------------------------------------------------------------------------------------

FORGED: Final = "forged"


def letter(fields: str, subject: str) -> bytes:
    return f"{fields}\r\nTo: {ELSEWHERE}\r\nSubject: {subject}\r\n\r\nhello\r\n".encode()


class TunnelPeerTests(ServiceTestCase):
    """Who has a session sends as itself, and opens no door to others."""

    relay: ClassVar[RelayServer]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.relay = RelayServer(stack)
        cls.service = cls.relay.service
        cls.service.start()

    def setUp(self) -> None:
        super().setUp()
        self.me = self.agent("--alias", f"me{TunnelAgent().identity[:8]}")
        self.other = TunnelAgent()
        self.alias = f"desk{self.other.identity[:8]}"
        self.allow(self.other, "--alias", self.alias, "--alias", f"{self.alias}@shop.test")
        self.own = f"{self.me.identity}@agents.test"

    def tearDown(self) -> None:
        """Whatever was tried: nothing of it was taken, and nothing left."""
        taken = [one for one in self.service.told() if one["event"] != "rejected"]
        self.assertEqual([one for one in taken if one.get("subject") == FORGED], [])
        self.assertFalse(any(b"Subject: forged" in one for one in self.relay.sink.captured()))

    def allow(self, agent: TunnelAgent, *options: str) -> None:
        ran = self.service.cli("tunnel", "allow", agent.identity, *options)
        self.assertEqual(ran.returncode, 0, ran.stderr)

    def agent(self, *options: str) -> TunnelAgent:
        agent = TunnelAgent()
        self.addCleanup(agent.close)
        self.allow(agent, *options)
        return agent

    def log_in(self, *, is_reliable: bool = False) -> None:
        self.me.connect(self.service.port("http"))
        self.assertEqual(self.me.log_in(is_reliable=is_reliable)["type"], "auth_ok")

    def said(self, sender: str, recipient: str, content: bytes) -> str:
        """Why the relay server has refused a message, or "taken"."""
        stream_id = self.me.start(sender, recipient)
        self.me.chunk(stream_id, content)
        self.me.end(stream_id)
        while True:
            heard: dict[str, Any] = self.me.heard()
            if heard.get("streamId") == stream_id and heard["type"] == "relay_delivery_result":
                return "taken" if heard["status"] == "sent" else heard["error"]

    def said_reliably(self, sender: str, recipient: str, content: bytes) -> str:
        """Likewise in a session with acknowledgements."""
        digest = hashlib.sha256(content).hexdigest()
        stream_id = self.me.start(sender, recipient, requestId=str(uuid4()), size=len(content))
        self.me.chunk(stream_id, content)
        self.me.end(stream_id, json.dumps({"sha256": digest}).encode())
        while True:
            heard: dict[str, Any] = self.me.heard()
            if heard.get("streamId") == stream_id and heard["type"] == "stream_result":
                return "taken" if heard["status"] == "queued" else heard["code"]

    def each_way(self) -> Iterator[Callable[[str, str, bytes], str]]:
        """Both kinds of session, one after the other."""
        for is_reliable, said in ((False, self.said), (True, self.said_reliably)):
            self.log_in(is_reliable=is_reliable)
            yield said

    def senders(self) -> tuple[str, ...]:
        """Envelopes of others, and what might be taken for its own."""
        me, other = self.me.identity, self.other.identity
        return (
            ELSEWHERE,
            "agent@local.test",
            "postmaster@agents.test",
            f"{other}@agents.test",
            f"{self.alias}@agents.test",
            f"{self.alias}@shop.test",
            f"{me}@elsewhere.test",
            f"{me}@local.test",
            f"{me}@sub.agents.test",
            f"{me}@agents.test.elsewhere.test",
            f"{me}%elsewhere.test@agents.test",
            f"elsewhere.test!{me}@agents.test",
            f'"{self.own}"@elsewhere.test',
            '"victim@elsewhere.test"@agents.test',
            f"{me}+{other}@agents.test",
            f"@agents.test:{ELSEWHERE}",
            f"{self.own},{ELSEWHERE}",
            f"{self.own}>\r\nRCPT TO:<{ELSEWHERE}",
            "<>",
        )

    def fields(self) -> tuple[str, ...]:
        """From and Sender of others, while the envelope is its own."""
        other = f"{self.other.identity}@agents.test"
        return (
            f"From: {ELSEWHERE}",
            f"From: {other}",
            f"From: {self.alias}@agents.test",
            f"From: {self.alias}@shop.test",
            "From: victim%elsewhere.test@agents.test",
            "From: elsewhere.test!victim@agents.test",
            f'From: "{ELSEWHERE}"@agents.test',
            f'From: "{self.own}"@elsewhere.test',
            f"From: {self.own}, {ELSEWHERE}",
            f"From: {ELSEWHERE}, {self.own}",
            f"From: {self.own} <{ELSEWHERE}>",
            f"From: <{self.own}> <{ELSEWHERE}>",
            f"From: ({self.own}) {ELSEWHERE}",
            f"From: <@agents.test:{ELSEWHERE}>",
            f"From: us: {self.own}, {ELSEWHERE};",
            f"From: {self.own}\r\nFrom: {ELSEWHERE}",
            f"From: {ELSEWHERE}\r\nFrom: {self.own}",
            f"From: {self.own}\r\nSender: {other}",
            f"from :\r\n {ELSEWHERE}",
            f"X: y\rFrom: {ELSEWHERE}\r\nFrom: {self.own}",
        )

    def test_senders_of_others(self) -> None:
        for said in self.each_way():
            for sender in self.senders():
                answer = said(sender, ELSEWHERE, letter(f"From: {self.own}", FORGED))
                self.assertRegex(answer, r"5\.[17]\.\d", sender)

    def test_header_from_of_others(self) -> None:
        """The null reverse-path, which everybody may use, included."""
        for said in self.each_way():
            for sender in (self.own, ""):
                for fields in self.fields():
                    answer = said(sender, ELSEWHERE, letter(fields, FORGED))
                    self.assertRegex(answer, r"5\.[67]\.\d+", fields)

    def test_recipients_in_disguise(self) -> None:
        """Mailboxes of ours by their domain, and there are no such mailboxes."""
        content = letter(f"From: {self.own}", FORGED)
        for said in self.each_way():
            for recipient in DISGUISED:
                for domain in ("agents.test", "mx.local.test"):
                    address = recipient.strip("<>").replace("@local.test", f"@{domain}")
                    address = address.replace("@mx.local.test", f"@{domain}")
                    self.assertRegex(said(self.own, address, content), r"5\.1\.\d", address)

    def test_without_a_login(self) -> None:
        """Streams before it, or in another's name, are the end of the connection."""
        for agent in (TunnelAgent(), self.me):
            self.addCleanup(agent.close)
            agent.connect(self.service.port("http"))
            stream_id = agent.start(self.own, ELSEWHERE)
            with self.assertRaises((Closed, ConnectionError)):
                agent.chunk(stream_id, letter(f"From: {self.own}", FORGED))
                agent.end(stream_id)
                while True:
                    self.assertEqual(agent.heard()["type"], "auth_error")

    def test_stranger_at_the_public_door(self) -> None:
        """Reaches agents and nobody else, whomever he claims to be; their being here, or being on
        this machine, makes no difference."""
        self.log_in()
        with smtplib.SMTP("127.0.0.1", self.service.port(), timeout=30) as client:
            client.ehlo("stranger.test")
            for sender in ("", self.own, f"{self.alias}@shop.test", ELSEWHERE):
                for recipient in (*RECIPIENTS, f"{self.me.identity}@elsewhere.test"):
                    path = recipient if recipient.startswith("<") else f"<{recipient}>"
                    client.rset()
                    self.assertEqual(client.mail(sender)[0], 250)
                    code, _ = client.docmd("RCPT", f"TO:{path}")
                    self.assertIn(code, (501, 550), (sender, recipient))
            for recipient in (
                "victim%elsewhere.test@agents.test",
                f"elsewhere.test!{self.me.identity}@agents.test",
                f"{self.me.identity}%elsewhere.test@agents.test",
                f'"{ELSEWHERE}"@agents.test',
            ):
                client.rset()
                client.mail("")
                code, _ = client.docmd("RCPT", f"TO:<{recipient}>")
                self.assertIn(code, (501, 550), recipient)

    def test_what_it_may(self) -> None:
        """So that the refusals above are known to say something."""
        for said in self.each_way():
            for sender, author in ((self.own, self.own), ("", f"Me <{self.own}>")):
                answer = said(sender, "b@elsewhere.test", letter(f"From: {author}", "own"))
                self.assertEqual(answer, "taken")


class GatewayTests(GatewayCase):
    """A relay that has been taken over gives a gateway mail for its own mailboxes, and no more."""

    FEW: ClassVar = """
[domains."few.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["agent"]
shared = true
"""

    async def test_mail_for_others(self) -> None:
        """Refused, and neither sent back through the tunnel nor by any other way; those at a shared
        domain who are not here included."""
        relay = OriginalRelay(reactor)
        house = self.open(self.url_of(self.listen_with(relay)), self.FEW)
        await self.connected()
        content = letter(f"From: {self.ann}@home.test", FORGED)
        tried = [
            *(one.strip("<>").replace("local.test", "few.test") for one in RECIPIENTS),
            *(one.strip("<>").replace("local.test", "few.test") for one in DISGUISED),
            "nobody@few.test",
            f"{self.ben}@elsewhere.test",
            f"{self.ann}@few.test",
            f"agent@few.test>\r\nRCPT TO:<{ELSEWHERE}",
        ]
        for sender in (ELSEWHERE, f"{self.ann}@home.test", ""):
            for recipient in tried:
                relay.deliver(sender, recipient, content, identity=self.ann)
        relay.deliver(
            ELSEWHERE, "agent@few.test", letter("From: a@b.test", "own"), identity=self.ann
        )
        mailbox = self.folder / "mail" / "few.test" / "agent" / "new"
        await until(lambda: mailbox.is_dir() and list(mailbox.iterdir()), "what may come")
        self.assertEqual(len(list(mailbox.iterdir())), 1)
        await self.empty()
        self.assertEqual((relay.tries, relay.outbound), ([], []))
        boxes = [path for path in self.folder.glob("mail/*/*/new/*") if FORGED in path.read_text()]
        self.assertEqual(boxes, [])
        self.assertEqual(house.spool.stats().messages, 0)
