"""TLS as a client: contexts for hosts we verify and for hosts we cannot (RFC 3207; RFC 7817).

Contexts are built once, at the first use; after a change of the files another object is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..model.outcome import TlsFacts

CREATORS: Final = 100
"""Most contexts for verified hosts that are kept."""


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Encryption with whoever is there; the name is sent (SNI), so that the right one answers."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if _is_name(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


class ClientTls:
    """Makes what ``startTLS`` takes.

    :param is_verifying: whether the certificate has to bear the host's name and lead to a CA;
        the name may be an IP address, which the certificate then has to bear.
    :param ca_file: PEM certificates to trust in place of the system's; empty for the system's.
    """

    def __init__(self, *, is_verifying: bool, ca_file: str = "") -> None:
        self.is_verifying = is_verifying
        self._ca_file = ca_file
        self._context: SSL.Context | None = None
        self._creators: dict[str, IOpenSSLClientConnectionCreator] = {}

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """:raise OSError, ValueError: where ``ca_file`` cannot be read or holds no certificate."""
        if not self.is_verifying:
            if self._context is None:
                self._context = CertificateOptions().getContext()
            return _Unverified(self._context, host)
        # One context a host, for Twisted keeps it to itself; verified hosts are smarthosts, and MX
        # hosts of mail that requires TLS: few.
        creator = self._creators.get(host)
        if creator is None:
            if len(self._creators) >= CREATORS:
                self._creators.clear()
            trust = self._trust()
            creator = self._creators[host] = optionsForClientTLS(host, trustRoot=trust)
        return creator

    def _trust(self) -> Any:  # Twisted's IOpenSSLTrustRoot is not public
        if not self._ca_file:
            return platformTrust()
        begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
        pieces = Path(self._ca_file).read_bytes().split(begin)[1:]
        if not pieces:
            raise ValueError(f"no certificate in {self._ca_file}")
        return trustRootFromCertificates(
            [Certificate.loadPEM(begin + piece.partition(end)[0] + end) for piece in pieces]
        )


def facts_of(connection: object, *, is_verified: bool) -> TlsFacts:
    """What a channel's handshake agreed on."""
    if not isinstance(connection, SSL.Connection):
        raise RuntimeError(f"a TLS channel without a connection: {connection!r}")
    return TlsFacts(
        protocol=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        is_verified=is_verified,
    )


def fault_of(reason: Failure) -> str:
    """Why a handshake failed, in few words fit for a reply."""
    error = reason.value
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        text = "; ".join(str(entry[-1]) for entry in error.args[0] if entry)
    else:
        text = type(error).__name__
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)[:200]


def is_distrust(reason: Failure) -> bool:
    """Whether a handshake failed over the peer's certificate: its chain, its age or its names."""
    if reason.check(VerificationError) is not None:
        return True
    error = reason.value
    return isinstance(error, SSL.Error) and "certificate verify failed" in fault_of(reason)


def _is_name(host: str) -> bool:
    return (
        bool(host)
        and host.isascii()
        and host[0] != "["
        and not (isIPAddress(host) or isIPv6Address(host))
    )
