"""What we listen on, and the certificates that are shown there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from .hosts import Cidr, IpAddress, IpNetwork
from .kinds import Flag, ListOf, Number, OneOf, ReadableFile, Whole, Word
from .schema import Table, Tables, key


def _listener_name(kind: str) -> Any:
    return attrs.field(
        default="",
        metadata=key(
            Word(),
            "The listener's name in logs and in `ports.json`, and what systemd's "
            "`FileDescriptorName=` is compared with for socket activation.",
            shown_default=f'the kind; from the second of a kind on with a number, `"{kind}-2"`',
        ),
    )


def _proxy_protocol_from() -> Any:
    return attrs.field(
        default=(),
        metadata=key(
            ListOf(Cidr(), "networks (CIDR)"),
            "Proxies such as HAProxy. Connections from them must begin with a PROXY header "
            "(version 1 or 2), whose client address is what counts from then on; from anywhere "
            "else such a header is a bad command.",
        ),
    )


@attrs.frozen(kw_only=True)
class SmtpListener:
    """Receives mail from everybody, as an MX host does.

    :ivar name: matched with systemd's FileDescriptorName.
    """

    kind: ClassVar[Literal["smtp"]] = "smtp"
    name: str = _listener_name("smtp")
    address: str = attrs.field(
        default="127.0.0.1",
        metadata=key(IpAddress(), 'The address to listen on; `"0.0.0.0"` or `"::"` for all.'),
    )
    port: int = attrs.field(
        default=25,
        metadata=key(
            Whole(0, 65535),
            "The TCP port. 0 takes any free one; which one is written to `ports.json` in "
            "`state_dir`.",
        ),
    )
    relay_hosts: tuple[IpNetwork, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(Cidr(), "networks (CIDR)"),
            "Clients that may relay to any domain without authentication. Nobody may unless "
            "listed, loopback included.",
        ),
    )
    proxy_protocol_from: tuple[IpNetwork, ...] = _proxy_protocol_from()
    greet_delay_s: float = attrs.field(
        default=0.0,
        metadata=key(
            Number(0, 60, unit="seconds"),
            "How long the greeting waits; a client that speaks before it is sent away with 554. "
            "0 greets at once.",
        ),
    )


@attrs.frozen(kw_only=True)
class SubmissionListener:
    """Receives mail from our own users (RFC 6409): STARTTLS, then AUTH, then MAIL."""

    kind: ClassVar[Literal["submission", "submissions"]] = "submission"
    name: str = _listener_name("submission")
    address: str = attrs.field(
        default="127.0.0.1",
        metadata=key(IpAddress(), 'The address to listen on; `"0.0.0.0"` or `"::"` for all.'),
    )
    port: int = attrs.field(
        default=587, metadata=key(Whole(0, 65535), "The TCP port; 0 takes any free one.")
    )
    relay_hosts: tuple[IpNetwork, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(Cidr(), "networks (CIDR)"),
            "Clients that may send without authentication; nobody unless listed.",
        ),
    )
    proxy_protocol_from: tuple[IpNetwork, ...] = _proxy_protocol_from()
    hide_client: bool = attrs.field(
        default=False,
        metadata=key(Flag(), "Leave the client's name and address out of the Received field."),
    )


@attrs.frozen(kw_only=True)
class SubmissionsListener(SubmissionListener):
    """The same with TLS from the first octet (RFC 8314, 3.3)."""

    kind: ClassVar[Literal["submission", "submissions"]] = "submissions"
    port: int = attrs.field(
        default=465, metadata=key(Whole(0, 65535), "The TCP port; 0 takes any free one.")
    )


@attrs.frozen(kw_only=True)
class HttpListener:
    """Serves the HTTP APIs, `/docs`, `/metrics`, `/healthz` and `/health`, and with `[tunnel_server]` agents at
    `/ws`."""

    kind: ClassVar[Literal["http"]] = "http"
    name: str = _listener_name("http")
    address: str = attrs.field(
        default="127.0.0.1", metadata=key(IpAddress(), "The address to listen on.")
    )
    port: int = attrs.field(
        default=8026, metadata=key(Whole(0, 65535), "The TCP port; 0 takes any free one.")
    )
    tls: bool = attrs.field(
        default=False,
        metadata=key(
            Flag(),
            "Serve HTTPS, with the certificates of `[tls]`, or a self-signed one without that table.",
        ),
    )
    trusted_proxies: tuple[IpNetwork, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(Cidr(), "networks (CIDR)"),
            "Proxies whose `X-Forwarded-For` says who the client is: the last address in it that "
            "is not itself in one of these networks. `$RELAY_TRUSTED_PROXIES` goes before it.",
        ),
    )
    relay_hosts: tuple[IpNetwork, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(Cidr(), "networks (CIDR)"),
            "Clients that may use `/api/inject/v1` without credentials.",
        ),
    )


Listener = SmtpListener | SubmissionListener | SubmissionsListener | HttpListener


@attrs.frozen(kw_only=True)
class TlsCertificate:
    """One more certificate, shown to clients that ask for one of its names (SNI)."""

    certificate: Path = attrs.field(
        metadata=key(
            ReadableFile(),
            "The certificate and its chain, PEM, ours first. It is shown for the DNS names of its "
            "SAN, where `*` stands for one label; for a name of several certificates with "
            "different algorithms, the client's abilities decide, ECDSA first.",
        )
    )
    private_key: Path = attrs.field(
        metadata=key(ReadableFile(), "Its private key, PEM, without a passphrase.")
    )


@attrs.frozen(kw_only=True)
class Tls:
    """The certificates that our listeners show. Files that have changed are found within some 10 s
    and used for new connections, without a reload. Where the table is left out TLS is offered only
    if there is a listener for submission: with a self-signed certificate for `hostname`, which is
    made in `tls` in `state_dir`.

    :ivar client_ca_file: None where clients are not asked for certificates.
    """

    certificate: Path = attrs.field(
        metadata=key(ReadableFile(), "The certificate and its chain, PEM, ours first.")
    )
    private_key: Path = attrs.field(
        metadata=key(ReadableFile(), "Its private key, PEM, without a passphrase.")
    )
    min_version: Literal["1.2", "1.3"] = attrs.field(
        default="1.2",
        metadata=key(OneOf(("1.2", "1.3")), "The oldest TLS version that is accepted."),
    )
    certificates: tuple[TlsCertificate, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(TlsCertificate)))
    )
    client_ca_file: Path | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "Certificates (PEM) of those who may sign certificates of clients. Listeners for "
            "submission ask for one then and do without, but one that does not verify ends the "
            "handshake. It never stands in for AUTH.",
            shown_default="clients are not asked for certificates",
        ),
    )
