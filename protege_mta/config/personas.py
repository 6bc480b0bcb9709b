"""The personas of a Protege project: one folder each below ``personas``, with the private key of an
agent in ``passport.key`` and what is told of it in ``persona.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from ..model.identity import Identity
from .json_text import BadJson, parse
from .kinds import Unfit
from .mail_names import LocalPart
from .toml import shown

KEY_FILE: Final = "passport.key"
DOCUMENT_FILE: Final = "persona.json"

Complain = Callable[[Path, str, str], None]
"""Takes a file, the member that is at fault, and what was wanted and got."""


@attrs.frozen
class Persona:
    """One agent of a project.

    :ivar folder: whose name is the persona's id everywhere in the project.
    :ivar text: of ``persona.json``; None where there is none.
    :ivar document: the object in it; empty where there is none.
    :ivar local_part: of its address.
    :ivar aliases: other names, as they are written: whole addresses or local-parts.
    """

    folder: Path
    identity: Identity
    text: str | None
    document: Mapping[str, Any]
    local_part: str
    aliases: tuple[str, ...]

    def local_parts(self, domain: str) -> list[str]:
        """What it is called at a domain, in lower case."""
        names = [self.local_part]
        for alias in self.aliases:
            name, _, at = alias.rpartition("@")
            if not name:
                names.append(at)
            elif at.lower() == domain:
                names.append(name)
        return list(dict.fromkeys(name.lower() for name in names))


def read_personas(folder: Path, complain: Complain) -> list[Persona]:
    """Every persona that is as it should be, in the order of their folders' names.

    :param folder: ``personas``; it may be missing.
    :param complain: is told of the others.
    """
    try:
        names = sorted(each.name for each in folder.iterdir() if _is_persona(each))
    except FileNotFoundError:
        return []
    except OSError as error:
        complain(folder, "", f"wanted a folder that can be read, got: {error.strerror}")
        return []
    found: dict[Identity, Persona] = {}
    for name in names:
        persona = _read(folder / name, complain)
        if persona is None:
            continue
        other = found.setdefault(persona.identity, persona)
        if other is not persona:
            got = f'got that of "{other.folder.name}"'
            complain(persona.folder / KEY_FILE, "", f"wanted a key of its own, {got}")
    return list(found.values())


def _is_persona(folder: Path) -> bool:
    """Folders with a dot in front are being made, or somebody's own affair."""
    if folder.name.startswith(".") or not folder.is_dir():
        return False
    return any((folder / name).exists() for name in (KEY_FILE, DOCUMENT_FILE))


def _read(folder: Path, complain: Complain) -> Persona | None:
    from . import credentials

    identity = credentials.identity_in(folder / KEY_FILE)
    if not isinstance(identity, credentials.NoIdentity):
        return _described(folder, identity, complain)
    complain(folder / KEY_FILE, "", identity.text)
    return None


def _described(folder: Path, identity: Identity, complain: Complain) -> Persona | None:
    path = folder / DOCUMENT_FILE
    try:
        text, document = parse(path.read_bytes())
    except FileNotFoundError:  # a half-made persona is one nevertheless: its key is all of it
        return Persona(folder, identity, None, {}, identity, ())
    except OSError as error:
        complain(path, "", f"wanted a file that can be read, got: {error.strerror}")
        return None
    except BadJson as error:
        complain(path, "", f"wanted JSON, got: {error}")
        return None
    faults = list(_faults(document, identity))
    for place, fault in faults:
        complain(path, place, fault)
    if faults:
        return None
    local_part = document.get("emailLocalPart", identity)
    return Persona(
        folder, identity, text, document, local_part, tuple(document.get("aliases") or ())
    )


def _faults(document: Mapping[str, Any], identity: Identity) -> list[tuple[str, str]]:
    faults = []
    key = document.get("publicKeyBase32", identity)
    if not isinstance(key, str) or key.strip().lower() != identity:
        text = f'wanted "{identity}", the key of {KEY_FILE}, got {shown(key)}'
        faults.append(("publicKeyBase32", text))
    local_part = document.get("emailLocalPart", identity)
    if not _is_local_part(local_part):
        text = f'wanted a local-part (what stands before the "@"), got {shown(local_part)}'
        faults.append(("emailLocalPart", text))
    aliases = document.get("aliases")
    if aliases is not None and not isinstance(aliases, list):
        faults.append(("aliases", f"wanted an array, got {shown(aliases)}"))
    for alias in aliases if isinstance(aliases, list) else ():
        name = alias.rpartition("@")[0] or alias if isinstance(alias, str) else alias
        if not _is_local_part(name):
            faults.append(("aliases", f"wanted addresses or local-parts, got {shown(alias)}"))
    return faults


def _is_local_part(raw: object) -> bool:
    try:
        return LocalPart().read(raw, Path()) != "*"
    except Unfit:
        return False
