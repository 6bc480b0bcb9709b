"""The tables about the way out: hosts, names, signatures and patience."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from .hosts import Cidr, HostOrAddress, HostPort, IpAddress, IpNetwork, ServerAddress
from .kinds import (
    SECONDS,
    SECONDS_ABOVE_0,
    Flag,
    InlineText,
    ListOf,
    Number,
    OneOf,
    ReadableFile,
    Text,
    Whole,
)
from .mail_names import Selector
from .networks import PROHIBITED_NETWORKS
from .schema import Table, Tables, key


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
