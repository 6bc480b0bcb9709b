"""Where a gateway's relay is: at the other end of a session, or nowhere just now."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed

from ..model.hop import NextHop, Site
from ..model.identity import Identity
from ..model.outcome import Scope, TransientFailure
from ..model.ports import Sessions
from ..model.reply import TABLE
from .site import Located

AWAY: Final = TransientFailure(Scope.ABSENT, TABLE["relay-away"])


class TunnelRouter:
    """Finds the site of a next hop of kind ``tunnel``, one an identity: each has a session of its
    own, which comes and goes by itself."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        if self._sessions.to(Identity(hop.name)) is None:
            return succeed(AWAY)
        return succeed(Site(f"tunnel:{hop.name}", "tunnel"))
