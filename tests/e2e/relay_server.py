"""A relay server with domains of agents, and a smarthost that keeps what leaves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protege_mta.testing.peers import SmtpSink

from .service import TOP, Service

TABLES: Final = """
[domains."agents.test"]
deliver = "tunnel"

[domains."passing.test"]
deliver = "tunnel"
tunnel = { store = false }

[tunnel_server]
enabled = true
identities = "any"
send_per_hour = 0
attestation = { key_id = "relay-primary", private_key = "attest.pem" }

[outbound]
route = "smarthost"
smarthost = { host = "127.0.0.1", port = PORT, tls = "none" }

[dkim."agents.test"]
selectors = [{ name = "ed25519", private_key = "attest.pem" }]

[retry]
first_s = 0.5
"""


class RelayServer:
    """:ivar sink: where mail that leaves ends.
    :ivar attestation_key: by which agents check its word.
    """

    def __init__(
        self,
        stack: ExitStack,
        tables: str = "",
        *,
        top: str = TOP,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.sink = SmtpSink(keeps=True)
        stack.callback(self.sink.stop)
        self.service = Service(
            TABLES.replace("PORT", str(self.sink.port)) + tables, top=top, environment=environment
        )
        stack.callback(self.service.close)
        key = Ed25519PrivateKey.generate()
        self.attestation_key: Ed25519PublicKey = key.public_key()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.service.folder / "attest.pem").write_bytes(pem)

    @property
    def url(self) -> str:
        """Where agents come to; another one after each start."""
        return f"ws://127.0.0.1:{self.service.port('http')}/ws"
