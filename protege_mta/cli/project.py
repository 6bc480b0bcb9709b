"""A Protege project's files, changed with care: all or nothing of each, what is not ours untouched.

Everything is read and judged before the first octet is written, and each step can be done again:
whoever is interrupted calls the command once more.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from ..config.gateway_json import GATEWAY, PERSONAS, STATE, SYSTEM
from ..config.json_text import BadJson, parse, put, renamed, written
from ..config.personas import DOCUMENT_FILE, KEY_FILE, Persona, read_personas
from ..model.identity import Identity, identity_of, persona_id
from .faults import Fault
from .files import replace, sync_folder, umask

_BEING_MADE: Final = ".new-persona"
TRANSPORT: Final = STATE / "transport.json"
"""Where a ``transport`` waits that had to make way for the relay."""


@attrs.define
class Document:
    """A JSON file of the project, and what it is to become.

    :ivar text: as it shall be.
    :ivar members: as they are; empty where there is no file.
    """

    path: Path
    text: str
    members: dict[str, Any]

    def put(self, *path: str, value: Any) -> None:
        """Set a member, where it is not so already."""
        at: Any = self.members
        for name in path:
            at = at.get(name) if isinstance(at, dict) else None
        # Python holds True and 1 for one; JSON does not.
        if at != value or type(at) is not type(value):
            self.text = put(self.text, path, value)
            _, self.members = parse(self.text.encode("utf-8"))


@attrs.define
class Project:
    """A project that is ours alone while it lasts.

    :ivar folder: without symbolic links in its path.
    :ivar changed: files that were written or whose mode was changed, in that order.
    """

    folder: Path
    changed: list[Path] = attrs.field(factory=list)

    def document(self, name: Path) -> Document:
        """Read a file.  :raise Fault: it is there, and cannot be used."""
        path = self.place(name)
        try:
            text, members = parse(path.read_bytes())
        except FileNotFoundError:
            return Document(path, written({}), {})
        except OSError as error:
            raise Fault(f"{path}: {error.strerror}", os.EX_NOPERM) from error
        except BadJson as error:
            raise Fault(f"{path}: wanted JSON, got: {error}", os.EX_CONFIG) from error
        return Document(path, text, members)

    def personas(self) -> list[Persona]:
        """All of them.  :raise Fault: one is not as it should be."""
        complaints: list[str] = []

        def complain(path: Path, place: str, text: str) -> None:
            complaints.append(": ".join(filter(None, (str(path), place, text))))

        found = read_personas(self.place(PERSONAS), complain)
        if complaints:
            raise Fault("\n".join(complaints), os.EX_CONFIG)
        for persona in found:
            for name in (KEY_FILE, DOCUMENT_FILE):
                self.place(persona.folder / name)
        return found

    def place(self, name: Path) -> Path:
        """Where a file of the project really is.

        :raise Fault: a symbolic link leads out of the project, or it belongs to somebody else.
        """
        path = Path(os.path.realpath(self.folder / name))
        if not path.is_relative_to(self.folder):
            text = f"{self.folder / name}: leads out of the project, to {path}"
            raise Fault(text, os.EX_NOPERM)
        for each in (path.parent, path):
            check_owner(each)
        return path

    def save(self, document: Document) -> bool:
        """Write a document where it is to be another than it is.  :return: whether it was."""
        octets = document.text.encode("utf-8")
        with _told(document.path):
            try:
                was = document.path.stat()
                if document.path.read_bytes() == octets:
                    return False
                mode, group = stat.S_IMODE(was.st_mode), was.st_gid
            except FileNotFoundError:
                mode, group = 0o644 & ~umask(), None
            replace(document.path, octets, mode, group)
        self.changed.append(document.path)
        return True

    def set_aside(self, transport: Any) -> None:
        """Keep a copy of what leaves ``gateway.json``: it may hold a password."""
        path = self.place(TRANSPORT)
        with _told(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            replace(path, written(transport).encode("utf-8"), 0o600)
        self.changed.append(path)

    def create_persona(self, domain: str, now: datetime) -> str:
        """Make a key, and a persona of it.  :return: its id."""
        from ..dkim import keys

        pem = keys.generate_ed25519()
        identity = identity_of(keys.load(pem).public_octets)
        id = persona_id(identity)
        personas, fresh = self.place(PERSONAS), self.place(PERSONAS / _BEING_MADE)
        folder = personas / id
        with _told(folder):
            personas.mkdir(mode=0o700, exist_ok=True)
            fresh.mkdir(mode=0o700, exist_ok=True)  # it may be left of one that was interrupted
            fresh.chmod(0o700)
            text = written(_described(identity, id, f"{identity}@{domain}", now))
            replace(fresh / KEY_FILE, pem, 0o600)
            replace(fresh / DOCUMENT_FILE, text.encode("utf-8"), 0o644 & ~umask())
            fresh.rename(folder)
            sync_folder(personas)
        self.changed += [folder / KEY_FILE, folder / DOCUMENT_FILE]
        return id

    def readdress(self, persona: Persona, domain: str, now: datetime) -> bool:
        """Give a persona its address at a domain.  :return: whether that changed anything."""
        path = self.place(persona.folder / DOCUMENT_FILE)
        address = f"{persona.local_part}@{domain}"
        described = _described(persona.identity, persona.folder.name, address, now)
        document = Document(path, persona.text or written(described), dict(persona.document))
        if persona.text is not None:
            if "label" in document.members and "displayName" not in document.members:
                document.text = renamed(document.text, "label", "displayName")
            for name in ("personaId", "publicKeyBase32", "emailLocalPart"):
                if name not in document.members:
                    document.put(name, value=described[name])
            document.put("emailAddress", value=address)
            if document.members.get("aliases") is None:
                document.put("aliases", value=[])
        return self.save(document)

    def close_key(self, persona: Persona) -> None:
        """Make a key its owner's alone that everybody may read, as the original leaves it."""
        path = self.place(persona.folder / KEY_FILE)
        with _told(path):
            if stat.S_IMODE(path.stat().st_mode) & 0o007:
                path.chmod(0o600)
                self.changed.append(path)


def _described(identity: Identity, id: str, address: str, now: datetime) -> dict[str, Any]:
    """A new ``persona.json``."""
    at = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "personaId": id,
        "publicKeyBase32": identity,
        "emailLocalPart": identity,
        "emailAddress": address,
        "createdAt": at,
        "aliases": [],
    }


@contextmanager
def opened(path: Path) -> Iterator[Project]:
    """A project, closed to other commands like this one meanwhile.

    :raise Fault: it is none, it is somebody else's, or another command is at work.
    """
    folder = Path(os.path.realpath(path))
    if not (folder / GATEWAY).parent.is_dir():
        raise Fault(
            f"{path}: wanted the folder of a Protege project, got none: there is no "
            f"{GATEWAY.parent} in it",
            os.EX_CONFIG,
            remedy="--path DIR names it.",
        )
    check_owner(folder)
    with _told(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"{folder}: another command is changing it"
            raise Fault(text, os.EX_TEMPFAIL) from error
        yield Project(folder)
    finally:
        os.close(fd)


def check_owner(path: Path) -> None:
    """Refuse to write what its owner could not use, or to change what is not ours.

    A path that is not there yet is nobody's.

    :raise Fault:
    """
    try:
        owner = path.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise Fault(f"{path}: {error.strerror}", os.EX_NOPERM) from error
    if owner != os.geteuid():
        raise Fault(
            f"{path} belongs to user {owner}, and this is user {os.geteuid()}",
            os.EX_NOPERM,
            remedy=f"Run it as user {owner}.",
        )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the disk refuses becomes a fault that names the file."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise Fault(f"{name}: {error.strerror}", os.EX_CANTCREAT) from error


def set_admin(project: Project, address: str) -> Document:
    """``system.json`` with another address of the administrator."""
    document = project.document(SYSTEM)
    document.put("admin_contact_email", value=address)
    return document
