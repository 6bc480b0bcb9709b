"""A relay server, and agents that come to it.

agents  -- WebSocket, plain and TLS -->  protege-mta  -- smarthost -->  smtp-sink, which keeps it
   ^------------- /ws ----------------------|  |  |--> dkimpy
                                            |  '--> Maildir
clients -- SMTP ----------------------------'
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import ssl
import time
import urllib.request
from contextlib import ExitStack
from typing import Any, ClassVar, Final

import dkim  # type: ignore[import-untyped]

from protege_mta.testing.agents import BINARY, Closed, NotUpgraded, TunnelAgent
from protege_mta.testing.peers import SmtpSink

from .service import Service, ServiceTestCase, send, until

TABLES: Final = """
[[listener]]
name = "https"
kind = "http"
port = 0
tls = true
trusted_proxies = ["127.0.0.0/8"]

[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }

[domains."agents.test"]
deliver = "tunnel"

[dkim."agents.test"]
selectors = [{ name = "rsa", private_key = "made/keys/rsa.pem" }]

[tunnel_server]
enabled = true
identities = "MODE"
attestation = { key_id = "relay-primary", private_key = "made/keys/ed25519.pem" }
auth_per_ip_per_minute = 0
"""


class RelayServerTestCase(ServiceTestCase):
    """:cvar mode: who may come."""

    mode: ClassVar[str] = "listed"
    sink: ClassVar[SmtpSink]
    records: ClassVar[dict[str, str]]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.sink = SmtpSink(keeps=True)
        stack.callback(cls.sink.stop)
        tables = TABLES.replace("PORT", str(cls.sink.port)).replace("MODE", cls.mode)
        cls.service = service = Service(tables)
        stack.callback(service.close)
        made = service.cli("init", "made", "--domain", "agents.test")
        if made.returncode:
            raise RuntimeError(made.stderr.decode())
        shown = json.loads(service.cli("dkim", "show", "--json").stdout)
        cls.records = {one["name"].removesuffix("."): one["value"] for one in shown}
        service.start()

    def tunnel(self, *arguments: str) -> str:
        ran = self.service.cli("tunnel", *arguments)
        self.assertEqual(ran.returncode, 0, ran.stderr.decode())
        return ran.stdout.decode()

    def agent(self, *options: str) -> TunnelAgent:
        """One that may come, where one has to be listed for that."""
        agent = TunnelAgent()
        self.addCleanup(agent.close)
        if self.mode == "listed":
            self.tunnel("allow", agent.identity, *options)
        return agent

    def connect(self, agent: TunnelAgent, **what: Any) -> None:
        agent.connect(self.service.port("http"), **what)

    def logged_in(self, agent: TunnelAgent, **what: Any) -> dict[str, Any]:
        """Log in, as soon as the service knows of the agent."""

        def attempt() -> dict[str, Any] | None:
            self.connect(agent)
            said = agent.log_in(**what)
            return said if said["type"] == "auth_ok" else None

        return until(attempt, "login", 5)

    def listed(self, agent: TunnelAgent) -> dict[str, Any] | None:
        rows = json.loads(self.tunnel("list", "--json"))
        return next((row for row in rows if row["key"] == agent.identity), None)

    def kept(self, subject: str) -> bytes:
        wanted = f"\nSubject: {subject}\n".encode()
        found = until(
            lambda: next((one for one in self.sink.captured() if wanted in one), None), subject
        )
        _, _, rest = found.partition(b" +0000 (UTC)\n")
        return rest.removesuffix(b"\n").replace(b"\n", b"\r\n")

    def message(self, author: str, subject: str) -> bytes:
        return (
            f"From: {author}\nTo: b@far.test\nBcc: c@far.test\nSubject: {subject}\n\nbody\n"
        ).encode()


class ListedTests(RelayServerTestCase):
    """``identities = "listed"``."""

    def test_mail_of_an_agent(self) -> None:
        """Arrives signed, with a trace of where it came from, and without its Bcc."""
        agent = self.agent("--tenant", "acme")
        ok = self.logged_in(agent)
        self.assertEqual(
            [ok[key] for key in ("publicKeyBase32", "emailLocalPart", "sessionRole")],
            [agent.identity, agent.identity, "inbound"],
        )
        address = f"{agent.identity}@agents.test"
        said = agent.send(address, "b@far.test", self.message(f"A <{address}>", "from an agent"))
        self.assertEqual((said["type"], said["status"]), ("relay_delivery_result", "sent"))
        octets = self.kept("from an agent")
        verifier = dkim.DKIM(octets)
        self.assertTrue(
            verifier.verify(
                dnsfunc=lambda name, timeout=5: self.records[
                    name.decode().removesuffix(".")
                ].encode()
            )
        )
        self.assertIn(
            b"Received: from [127.0.0.1] ([127.0.0.1])\r\n\tby mx.local.test with WSS", octets
        )
        self.assertNotIn(b"c@far.test", octets)
        event = self.service.event("received", identity=agent.identity)
        self.assertEqual((event["source"], event["tenant"]), ("tunnel", "acme"))
        self.assertEqual(self.service.fate("b@far.test")["event"], "delivered")

    def test_over_tls_and_behind_a_proxy(self) -> None:
        """The certificate is our own; the address is the one that the proxy tells."""
        agent = self.agent()
        self.logged_in(agent)
        agent.close()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.service.folder / "state" / "tls" / "cert.pem")
        agent.connect(
            self.service.port("https"), tls=context, fields={"X-Forwarded-For": "192.0.2.77"}
        )
        self.assertEqual(agent.log_in()["type"], "auth_ok")
        row = self.listed(agent)
        assert row is not None
        self.assertEqual((row["is_connected"], row["peer_address"]), (True, "192.0.2.77"))
        url = f"https://localhost:{self.service.port('https')}/health"
        with urllib.request.urlopen(url, context=context, timeout=10) as response:
            self.assertEqual(json.load(response), {"status": "ok"})

    def test_to_a_mailbox_of_ours_and_to_another_agent(self) -> None:
        one, other = self.agent(), self.agent("--alias", "other")
        self.logged_in(one)
        self.logged_in(other)
        address = f"{one.identity}@agents.test"
        for recipient in ("office@local.test", "other@agents.test"):
            said = one.send(address, recipient, self.message(address, f"for {recipient}"))
            self.assertEqual(said["status"], "sent", said)
        self.assertIn(b"for office@local.test", self.service.wait_for_mail("office")[0])
        kinds: list[tuple[int, bytes]] = [other.read() for _ in range(3)]
        self.assertEqual({kind for kind, _ in kinds}, {BINARY})
        start = json.loads(kinds[0][1][kinds[0][1].index(b"{") :])
        self.assertEqual(start["rcptTo"], "other@agents.test")
        self.assertEqual(start["authAttestation"]["keyId"], "relay-primary")
        self.assertIn(b"for other@agents.test", kinds[1][1])

    def test_nobody_else_is_spoken_for(self) -> None:
        """``failed``, and nothing leaves."""
        agent = self.agent("--alias", "me")
        self.logged_in(agent)
        own = f"{agent.identity}@agents.test"
        for sender, author in (
            ("ceo@bank.test", own),
            (own, "ceo@bank.test"),
            (own, f"{own}, ceo@bank.test"),
            ("", "ceo@bank.test"),
            (f"{TunnelAgent().identity}@agents.test", own),
        ):
            said = agent.send(sender, "b@far.test", self.message(author, "forged"))
            self.assertEqual(said["status"], "failed")
            self.assertIn("5.7.1", said["error"])
        for author in ("me@agents.test", own):
            said = agent.send("", "b@far.test", self.message(author, f"own {author}"))
            self.assertEqual(said["status"], "sent", said)
            self.kept(f"own {author}")
        self.assertFalse(any(b"forged" in one for one in self.sink.captured()))

    def test_unlisted_key(self) -> None:
        agent = TunnelAgent()
        self.connect(agent)
        said = agent.log_in()
        self.assertEqual(said, {"type": "auth_error", "code": "identity_not_allowed"})
        with self.assertRaises(Closed) as caught:
            agent.read()
        self.assertEqual(caught.exception.code, 4401)

    def test_revoked(self) -> None:
        """The session ends within a second, and there is no other."""
        agent = self.agent()
        self.logged_in(agent)
        row = self.listed(agent)
        assert row is not None
        self.assertTrue(row["is_connected"])
        self.tunnel("revoke", agent.identity)
        began_at = time.monotonic()
        with self.assertRaises(Closed) as caught:
            agent.read()
        self.assertLess(time.monotonic() - began_at, 1.5)  # a busy machine may take its time
        self.assertEqual(
            (caught.exception.code, caught.exception.reason), (4401, "identity_not_allowed")
        )
        self.connect(agent)
        self.assertEqual(agent.log_in()["code"], "identity_not_allowed")
        self.assertIsNone(self.listed(agent))

    def test_newer_session_displaces_the_older(self) -> None:
        agent = self.agent()
        self.logged_in(agent)
        second = TunnelAgent(agent.key.private_bytes_raw())
        self.addCleanup(second.close)
        self.assertIsNotNone(self.logged_in(second)["replacedSocketId"])
        with self.assertRaises(Closed) as caught:
            agent.read()
        self.assertEqual(caught.exception.code, 4400)

    def test_reliable_session(self) -> None:
        """Hears what became of its message; the same request twice is one message."""
        agent = self.agent()
        ok = self.logged_in(agent, is_reliable=True)
        self.assertEqual(ok["reliable"]["version"], 1)
        address = f"{agent.identity}@agents.test"
        content = self.message(address, "reliable").replace(b"\n", b"\r\n")
        end = json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode()
        heard: list[dict[str, Any]] = []
        for _ in range(2):
            stream_id = agent.start(address, "r@far.test", requestId="r-1", size=len(content))
            agent.chunk(stream_id, content)
            agent.end(stream_id, end)
            while not any(one["type"] == "stream_result" for one in heard):
                heard.append(agent.heard())
            result = next(one for one in heard if one["type"] == "stream_result")
            self.assertEqual((result["status"], result["requestId"]), ("queued", "r-1"), heard)
            heard.remove(result)
        while not any(one["type"] == "delivery_state" for one in heard):
            heard.append(agent.heard())
        [state] = [one for one in heard if one["type"] == "delivery_state"]
        self.assertEqual(
            (state["requestId"], state["state"], state["code"]), ("r-1", "sent", "2.0.0")
        )
        self.kept("reliable")
        self.assertEqual(sum(b"Subject: reliable" in one for one in self.sink.captured()), 1)

    def test_what_is_not_the_tunnel(self) -> None:
        agent = self.agent()
        for target in ("/ws/", "/ws?x=1", "/WS", "/", "/health"):
            with self.assertRaises(NotUpgraded, msg=target):
                self.connect(agent, target=target)
        url = f"http://127.0.0.1:{self.service.port('http')}/ws"
        with self.assertRaisesRegex(Exception, "404"):
            urllib.request.urlopen(url, timeout=10)

    def test_figures(self) -> None:
        agent = self.agent()
        self.logged_in(agent)
        status = json.loads(self.service.cli("status", "--json").stdout)["tunnel"]
        self.assertTrue(status["is_enabled"])
        self.assertGreaterEqual(status["sessions"], 1)
        url = f"http://127.0.0.1:{self.service.port('http')}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            text = response.read().decode()
        self.assertRegex(text, r"protege_mta_tunnel_sessions [1-9]")
        self.assertRegex(text, r'protege_mta_tunnel_logins_total\{result="succeeded"\} [1-9]')

    def test_reload_keeps_sessions(self) -> None:
        agent = self.agent()
        self.logged_in(agent)
        self.service.reload()
        address = f"{agent.identity}@agents.test"
        said = agent.send(address, "desk@local.test", self.message(address, "after a reload"))
        self.assertEqual(said["status"], "sent", said)


class AnyTests(RelayServerTestCase):
    """``identities = "any"``, and the end of the service."""

    mode = "any"

    def test_anybody_as_nobody_else(self) -> None:
        agent = self.agent()
        self.logged_in(agent)
        address = f"{agent.identity}@agents.test"
        self.assertEqual(
            agent.send(address, "b@far.test", self.message(address, "anybody"))["status"], "sent"
        )
        said = agent.send("a@bank.test", "b@far.test", self.message("a@bank.test", "forged"))
        self.assertEqual(said["status"], "failed")
        self.tunnel("revoke", agent.identity)
        with self.assertRaises(Closed):
            agent.read()
        row = self.listed(agent)
        assert row is not None
        self.assertTrue(row["is_revoked"])

    def test_stop_says_goodbye(self) -> None:
        """Who was here is known afterwards, without the service and with it."""
        with ExitStack() as stack:
            service = Service(TABLES.replace("PORT", "25").replace("MODE", "any"))
            stack.callback(service.close)
            service.cli("init", "made", "--domain", "agents.test")
            service.start()
            agent = TunnelAgent()
            stack.callback(agent.close)
            agent.connect(service.port("http"))
            self.assertEqual(agent.log_in()["type"], "auth_ok")
            silent = TunnelAgent()
            stack.callback(silent.close)
            silent.connect(service.port("http"))
            before = time.time()
            os.kill(service.pid, signal.SIGTERM)
            for one in (agent, silent):
                with self.assertRaises(Closed) as caught:
                    one.read()
                self.assertEqual(caught.exception.code, 1001)
            service.wait()
            self.assertLess(time.time() - before, 15)
            rows = json.loads(service.cli("tunnel", "list", "--json").stdout)
            self.assertEqual([row["key"] for row in rows], [agent.identity])
            self.assertFalse(rows[0]["is_connected"])
            self.assertGreaterEqual(rows[0]["last_seen_at"], before - 5)
            # Mail may wait for it now, and for nobody who never came.
            service.start()
            port = service.port("smtp")
            send(port, "a@far.test", f"{agent.identity}@agents.test", b"Subject: x\r\n\r\n")
            with self.assertRaisesRegex(Exception, "45[01]"):
                send(port, "a@far.test", f"{silent.identity}@agents.test", b"Subject: x\r\n\r\n")
