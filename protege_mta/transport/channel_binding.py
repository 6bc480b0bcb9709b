"""What both ends of a TLS channel know of it, and nobody between them (RFC 5929; RFC 9266)."""

from __future__ import annotations

from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

_EXPORTER_LABEL: Final = b"EXPORTER-Channel-Binding"
_EXPORTER_OCTETS: Final = 32
_TOO_WEAK: Final = (hashes.MD5, hashes.SHA1)


def channel_binding(connection: SSL.Connection, kind: str) -> bytes | None:
    """The data of one type, of a server's channel whose handshake is done.

    :return: None where there is none of that type, or none to rely on.
    """
    is_newest = connection.get_protocol_version() >= SSL.TLS1_3_VERSION
    if kind == "tls-exporter" and is_newest:
        # With TLS 1.2 it would depend on RFC 7627, which cannot be asked for here.
        return connection.export_keying_material(_EXPORTER_LABEL, _EXPORTER_OCTETS, b"")
    if kind == "tls-unique" and not is_newest and not _is_resumed(connection):
        # Of a full handshake the client's Finished is the first.
        return connection.get_peer_finished()
    if kind == "tls-server-end-point":
        return _certificate_hash(connection)
    return None


def _is_resumed(connection: SSL.Connection) -> bool:
    """Whether the session is that of an earlier channel, whose Finished another may have chosen
    (RFC 7627, 1); taken for so where it cannot be told."""
    # pyOpenSSL has the function and no method for it.
    reused: Any = getattr(SSL._lib, "SSL_session_reused", None)  # type: ignore[attr-defined]
    return reused is None or bool(reused(connection._ssl))


def _certificate_hash(connection: SSL.Connection) -> bytes | None:
    """By the hash of our certificate's own signature, or by SHA-256 (RFC 5929, 4.1)."""
    own = connection.get_certificate()
    if own is None:
        return None
    certificate = own.to_cryptography()
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None  # one without a hash, Ed25519: the RFC leaves it undefined
    return certificate.fingerprint(
        hashes.SHA256() if isinstance(algorithm, _TOO_WEAK) else algorithm
    )
