"""Reports of failures between a gateway and its relay server: they arrive, and nobody reports on them.

clients -- SMTP -->  relay server  <== WebSocket ==  gateway for two agents  -- LMTP -->  a peer that refuses
smtp-sink <-- SMTP ------'                               ^-- sendmail         -- Maildir --> home.test
"""

from __future__ import annotations

import email
import email.policy
import time
from contextlib import ExitStack
from typing import ClassVar, Final

from .gateway import Gateway
from .lmtp_peer import LmtpPeer
from .node_agent import Key
from .relay_server import RelayServer
from .service import ServiceTestCase, send, until

REFUSED: Final = b"550 5.2.1 not taken any more"
MAILDIR: Final = 'deliver = "maildir"\nmaildir = "mail/{domain}/{local_part}"\nrecipients = ["*"]\n'


class ReportTests(ServiceTestCase):
    relay: ClassVar[RelayServer]
    gateway: ClassVar[Gateway]
    peer: ClassVar[LmtpPeer]
    first: ClassVar[Key]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.peer = stack.enter_context(LmtpPeer(REFUSED))
        cls.relay = RelayServer(stack)
        cls.service = cls.relay.service
        cls.service.start()
        cls.gateway = Gateway(stack, cls.relay.url)
        service = cls.gateway.service
        # The default one: what is nobody's goes through its session.
        cls.first = Key(service.folder)
        text = service.config.read_text("utf-8")
        text = text.replace("{ agent =", f'{{ first = "{cls.first.path.name}", agent =')
        text = text.replace(MAILDIR, f'deliver = "lmtp"\nlmtp = "127.0.0.1:{cls.peer.port}"\n')
        text += f'\n[domains."home.test"]\n{MAILDIR}'
        service.config.write_text(text, "utf-8")
        service.start()
        until(lambda: service.log().count("connected to the relay") == 2, "both sessions")

    def content(self, author: str, name: str) -> bytes:
        return f"From: {author}\r\nMessage-ID: <{name}@test>\r\nSubject: {name}\r\n\r\n".encode()

    def test_the_sender_hears_of_what_the_mailbox_refused(self) -> None:
        """The relay has said 250 to it.  The report is the agent's own, by its own session."""
        agent = self.gateway.address
        port = self.service.port("relay")
        send(port, "alice@example.net", agent, self.content("alice@example.net", "refused"))
        report = self.gateway.service.event(
            "received", source="internal", recipient="alice@example.net"
        )
        fate = self.gateway.service.fate("alice@example.net")
        self.assertEqual((fate["event"], fate["message_id"]), ("delivered", report["message_id"]))
        taken = self.service.event("received", source="tunnel", recipient="alice@example.net")
        self.assertEqual((taken["sender"], taken["identity"]), ("", self.gateway.key.identity))
        wanted = b"In-Reply-To: <refused@test>"
        kept = self.kept(wanted)
        found = email.message_from_bytes(kept.partition(b"\n")[2], policy=email.policy.default)
        self.assertIn(f"From: Mail Delivery System <{agent}>\n".encode(), kept)
        self.assertIn(b"Status: 5.2.1\n", kept)
        self.assertEqual(found.defects, [])

    def kept(self, wanted: bytes) -> bytes:
        """The message with that in it which has left the relay server."""
        return until(
            lambda: next((one for one in self.relay.sink.captured() if wanted in one), None),
            repr(wanted),
        )

    def sendmail(self, sender: str, recipient: str, name: str) -> None:
        """By the gateway's own door."""
        done = self.gateway.service.cli(
            *("sendmail", "-f", sender, recipient), stdin=self.content(sender, name)
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_sender_of_this_machine_has_it_here(self) -> None:
        """What the relay refuses, for it knows no such agent, is told without it."""
        self.sendmail("me@home.test", "bo@far.test", "from home")
        report = self.gateway.service.event("delivered", recipient="me@home.test")
        self.assertEqual(report["sender"], "")
        [found] = self.gateway.service.maildir("home.test", "me")
        self.assertIn(b"From: Mail Delivery System <MAILER-DAEMON@laptop.test>\n", found)
        self.assertIn(b"Status: 5.7.1\n", found)
        told = [one.get("recipient") for one in self.service.told()]
        self.assertNotIn("me@home.test", told)

    def test_a_sender_elsewhere_who_wrote_by_a_door_of_the_gateway(self) -> None:
        """To the world, or to a mailbox that refuses it: the first agent reports."""
        for recipient, name, status in (
            ("bo@far.test", "from-afar", b"5.7.1"),
            (self.gateway.address, "to-the-agent", b"5.2.1"),
        ):
            sender = f"{name}@example.net"
            self.sendmail(sender, recipient, name)
            self.assertEqual(self.gateway.service.fate(sender)["event"], "delivered")
            taken = self.service.event("received", source="tunnel", recipient=sender)
            self.assertEqual((taken["sender"], taken["identity"]), ("", self.first.identity))
            kept = self.kept(f"In-Reply-To: <{name}@test>".encode())
            author = f"From: Mail Delivery System <{self.first.identity}@agents.test>\n"
            self.assertIn(author.encode(), kept)
            self.assertIn(b"Status: %s\n" % status, kept)

    def test_a_report_that_nobody_takes(self) -> None:
        """Is told of once, with what the relay says of it."""
        self.sendmail("gone@passing.test", self.gateway.address, "from nobody")
        fate = self.gateway.service.fate("gone@passing.test")
        self.assertEqual((fate["event"], fate["sender"], fate["dsn"]), ("bounced", "", "none"))
        self.assertEqual(fate["reply"]["enhanced"], "5.1.1")

    def test_nobody_reports_on_a_report(self) -> None:
        """Of neither side, to the other: what has no sender and is refused ends there."""
        agent = self.gateway.address
        send(self.service.port("relay"), "", agent, self.content("b@far.test", "no sender"))
        arrived = self.gateway.service.event("received", subject="no sender")
        # What the relay refuses comes back to the agent, whose mailbox refuses the report.
        done = self.gateway.service.cli(
            "sendmail", "-f", agent, "nobody@passing.test", stdin=self.content(agent, "to nobody")
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        for id in (
            arrived["message_id"],
            self.gateway.service.event("received", sender="", recipient=agent, source="internal")[
                "message_id"
            ],
        ):
            self.assertEqual(self.gateway.service.event("bounced", message_id=id)["dsn"], "none")
        before = len(self.gateway.service.told()), len(self.service.told())
        time.sleep(2)
        self.assertEqual((len(self.gateway.service.told()), len(self.service.told())), before)


class StoppedTests(ServiceTestCase):
    """A gateway whose relay is not there, and which is not there itself."""

    gateway: ClassVar[Gateway]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.gateway = Gateway(stack, "ws://127.0.0.1:1/ws")
        cls.service = cls.gateway.service
        cls.service.start()

    def test_a_report_of_what_a_person_returns(self) -> None:
        """Is from the agent likewise."""
        content = b"From: alice@example.net\r\nSubject: waits\r\n\r\n"
        done = self.service.cli("sendmail", "-f", "alice@example.net", "bo@far.test", stdin=content)
        self.assertEqual(done.returncode, 0, done.stderr)
        id = self.service.event("received", subject="waits")["message_id"]
        self.service.terminate()
        self.assertEqual(self.service.cli("queue", "bounce", id).returncode, 0)
        report = self.service.event("received", source="internal", recipient="alice@example.net")
        shown = self.service.cli("queue", "cat", report["message_id"]).stdout
        author = f"From: Mail Delivery System <{self.gateway.address}>\r\n"
        self.assertIn(author.encode(), shown)
