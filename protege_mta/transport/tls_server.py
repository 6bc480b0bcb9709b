"""TLS contexts of our listeners (RFC 3207; RFC 8314; RFC 7525 as far as opportunism allows)."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from ..model.outcome import TlsFacts

_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES:!aNULL:!SHA1:!AESCCM"
"""For TLS 1.2: forward secrecy always.  TLS 1.3 brings its own."""

_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@implementer(IOpenSSLContextFactory)
class ServerContext:
    """One context for every connection, until it is replaced as a whole."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context


def server_context(
    certificate: Path, private_key: Path, min_version: Literal["1.2", "1.3"] = "1.2"
) -> ServerContext:
    """Build a context from PEM files.  Reads the disk.

    :param certificate: the chain, the server's own certificate first.
    :raise ValueError: a file is missing or is not what it should be, or the key is not the
        certificate's; the text names the file.
    """
    for path in (certificate, private_key):
        try:
            path.read_bytes()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[min_version])
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # A buffer a connection is given back while it idles.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(_CIPHERS)
    context.set_session_id(b"protege-mta")
    try:
        context.use_certificate_chain_file(str(certificate))
    except SSL.Error as error:
        raise ValueError(f"{certificate}: no PEM certificate") from error
    try:
        context.use_privatekey_file(str(private_key))
    except SSL.Error as error:
        raise ValueError(
            f"{private_key}: no unencrypted PEM private key, or not that of {certificate}"
        ) from error
    try:
        context.check_privatekey()
    except SSL.Error as error:
        raise ValueError(f"{private_key}: not the private key of {certificate}") from error
    return ServerContext(context)


def facts(connection: SSL.Connection) -> TlsFacts:
    """What a finished handshake has agreed on."""
    return TlsFacts(connection.get_protocol_version_name(), connection.get_cipher_name() or "")
