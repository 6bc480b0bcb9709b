"""The tables of the configuration that are about the tunnel, in both its roles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from .hosts import WebSocketUrl
from .kinds import FilePath, Flag, InlineText, Number, OneOf, ReadableFile, Whole, Word
from .schema import Named, Table, Tables, key


@attrs.frozen(kw_only=True)
class AttestationKey:
    """The key by which agents know that it was this relay that checked a message's sender."""

    key_id: str = attrs.field(metadata=key(Word(), "The name that agents know the key by."))
    private_key: Path = attrs.field(metadata=key(ReadableFile(), "The private key, PEM: Ed25519."))


@attrs.frozen(kw_only=True)
class TunnelServer:
    """Makes this MTA a relay server: agents come to `/ws` on the listeners of kind `http`.

    :ivar attestation: None to attach none.
    """

    enabled: bool = attrs.field(default=False, metadata=key(Flag(), "Whether agents may come."))
    identities: Literal["listed", "any"] = attrs.field(
        default="listed",
        metadata=key(
            OneOf(("listed", "any")),
            '`"listed"`: the agents of `identities_file` may log in, and nobody else. `"any"`: '
            "whoever has a key receives mail and sends as its own address.",
        ),
    )
    identities_file: Path = attrs.field(
        default=Path("identities.toml"),
        metadata=key(
            FilePath(),
            "The agents, with their aliases and limits (below); `protege-mta tunnel` writes it. A "
            "change takes effect within a second; a file that is broken then changes nothing.",
            shown_default="`identities.toml` beside the configuration",
        ),
    )
    send_per_hour: int = attrs.field(
        default=60,
        metadata=key(
            Whole(0),
            "Messages an hour that an agent may send, where `identities_file` says nothing else; "
            "0 = unlimited.",
        ),
    )
    attestation: AttestationKey | None = attrs.field(
        default=None, metadata=key(Table(AttestationKey))
    )
    auth_per_ip_per_minute: int = attrs.field(
        default=60,
        metadata=key(
            Whole(0),
            "Messages before authentication a minute from one IP address, of which a login takes "
            "two; 0 = unlimited. An IPv6 address stands for its /64.",
        ),
    )
    sessions: int = attrs.field(
        default=10_000,
        metadata=key(
            Whole(1),
            "Connections to `/ws` at a time, beside the limits of HTTP. The process needs as many "
            "file descriptors.",
        ),
    )
    ping_s: float = attrs.field(
        default=30.0,
        metadata=key(
            Number(1, 3600, unit="seconds"),
            "How long a session may be silent before it is asked whether it is still there.",
        ),
    )
    idle_s: float = attrs.field(
        default=120.0,
        metadata=key(
            Number(2, 86_400, unit="seconds"),
            "A session from which nothing has come for so long is closed; likewise one that has "
            "not authenticated within a quarter of it.",
        ),
    )


@attrs.frozen(kw_only=True)
class TrustedKey:
    """The key of a relay whose word about a message's sender is believed."""

    key_id: str = attrs.field(metadata=key(Word(), "The name that the relay calls it by."))
    public_key: Path | InlineText = attrs.field(
        metadata=key(ReadableFile(), "The public key, PEM: Ed25519.")
    )


@attrs.frozen(kw_only=True)
class Relay:
    """The relay server that mail goes through; needed with `mode = "relay"`, and only there.

    :ivar personas: None where `identity` names the keys.
    :ivar ca_file: None for the system's certification authorities.
    """

    url: str = attrs.field(
        metadata=key(
            WebSocketUrl(),
            "Where it is; plain `ws://` only for relays on this machine "
            "or in a network that you trust.",
        )
    )
    personas: Path | None = attrs.field(
        default=None,
        metadata=key(
            FilePath(),
            "The folder of Protege personas, each a folder with a `passport.key`; every one of "
            "them has a session. Changes are found within 10 s.",
            shown_default="none",
        ),
    )
    identity: Mapping[str, Path] = attrs.field(
        factory=dict,
        metadata=key(
            Named(Word(), ReadableFile()),
            "Private keys (PEM, Ed25519) of agents, under names that appear in logs alone.",
        ),
    )
    trusted: tuple[TrustedKey, ...] = attrs.field(
        default=(), metadata=key(Tables(Table(TrustedKey)))
    )
    unattested: Literal["accept", "refuse"] = attrs.field(
        default="accept",
        metadata=key(
            OneOf(("accept", "refuse")),
            "What becomes of mail that comes through the tunnel without the word of one of the "
            "`trusted` keys.",
        ),
    )
    ca_file: Path | None = attrs.field(
        default=None,
        metadata=key(
            ReadableFile(is_optional=True),
            "Certificates (PEM) that are trusted to sign the relay's.",
            shown_default="the system's",
        ),
    )
    reconnect_base_s: float = attrs.field(
        default=0.25,
        metadata=key(
            Number(is_low_out=True, unit="seconds"),
            "The wait after a session is lost; each further loss doubles it.",
        ),
    )
    reconnect_max_s: float = attrs.field(
        default=30.0,
        metadata=key(Number(is_low_out=True, unit="seconds"), "No wait is longer."),
    )
    ping_s: float = attrs.field(
        default=30.0,
        metadata=key(
            Number(1, 3600, unit="seconds"),
            "How long a session may be silent before the relay is asked whether it is still there; "
            "without an answer for as long again it is lost.",
        ),
    )
