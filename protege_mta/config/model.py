"""The configuration as a tree of frozen values, every default in its class.

A field with ``key`` metadata is a key of the file; :mod:`.toml` reads by it and :mod:`.reference`
writes the reference page from it.  Paths are absolute once :func:`.toml.load` has made the tree,
save :attr:`Events.log`.  Files that hold secrets are named here, never read here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from ..model.address import Address
from .domains import Domain, LmtpDomain, MaildirDomain, TunnelDomain, WebhookDomain
from .hosts import HostName, IpAddress, is_host_name
from .http import Api, Bounces, Journal, Webhook
from .kinds import SECONDS, FilePath, ListOf, OneOf, StatePath, Whole
from .listeners import (
    HttpListener,
    Listener,
    SmtpListener,
    SubmissionListener,
    SubmissionsListener,
    Tls,
)
from .mail_names import Mailbox, MailDomain
from .outbound import Dkim, Dns, Outbound, Retry
from .policy import Limits, Login, Policy
from .schema import Named, Table, Tables, Variant, key
from .tunnel import Relay, TunnelServer


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
