"""A self-signed certificate: what opportunistic TLS between mail servers needs, and what keeps the
passwords of our users from whoever only listens.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.logger import Logger

from .tls_server import KeyPair

log = Logger()

DAYS: Final = 3650
RENEW_DAYS: Final = 30
"""One that ends sooner is replaced."""


def self_signed(names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """A P-256 certificate and its private key; both PEM.

    P-256, for a handshake costs half of what it does with RSA.

    :param names: host names and IP addresses, the most important first.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has 64 characters at most (RFC 5280, A.1); the SAN is what counts.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(_alternatives(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def kept(folder: Path, names: Sequence[str], now: datetime) -> KeyPair:
    """The pair that a folder keeps for these names; made where there is none that is good for
    another :data:`RENEW_DAYS`.  Blocks.

    :raise OSError: it cannot be written.
    """
    pair = KeyPair(folder / "cert.pem", folder / "key.pem")
    if not _is_good(pair, names, now):
        folder.mkdir(0o700, parents=True, exist_ok=True)
        certificate, key = self_signed(names, now)
        # Whatever a crash leaves of the two is found not to fit, and made anew.
        _write(pair.private_key, key)
        _write(pair.certificate, certificate)
        log.info(
            "made a self-signed certificate for {names}: {path}",
            names=", ".join(names),
            path=str(pair.certificate),
        )
    return pair


def _is_good(pair: KeyPair, names: Sequence[str], now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(pair.private_key.read_bytes(), password=None)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # not there, or damaged in one of the many ways that cryptography knows
        return False
    return (
        key.public_key() == certificate.public_key()
        and found == _alternatives(names)
        and certificate.not_valid_before_utc <= now
        and certificate.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
    )


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_alternative(name) for name in names])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, octets: bytes) -> None:
    """By a new file put in the old one's place, so that nobody sees half of it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
