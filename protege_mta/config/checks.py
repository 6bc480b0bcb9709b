"""What no single key can tell: tables as a whole, tables beside each other, and named files."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ..dkim import keys
from .model import (
    Dkim,
    DkimSelector,
    HttpListener,
    Outbound,
    Settings,
    Smarthost,
    SmtpListener,
    Tls,
)

_LISTENERS: Final = (SmtpListener, HttpListener)


def of_table(table: Any) -> Iterator[tuple[str, str]]:
    """Key and complaint for each fault of one table."""
    match table:
        case Tls():
            yield from _tls(table)
        case DkimSelector():
            yield from _dkim_key(table.private_key)
        case Dkim():
            yield from _selectors(table)
        case Smarthost():
            yield from _smarthost(table)
        case Outbound(route="smarthost", smarthost=None):
            yield "smarthost", 'wanted a table, since route = "smarthost", got nothing'
        case _:
            return


def of_tables(tables: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, str, str]]:
    """Number, key and complaint for each fault between the tables of one array."""
    listeners = [(number, each) for number, each in tables if isinstance(each, _LISTENERS)]
    names: dict[str, int] = {}
    for index, (number, listener) in enumerate(listeners):
        if listener.name in names:
            got = f'got "{listener.name}" for #{names[listener.name]} too'
            yield number, "name", f"wanted a name of its own, {got}"
        elif listener.name:
            names[listener.name] = number
        for other, earlier in listeners[:index]:
            if _is_same_port(listener, earlier):
                got = f"got {listener.port}, which #{other} listens on"
                yield number, "port", f"wanted a port that is free on {listener.address}, {got}"


def of_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Place and complaint for each fault of the whole."""
    for key, folder in (("state_dir", settings.state_dir), ("run_dir", settings.run_dir)):
        if folder.exists() and not folder.is_dir():
            yield key, f'wanted a folder, got the file "{folder}"'


def completed(tables: list[Any]) -> tuple[Any, ...]:
    """The same tables, where listeners without a name have one."""
    taken = {each.name for each in tables if isinstance(each, _LISTENERS)}
    done = []
    for each in tables:
        if isinstance(each, _LISTENERS) and not each.name:
            names = (each.kind if n == 1 else f"{each.kind}-{n}" for n in range(1, len(tables) + 2))
            name = next(name for name in names if name not in taken)
            taken.add(name)
            each = attrs.evolve(each, name=name)
        done.append(each)
    return tuple(done)


def _is_same_port(a: SmtpListener | HttpListener, b: SmtpListener | HttpListener) -> bool:
    if a.port != b.port or a.port == 0:
        return False
    everywhere = "::" if ":" in a.address else "0.0.0.0"
    if (":" in a.address) != (":" in b.address):
        return False
    return a.address == b.address or everywhere in (a.address, b.address)


def _tls(tls: Tls) -> Iterator[tuple[str, str]]:
    certificate = None
    try:
        certificate = x509.load_pem_x509_certificates(tls.certificate.read_bytes())[0]
    except (OSError, ValueError) as error:
        yield "certificate", f'wanted a PEM certificate, got "{tls.certificate}" ({_brief(error)})'
    key = _private_key(tls.private_key)
    if isinstance(key, str):
        yield "private_key", key
    elif certificate is not None and _public(key) != _public(certificate):
        got = f'got "{tls.private_key}", which belongs to another'
        yield "private_key", f'wanted the key of the certificate "{tls.certificate}", {got}'


def _dkim_key(path: Path) -> Iterator[tuple[str, str]]:
    try:
        keys.load(path.read_bytes())
    except (OSError, keys.BadKey) as error:
        yield "private_key", f'wanted an RSA or Ed25519 key in PEM, got "{path}" ({_brief(error)})'


def _selectors(dkim: Dkim) -> Iterator[tuple[str, str]]:
    names = [each.name.lower() for each in dkim.selectors]
    if not names:
        yield "selectors", "wanted one selector at least, got none"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "selectors", f'wanted every name once, got "{name}" again'


def _smarthost(smarthost: Smarthost) -> Iterator[tuple[str, str]]:
    if smarthost.username and smarthost.password_file is None:
        yield "password_file", "wanted a file, since there is a username, got nothing"
    if smarthost.username and smarthost.tls == "none" and not _is_here(smarthost.host):
        yield "tls", 'wanted "starttls" or "implicit" for a password on its way, got "none"'
    if smarthost.password_file is not None:
        if not smarthost.username:
            yield "username", "wanted a user name, since there is a password_file, got nothing"
        if not secret(smarthost.password_file):
            got = f'got "{smarthost.password_file}", whose first line is empty'
            yield "password_file", f"wanted a file with a password in its first line, {got}"
    if smarthost.ca_file is not None:
        try:
            x509.load_pem_x509_certificates(smarthost.ca_file.read_bytes())
        except (OSError, ValueError) as error:
            yield "ca_file", f'wanted PEM certificates, got "{smarthost.ca_file}" ({_brief(error)})'


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def secret(path: Path) -> bytes:
    """The secret in a file: its first line without the line end.

    :raise OSError: it cannot be read.
    """
    return path.read_bytes().partition(b"\n")[0].removesuffix(b"\r")


def _private_key(path: Path) -> PrivateKeyTypes | str:
    """The key in a file, or a complaint."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:  # what cryptography raises for a key under a passphrase
        return f'wanted a private key without a passphrase, got "{path}"'
    except Exception as error:
        # UnsupportedAlgorithm and more of cryptography's own; whatever it is, the key is no use.
        return f'wanted a private key in PEM, got "{path}" ({_brief(error)})'


def _public(owner: PrivateKeyTypes | x509.Certificate) -> bytes:
    return owner.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _brief(error: Exception) -> str:
    """An error's text on one line; cryptography's may run over several sentences."""
    text = " ".join(str(error).split())
    return text.partition(". ")[0][:80] or type(error).__name__
