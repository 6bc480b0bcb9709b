"""Our gateway and our relay server, two processes, and what a kill costs: nothing, and no copies.

client -- SMTP -->  relay server  <-- WebSocket --  gateway  --> Maildirs of home.test
Maildirs of local.test <--|                            ^-- sendmail
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from protege_mta.model.identity import identity_of

from .service import Service, ServiceTestCase, send, until

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
IDENTITY: Final = identity_of(KEY.public_key().public_bytes_raw())

RELAY: Final = """
[domains."home.test"]
deliver = "tunnel"

[tunnel_server]
enabled = true

[retry]
first_s = 1
max_interval_s = 2
"""

GATEWAY: Final = """
mode = "relay"
hostname = "gw.home.test"
state_dir = "state"
run_dir = "run"

[domains."home.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["*"]

[relay]
url = "ws://127.0.0.1:PORT/ws"
reconnect_base_s = 0.1
reconnect_max_s = 0.5

[relay.identity]
agent = "agent.pem"

[policy]
authenticate = false

[limits]
free_octets = 0
free_inodes = 0

[retry]
first_s = 1
max_interval_s = 2
"""
CONTENT: Final = "From: <{}>\r\nSubject: {}\r\n\r\nhello\r\n"


class GatewayTests(ServiceTestCase):
    gateway: ClassVar[Service]

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        cls.service = relay = Service(RELAY)
        stack.callback(relay.close)
        (relay.folder / "identities.toml").write_text(f'[[identity]]\nkey = "{IDENTITY}"\n')
        relay.start()
        cls.gateway = gateway = Service(top=GATEWAY.replace("PORT", str(relay.port("http"))))
        stack.callback(gateway.close)
        pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (gateway.folder / "agent.pem").write_bytes(pem)
        gateway.start()
        cls.connected()

    @classmethod
    def connected(cls) -> None:
        until(lambda: cls.session()["state"] == "connected", "the session")

    @classmethod
    def session(cls) -> dict[str, Any]:
        """What ``status`` of the gateway says of its one session."""
        (row,) = json.loads(cls.gateway.cli("status", "--json").stdout)["relay"]
        found: dict[str, Any] = row
        return found

    def subjects(self, folder: Path) -> list[str]:
        found = []
        for path in folder.glob("*"):
            for line in path.read_text().splitlines():
                if line.startswith("Subject: "):
                    found.append(line.removeprefix("Subject: "))
                    break
        return sorted(found)

    def inbox(self) -> list[str]:
        return self.subjects(self.gateway.folder / "mail/home.test" / IDENTITY / "new")

    def outbox(self, name: str) -> list[str]:
        return self.subjects(self.service.folder / "mail/local.test" / name / "new")

    def test_both_ways(self) -> None:
        content = CONTENT.format("x@far.test", "both in").encode()
        send(self.service.port(), "x@far.test", f"{IDENTITY}@home.test", content)
        until(lambda: "both in" in self.inbox(), "the mail")
        self.submit("both out", "both")
        until(lambda: self.outbox("both") == ["both out"], "the answer")
        self.assertTrue(self.session()["is_reliable"])

    def submit(self, subject: str, name: str) -> None:
        done = self.gateway.cli(
            "sendmail",
            "-f",
            f"{IDENTITY}@home.test",
            f"{name}@local.test",
            stdin=CONTENT.format(f"{IDENTITY}@home.test", subject).replace("\r\n", "\n").encode(),
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_kills_of_the_gateway_cost_nothing(self) -> None:
        wanted = sorted(f"in {n:03d}" for n in range(200))
        for number, subject in enumerate(wanted):
            content = CONTENT.format("x@far.test", subject).encode()
            send(self.service.port(), "x@far.test", f"{IDENTITY}@home.test", content)
            if number % 50 == 25:
                self.gateway.kill()
                time.sleep(0.1)
                self.gateway.start()

        def ours() -> list[str]:
            return [each for each in self.inbox() if each.startswith("in ")]

        until(lambda: len(ours()) >= 200, "all of it", 60)
        time.sleep(2)
        self.assertEqual(ours(), wanted)

    def test_kills_of_the_relay_cost_nothing(self) -> None:
        wanted = [f"out {n:02d}" for n in range(12)]
        for number, subject in enumerate(wanted):
            self.submit(subject, "sink")
            if number % 4 == 2:
                port = self.service.port("http")
                self.service.kill()
                text = self.service.config.read_text()
                self.service.config.write_text(
                    text.replace('kind = "http"\nport = 0', f'kind = "http"\nport = {port}')
                )
                self.service.start()
        until(lambda: len(self.outbox("sink")) >= 12, "all of it", 60)
        time.sleep(2)
        self.assertEqual(self.outbox("sink"), wanted)
