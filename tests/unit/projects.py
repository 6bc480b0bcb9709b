"""Protege projects in temporary folders, as the original's scaffold leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from .console import Ran, run

VECTORS: Final = Path(__file__).parents[1] / "corpora/tunnel/identities.json"

SCAFFOLD: Final = """\
{
  "mode": "dev",
  "host": "127.0.0.1",
  "port": 2525,
  "mailDomain": "localhost",
  "transport": {
    "host": "127.0.0.1",
    "port": 1025,
    "secure": false
  },
  "attachmentLimits": {
    "maxAttachmentBytes": 10485760,
    "maxAttachmentsPerMessage": 10,
    "maxTotalAttachmentBytes": 26214400
  }
}"""

RELAY: Final[dict[str, Any]] = {
    "enabled": True,
    "relayWsUrl": "wss://relay.example.test/ws",
    "reconnectBaseDelayMs": 250,
    "reconnectMaxDelayMs": 8000,
    "heartbeatTimeoutMs": 30000,
}


@attrs.frozen
class Key:
    """One of the keys of the corpus."""

    pem: str
    text: str
    id: str


def keys() -> list[Key]:
    found = json.loads(VECTORS.read_text("utf-8"))["identities"]
    return [
        Key(each["passportKeyPem"], each["publicKeyBase32"], each["personaId"]) for each in found
    ]


@attrs.frozen
class ProjectFolder:
    """A project; ``configs`` is there."""

    path: Path

    @classmethod
    def made(cls, path: Path, gateway: str | dict[str, Any] | None = SCAFFOLD) -> ProjectFolder:
        """:param gateway: ``gateway.json``, as text or as its members; None for no such file."""
        project = cls(path.absolute())
        (project.path / "configs").mkdir(parents=True)
        if gateway is not None:
            project.write("configs/gateway.json", gateway)
        return project

    def write(self, name: str, content: str | bytes | dict[str, Any]) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=2) if isinstance(content, dict) else content
        path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
        return path

    def persona(self, number: int = 0, **members: Any) -> Path:
        """A persona with one of the corpus' keys, as the original makes it: with the umask's modes.

        :param members: of ``persona.json``; None takes one away.
        """
        key = keys()[number]
        self.write(f"personas/{key.id}/passport.key", key.pem).chmod(0o644)
        document = {
            "personaId": key.id,
            "publicKeyBase32": key.text,
            "emailLocalPart": key.text,
            "emailAddress": f"{key.text}@localhost",
            "createdAt": "2026-01-02T03:04:05.678Z",
            **members,
        }
        kept = {name: value for name, value in document.items() if value is not None}
        self.write(f"personas/{key.id}/persona.json", kept)
        self.write(f"personas/{key.id}/PERSONA.md", "# Me\n")
        return self.path / "personas" / key.id

    def text(self, name: str = "configs/gateway.json") -> str:
        return (self.path / name).read_bytes().decode("utf-8")

    def json(self, name: str = "configs/gateway.json") -> Any:
        return json.loads(self.text(name))

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Every file, with its mode."""
        return {
            str(path.relative_to(self.path)): (path.stat().st_mode & 0o7777, path.read_bytes())
            for path in self.path.rglob("*")
            if path.is_file()
        }


URL: Final = "wss://relay.example.test/ws"

COMMANDS: Final = (("setup", "--outbound", "relay"), ("setup",), ("relay", "bootstrap"))
"""Each enables the relay."""


class ProjectCase(SynchronousTestCase):
    def made(self, gateway: Any = SCAFFOLD) -> ProjectFolder:
        self.project = ProjectFolder.made(Path(self.mktemp()), gateway)
        return self.project

    def setup(self, *arguments: str, code: int = 0) -> Ran:
        return self.ran("setup", *arguments, code=code)

    def bootstrap(self, *arguments: str, code: int = 0) -> Ran:
        return self.ran("relay", "bootstrap", *arguments, code=code)

    def ran(self, *arguments: str, code: int = 0) -> Ran:
        done = run(*arguments, "--path", str(self.project.path))
        self.assertEqual(done.code, code, done.err)
        return done

    def refused(self, *arguments: str, code: int) -> str:
        """Refuse, and leave every file as it was.  :return: the complaint."""
        before = self.project.snapshot()
        done = self.ran(*arguments, code=code)
        self.assertEqual(self.project.snapshot(), before)
        self.assertEqual(done.out, "")
        return done.err.replace(f"{self.project.path}/", "")
