"""The keys that a gateway comes to its relay with, and the folder of Protege personas.

A persona is a folder with a ``passport.key`` (Ed25519, PKCS#8, PEM) and, mostly, a
``persona.json``, whose ``emailAddress`` and ``aliases`` say which addresses are its own besides
those that have its key as their local-part.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.logger import Logger

from ..model.identity import Identity, identity_of

KEY_OCTETS: Final = 16_384
PERSONA_OCTETS: Final = 1_048_576
"""More of a file is not looked at: it is not what it should be."""


@attrs.frozen
class Passport:
    """One agent's key.

    :ivar name: for logs and ``status``: as in the configuration, or the persona's folder.
    :ivar addresses: others that are the agent's, in lower case; a local-part alone is one at any
        domain of ours.
    """

    identity: Identity
    name: str
    key: Ed25519PrivateKey = attrs.field(eq=False, repr=False)
    addresses: tuple[str, ...] = ()

    def sign(self, octets: bytes) -> bytes:
        """The 64 octets of a signature (RFC 8032)."""
        return self.key.sign(octets)


class BadPassport(Exception):
    """A file is no key of the right kind, or cannot be read."""


def read_passport(path: Path, name: str, addresses: tuple[str, ...] = ()) -> Passport:
    """:raise BadPassport: with the reason."""
    try:
        with path.open("rb") as file:
            key = serialization.load_pem_private_key(file.read(KEY_OCTETS), password=None)
    except OSError as error:
        raise BadPassport(str(error)) from error
    except Exception as error:  # cryptography raises what its many parsers do
        raise BadPassport(f"{path} is no private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadPassport(f"{path} is a key of another kind than Ed25519")
    public = key.public_key().public_bytes_raw()
    return Passport(identity_of(public), name, key, addresses)


@attrs.frozen
class Passports:
    """All keys of a gateway.

    :ivar by_identity: the first one is the default: it carries what is nobody's.
    """

    by_identity: Mapping[Identity, Passport]
    _by_address: Mapping[str, Identity] = attrs.field(init=False, eq=False)

    @_by_address.default
    def _index(self) -> dict[str, Identity]:
        found: dict[str, Identity] = {}
        for identity, passport in self.by_identity.items():
            for address in passport.addresses:
                found.setdefault(address, identity)
        return found

    def of(self, address: str) -> Identity | None:
        """The agent whose address it is; the default one for any other, None where there is none.

        :param address: as in an envelope; what stands behind a ``+`` tells no agents apart.
        """
        local, _, domain = address.lower().rpartition("@")
        local = local.partition("+")[0]
        if local in self.by_identity:
            return Identity(local)
        found = self._by_address.get(f"{local}@{domain}") or self._by_address.get(local)
        return found or next(iter(self.by_identity), None)

    def has(self, local_part: str) -> bool:
        """Whether a local-part is the key of one of the agents."""
        return local_part.lower().partition("+")[0] in self.by_identity


class PassportFiles:
    """Reads the keys, and says once what is wrong with each.

    :param named: files by name, in the order of the configuration.
    :param personas: the folder of personas, or None.
    """

    log = Logger()

    def __init__(self, named: Mapping[str, Path], personas: Path | None) -> None:
        self._named = named
        self._personas = personas
        self._known: dict[Path, tuple[object, Passport]] = {}
        self._complaints: dict[Path, str] = {}
        self._told: dict[Path, str] = {}

    def is_like(self, other: PassportFiles) -> bool:
        """Whether the same files are looked at."""
        return (self._named, self._personas) == (other._named, other._personas)

    def read(self) -> Passports | None:
        """What is there now; blocks.  None where the folder of personas cannot be looked at: then
        nobody knows, and all stays as it was."""
        self._complaints = {}
        found: dict[Identity, Passport] = {}
        try:
            for passport in self._all():
                first = found.setdefault(passport.identity, passport)
                if first is not passport:
                    found[first.identity] = attrs.evolve(
                        first, addresses=(*first.addresses, *passport.addresses)
                    )
        except OSError as error:
            assert self._personas is not None  # the only one that is listed
            self._complain(self._personas, f"cannot look at the personas: {error}")
            self._tell()
            return None
        self._tell()
        return Passports(found)

    def _all(self) -> Iterator[Passport]:
        for name, path in self._named.items():
            yield from self._one(path, name, None)
        if self._personas is None:
            return
        for folder in sorted(self._personas.iterdir()):
            path = folder / "passport.key"
            if folder.name.startswith("."):
                continue  # being made, or left by a set-up that was cut off
            if folder.is_dir() and path.exists():
                yield from self._one(path, folder.name, folder / "persona.json")

    def _one(self, path: Path, name: str, persona: Path | None) -> Iterator[Passport]:
        stamp = (_stamp(path), persona and _stamp(persona))
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            addresses = self._addresses(persona) if persona is not None else ()
            try:
                known = self._known[path] = (stamp, read_passport(path, name, addresses))
            except BadPassport as error:
                self._known.pop(path, None)
                self._complain(path, f"no session for {name}: {error}")
                return
            if _is_public(path):
                self.log.warn("{path} can be read by others; chmod 600 mends that", path=path)
        yield known[1]

    def _addresses(self, persona: Path) -> tuple[str, ...]:
        """What a persona is called besides its key; nothing where the file is not there or is of no
        use, since a key is all that a session takes."""
        try:
            with persona.open("rb") as file:
                said = json.loads(file.read(PERSONA_OCTETS))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            self.log.warn("{path} is passed over: {error}", path=persona, error=error)
            return ()
        if not isinstance(said, dict):
            self.log.warn("{path} is passed over: it is no JSON object", path=persona)
            return ()
        aliases = said.get("aliases")
        listed = [said.get("emailAddress"), *(aliases if isinstance(aliases, list) else ())]
        return tuple(one.strip().lower() for one in listed if isinstance(one, str) and one.strip())

    def _complain(self, path: Path, text: str) -> None:
        self._complaints[path] = text

    def _tell(self) -> None:
        for path, text in self._complaints.items():
            if self._told.get(path) != text:
                self.log.error("{complaint}", complaint=text)
        self._told = self._complaints


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _is_public(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False
