"""How the outbound client behaves; plain values, made by ``compose`` from the configuration."""

from __future__ import annotations

from typing import Final, Literal

import attrs

from ..wire.client import Awaited
from ..wire.sasl_client import Credentials

REPLY_S: Final[dict[Awaited, float]] = {
    Awaited.GREETING: 300,
    Awaited.TLS: 60,
    Awaited.EHLO: 300,
    Awaited.HELO: 300,
    Awaited.STARTTLS: 120,
    Awaited.AUTH: 300,
    Awaited.RSET: 20,
    Awaited.MAIL: 300,
    Awaited.RCPT: 300,
    Awaited.DATA: 120,
    Awaited.BLOCK: 180,
    Awaited.DOT: 600,
    Awaited.EMPTY_DOT: 20,
    Awaited.QUIT: 5,
}
"""Seconds to wait for each reply, at least (RFC 5321, 4.5.3.2); those it does not name are short,
since nothing is lost with them."""


@attrs.frozen
class ClientSettings:
    """One kind of outbound connection.

    :ivar ehlo_name: our host name or address literal, for EHLO.
    :ivar tls: ``opportunistic``: where it is offered, in clear where it fails; ``starttls`` and
        ``implicit`` (from the first octet) never go on without; ``none``.
    :ivar is_verifying: whether the certificate must name the host and lead to a CA; for
        ``starttls`` and ``implicit``.
    :ivar ca_file: PEM file of CAs to trust in place of the system's; empty for the system's.
    :ivar credentials: None to stay anonymous.  They go in clear to this machine only.
    :ivar source_addresses: local addresses to send from, in turn; a peer of a family that none
        belongs to is not tried.  Empty: whatever the system chooses.
    :ivar connect_s: how long one address may take to answer.
    :ivar reply_s: by what is awaited.
    :ivar idle_s: how long a connection is kept for the next message.
    :ivar messages: most messages a connection.
    """

    ehlo_name: str
    protocol: Literal["smtp", "lmtp"] = "smtp"
    tls: Literal["opportunistic", "starttls", "implicit", "none"] = "opportunistic"
    is_verifying: bool = True
    ca_file: str = ""
    credentials: Credentials | None = None
    source_addresses: tuple[str, ...] = ()
    connect_s: float = 30.0
    reply_s: dict[Awaited, float] = attrs.field(factory=lambda: dict(REPLY_S), hash=False)
    idle_s: float = 10.0
    messages: int = 1000
