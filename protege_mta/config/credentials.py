"""Certificates, keys and passwords: whether the named files hold what they should."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ..dkim import keys
from ..model.identity import Identity, identity_of
from .kinds import InlineText
from .model import Smarthost, Tls, TlsCertificate

_HOOK_SECRET: Final = re.compile(
    rb"whsec_(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"
)


def of_tls(tls: Tls | TlsCertificate) -> Iterator[tuple[str, str]]:
    """Key and complaint for each fault of the certificate and its key."""
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


def of_dkim_key(path: Path) -> Iterator[tuple[str, str]]:
    """Key and complaint where a file holds no key that can sign."""
    try:
        keys.load(path.read_bytes())
    except (OSError, keys.BadKey) as error:
        yield "private_key", f'wanted an RSA or Ed25519 key in PEM, got "{path}" ({_brief(error)})'


def of_ed25519(key: str, path: Path | InlineText) -> Iterator[tuple[str, str]]:
    """Key and complaint where a file holds no Ed25519 key; ``public_key`` wants a public one."""
    if key != "public_key":
        found = identity_in(path)
        if isinstance(found, NoIdentity):
            yield key, found.text
        return
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except Exception as error:  # as in _private_key
        yield key, f'wanted a public Ed25519 key in PEM, got "{path}" ({_brief(error)})'
        return
    if not isinstance(public, ed25519.Ed25519PublicKey):
        yield key, f'wanted a public Ed25519 key in PEM, got "{path}", which is of another kind'


@attrs.frozen
class NoIdentity:
    """Why a file holds no private key of an agent: what was wanted, and got."""

    text: str


def identity_in(path: Path | InlineText) -> Identity | NoIdentity:
    """Whose private key (PEM, Ed25519) a file holds."""
    wanted = "wanted a private Ed25519 key in PEM"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except Exception as error:  # as in _private_key
        return NoIdentity(f'{wanted}, got "{path}" ({_brief(error)})')
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        return NoIdentity(f'{wanted}, got "{path}", which is of another kind')
    return identity_of(key.public_key().public_bytes_raw())


def of_smarthost(smarthost: Smarthost) -> Iterator[tuple[str, str]]:
    """Key and complaint for each fault of the files of a smarthost."""
    if smarthost.password_file is not None and not secret(smarthost.password_file):
        got = f'got "{smarthost.password_file}", whose first line is empty'
        yield "password_file", f"wanted a file with a password in its first line, {got}"
    yield from of_ca_file("ca_file", smarthost.ca_file)


def of_ca_file(key: str, path: Path | None) -> Iterator[tuple[str, str]]:
    """Key and complaint where a file of certification authorities holds none."""
    if path is None:
        return
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        yield key, f'wanted PEM certificates, got "{path}" ({_brief(error)})'


def of_hook_secrets(key: str, path: Path) -> Iterator[tuple[str, str]]:
    """Key and complaint where a file holds no secrets to sign requests with, one a line."""
    lines = [line.strip() for line in path.read_bytes().splitlines()]
    words = [line for line in lines if line and not line.startswith(b"#")]
    if not words or not all(_HOOK_SECRET.fullmatch(word) for word in words):
        yield key, f'wanted a file of secrets, whsec_ and base64, got "{path}"'


def secret(path: Path | InlineText) -> bytes:
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
