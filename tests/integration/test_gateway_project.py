"""A Protege project that runs while its personas come, go and change, before an original relay."""

from __future__ import annotations

from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.logger import capturedLogs

from protege_mta.config.gateway_json import load
from protege_mta.config.model import Workers
from protege_mta.testing.original_relay import OriginalRelay
from tests.unit.projects import RELAY, ProjectFolder, keys

from .gateways import GatewayCase, reactor, until

CONTENT = b"From: x@far.test\r\nSubject: in\r\n\r\nline\r\n"


class ProjectTests(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.relay = OriginalRelay(reactor)
        self.url = self.url_of(self.listen_with(self.relay))
        self.project = ProjectFolder.made(
            self.folder / "project",
            {
                "mailDomain": "home.test",
                "port": 0,
                "relay": {**RELAY, "relayWsUrl": self.url, "reconnectBaseDelayMs": 50},
            },
        )
        self.project.persona(0)

    def configured(self, url: str, tables: str = "") -> Any:
        return attrs.evolve(load(self.project.path), workers=Workers(delivery="main"))

    async def arrives(self, number: int, address: str = "") -> None:
        """Mail for a persona."""
        key = keys()[number]
        self.relay.deliver(
            "x@far.test", address or f"{key.text}@home.test", CONTENT, identity=key.text
        )
        box = self.project.path / "memory" / key.id / "maildir/new"
        await until(lambda: box.is_dir() and list(box.iterdir()), f"mail of {key.id}")

    async def test_a_persona_that_is_added(self) -> None:
        """Its mailbox is there when its session is; nothing of gateway.json is read for that."""
        house = self.open(self.url)
        await self.connected()
        self.project.persona(1, aliases=["sales"])
        self.project.write("configs/gateway.json", "{")
        await house.gateway.look()
        self.assertEqual(len(self.states()), 2)
        await self.connected()
        await self.arrives(1, "Sales@home.test")

    async def test_what_cannot_be_put_into_force_is_tried_again(self) -> None:
        """All of it waits, and nothing that is there is lost for it."""
        public = Ed25519PrivateKey.generate().public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        path = self.project.write("relay.pem", pem)
        trusted = [{"key_id": "r1", "public_key_path": "relay.pem"}]
        self.project.write("configs/security.json", {"gateway_auth": {"trusted_relays": trusted}})
        house = self.open(self.url)
        await self.connected()
        path.unlink()
        self.project.persona(1)
        with capturedLogs() as logged:
            await house.gateway.look()
        self.assertTrue(any("stays as it was" in str(each.get("log_format")) for each in logged))
        self.assertEqual(self.states(), ["connected"])
        await self.arrives(0)
        path.write_bytes(pem)
        await house.gateway.look()
        await self.connected()
        await self.arrives(1)

    async def test_a_persona_that_cannot_be_read(self) -> None:
        """Is told of once, and has its mail nevertheless."""
        house = self.open(self.url)
        await self.connected()
        self.project.write(f"personas/{keys()[0].id}/persona.json", '{"aliases": [')
        with capturedLogs() as logged:
            for _ in range(3):
                await house.gateway.look()
        complaints = [each for each in logged if "wanted JSON" in str(each.get("complaint"))]
        self.assertEqual(len(complaints), 1)
        await self.arrives(0)
