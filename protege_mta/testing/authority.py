"""A certificate authority for tests."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ..transport.tls_server import KeyPair, ServerContext, TlsFiles, server_contexts


class Authority:
    """Issues certificates into a folder.

    :ivar ca_file: its own certificate, PEM.
    """

    def __init__(self, folder: Path, name: str = "a test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key.public_key(), 1)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        own = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, *names: str, algorithm: str = "ecdsa", days: float = 1, file: str = ""
    ) -> tuple[Path, Path]:
        """A certificate and its key for host names and IP addresses, as two PEM files.

        :param algorithm: ``ecdsa`` for a P-256 key, ``rsa`` for one of 2048 bits.
        :param days: how long it is valid.
        :param file: the files' name without its ending; where it is left out, the first name.
        """
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
        if algorithm == "rsa":
            key = rsa.generate_private_key(65537, 2048)
        else:
            key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(names[0]), self._name, key.public_key(), days)
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        issued = builder.add_extension(alternatives, critical=False).sign(
            self._key, hashes.SHA256()
        )
        stem = file or names[0].replace(":", "_")
        certificate, private_key = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        certificate.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
        private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, private_key

    def context(self, *names: str) -> ServerContext:
        """What a listener shows that has one certificate for these names."""
        return server_contexts(TlsFiles((KeyPair(*self.issue(*names)),))).public


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
    days: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=min(days, 0), hours=-1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
