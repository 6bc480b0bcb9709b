"""What an ESMTP server may be told (RFC 5321, 4.5.3)."""

from __future__ import annotations

import attrs
from attrs import validators

from .sasl import MECHANISMS


@attrs.frozen
class ServerSettings:
    """One set of limits, for connections that start while it holds.

    :ivar hostname: our name in the greeting and the reply to EHLO, and the domain of a bare
        ``<postmaster>``.
    :ivar message_octets: greatest content, as SIZE announces it (RFC 1870).
    :ivar recipients: accepted ones in a transaction (RFC 5321, 4.5.3.1.8: 100 at least).
    :ivar command_s: within which a whole command line must come (4.5.3.2.7).
    :ivar block_s: within which :data:`~.server.BLOCK_OCTETS` of content, or its end, must come
        (4.5.3.2.5).
    :ivar handshake_s: within which a TLS handshake must end.
    :ivar close_s: how long a client may take to read the last reply before the channel is cut.
    :ivar mechanisms: of SASL, that AUTH takes, the best first; empty where there is no AUTH.
    :ivar is_submission: whether clients have to encrypt the channel before AUTH and MAIL (RFC 8314;
        RFC 4954, 4); who has to say AUTH is the door's to tell.
    :ivar future_release_s: for how long at most a message may be held for its sender (RFC 4865);
        0 where that is not offered, as on listeners that are not for submission.
    :ivar failed_logins: how many exchanges of AUTH may fail on one connection, for whatever reason,
        before the next AUTH gets 421.
    :ivar bad_commands: how many commands of no sense are answered before 421; a message taken
        wipes the slate.
    """

    hostname: str
    message_octets: int = attrs.field(default=52_428_800, validator=validators.gt(0))
    recipients: int = attrs.field(default=1000, validator=validators.gt(0))
    command_s: float = attrs.field(default=300.0, validator=validators.gt(0))
    block_s: float = attrs.field(default=300.0, validator=validators.gt(0))
    handshake_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    close_s: float = attrs.field(default=30.0, validator=validators.gt(0))
    bad_commands: int = attrs.field(default=20, validator=validators.ge(1))
    mechanisms: tuple[str, ...] = attrs.field(
        default=(), validator=validators.deep_iterable(validators.in_(MECHANISMS))
    )
    is_submission: bool = False
    future_release_s: int = attrs.field(default=0, validator=validators.ge(0))
    failed_logins: int = attrs.field(default=3, validator=validators.ge(1))

    @property
    def may_hold(self) -> bool:
        """FUTURERELEASE is for submission only (RFC 4865)."""
        return self.is_submission and self.future_release_s > 0
