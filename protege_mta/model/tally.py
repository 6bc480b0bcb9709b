"""Counts that hot code keeps as plain integers; ``observe.metrics`` reads them when it is asked."""

from __future__ import annotations

from typing import Final

import attrs

LOGINS: Final = ("succeeded", "failed", "locked", "later")
"""How a login ends: ``locked`` after too many failures, ``later`` where we could not check it."""


TUNNEL_LOGINS: Final = ("succeeded", "not-allowed", "limited", "failed")
"""How an agent's login at our relay ends: ``limited`` for an address that tries too often."""

STREAMS_IN: Final = ("taken", "refused", "later", "broken-off")
"""How a stream from an agent ends: ``later`` for a refusal that is not final."""

STREAMS_OUT: Final = ("delivered", "refused", "later")
"""How a stream to an agent ends."""


@attrs.define(eq=False)
class TunnelTally:
    """What a relay server has done since the start.

    :ivar connections_refused: for want of room.
    :ivar octets_in: of content.
    """

    connections_refused: int = 0
    logins: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(TUNNEL_LOGINS, 0))
    streams_in: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(STREAMS_IN, 0))
    streams_out: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(STREAMS_OUT, 0))
    octets_in: int = 0
    octets_out: int = 0


@attrs.define(eq=False)
class Tally:
    """What the SMTP sides have done since the start.

    :ivar replies_in: replies that we gave, by their first digit (index 2 to 5).
    :ivar replies_out: replies that peers gave us, likewise.
    :ivar proxy_headers_refused: connections from proxies that were cut for want of a header.
    :ivar recipients_delayed: refusals of RCPT that were held back, lest somebody guess mailboxes.
    :ivar tls_failures_in: handshakes that failed on our listeners.
    :ivar logins: what became of clients' AUTH, by result.
    """

    connections_in: int = 0
    connections_in_open: int = 0
    connections_refused: int = 0
    proxy_headers_refused: int = 0
    recipients_delayed: int = 0
    recipients_delayed_now: int = 0
    replies_in: list[int] = attrs.field(factory=lambda: [0] * 6)
    tls_in: int = 0
    tls_failures_in: int = 0
    logins: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(LOGINS, 0))
    connections_out: int = 0
    connections_out_open: int = 0
    connections_out_failed: int = 0
    replies_out: list[int] = attrs.field(factory=lambda: [0] * 6)
    tls_out: int = 0
    tls_failures_out: int = 0
    tunnel: TunnelTally = attrs.field(factory=TunnelTally)

    def add_out(self, now: Tally, before: Tally) -> None:
        """Add what another process's outbound side has done between two of its tallies."""
        self.connections_out += now.connections_out - before.connections_out
        self.connections_out_open += now.connections_out_open - before.connections_out_open
        self.connections_out_failed += now.connections_out_failed - before.connections_out_failed
        self.tls_out += now.tls_out - before.tls_out
        self.tls_failures_out += now.tls_failures_out - before.tls_failures_out
        for digit, count in enumerate(now.replies_out):
            self.replies_out[digit] += count - before.replies_out[digit]
