"""The configuration as a tree of frozen values, every default in its class.

A field with ``key`` metadata is a key of the file; :mod:`.toml` reads by it and :mod:`.reference`
writes the reference page from it.  Paths are absolute once :func:`.toml.load` has made the tree,
save :attr:`Events.log`.  Files that hold secrets are named here, never read here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import attrs

from ..model.address import Address
from .domains import Domain, LmtpDomain, MaildirDomain, TunnelDomain, WebhookDomain
from .http import Api, Bounces, Journal, Webhook
from .kinds import (
    ANY_ANSWER,
    AnswerRange,
    Answers,
    Cidr,
    FilePath,
    Flag,
    HostName,
    HostOrAddress,
    HostPort,
    InlineText,
    IpAddress,
    IpNetwork,
    ListOf,
    Mailbox,
    MailDomain,
    Number,
    OneOf,
    ReadableFile,
    Selector,
    ServerAddress,
    StatePath,
    Text,
    Whole,
    Word,
    is_host_name,
)
from .networks import PROHIBITED_NETWORKS
from .schema import Named, Table, Tables, Variant, key
from .tunnel import Relay, TunnelServer

SECONDS: Final = Number(unit="seconds")
SECONDS_ABOVE_0: Final = Number(is_low_out=True, unit="seconds")


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
    """Serves `/metrics`, `/healthz` and `/health`, and with `[tunnel_server]` agents at `/ws`."""

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
            "is not itself in one of these networks.",
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


@attrs.frozen(kw_only=True)
class Smarthost:
    """The one host that takes all outbound mail; needed with `route = "smarthost"`.

    :ivar password_file: None where no password is needed.
    :ivar ca_file: None for the system's certification authorities.
    """

    host: str = attrs.field(metadata=key(HostOrAddress(), "Its name or address."))
    port: int = attrs.field(default=587, metadata=key(Whole(1, 65535), "Its TCP port."))
    tls: Literal["none", "opportunistic", "starttls", "implicit"] = attrs.field(
        default="starttls",
        metadata=key(
            OneOf(("none", "opportunistic", "starttls", "implicit")),
            '`"starttls"` insists on STARTTLS, `"implicit"` starts with the handshake (port 465), '
            '`"opportunistic"` takes STARTTLS where it is offered, `"none"` sends in plain text; '
            "with the last two a password goes to this machine only.",
        ),
    )
    username: str = attrs.field(
        default="",
        metadata=key(Text("a user name", is_optional=True), "For AUTH; empty for none."),
    )
    password_file: Path | InlineText | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "The file whose first line is the password; empty for none.",
            shown_default="none",
        ),
    )
    ca_file: Path | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "Certificates (PEM) that are trusted to sign the host's.",
            shown_default="the system's",
        ),
    )


@attrs.frozen(kw_only=True)
class Outbound:
    """Mail for domains that are not ours.

    :ivar smarthost: never None with ``route = "smarthost"``.
    """

    route: Literal["", "mx", "smarthost", "tunnel"] = attrs.field(
        default="",
        metadata=key(
            OneOf(("mx", "smarthost", "tunnel")),
            '`"mx"` finds the hosts in the DNS (RFC 5321, section 5); `"smarthost"` hands all '
            'mail to one; `"tunnel"`, which needs `mode = "relay"`, to the relay server.',
            shown_default='`"mx"`; with `mode = "relay"` it is `"tunnel"`',
        ),
    )
    mx_port: int = attrs.field(
        default=25,
        metadata=key(Whole(1, 65535), "The port of MX hosts; another than 25 is for tests."),
    )
    smarthost: Smarthost | None = attrs.field(
        default=None,
        metadata=key(Table(Smarthost)),
    )
    source_addresses: tuple[str, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(IpAddress(), "IP addresses"),
            "Local addresses to send from, one of the family that the peer has.",
            shown_default="the system chooses",
        ),
    )
    prohibited_networks: tuple[IpNetwork, ...] = attrs.field(
        default=PROHIBITED_NETWORKS,
        metadata=key(
            ListOf(Cidr(), "networks (CIDR)"),
            'Networks that `route = "mx"` never connects to, whatever the DNS says; IPv4-mapped '
            "and NAT64 addresses are unwrapped first. `[]` allows all. Our own listeners are "
            "always refused.",
            shown_default="loopback, link-local, private, shared, multicast and reserved networks",
        ),
    )


@attrs.frozen(kw_only=True)
class Dns:
    """Who answers our questions to the DNS."""

    nameservers: tuple[HostPort, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(
                ServerAddress(
                    'an IP address, with a port where it is not 53: "127.0.0.1:5353"',
                    default_port=53,
                ),
                "name servers",
            ),
            "Recursive name servers, as `address` or `address:port`.",
            shown_default="those of `/etc/resolv.conf`",
        ),
    )
    trust_ad: bool = attrs.field(
        default=False,
        metadata=key(
            Flag(),
            "Believe these servers when they say that an answer was validated by DNSSEC; only "
            "for a validating resolver on this machine or over a trusted path.",
        ),
    )


@attrs.frozen(kw_only=True)
class DkimSelector:
    """One key.  Every selector adds a signature of its own."""

    name: str = attrs.field(
        metadata=key(Selector(), "The selector: the key is published at `name._domainkey.domain`.")
    )
    private_key: Path = attrs.field(
        metadata=key(ReadableFile(), "The private key, PEM: RSA of 1024 bits or more, or Ed25519.")
    )


@attrs.frozen(kw_only=True)
class Dkim:
    """The keys that sign mail with a From address of this domain (RFC 6376, RFC 8463)."""

    selectors: tuple[DkimSelector, ...] = attrs.field(metadata=key(Tables(Table(DkimSelector))))


@attrs.frozen(kw_only=True)
class Retry:
    """When a recipient that failed for the time being is tried again, and for how long."""

    first_s: float = attrs.field(
        default=300.0,
        metadata=key(SECONDS_ABOVE_0, "The wait after the first failure."),
    )
    factor: float = attrs.field(
        default=2.0,
        metadata=key(Number(1, 1000), "Every further wait is so many times longer."),
    )
    max_interval_s: float = attrs.field(
        default=14_400.0,
        metadata=key(SECONDS_ABOVE_0, "No wait is longer."),
    )
    max_age_s: float = attrs.field(
        default=432_000.0,
        metadata=key(SECONDS_ABOVE_0, "The age at which a message is returned to its sender."),
    )
    bounce_max_age_s: float = attrs.field(
        default=86_400.0,
        metadata=key(
            SECONDS_ABOVE_0, "The same for mail with a null reverse-path, which ends then."
        ),
    )
    delay_warning_s: float = attrs.field(
        default=14_400.0,
        metadata=key(SECONDS, "The age at which the sender is told of the delay; 0 for never."),
    )
    jitter: float = attrs.field(
        default=0.1,
        metadata=key(Number(0, 1), "The greatest share of a wait that is added to it by chance."),
    )


@attrs.frozen(kw_only=True)
class Limits:
    """How much we take on, from everybody and from one."""

    message_octets: int = attrs.field(
        default=52_428_800,
        metadata=key(Whole(1, unit="octets"), "The largest message that is accepted."),
    )
    recipients: int = attrs.field(
        default=1000,
        metadata=key(
            Whole(1),
            "Recipients of one transaction; RFC 5321, 4.5.3.1.8, wants 100 at least.",
        ),
    )
    future_release_s: int = attrs.field(
        default=2_592_000,
        metadata=key(
            Whole(0, 999_999_999, unit="seconds"),
            "For how long at most a message is held when its sender asks for a later release "
            "(FUTURERELEASE, RFC 4865), on submission listeners; 0 = not offered.",
        ),
    )
    connections: int = attrs.field(
        default=2000, metadata=key(Whole(1), "SMTP connections at a time, all listeners together.")
    )
    connections_per_ip: int = attrs.field(
        default=50,
        metadata=key(
            Whole(0),
            "SMTP connections at a time from one IP address; 0 = unlimited. Here and below an IPv6 "
            "address stands for its /64.",
        ),
    )
    connections_per_ip_per_minute: int = attrs.field(
        default=0,
        metadata=key(Whole(0), "New SMTP connections a minute from one of them; 0 = unlimited."),
    )
    messages_per_ip_per_minute: int = attrs.field(
        default=0, metadata=key(Whole(0), "Messages a minute from one IP address; 0 = unlimited.")
    )
    recipients_per_ip_per_minute: int = attrs.field(
        default=0, metadata=key(Whole(0), "Likewise recipients, refused ones included.")
    )
    unknown_recipients: int = attrs.field(
        default=5,
        metadata=key(
            Whole(0),
            "So many recipients that do not exist are refused at once in a connection; each "
            "further one is after a delay that grows to 10 s, and after four times as many the "
            "connection is closed. 0 never delays. `relay_hosts` are exempt, here and below.",
        ),
    )
    offences_per_ip: int = attrs.field(
        default=5,
        metadata=key(
            Whole(0),
            "After so many connections that ended for too many errors, guessing at recipients or "
            "speaking before the greeting, an IP address is refused (421); 0 = never.",
        ),
    )
    shut_out_s: float = attrs.field(
        default=600.0,
        metadata=key(SECONDS_ABOVE_0, "How long it is, from its last offence on."),
    )
    free_octets: int = attrs.field(
        default=1_073_741_824,
        metadata=key(
            Whole(0, unit="octets"),
            "Mail is refused for the time being (452 4.3.1) rather than leave less free space on "
            "the spool's disk.",
        ),
    )
    free_inodes: int = attrs.field(default=10_000, metadata=key(Whole(0), "Likewise for inodes."))
    request_memory_s: float = attrs.field(
        default=691_200.0,
        metadata=key(
            SECONDS_ABOVE_0,
            "For how long it is remembered under which name a client handed in a message, so that "
            "the same again is taken once; at least while it is in the queue.",
        ),
    )
    pass_through_octets: int = attrs.field(
        default=268_435_456,
        metadata=key(
            Whole(0, unit="octets"),
            "Memory for mail that a tunnel with `store = false` passes through, all transactions "
            "together; 452 4.3.1 above it.",
        ),
    )


@attrs.frozen(kw_only=True)
class _DnsList:
    zone: str = attrs.field(metadata=key(HostName(), "Where the list is in the DNS."))
    answers: tuple[AnswerRange, ...] = attrs.field(
        default=(ANY_ANSWER,),
        metadata=key(
            ListOf(Answers(), "answers", least=1), "The answers of the list that mean a listing."
        ),
    )


@attrs.frozen(kw_only=True)
class DnsBlockList(_DnsList):
    """A list in the DNS of addresses that mail is not wanted from (RFC 5782); asked for each
    client that is not in `relay_hosts`. One that fails blocks nobody."""

    action: Literal["reject", "defer"] = attrs.field(
        default="reject",
        metadata=key(
            OneOf(("reject", "defer")),
            "RCPT is answered with 550 5.7.1 or with 450 4.7.1, and the zone's name.",
        ),
    )


@attrs.frozen(kw_only=True)
class DnsAllowList(_DnsList):
    """A list of addresses that are vouched for: no block list, HELO check or greylist counts for
    them."""


@attrs.frozen(kw_only=True)
class Greylist:
    """Recipients are refused for the time being (450 4.7.1) until the sender has come again. What
    it knows is in memory: after a restart some mail is late once more."""

    enabled: bool = attrs.field(default=False, metadata=key(Flag(), "Whether there is one."))
    delay_s: float = attrs.field(
        default=300.0,
        metadata=key(
            SECONDS,
            "How long after its first try a triplet of network (/24, /64), sender and recipient "
            "may come in.",
        ),
    )
    retry_s: float = attrs.field(
        default=172_800.0,
        metadata=key(SECONDS_ABOVE_0, "How long the first try is remembered."),
    )
    keep_s: float = attrs.field(
        default=3_024_000.0,
        metadata=key(SECONDS_ABOVE_0, "How long it may come at once, from the last time on."),
    )
    allow_after: int = attrs.field(
        default=5,
        metadata=key(
            Whole(0),
            "A network of which so many triplets have come again may send anything at once; "
            "0 = never.",
        ),
    )


@attrs.frozen(kw_only=True)
class Policy:
    """What is asked of clients of `smtp` listeners that are not in `relay_hosts`. All but
    `authenticate` is off by default."""

    authenticate: bool = attrs.field(
        default=True,
        metadata=key(
            Flag(),
            "Check SPF, DKIM and DMARC of their mail, once and before it is accepted, and write "
            "the results into `Authentication-Results`. What the DNS does not say within 10 seconds "
            "counts as unknown.",
        ),
    )
    helo: Literal["off", "syntax", "resolves"] = attrs.field(
        default="off",
        metadata=key(
            OneOf(("off", "syntax", "resolves")),
            "What the name in HELO or EHLO has to be: `syntax` wants an address literal or a host "
            "name with a dot (else 550 5.7.1), `resolves` one that is in the DNS too (else "
            "450 4.7.1).",
        ),
    )
    dnsbl: tuple[DnsBlockList, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(DnsBlockList)))
    )
    allowlist: tuple[DnsAllowList, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(DnsAllowList)))
    )
    greylist: Greylist = attrs.field(factory=Greylist, metadata=key(Table(Greylist)))


@attrs.frozen(kw_only=True)
class Login:
    """How failed logins of submission clients are answered.

    A place is an IPv4 address, or the /64 of an IPv6 one.
    """

    delay_s: float = attrs.field(
        default=1.0,
        metadata=key(
            SECONDS,
            "What the answer waits after one failure; each further one doubles it, up to 16 "
            "seconds. 0 = no waits.",
        ),
    )
    failures: int = attrs.field(
        default=10,
        metadata=key(
            Whole(1),
            "So many failures for one name at one place lock it there; three times as many for any "
            "names lock the place, but for names that have logged in from it before.",
        ),
    )
    window_s: float = attrs.field(
        default=600.0,
        metadata=key(SECONDS_ABOVE_0, "The time within which failures are counted."),
    )
    lock_s: float = attrs.field(
        default=900.0, metadata=key(SECONDS, "How long a lock lasts; 0 = no locks.")
    )


@attrs.frozen(kw_only=True)
class Workers:
    """Processes that share the work."""

    count: int = attrs.field(default=1, metadata=key(Whole(1, 1), "This version runs one."))
    delivery: Literal["auto", "process", "main"] = attrs.field(
        default="auto",
        metadata=key(
            OneOf(("auto", "process", "main")),
            "Who signs mail and sends it to other hosts: a `process` of its own, or the `main` one; "
            "`auto` is a process of its own where there is more than one processor. "
            "A change takes a restart.",
        ),
    )


@attrs.frozen(kw_only=True)
class Events:
    """Where each transition of each recipient is told."""

    log: Path = attrs.field(
        default=Path("events.jsonl"),
        metadata=key(
            StatePath(),
            "The event log, one JSON object a line; a relative path starts at `state_dir`.",
        ),
    )


def own_name() -> str:
    """The machine's name, where it can be a host's."""
    name = os.uname().nodename.lower()
    return name if is_host_name(name) else "localhost"


@attrs.frozen(kw_only=True)
class Settings:
    """The whole configuration.

    :ivar source: the file or the project's folder that this was read from; None for the embedded
        default.
    """

    source: Path | None = None
    mode: Literal["local", "relay"] = attrs.field(
        default="local",
        metadata=key(
            OneOf(("local", "relay")),
            '`"local"`: mail comes in by SMTP on a port of this machine. `"relay"`: it comes and '
            "goes through a tunnel to the relay server of `[relay]`, and no public port is needed.",
        ),
    )
    hostname: str = attrs.field(
        factory=own_name,
        metadata=key(
            HostName(),
            "Our name in EHLO, Received and Message-ID; it should resolve to our address, and "
            "the address back to it.",
            shown_default="the machine's name",
        ),
    )
    state_dir: Path = attrs.field(
        default=Path("state"),
        metadata=key(
            FilePath(),
            "The folder of the spool, the accounts, `ports.json` and the event log; made with mode "
            "0700.",
        ),
    )
    run_dir: Path = attrs.field(
        default=attrs.Factory(lambda self: self.state_dir / "run", takes_self=True),
        metadata=key(
            FilePath(),
            "The folder of `control.sock` and `submit.sock`.",
            shown_default="`run` in `state_dir`",
        ),
    )
    drain_s: float = attrs.field(
        default=30.0,
        metadata=key(SECONDS, "How long SIGTERM lets transfers under way come to their end."),
    )
    public_addresses: tuple[str, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(IpAddress(), "IP addresses"),
            "Our addresses as others see them, for the DNS records that are to be published.",
            shown_default="those that are listened on or sent from, as far as they are public",
        ),
    )
    postmaster: Address | None = attrs.field(
        default=None,
        metadata=key(
            Mailbox(),
            "Where mail for `postmaster` of every own domain goes when the domain has no such "
            "mailbox.",
            shown_default="none",
        ),
    )
    listeners: tuple[Listener, ...] = attrs.field(
        default=(),
        metadata=key(
            Tables(
                Variant(
                    "kind",
                    {
                        "smtp": SmtpListener,
                        "submission": SubmissionListener,
                        "submissions": SubmissionsListener,
                        "http": HttpListener,
                    },
                )
            )
        )
        | {"name": "listener"},
    )
    tls: Tls | None = attrs.field(default=None, metadata=key(Table(Tls)))
    domains: Mapping[str, Domain] = attrs.field(
        factory=dict,
        metadata=key(
            Named(
                MailDomain(),
                Variant(
                    "deliver",
                    {
                        "maildir": MaildirDomain,
                        "lmtp": LmtpDomain,
                        "tunnel": TunnelDomain,
                        "webhook": WebhookDomain,
                    },
                ),
            )
        ),
    )
    outbound: Outbound = attrs.field(factory=Outbound, metadata=key(Table(Outbound)))
    relay: Relay | None = attrs.field(default=None, metadata=key(Table(Relay)))
    tunnel_server: TunnelServer = attrs.field(
        factory=TunnelServer, metadata=key(Table(TunnelServer))
    )
    dns: Dns = attrs.field(factory=Dns, metadata=key(Table(Dns)))
    dkim: Mapping[str, Dkim] = attrs.field(
        factory=dict, metadata=key(Named(MailDomain(), Table(Dkim)))
    )
    retry: Retry = attrs.field(factory=Retry, metadata=key(Table(Retry)))
    limits: Limits = attrs.field(factory=Limits, metadata=key(Table(Limits)))
    policy: Policy = attrs.field(factory=Policy, metadata=key(Table(Policy)))
    login: Login = attrs.field(factory=Login, metadata=key(Table(Login)))
    workers: Workers = attrs.field(factory=Workers, metadata=key(Table(Workers)))
    events: Events = attrs.field(factory=Events, metadata=key(Table(Events)))
    journal: Journal = attrs.field(factory=Journal, metadata=key(Table(Journal)))
    webhooks: tuple[Webhook, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(Webhook))) | {"name": "webhook"}
    )
    api: Api = attrs.field(factory=Api, metadata=key(Table(Api)))
    bounces: Bounces = attrs.field(factory=Bounces, metadata=key(Table(Bounces)))

    @property
    def route(self) -> Literal["mx", "smarthost", "tunnel"]:
        """The way out for mail that is not for our own domains."""
        return self.outbound.route or ("tunnel" if self.mode == "relay" else "mx")

    @property
    def self_signed_folder(self) -> Path:
        """Where we keep the certificate that stands in for a missing ``[tls]``."""
        return self.state_dir / "tls"

    @property
    def is_self_signed(self) -> bool:
        """Whether that certificate is needed: submission is never without TLS."""
        return self.tls is None and any(
            isinstance(each, SubmissionListener) or (isinstance(each, HttpListener) and each.tls)
            for each in self.listeners
        )

    @property
    def control_socket(self) -> Path:
        return self.run_dir / "control.sock"

    @property
    def submit_socket(self) -> Path:
        return self.run_dir / "submit.sock"

    @property
    def journal_dir(self) -> Path:
        """Where events are kept for the API and for webhooks."""
        return self.state_dir / "journal"

    @property
    def events_log(self) -> Path:
        return self.state_dir / self.events.log
