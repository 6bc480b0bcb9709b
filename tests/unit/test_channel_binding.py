"""Channel bindings: both ends of a TLS channel have the same, and other channels have others."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing import handshakes
from protege_mta.testing.authority import Authority
from protege_mta.transport.channel_binding import channel_binding
from protege_mta.transport.tls_server import KeyPair, ServerContext, TlsFiles, server_contexts


def shake_hands(
    context: ServerContext, version: int, earlier: SSL.Connection | None = None
) -> tuple[SSL.Connection, SSL.Connection]:
    """Both ends of a channel in memory, the server's first.

    :param earlier: a client's end whose session is gone on with.
    """
    if earlier is None:
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client.set_min_proto_version(version)
        client.set_max_proto_version(version)
        theirs = SSL.Connection(client, None)
    else:
        theirs = SSL.Connection(earlier.get_context(), None)
        session = earlier.get_session()
        assert session is not None
        theirs.set_session(session)
    ours = context.serverConnectionForTLS(cast(TLSMemoryBIOProtocol, None))
    handshakes.shake_hands(ours, theirs)
    return ours, theirs


class Poorer:
    """OpenSSL without a function that not every binding to it has."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        if name == "SSL_session_reused":
            raise AttributeError(name)
        return getattr(self._library, name)


class ChannelBindingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.certificate, key = Authority(self.folder).issue("mx.test")
        self.context = server_contexts(TlsFiles((KeyPair(self.certificate, key),))).submission

    def test_tls_exporter(self) -> None:
        """RFC 9266, 2."""
        found = set()
        for _ in range(2):
            ours, theirs = shake_hands(self.context, SSL.TLS1_3_VERSION)
            binding = channel_binding(ours, "tls-exporter")
            self.assertEqual(
                binding, theirs.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
            )
            found.add(binding)
        self.assertEqual(len(found), 2)

    def test_tls_unique(self) -> None:
        """RFC 5929, 3: the first Finished message, which is the client's."""
        found = set()
        for _ in range(2):
            ours, theirs = shake_hands(self.context, SSL.TLS1_2_VERSION)
            binding = channel_binding(ours, "tls-unique")
            self.assertEqual(binding, theirs.get_finished())
            found.add(binding)
        self.assertEqual(len(found), 2)

    def test_none_that_is_not_safe_with_this_version(self) -> None:
        ours, _ = shake_hands(self.context, SSL.TLS1_3_VERSION)
        self.assertIsNone(channel_binding(ours, "tls-unique"))
        ours, _ = shake_hands(self.context, SSL.TLS1_2_VERSION)
        self.assertIsNone(channel_binding(ours, "tls-exporter"))

    def test_a_resumed_session_has_no_tls_unique(self) -> None:
        _, earlier = shake_hands(self.context, SSL.TLS1_2_VERSION)
        ours, theirs = shake_hands(self.context, SSL.TLS1_2_VERSION, earlier)
        self.assertEqual(theirs.master_key(), earlier.master_key())
        self.assertIsNone(channel_binding(ours, "tls-unique"))
        self.assertIsNotNone(channel_binding(ours, "tls-server-end-point"))

    def test_a_library_that_cannot_tell_is_taken_for_one_that_has_resumed(self) -> None:
        ours, _ = shake_hands(self.context, SSL.TLS1_2_VERSION)
        self.assertIsNotNone(channel_binding(ours, "tls-unique"))
        self.patch(SSL, "_lib", Poorer(SSL._lib))  # type: ignore[attr-defined]
        self.assertIsNone(channel_binding(ours, "tls-unique"))

    def test_tls_server_end_point(self) -> None:
        """RFC 5929, 4.1: our certificate by the hash of its own signature."""
        der = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(
            serialization.Encoding.DER
        )
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            ours, _ = shake_hands(self.context, version)
            self.assertEqual(
                channel_binding(ours, "tls-server-end-point"), hashlib.sha256(der).digest()
            )

    def test_longer_hashes_and_none(self) -> None:
        """SHA-384 is used where the certificate has it; for Ed25519 the RFC defines nothing."""
        key = ec.generate_private_key(ec.SECP384R1())
        binding, der = self.self_signed(key, hashes.SHA384())
        self.assertEqual(binding, hashlib.sha384(der).digest())
        binding, _ = self.self_signed(ed25519.Ed25519PrivateKey.generate(), None)
        self.assertIsNone(binding)

    def self_signed(
        self,
        key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
        algorithm: hashes.SHA384 | None,
    ) -> tuple[bytes | None, bytes]:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.test")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .sign(key, algorithm)
        )
        paths = self.folder / "own.pem", self.folder / "own.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = server_contexts(TlsFiles((KeyPair(*paths),))).submission
        ours, _ = shake_hands(context, SSL.TLS1_3_VERSION)
        der = certificate.public_bytes(serialization.Encoding.DER)
        return channel_binding(ours, "tls-server-end-point"), der

    def test_no_other_type(self) -> None:
        ours, _ = shake_hands(self.context, SSL.TLS1_3_VERSION)
        for kind in ("", "tls-foo", "TLS-EXPORTER"):
            self.assertIsNone(channel_binding(ours, kind))
