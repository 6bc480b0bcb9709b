"""A Protege project as its scaffold leaves it, behind a relay server of ours.

SMTP client  -->  protege-mta, a relay server  -- WebSocket -->  protege-mta run --project
                                                                   |        --> memory/*/maildir
smtp-sink  <-- smarthost --  relay server  <-- WebSocket --  project's listener  <--  a persona
"""

from __future__ import annotations

import json
import shutil
import smtplib
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.projects import ProjectFolder, keys

from .relay_server import RelayServer
from .service import PROGRAM, WAIT_S, Service, send, until
from .submission import PASSWORD, add_account

STRANGER: Final = "alice@example.net"
LOOK_S: Final = 10
"""How often a service looks for personas; see the gateway."""


class Project(Service):
    """:class:`Service` over the files of a project."""

    def __init__(self) -> None:
        super().__init__(top="")
        self.config.unlink()
        self.config = self.folder / "project"
        self.files = ProjectFolder.made(self.config)

    def command(self) -> list[str]:
        return [str(PROGRAM), "run", "--project", str(self.config)]

    @property
    def state(self) -> Path:
        return self.config / ".protege-mta"

    def choose(self, **members: Any) -> None:
        """As somebody edits gateway.json."""
        self.files.write("configs/gateway.json", {**self.files.json(), **members})

    def box(self, persona: Path) -> list[bytes]:
        """A persona's mail."""
        folder = self.config / "memory" / persona.name / "maildir/new"
        return [path.read_bytes() for path in sorted(folder.glob("*"))]


class ProjectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.relay = RelayServer(self.stack)
        self.relay.service.start()
        self.project = Project()
        self.stack.callback(self.project.close)
        self.project.choose(port=0)

    def command(self, *words: str) -> dict[str, Any]:
        """What one of the commands says, in JSON."""
        ran = subprocess.run(
            [str(PROGRAM), *words, "--json"], capture_output=True, timeout=60, check=False
        )
        self.assertEqual(ran.returncode, 0, ran.stderr.decode())
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def set_up(self, *words: str) -> Path:
        """Have the project behind the relay.  :return: the folder of its first persona."""
        said = self.command(
            *(words or ("setup", "--outbound", "relay", "--non-interactive")),
            *("--relay-ws-url", self.relay.url, "--mail-domain", "agents.test"),
            *("--path", str(self.project.config)),
        )
        return self.project.config / "personas" / str(said["personaId"])

    def start(self) -> None:
        self.project.start()
        self.wait_for_sessions(len(list((self.project.config / "personas").glob("[!.]*"))))

    def wait_for_sessions(self, count: int, timeout_s: float = WAIT_S) -> None:
        def connected() -> bool:
            rows = self.command("status", "--config", str(self.project.config))["relay"]
            return [row["state"] for row in rows] == ["connected"] * count

        until(connected, f"{count} sessions", timeout_s)

    def address(self, persona: Path) -> str:
        found: str = json.loads((persona / "persona.json").read_text())["emailAddress"]
        return found

    def mail(self, persona: Path, subject: str, to: str = "") -> bytes:
        """A message from a stranger, as it lies in the persona's Maildir."""
        recipient = to or self.address(persona)
        content = f"From: {STRANGER}\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\nhello\r\n"
        send(self.relay.service.port("smtp"), STRANGER, recipient, content.encode())

        def there() -> bytes | None:
            wanted = f"\nSubject: {subject}\n".encode()
            return next((one for one in self.project.box(persona) if wanted in one), None)

        try:
            return until(there, subject)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.project.log_tail()}") from error

    def left(self, subject: str) -> bytes:
        """A message that has left the relay."""
        wanted = f"\nSubject: {subject}\n".encode()
        return until(
            lambda: next((one for one in self.relay.sink.captured() if wanted in one), None),
            subject,
        )

    def letter(self, author: str, subject: str) -> bytes:
        return (
            f"From: {author}\r\nTo: bob@far.test\r\nSubject: {subject}\r\n\r\nhello\r\n"
        ).encode()

    # --- mail ------------------------------------------------------------------------------------

    def test_dev(self) -> None:
        """``setup`` makes the persona; loopback sends without a password, through the relay."""
        persona = self.set_up()
        address = self.address(persona)
        self.assertRegex(address, r"^[a-z2-7]{52}@agents\.test$")
        self.start()
        self.assertIn(b"\n\tby mx.local.test with ESMTP id ", self.mail(persona, "in"))
        content = self.letter(f"Me <{address}>", "out")
        send(self.project.port("smtp"), address, "bob@far.test", content)
        octets = self.left("out")
        self.assertIn(b"\nDKIM-Signature: v=1; a=ed25519-sha256;", octets)
        self.assertIn(b" with WSS id ", octets)
        self.assertEqual(self.relay.service.fate("bob@far.test")["identity"], address[:52])

    def test_default(self) -> None:
        """``relay bootstrap`` on a project with a persona; only accounts may send."""
        self.project.choose(mode="default")
        persona = self.project.files.persona(0)
        self.assertEqual(self.set_up("relay", "bootstrap"), persona)
        address = f"{keys()[0].text}@agents.test"
        add_account(self.project, "me", "--allowed-from", address)
        self.start()
        self.mail(persona, "in")
        context = ssl.create_default_context(cafile=str(self.project.state / "tls" / "cert.pem"))
        context.check_hostname = False  # it is our own, for another name
        with smtplib.SMTP("127.0.0.1", self.project.port("submission"), timeout=30) as client:
            client.starttls(context=context)
            client.ehlo()
            self.assertEqual(client.mail(address)[0], 530)
            client.login("me", PASSWORD)
            client.sendmail(address, ["bob@far.test"], self.letter(address, "out"))
        self.left("out")

    def test_another_agents_address_is_not_ours_to_use(self) -> None:
        """The local listener takes what loopback brings; the relay does not, and it comes back."""
        persona = self.set_up()
        self.start()
        other = f"{keys()[1].text}@agents.test"
        address = self.address(persona)
        send(self.project.port("smtp"), address, "bob@far.test", self.letter(other, "forged"))
        [report] = until(lambda: self.project.box(persona), "the report")
        self.assertIn(b"5.7.1", report)
        self.assertEqual(self.relay.sink.captured(), [])

    # --- personas that come and go ---------------------------------------------------------------

    def test_persona_that_is_added(self) -> None:
        """Has its session and its mailbox without a reload; a half-made one has neither."""
        first = self.set_up()
        self.start()
        half_made = self.project.config / "personas" / ".new-persona"
        added = self.project.files.persona(1, emailAddress=f"{keys()[1].text}@agents.test")
        half_made.mkdir()
        shutil.copy(self.project.files.persona(2) / "passport.key", half_made)
        shutil.rmtree(self.project.config / "personas" / keys()[2].id)
        self.wait_for_sessions(2, WAIT_S + LOOK_S)
        self.mail(added, "for the new one")
        self.mail(first, "for the old one")
        address = self.address(added)
        send(self.project.port("smtp"), address, "bob@far.test", self.letter(address, "its own"))
        self.left("its own")
        self.assertEqual(
            self.relay.service.event("received", subject="its own")["identity"], keys()[1].text
        )
        # Between themselves nothing leaves the machine.
        send(self.project.port("smtp"), address, self.address(first), self.letter(address, "near"))
        until(lambda: any(b"\nSubject: near\n" in one for one in self.project.box(first)), "near")
        self.assertFalse([one for one in self.relay.service.told() if one.get("subject") == "near"])

    def test_mail_waits_for_who_is_away(self) -> None:
        """The relay keeps it while the gateway is down."""
        persona = self.set_up()
        self.start()
        self.mail(persona, "before")
        self.project.terminate()
        recipient = self.address(persona)
        content = self.letter(STRANGER, "meanwhile")
        send(self.relay.service.port("smtp"), STRANGER, recipient, content)
        self.start()
        until(lambda: len(self.project.box(persona)) == 2, "what waited")
