"""The tables of the domains that we are the final stop for, one class a way of delivering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import attrs

from .hosts import HostPort, ServerAddress, UnixPath
from .http import InboundHook
from .kinds import Flag, ListOf, Number, OneOf
from .mail_names import LocalPart, MaildirTemplate
from .schema import Table, key

RECIPIENTS: Final = ListOf(LocalPart(), "local-parts", least=1)


def _authentication() -> Any:
    return attrs.field(
        default="none",
        metadata=key(
            OneOf(("none", "quarantine", "reject")),
            "What becomes of mail that fails DMARC where the domain of its From asks for more than "
            '`p=none`: `"quarantine"` delivers it with `X-Protege-Quarantine: dmarc`, `"reject"` '
            "refuses it (550 5.7.1) where the domain asks for that, and quarantines the rest. "
            "Needs `authenticate` of `[policy]`.",
        ),
    )


def _shared() -> Any:
    return attrs.field(
        default=False,
        metadata=key(
            Flag(),
            "The domain has mailboxes elsewhere too: what those who may relay send to a "
            "local-part that is not in `recipients` goes the way out, instead of being refused.",
        ),
    )


@attrs.frozen(kw_only=True)
class MaildirDomain:
    """Mail for the domain ends in Maildirs of this machine.

    :ivar maildir: an absolute path with ``{domain}`` and ``{local_part}`` to be filled in.
    :ivar mailboxes: paths of Maildirs that are elsewhere, by local-part in lower case; a Protege
        project's are, and no other configuration has a word for it.
    """

    deliver: ClassVar[Literal["maildir"]] = "maildir"
    maildir: str = attrs.field(
        metadata=key(
            MaildirTemplate(),
            "Where a recipient's Maildir is; it is made with the first message. `{local_part}` "
            "is put in lower case; octets outside `a-z0-9_+-.` and a leading dot are "
            "percent-encoded, over 200 octets hashed.",
        )
    )
    recipients: tuple[str, ...] = attrs.field(
        metadata=key(
            RECIPIENTS,
            'The local-parts that have a mailbox; `["*"]` takes any. Others are refused with '
            "550 5.1.1.",
        )
    )
    shared: bool = _shared()
    authentication: Literal["none", "quarantine", "reject"] = _authentication()
    mailboxes: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class LmtpDomain:
    """Mail for the domain goes to an LMTP server (RFC 2033)."""

    deliver: ClassVar[Literal["lmtp"]] = "lmtp"
    lmtp: HostPort | UnixPath = attrs.field(
        metadata=key(
            ServerAddress(
                'a server such as "127.0.0.1:24" or "unix:/run/dovecot/lmtp"',
                is_name_allowed=True,
                has_unix=True,
            ),
            "The server, `host:port` or `unix:/path`.",
        )
    )
    recipients: tuple[str, ...] = attrs.field(
        default=("*",),
        metadata=key(
            RECIPIENTS,
            "The local-parts that are accepted. With `*` the LMTP server alone knows who exists, "
            "and mail for others is bounced instead of refused.",
        ),
    )
    shared: bool = _shared()
    authentication: Literal["none", "quarantine", "reject"] = _authentication()


@attrs.frozen(kw_only=True)
class Tunnel:
    """How mail waits for agents that are away."""

    store: bool = attrs.field(
        default=True,
        metadata=key(
            Flag(),
            "Keep mail until its agent has it. `false` keeps nothing: mail for an agent that is "
            "away is refused for the time being (450), and 250 says that every recipient's session "
            "has been handed the message (451 otherwise).",
        ),
    )
    hold_s: float = attrs.field(
        default=432_000.0,
        metadata=key(
            Number(is_low_out=True, unit="seconds"),
            "With `store`: the age at which mail that no session of its agent has taken is "
            "returned to its sender.",
        ),
    )


@attrs.frozen(kw_only=True)
class TunnelDomain:
    """Mail for the domain goes to agents, through their tunnels. The local-part is an agent's key or
    one of its aliases. Needs `[tunnel_server]`."""

    deliver: ClassVar[Literal["tunnel"]] = "tunnel"
    tunnel: Tunnel = attrs.field(factory=Tunnel, metadata=key(Table(Tunnel)))
    authentication: Literal["none", "quarantine", "reject"] = _authentication()


@attrs.frozen(kw_only=True)
class WebhookDomain:
    """Mail for the domain is posted to an HTTP endpoint; 2xx is delivered, a refusal in so many words
    and 410 are returned to the sender, anything else is tried again."""

    deliver: ClassVar[Literal["webhook"]] = "webhook"
    webhook: InboundHook = attrs.field(metadata=key(Table(InboundHook)))
    recipients: tuple[str, ...] = attrs.field(
        default=("*",),
        metadata=key(RECIPIENTS, "The local-parts that are accepted."),
    )
    shared: bool = _shared()
    authentication: Literal["none", "quarantine", "reject"] = _authentication()


Domain = MaildirDomain | LmtpDomain | TunnelDomain | WebhookDomain
