"""Reports of failures between a gateway and its relay server: they arrive, and nobody reports on them.

clients -- SMTP -->  relay server  <== WebSocket ==  gateway for two agents  -- LMTP -->  a peer that refuses
smtp-sink <-- SMTP ------'                               ^-- sendmail
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

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.peer = stack.enter_context(LmtpPeer(REFUSED))
        cls.relay = RelayServer(stack)
        cls.service = cls.relay.service
        cls.service.start()
        cls.gateway = Gateway(stack, cls.relay.url)
        service = cls.gateway.service
        first = Key(service.folder)  # the default one: what is nobody's goes through its session
        text = service.config.read_text("utf-8")
        text = text.replace("{ agent =", f'{{ first = "{first.path.name}", agent =')
        text = text.replace(MAILDIR, f'deliver = "lmtp"\nlmtp = "127.0.0.1:{cls.peer.port}"\n')
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
        kept = until(
            lambda: next((one for one in self.relay.sink.captured() if wanted in one), None), "it"
        )
        found = email.message_from_bytes(kept.partition(b"\n")[2], policy=email.policy.default)
        self.assertIn(f"From: Mail Delivery System <{agent}>\n".encode(), kept)
        self.assertIn(b"Status: 5.2.1\n", kept)
        self.assertEqual(found.defects, [])

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
