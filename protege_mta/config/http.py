"""The tables of the configuration that are about the HTTP APIs, events and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from ..model.address import Address
from ..model.event import EVENTS
from .hosts import HttpUrl
from .kinds import Flag, ListOf, Number, OneOf, ReadableFile, Text, Whole, Word
from .mail_names import Mailbox
from .schema import key


@attrs.frozen(kw_only=True)
class InboundHook:
    """Where mail for the domain is posted to."""

    url: str = attrs.field(metadata=key(HttpUrl(), "The endpoint."))
    secret_file: Path | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "The secrets that requests are signed with (Standard Webhooks, `whsec_...`), one a "
            "line: with two, both sign, so that one can be replaced.",
            shown_default="requests are not signed",
        ),
    )
    form: Literal["json", "raw"] = attrs.field(
        default="json",
        metadata=key(
            OneOf(("json", "raw")),
            "`json`: header, text, attachments and what is known of the sender, for programs; "
            "`raw`: the message as it is (message/rfc822).",
        ),
    )
    timeout_s: float = attrs.field(
        default=30.0,
        metadata=key(Number(1, 600, unit="seconds"), "How long nothing may move."),
    )
    ca_file: Path | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "Certificates (PEM) that are trusted to sign the endpoint's.",
            shown_default="the system's",
        ),
    )


@attrs.frozen(kw_only=True)
class Webhook:
    """An endpoint that is told of events, each at least once and in order, from where it stopped."""

    name: str = attrs.field(
        metadata=key(Word(), "Its name in logs, in commands and for its place in the journal.")
    )
    url: str = attrs.field(metadata=key(HttpUrl(), "The endpoint."))
    secret_file: Path = attrs.field(
        metadata=key(
            ReadableFile(),
            "The secrets that requests are signed with (Standard Webhooks, `whsec_...`), one a "
            "line: with two, both sign, so that one can be replaced.",
        )
    )
    events: tuple[str, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(OneOf(EVENTS), "names of events"),
            "Which events, by their [names](events.md#events); all where it is left out.",
        ),
    )
    tenant: str = attrs.field(
        default="",
        metadata=key(
            Text("a tenant", is_optional=True),
            "Only the events of this tenant.",
            shown_default="all",
        ),
    )
    batch: int = attrs.field(
        default=1,
        metadata=key(
            Whole(1, 1000),
            "So many events in a request at most; more than one makes the body an array.",
        ),
    )
    timeout_s: float = attrs.field(
        default=15.0,
        metadata=key(Number(1, 120, unit="seconds"), "How long an answer may take."),
    )
    ca_file: Path | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "Certificates (PEM) that are trusted to sign the endpoint's.",
            shown_default="the system's",
        ),
    )


@attrs.frozen(kw_only=True)
class Journal:
    """How much is kept of what has happened, for the events API and for webhooks."""

    keep_octets: int = attrs.field(
        default=1_073_741_824,
        metadata=key(
            Whole(1_048_576, unit="octets"),
            "The oldest events go when there is more. What a webhook has not had yet goes too.",
        ),
    )
    keep_s: float = attrs.field(
        default=2_592_000.0,
        metadata=key(
            Number(is_low_out=True, unit="seconds"), "The oldest events go when they are older."
        ),
    )


@attrs.frozen(kw_only=True)
class Api:
    """Limits of the HTTP APIs."""

    body_octets: int = attrs.field(
        default=67_108_864,
        metadata=key(Whole(1024, unit="octets"), "The largest request; 413 above it."),
    )
    attachment_octets: int = attrs.field(
        default=26_214_400,
        metadata=key(
            Whole(0, unit="octets"), "All attachments of a message together, decoded; 413 above it."
        ),
    )
    depth: int = attrs.field(
        default=32, metadata=key(Whole(1, 1000), "How deep JSON may be nested.")
    )
    idempotency_s: float = attrs.field(
        default=86_400.0,
        metadata=key(
            Number(60, 2_592_000, unit="seconds"),
            "How long an `Idempotency-Key` is remembered at least.",
        ),
    )
    public_url: str = attrs.field(
        default="",
        metadata=key(
            HttpUrl(is_optional=True),
            "Where this server's HTTP is reached from outside, for links in mail (one-click "
            "unsubscribe, for which it has to be `https`) and in the description of the API.",
            shown_default="none: no one-click unsubscribe",
        ),
    )
    default_from: Address | None = attrs.field(
        default=None,
        metadata=key(
            Mailbox(),
            "The sender of `/api/send` where the request names none.",
            shown_default="none",
        ),
    )
    send_per_hour: int = attrs.field(
        default=60,
        metadata=key(
            Whole(0),
            "Requests to `/api/send` in an hour from one address (of IPv6: one /64), replays by an "
            "`Idempotency-Key` aside; 429 above it. 0 = unlimited. `$RELAY_SEND_PER_HOUR` goes before it.",
        ),
    )


@attrs.frozen(kw_only=True)
class Bounces:
    """What comes back: reports of other servers about mail that we sent."""

    verp: bool = attrs.field(
        default=False,
        metadata=key(
            Flag(),
            "Send mail of HTTP and of submission with a signed return path at the domain of its "
            "sender, by which reports are matched to the message. Only for domains of ours.",
        ),
    )
    report_addresses: tuple[Address, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(Mailbox(), "addresses"),
            "Addresses at domains of ours that complaints and reports are sent to besides, such as "
            "those that a feedback loop is registered with. They need no mailbox.",
        ),
    )
    rules: tuple[Path, ...] = attrs.field(
        default=(),
        metadata=key(
            ListOf(ReadableFile(), "files"),
            "Rules that classify replies, before the ones we bring; TOML with a table of regular "
            "expressions for each class, as KumoMTA's `iana.toml` has them.",
        ),
    )
    hard_bounce_s: float = attrs.field(
        default=7_776_000.0,
        metadata=key(
            Number(0, unit="seconds"),
            "How long a mailbox that does not exist is not written to; 0 = it is not suppressed.",
        ),
    )
