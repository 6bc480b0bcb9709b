"""A gateway in the tests' own process: the whole house, without its listeners."""

from __future__ import annotations

import email
from email.message import Message as Parsed
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet import reactor as twisteds
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from protege_mta.compose import House
from protege_mta.config.toml import load
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.identity import Identity, identity_of
from protege_mta.model.reply import Reply
from protege_mta.recovery import recover
from protege_mta.transport.submit import Submission
from protege_mta.transport.unix import Credentials

WAIT_S = 10.0

reactor: Any = twisteds
"""As it is: its interfaces are too narrow to be of use here."""

TOP = """
mode = "relay"
hostname = "gw.home.test"
state_dir = "state"
run_dir = "run"

[domains."home.test"]
deliver = "maildir"
maildir = "mail/{domain}/{local_part}"
recipients = ["*"]

[relay]
url = "URL"
personas = "personas"
reconnect_base_s = 0.05
reconnect_max_s = 0.2
ping_s = 5
"""

BOTTOM = """
[limits]
free_octets = 0
free_inodes = 0

[workers]
delivery = "main"

[retry]
first_s = 1
max_interval_s = 1
"""


def persona(folder: Path, seed: int) -> Identity:
    """A persona's folder with a key made of one octet."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    identity = identity_of(key.public_key().public_bytes_raw())
    folder = folder / "personas" / f"p{seed}"
    folder.mkdir(parents=True)
    path = folder / "passport.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return identity


async def until(found: Any, what: str, wait_s: float = WAIT_S) -> Any:
    """Ask again and again until there is something true."""
    steps = int(wait_s / 0.02)
    for _ in range(steps):
        value = found()
        if value:
            return value
        await deferLater(reactor, 0.02)
    raise AssertionError(f"waited {wait_s:g} s in vain for {what}")


class GatewayCase(TestCase):
    """:ivar ann: the first persona's identity.  :ivar ben: the second's."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.ann = persona(self.folder, 1)
        self.ben = persona(self.folder, 2)
        self.house: House | None = None

    def configured(self, url: str, tables: str = "") -> Any:
        path = self.folder / "protege-mta.toml"
        path.write_text(TOP.replace("URL", url) + tables + BOTTOM)
        return load(path)

    def open(self, url: str, tables: str = "") -> House:
        """Start the house, and end it after the test."""
        settings = self.configured(url, tables)
        settings.state_dir.mkdir(0o700, exist_ok=True)
        house = self.house = House(reactor, settings)
        self.addCleanup(self.close)
        recover(house)
        house.gateway.start()
        return house

    def close(self) -> Deferred[Any]:
        """As the service does it."""
        house, self.house = self.house, None
        if house is None:
            return DeferredList([])

        async def close() -> None:
            stopping = house.scheduler.stop()
            await DeferredList([house.gateway.stop(), stopping])
            for one in (
                *(transport.close for transport in house.transports.values()),
                house.resolver.close,
                house.enrolment.leave,
                house.spool.close,
                house.database.close,
                house.journal.close,
                house.signers.stop,
                house.strangers.stop,
                house.register.stop,
            ):
                await maybeDeferred(one)

        return Deferred.fromCoroutine(close())

    async def send(self, sender: str, *recipients: str, content: bytes = b"") -> Reply:
        """Hand in a message, as sendmail does it."""
        assert self.house is not None
        content = content or b"From: <%b>\r\nSubject: out\r\n\r\nhello\r\n" % sender.encode()
        envelope = Envelope(
            Address(sender), tuple(Recipient(Address(recipient)) for recipient in recipients)
        )
        opened = self.house.entrance.submission(Credentials(1, 1000, 1000), Submission(envelope, 0))
        assert not isinstance(opened, Reply), opened
        opened.write(content)
        return await opened.finish()

    async def empty(self) -> None:
        """Nothing is queued any more."""
        house = self.house
        assert house is not None
        await until(lambda: not house.spool.ids(), "an empty queue")

    def mail(self, local_part: str) -> list[Parsed]:
        """What lies in a mailbox of ``home.test``."""
        folder = self.folder / "mail" / "home.test" / local_part / "new"
        return [email.message_from_bytes(path.read_bytes()) for path in sorted(folder.glob("*"))]

    async def mail_of(self, local_part: str, count: int = 1) -> list[Parsed]:
        def enough() -> list[Parsed] | None:
            found = self.mail(local_part)
            return found if len(found) >= count else None

        found: list[Parsed] = await until(enough, f"{count} messages for {local_part}")
        return found

    def listen_with(self, factory: Any, port: int = 0, context: Any = None) -> Any:
        """A listening port on loopback, closed after the test.

        :param context: for TLS.
        """
        listen = reactor.listenTCP if context is None else reactor.listenSSL
        more = () if context is None else (context,)
        found = listen(port, factory, *more, interface="127.0.0.1")
        self.addCleanup(found.stopListening)
        return found

    def url_of(self, port: Any) -> str:
        return f"ws://127.0.0.1:{port.getHost().port}/ws"

    def states(self) -> list[str]:
        assert self.house is not None
        return [row["state"] for row in self.house.gateway.status()]

    async def connected(self) -> None:
        await until(lambda: set(self.states()) == {"connected"}, "sessions")
