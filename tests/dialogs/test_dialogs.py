"""The server keeps to every dialogue written down beside this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.doors import FakeDoor
from protege_mta.testing.smtp_dialog import Client
from protege_mta.wire.settings import ServerSettings

FOLDER = Path(__file__).parent
ORDINARY = ServerSettings("mx.test", message_octets=1000, recipients=3, bad_commands=5)

AUTH = attrs.evolve(ORDINARY, mechanisms=("SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"))
SETTINGS = {"auth": AUTH, "submission": attrs.evolve(AUTH, is_submission=True)}
"""By the word that a dialogue's name begins with."""

Cut = Callable[[bytes], Iterator[bytes]]


def in_one(octets: bytes) -> Iterator[bytes]:
    yield octets


def octet_by_octet(octets: bytes) -> Iterator[bytes]:
    for at in range(len(octets)):
        yield octets[at : at + 1]


def escaped(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")


class DialogTests(SynchronousTestCase):
    def replay(self, path: Path, cut: Cut) -> None:
        door = FakeDoor()
        client = Client(door, SETTINGS.get(path.name.split("-")[0], ORDINARY))
        group = b""
        heard = client.hear()
        taken = 0
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            where = f"{path.name}:{number} ({cut.__name__})"
            kind, text = line[:2], line[3:]
            if kind not in ("C:", "C<") and group:
                heard += client.say(group, cut=cut)
                group = b""
            if kind == "C:":
                group += text.encode("utf-8") + b"\r\n"
            elif kind == "C<":
                group += escaped(text)
            elif kind == "S:":
                said, _, heard = heard.partition(b"\r\n")
                self.assertEqual(said.decode("ascii"), text, where)
            elif kind == "M:":
                self.assertEqual(door.messages[taken].content, escaped(text), where)
                taken += 1
            elif kind == "X:":
                self.assertTrue(client.transport.disconnecting, where)
            else:
                self.assertTrue(not line or line.startswith("#"), where)
        self.assertEqual((group, heard), (b"", b""), f"{path.name}: left over")
        self.assertEqual(len(door.messages), taken, f"{path.name}: messages")

    def test_every_dialogue_in_groups(self) -> None:
        paths = sorted(FOLDER.glob("*.txt"))
        self.assertGreater(len(paths), 5)
        for path in paths:
            self.replay(path, in_one)

    def test_every_dialogue_octet_by_octet(self) -> None:
        for path in sorted(FOLDER.glob("*.txt")):
            self.replay(path, octet_by_octet)
