"""What sessions of a tunnel may take, and how long they wait."""

from __future__ import annotations

import attrs

from ..wire.tunnel.messages import Terms


@attrs.frozen(kw_only=True)
class TunnelLimits:
    """:ivar message_octets: the largest message that is taken.
    :ivar window_octets: what the other side of a reliable session may send ahead.
    :ivar auth_s: from the connection to the end of authentication.
    :ivar challenge_s: how long an agent may take to sign.
    :ivar ping_s: how long the other side may be silent before it is asked.
    :ivar idle_s: how long until it is taken to be gone.
    :ivar close_s: how long it may take to answer a close.
    :ivar result_s: how long an original relay may take for the result of a stream.
    :ivar answer_s: how long a stream may be without progress.
    :ivar sessions: connections at a time, at a relay.
    :ivar storing: streams of one session that are being stored; nothing more is read before one of
        them is.
    """

    message_octets: int = 50 * 2**20
    window_octets: int = 2**20
    auth_s: float = 30.0
    challenge_s: float = 60.0
    ping_s: float = 30.0
    idle_s: float = 120.0
    close_s: float = 5.0
    result_s: float = 60.0
    answer_s: float = 600.0
    sessions: int = 10_000
    storing: int = 256

    @property
    def terms(self) -> Terms:
        return Terms(self.window_octets, self.message_octets)
