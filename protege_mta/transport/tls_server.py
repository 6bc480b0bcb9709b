"""TLS contexts of our listeners (RFC 3207; RFC 8314; RFC 9325 as far as opportunism allows).

A context is built once, by whoever may block, and replaced as a whole when files have changed; none
is changed while connections use it.  With a context go the keys of its session tickets (RFC 5077;
RFC 8446, 4.6.1), so that replacing it is also what keeps them young.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs
from attrs import validators
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..model.outcome import TlsFacts

_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!SHA1:!AESCCM"
"""For TLS 1.2: forward secrecy always, and an ECDSA certificate before an RSA one.  TLS 1.3 brings
its own, and there OpenSSL's order of signature algorithms has ECDSA first."""

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_ALGORITHMS: Final[tuple[tuple[type, str], ...]] = (
    (ec.EllipticCurvePublicKey, "ecdsa"),
    (rsa.RSAPublicKey, "rsa"),
    (ed25519.Ed25519PublicKey, "ed25519"),
    (ed448.Ed448PublicKey, "ed448"),
)
"""A context holds one certificate of each, and the client's abilities decide between them."""


# --- what contexts are made of -------------------------------------------------------------------


@attrs.frozen
class KeyPair:
    """Two PEM files.

    :ivar certificate: the chain, the server's own certificate first.
    :ivar private_key: without a passphrase.
    """

    certificate: Path
    private_key: Path


@attrs.frozen
class TlsFiles:
    """What contexts are made of.

    :ivar pairs: the first is for clients that ask for no name, or for one that no certificate has.
    :ivar client_ca_file: PEM; who may sign certificates of submission clients.  None where they are
        not asked for any.
    """

    pairs: tuple[KeyPair, ...] = attrs.field(validator=validators.min_len(1))
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_ca_file: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        found = [path for pair in self.pairs for path in (pair.certificate, pair.private_key)]
        return (*found, *([self.client_ca_file] if self.client_ca_file else []))


@attrs.frozen
class ShownCertificate:
    """A certificate that clients are shown.

    :ivar names: the DNS names of its SAN, in lower case.
    :ivar algorithm: of its key.
    :ivar expires_at: POSIX seconds.
    :ivar is_self_signed: whether nobody but itself vouches for it.
    """

    pair: KeyPair
    names: tuple[str, ...]
    algorithm: str
    expires_at: float
    is_self_signed: bool

    @property
    def name(self) -> str:
        """For people: its first name, or its file's where it has none."""
        return self.names[0] if self.names else self.pair.certificate.name

    def is_for(self, name: str) -> bool:
        """Whether it is good for a DNS name; a wildcard stands for one label (RFC 6125, 6.4.3)."""
        return name in self.names or _wildcard(name) in self.names


# --- contexts ------------------------------------------------------------------------------------


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """Makes our ends of channels; the certificate is chosen by the name that the client asks for
    (SNI: RFC 6066, 3).

    :param contexts: by name, perhaps a wildcard; None stands for ``default``.
    :param default: where none of them is asked for.
    """

    def __init__(self, default: SSL.Context, contexts: Mapping[str, SSL.Context | None]) -> None:
        self._default = default
        if any(contexts.values()):
            default.set_tlsext_servername_callback(_chooser(contexts))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._default, None)


@attrs.frozen(eq=False)
class ServerContexts:
    """What was made of some files.

    :ivar public: for listeners that serve everybody.
    :ivar submission: for those of our users.  They alone are asked for certificates: other MTAs
        show what they have when they are asked, and a handshake that fails over it would lose mail.
    """

    certificates: tuple[ShownCertificate, ...]
    public: ServerContext
    submission: ServerContext


def server_contexts(files: TlsFiles) -> ServerContexts:
    """Build contexts from PEM files.  Reads the disk.

    :raise ValueError: a file is missing or is not what it should be, or a key is not its
        certificate's; the text names the file.
    """
    certificates = tuple(_shown(pair) for pair in files.pairs)
    public = _server_context(certificates, files.min_version, None)
    submission = public
    if files.client_ca_file is not None:
        submission = _server_context(certificates, files.min_version, files.client_ca_file)
    return ServerContexts(certificates, public, submission)


def _server_context(
    certificates: Sequence[ShownCertificate],
    min_version: Literal["1.2", "1.3"],
    client_ca_file: Path | None,
) -> ServerContext:
    main = certificates[0]
    for_main = [one for one in certificates[1:] if main.names and all(map(one.is_for, main.names))]
    default = _one_of_each([main, *for_main])
    made: dict[frozenset[ShownCertificate], SSL.Context] = {}
    contexts: dict[str, SSL.Context | None] = {}
    for name in dict.fromkeys(name for one in certificates for name in one.names):
        # One that has the very name goes before one with a wildcard.
        fitting = [one for one in certificates if one.is_for(name)]
        chosen = _one_of_each(sorted(fitting, key=lambda one: name not in one.names))
        if chosen != default and chosen not in made:
            made[chosen] = _context(chosen, min_version, client_ca_file)
        contexts[name] = made.get(chosen)
    return ServerContext(_context(default, min_version, client_ca_file), contexts)


def _one_of_each(certificates: Iterable[ShownCertificate]) -> frozenset[ShownCertificate]:
    """The first of each algorithm."""
    chosen: dict[str, ShownCertificate] = {}
    for one in certificates:
        chosen.setdefault(one.algorithm, one)
    return frozenset(chosen.values())


def _chooser(contexts: Mapping[str, SSL.Context | None]) -> Callable[[SSL.Connection], None]:
    # It must not hold the context that it is called for, lest the two outlive their replacement.
    def choose(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = contexts.get(name if name in contexts else _wildcard(name))
        if context is not None:
            connection.set_context(context)

    return choose


def _wildcard(name: str) -> str:
    return f"*.{name.partition('.')[2]}"


def _context(
    certificates: Iterable[ShownCertificate],
    min_version: Literal["1.2", "1.3"],
    client_ca_file: Path | None,
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[min_version])
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # A buffer a connection is given back while it idles.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_CIPHERS)
    # Sessions are resumed by tickets, which cost us no memory.  OpenSSL takes those of any context
    # by the keys of the one that a connection began with; so the id has to be the same in all.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"protege-mta")
    for one in certificates:
        _load(context, one.pair)
    if client_ca_file is not None:
        _ask_clients(context, client_ca_file)
    return context


def _load(context: SSL.Context, pair: KeyPair) -> None:
    try:
        context.use_certificate_chain_file(str(pair.certificate))
    except SSL.Error as error:
        raise ValueError(f"{pair.certificate}: no PEM certificates") from error
    try:
        context.use_privatekey_file(str(pair.private_key))
        context.check_privatekey()
    except SSL.Error as error:
        raise ValueError(f"{pair.private_key}: not the key of {pair.certificate}") from error


def _ask_clients(context: SSL.Context, ca_file: Path) -> None:
    """Ask for a certificate; refuse one that does not verify, and be content with none."""
    _read(ca_file)
    try:
        context.load_verify_locations(str(ca_file))
        context.load_client_ca(os.fsencode(ca_file))
    except SSL.Error as error:
        raise ValueError(f"{ca_file}: no PEM certificates") from error
    context.set_verify(SSL.VERIFY_PEER)


def _shown(pair: KeyPair) -> ShownCertificate:
    """What the first certificate of the file says."""
    # cryptography has errors of its own beside ValueError; whatever it is, the file is no use.
    octets = _read(pair.certificate)
    try:
        found = x509.load_pem_x509_certificates(octets)[0]
        key = found.public_key()
        names = _dns_names(found)
    except Exception as error:
        raise ValueError(f"{pair.certificate}: no PEM certificate") from error
    # Looked at before OpenSSL does, which would ask for a passphrase at the terminal.
    octets = _read(pair.private_key)
    try:
        is_its_key = serialization.load_pem_private_key(octets, None).public_key() == key
    except Exception as error:
        raise ValueError(f"{pair.private_key}: no unencrypted PEM private key") from error
    if not is_its_key:
        raise ValueError(f"{pair.private_key}: not the key of {pair.certificate}")
    return ShownCertificate(
        pair,
        names,
        next((name for kind, name in _ALGORITHMS if isinstance(key, kind)), "other"),
        found.not_valid_after_utc.timestamp(),
        is_self_signed=found.issuer == found.subject,
    )


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def facts(connection: SSL.Connection) -> TlsFacts:
    """What a finished handshake has agreed on.

    A client's certificate that does not verify has ended the handshake, and none is asked for where
    nobody could verify it: one that is there is good.
    """
    return TlsFacts(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        is_verified=connection.get_peer_certificate() is not None,
    )
