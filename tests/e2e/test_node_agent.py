"""Agents that know nothing of us, only of the protocol.

SMTP client  -->  protege-mta, a relay server  -- WebSocket -->  agent.cjs (Node, npm's ws)
smtp-sink  <-- smarthost --  protege-mta  <-- WebSocket --  agent.cjs
"""

from __future__ import annotations

import base64
import json
import smtplib
import uuid
from contextlib import ExitStack
from typing import ClassVar, Final

from .node_agent import Key, NodeAgent
from .relay_server import RelayServer
from .service import ServiceTestCase, send, until

CONTENT: Final = (
    b"From: alice@example.net\r\nSubject: to an agent\r\n\r\n"
    b".a dot\r\n..two\r\ngr\xc3\xbc\xc3\x9fe\r\n\r\n" + b"x" * 900 + b"\r\n"
)
STRANGER: Final = "alice@example.net"


class NodeAgentTests(ServiceTestCase):
    relay: ClassVar[RelayServer]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.relay = RelayServer(stack)
        cls.service = cls.relay.service
        cls.service.start()

    def connect(self, key: Key | None = None, role: str = "inbound") -> NodeAgent:
        """A new agent, logged in."""
        agent = NodeAgent(self.relay.url, key or Key(self.service.folder), role)
        self.addCleanup(agent.close)
        agent.logged_in()
        return agent

    def left(self, text: bytes) -> list[bytes]:
        """What has left by the smarthost and holds this text."""
        return [octets for octets in self.relay.sink.captured() if text in octets]

    def wait_for_left(self, text: bytes) -> bytes:
        return until(lambda: self.left(text), f"{text!r} at the smarthost")[0]

    # --- login -----------------------------------------------------------------------------------

    def test_the_login_is_the_originals(self) -> None:
        agent = self.connect()
        (opened,) = [one for one in agent.told if one["is"] == "open"]
        self.assertEqual((opened["extensions"], opened["protocol"]), ("", ""))
        said = agent.control("auth_ok")
        self.assertEqual(
            list(said.items())[:5],
            [
                ("type", "auth_ok"),
                ("publicKeyBase32", agent.key.identity),
                ("emailLocalPart", agent.key.identity),
                ("sessionRole", "inbound"),
                ("replacedSocketId", None),
            ],
        )

    def test_a_second_login_takes_the_place_of_the_first(self) -> None:
        key = Key(self.service.folder)
        first, second = self.connect(key), self.connect(key)
        self.assertEqual(first.ended(), (4400, "replaced_by_new_session"))
        self.assertIsNotNone(second.control("auth_ok")["replacedSocketId"])
        third = self.connect(key, "outbound")
        self.assertIsNone(third.control("auth_ok")["replacedSocketId"])
        send(self.service.port(), STRANGER, f"{key.identity}@agents.test", CONTENT)
        self.assertTrue(second.mail()[0][1].endswith(CONTENT))

    def test_text_after_the_login_ends_the_session(self) -> None:
        agent = self.connect()
        agent.say('{"type":"ping"}')
        self.assertEqual(agent.control("auth_error")["code"], "invalid_tunnel_frame")
        self.assertEqual(agent.ended(), (4401, "invalid_tunnel_frame"))

    def test_what_crashed_others(self) -> None:
        """A stream without content, frames of nonsense: the next agent is served as ever."""
        empty = self.connect()
        name = b"empty"
        body = json.dumps(
            {"mailFrom": f"{empty.key.identity}@agents.test", "rcptTo": "x@elsewhere.test"}
        ).encode()
        for kind, octets in ((1, body), (3, b"")):
            head = bytes([1, kind, len(name)]) + len(octets).to_bytes(4, "big")
            empty.throw(head + name + octets)
        empty.result("empty")
        for octets in (b"", b"\x01", b"\x02\x01" + b"\0" * 5, b"\x01\x01\xff\xff\xff\xff\xff"):
            agent = self.connect()
            agent.throw(octets)
            self.assertEqual(agent.ended(), (4401, "invalid_tunnel_frame"))
        self.connect()

    # --- mail to agents --------------------------------------------------------------------------

    def test_mail_comes_as_it_was_sent_and_attested(self) -> None:
        for domain in ("agents.test", "passing.test"):
            agent = self.connect()
            address = f"{agent.key.identity.upper()}@{domain}"
            send(self.service.port(), STRANGER, address, CONTENT)
            ((start, content),) = agent.mail()
            self.assertEqual((start["mailFrom"], start["rcptTo"]), (STRANGER, address))
            self.assertTrue(content.endswith(CONTENT), content)
            self.assertTrue(content.startswith(b"Received: "), content)
            attested = start["authAttestation"]
            self.assertEqual(attested["keyId"], "relay-primary")
            payload = base64.b64decode(attested["payloadBase64"])
            self.relay.attestation_key.verify(
                base64.b64decode(attested["signatureBase64"]), payload
            )
            said = json.loads(payload)
            self.assertEqual(list(said), ["streamId", "mailFrom", "rcptTo", "issuedAt", "signals"])
            (arrived,) = [one for one in agent.told if one["is"] == "mail"]
            self.assertEqual(said["streamId"], arrived["id"])
            self.assertEqual((said["mailFrom"], said["rcptTo"]), (STRANGER, address))

    def test_a_bounce_has_no_sender(self) -> None:
        agent = self.connect()
        send(self.service.port(), "", f"{agent.key.identity}@agents.test", CONTENT)
        self.assertEqual(agent.mail()[0][0]["mailFrom"], "")

    def test_mail_waits_for_who_is_away(self) -> None:
        agent = self.connect()
        agent.close()
        address = f"{agent.key.identity}@agents.test"
        until(lambda: self.is_away(agent.key), "the end of the session at the relay")
        send(self.service.port(), STRANGER, address, CONTENT)
        send(self.service.port(), STRANGER, address, CONTENT)
        again = self.connect(agent.key)
        self.assertEqual([start["rcptTo"] for start, _ in again.mail(2)], [address] * 2)
        self.service.fate(address)

    def is_away(self, key: Key) -> bool:
        """As the pass-through domain tells: nobody is told of what a session's end is here."""
        try:
            send(self.service.port(), STRANGER, f"{key.identity}@passing.test", CONTENT)
        except smtplib.SMTPRecipientsRefused:
            return True
        return False

    def test_nothing_is_kept_for_who_is_away(self) -> None:
        key = Key(self.service.folder)
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
            send(self.service.port(), STRANGER, f"{key.identity}@passing.test", CONTENT)
        ((code, text),) = caught.exception.recipients.values()
        self.assertEqual(code, 450)
        self.assertIn(b"relay_rejected_recipient_not_connected", text)

    def test_nobody_else_has_a_mailbox(self) -> None:
        for local_part in ("somebody", "a" * 52, "relay-primary"):
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                send(self.service.port(), STRANGER, f"{local_part}@agents.test", CONTENT)
            ((code, _),) = caught.exception.recipients.values()
            self.assertIn(code, (450, 550))

    def test_a_frozen_agent_gets_it_later(self) -> None:
        """Handed to the kernel is not delivered: only who has answered has it."""
        agent = self.connect()
        agent.stop_reading()
        address = f"{agent.key.identity}@agents.test"
        send(self.service.port(), STRANGER, address, CONTENT)
        self.service.event("received", recipient=address)
        agent.go_on()
        agent.mail()
        self.service.fate(address)

    # --- mail from agents ------------------------------------------------------------------------

    def test_an_agents_mail_leaves_signed(self) -> None:
        agent = self.connect()
        sender, id = f"{agent.key.identity}@agents.test", str(uuid.uuid4())
        content = (
            f"From: Agent <{sender}>\r\nTo: b@elsewhere.test\r\nBcc: secret@elsewhere.test\r\n"
            f"Message-ID: <{id}@agents.test>\r\nSubject: out\r\n\r\nhello\nbare\r\n"
        ).encode() + b"y" * 200_000
        agent.send(id, sender, "b@elsewhere.test", content)
        self.assertEqual(agent.result(id)["status"], "sent")
        octets = self.wait_for_left(id.encode())
        self.assertIn(b"\nDKIM-Signature: ", octets)
        self.assertIn(b"\nReceived: ", octets)
        self.assertIn(b"\nhello\nbare\n", octets)
        self.assertNotIn(b"secret@elsewhere.test", octets)

    def test_nobody_is_somebody_else(self) -> None:
        agent, other = self.connect(), Key(self.service.folder)
        own = f"{agent.key.identity}@agents.test"
        cases: dict[str, tuple[str, str]] = {
            "another domain": ("ceo@bank.example", "ceo@bank.example"),
            "another agent": (f"{other.identity}@agents.test",) * 2,
            "another author": (own, "ceo@bank.example"),
            "another sender": ("ceo@bank.example", own),
            "two authors": (own, f"{own}, ceo@bank.example"),
        }
        for name, (sender, author) in cases.items():
            id = str(uuid.uuid4())
            content = f"From: {author}\r\nMessage-ID: <{id}@x.test>\r\n\r\n{name}\r\n".encode()
            agent.send(id, sender, "victim@elsewhere.test", content)
            said = agent.result(id)
            self.assertEqual(said["status"], "failed", name)
            self.assertIn("5.7.1", said["error"], name)
        agent.send("last", own, "b@elsewhere.test", f"From: {own}\r\n\r\nlast one\r\n".encode())
        self.assertEqual(agent.result("last")["status"], "sent")
        self.wait_for_left(b"last one")
        self.assertEqual(self.left(b"victim@elsewhere.test"), [])

    def test_one_stream_is_one_message(self) -> None:
        agent = self.connect()
        own, id = f"{agent.key.identity}@agents.test", str(uuid.uuid4())
        content = f"From: {own}\r\nMessage-ID: <{id}@x.test>\r\n\r\nonce\r\n".encode()
        agent.send(id, own, "b@elsewhere.test", content)
        self.assertEqual(agent.result(id)["status"], "sent")
        agent.close()
        again = self.connect(agent.key)
        again.send(id, own, "b@elsewhere.test", content)
        self.assertEqual(again.result(id)["status"], "sent")
        again.send("last", own, "b@elsewhere.test", content.replace(id.encode(), b"last-of-it"))
        again.result("last")
        self.wait_for_left(b"last-of-it")
        self.assertEqual(len(self.left(id.encode())), 1)

    def test_from_agent_to_agent(self) -> None:
        one, other = self.connect(), self.connect()
        own = f"{one.key.identity}@agents.test"
        content = f"From: {own}\r\n\r\nfrom one to the other\r\n".encode()
        for domain in ("agents.test", "passing.test"):
            id = str(uuid.uuid4())
            one.send(id, own, f"{other.key.identity}@{domain}", content)
            self.assertEqual(one.result(id)["status"], "sent", domain)
        self.assertEqual(
            [start["rcptTo"].partition("@")[2] for start, _ in other.mail(2)],
            ["agents.test", "passing.test"],
        )

    def test_a_later_failure_comes_back(self) -> None:
        """``sent`` was said when it was safe; what becomes of it then is a DSN's to tell."""
        agent = self.connect()
        own = f"{agent.key.identity}@agents.test"
        agent.send("fails", own, "nobody@agents.test", f"From: {own}\r\n\r\nx\r\n".encode())
        said = agent.result("fails")
        if said["status"] == "sent":
            ((start, content),) = agent.mail()
            self.assertEqual(start["mailFrom"], "")
            self.assertIn(b"message/delivery-status", content)
        else:
            self.assertIn("5.1.1", said["error"])
