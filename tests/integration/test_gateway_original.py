"""A gateway of ours and an original relay, played by our fake of it, over loopback.

the internet (the test)  <-->  original relay  <-- WebSocket --  gateway  --> Maildirs
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.logger import capturedLogs

from protege_mta import gateway
from protege_mta.testing.original_relay import OriginalRelay, Outbound

from .gateways import GatewayCase, persona, reactor, until

CONTENT = b"From: x@far.test\r\nSubject: in\r\n\r\nline\r\n"


class OriginalCase(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.errors: dict[str, str] = {}
        self.relay = OriginalRelay(reactor, self.exchange)
        self.listen(0)

    def listen(self, number: int) -> None:
        self.port = self.listen_with(self.relay, number)
        self.url = self.url_of(self.port)

    def exchange(self, outbound: Outbound) -> str | None:
        return self.errors.get(outbound.rcpt_to)

    def cut(self) -> None:
        """Every connection is lost at once."""
        for session in list(self.relay.connections):
            session.transport.abortConnection()


class InboundTests(OriginalCase):
    async def test_mail_for_each_persona(self) -> None:
        self.open(self.url)
        await self.connected()
        for identity in (self.ann, self.ben):
            said = self.relay.deliver("x@far.test", f"{identity}@home.test", CONTENT)
            self.assertEqual(said, "250 OK: message queued")
        for identity in (self.ann, self.ben):
            (message,) = await self.mail_of(identity)
            self.assertEqual(message["Subject"], "in")
            self.assertEqual(message["Return-Path"], "<x@far.test>")
            self.assertEqual(message.get_payload(), "line\n")
            received = message.get_all("Received")
            assert received is not None
            self.assertEqual(len(received), 1)
            self.assertTrue(received[0].startswith("from 127.0.0.1 ([127.0.0.1])"), received)
            self.assertIn("by gw.home.test", received[0])

    async def test_names_of_streams_come_again(self) -> None:
        """Two messages of one SMTP connection to one recipient are two messages."""
        self.open(self.url)
        await self.connected()
        for number in range(3):
            content = CONTENT.replace(b"line", b"line %d" % number)
            self.relay.deliver("x@far.test", f"{self.ann}@home.test", content)
        found = await self.mail_of(self.ann, 3)
        self.assertEqual(
            sorted(str(each.get_payload()) for each in found),
            ["line 0\n", "line 1\n", "line 2\n"],
        )

    async def test_a_big_message_in_one_chunk(self) -> None:
        self.open(self.url)
        await self.connected()
        body = b"x" * 70 + b"\r\n"
        self.relay.deliver("", f"{self.ann}@home.test", CONTENT + body * 120_000)
        (message,) = await self.mail_of(self.ann)
        self.assertEqual(len(str(message.get_payload())), len("line\n") + 71 * 120_000)
        self.assertEqual(message["Return-Path"], "<>")

    async def test_what_is_not_ours_is_refused_and_told(self) -> None:
        """The original hears nothing of it, so that our log has to."""
        self.open(self.url)
        await self.connected()
        with capturedLogs() as logged:
            self.relay.deliver("x@far.test", f"{self.ann}@elsewhere.test", CONTENT)
            self.relay.deliver("x@far.test", f"{self.ann}@home.test", CONTENT)
            await self.mail_of(self.ann)
        self.assertTrue(any("is lost" in str(each.get("log_format")) for each in logged))
        self.assertEqual(self.states(), ["connected"] * 2)

    async def test_what_the_relay_knows_of_the_sender(self) -> None:
        key = Ed25519PrivateKey.generate()
        path = self.folder / "relay.pem"
        path.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        self.relay.attestation = "r1", key, {"spf": "pass", "dkim": "fail", "dmarc": "unknown"}
        house = self.open(
            self.url,
            'unattested = "refuse"\ntrusted = [{key_id = "r1", public_key = "relay.pem"}]\n',
        )
        await self.connected()
        forged = b"Authentication-Results: gw.home.test; dmarc=pass\r\n" + CONTENT
        self.relay.deliver("x@far.test", f"{self.ann}@home.test", forged)
        (message,) = await self.mail_of(self.ann)
        (results,) = message.get_all("Authentication-Results") or []
        self.assertEqual(
            " ".join(results.split()),
            'gw.home.test; spf=pass reason="told by relay r1" smtp.mailfrom=far.test; '
            'dkim=fail reason="told by relay r1"',
        )
        self.relay.attestation = "r1", Ed25519PrivateKey.generate(), {"spf": "pass"}
        self.relay.deliver("y@far.test", f"{self.ann}@home.test", CONTENT)
        await until(lambda: house.gateway.streams.seen["invalid_signature"], "the forgery")
        self.assertEqual(len(self.mail(self.ann)), 1)


class OutboundTests(OriginalCase):
    async def test_each_persona_has_its_own_session(self) -> None:
        self.open(self.url)
        await self.connected()
        await self.send(f"{self.ben}@home.test", "a@far.test", "b@far.test")
        await self.send("someone@home.test", "c@far.test")
        await until(lambda: len(self.relay.outbound) == 3, "the mail")
        self.assertEqual(
            sorted((one.rcpt_to, one.identity) for one in self.relay.outbound),
            [("a@far.test", self.ben), ("b@far.test", self.ben), ("c@far.test", self.ann)],
        )
        octets = self.relay.outbound[0].octets
        self.assertTrue(octets.startswith(b"Received: by gw.home.test id "))
        self.assertTrue(octets.endswith(b"\r\n\r\nhello\r\n"))
        await self.empty()
        self.assertEqual(self.relay.refused, [])

    async def test_a_final_failure_comes_back_to_the_persona(self) -> None:
        self.errors["nobody@far.test"] = "Can't send mail: 550 5.1.1 no such user"
        self.open(self.url)
        await self.connected()
        await self.send(f"{self.ann}@home.test", "nobody@far.test")
        (report,) = await self.mail_of(self.ann)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertIn("5.1.1", str(report))
        self.assertEqual(len(self.relay.tries), 3)  # its own three

    async def test_a_failure_that_may_pass_is_tried_again(self) -> None:
        self.errors["grey@far.test"] = "Can't send mail: 451 4.7.1 greylisted"
        self.open(self.url)
        await self.connected()
        await self.send(f"{self.ann}@home.test", "grey@far.test")
        await until(lambda: len(self.relay.tries) >= 3, "the first attempt")
        del self.errors["grey@far.test"]
        await self.empty()
        self.assertEqual(self.mail(self.ann), [])

    async def test_mail_between_personas_stays_at_home(self) -> None:
        self.open(self.url)
        await self.connected()
        await self.send(f"{self.ann}@home.test", f"{self.ben}@home.test")
        await self.mail_of(self.ben)
        self.assertEqual(self.relay.outbound, [])

    async def test_mail_waits_for_the_session_and_goes_at_once(self) -> None:
        number = self.port.getHost().port
        await self.port.stopListening()
        house = self.open(self.url)
        await self.send(f"{self.ann}@home.test", "a@far.test")
        await until(lambda: "waiting" in self.states(), "a failed call")
        self.assertEqual(len(house.spool.ids()), 1)
        self.listen(number)
        await until(lambda: self.relay.outbound, "the mail")
        await self.empty()


class SessionTests(OriginalCase):
    async def test_a_lost_session_is_had_again(self) -> None:
        self.open(self.url)
        await self.connected()
        self.cut()
        await until(lambda: self.relay.logins == 4, "new sessions")
        await self.connected()
        self.relay.deliver("x@far.test", f"{self.ann}@home.test", CONTENT)
        await self.mail_of(self.ann)

    async def test_no_text_is_said_after_the_login(self) -> None:
        """The original ends the session at any."""
        house = self.open(self.url)
        await self.connected()
        session = house.gateway.lines.to(self.ann)
        assert session is not None
        self.assertFalse(session.is_reliable)
        await self.send(f"{self.ann}@home.test", "a@far.test")
        self.relay.deliver("x@far.test", f"{self.ann}@home.test", CONTENT)
        await self.mail_of(self.ann)
        await self.empty()
        self.assertEqual(self.relay.refused, [])
        self.assertEqual(self.relay.logins, 2)

    async def test_another_gateway_with_our_key_is_given_way_to(self) -> None:
        house = self.open(self.url)
        await self.connected()
        with capturedLogs() as logged:
            self.relay.sessions[self.ann].sendClose(4400, "replaced_by_new_session")
            await until(lambda: "waiting" in self.states(), "the loss")
        self.assertTrue(any("another gateway" in str(e.get("log_format")) for e in logged))
        (row,) = [row for row in house.gateway.status() if row["identity"] == self.ann]
        self.assertGreater(row["next_attempt_at"] - reactor.seconds(), 15)
        self.assertEqual(self.states().count("connected"), 1)

    async def test_a_rate_limit_holds_everybody(self) -> None:
        self.relay.logins_left = 2
        house = self.open(self.url)
        await until(lambda: house.gateway.lines.losses.by_reason["limited"], "the limit")
        self.assertEqual(self.relay.logins, 1)
        self.assertEqual(self.relay.refused[0], "rate_limited")

    async def test_personas_come_and_go(self) -> None:
        self.patch(gateway, "LOOK_S", 0.1)
        house = self.open(self.url)
        await self.connected()
        cat = persona(self.folder, 3)
        await until(lambda: cat in self.relay.sessions, "a third session")
        (self.folder / "personas" / "p3" / "passport.key").unlink()
        (self.folder / "personas" / "p1" / "passport.key").unlink()
        await until(lambda: set(self.relay.sessions) == {self.ben}, "the end of a session")
        self.assertEqual([row["identity"] for row in house.gateway.status()], [self.ben])
        await self.send(f"{self.ann}@home.test", "a@far.test")
        await until(lambda: self.relay.outbound, "the mail")
        self.assertEqual(self.relay.outbound[0].identity, self.ben)

    async def test_a_reload_disturbs_no_session(self) -> None:
        house = self.open(self.url)
        await self.connected()
        house.configure(self.configured(self.url, 'unattested = "accept"\n'))
        await self.connected()
        self.assertEqual(self.relay.logins, 2)
        other = OriginalRelay(reactor)
        house.configure(self.configured(self.url_of(self.listen_with(other))))
        await until(lambda: other.logins == 2, "sessions with the other relay")
        await until(lambda: not self.relay.sessions, "the end of the old ones")
