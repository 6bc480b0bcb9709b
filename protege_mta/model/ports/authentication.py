"""Who mail of strangers is from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from ..address import Address
from ..verdicts import Verdicts
from .reception import Peer
from .storage import Octets

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@attrs.frozen
class Authentication:
    """What is known of a message's sender before it is accepted.

    :ivar field: the Authentication-Results field (RFC 8601), CRLF at its end.
    :ivar policy: what the domain of From wants done with a message that fails DMARC (RFC 7489,
        6.3), ``none`` where it passes.
    """

    verdicts: Verdicts
    field: bytes = b""
    policy: Literal["none", "quarantine", "reject"] = "none"


class Authenticator(Protocol):
    """Checks SPF, DKIM and DMARC."""

    def check(self, peer: Peer, sender: Address, octets: Octets) -> Deferred[Authentication]:
        """Never fails: what cannot be found out is ``temperror``."""
