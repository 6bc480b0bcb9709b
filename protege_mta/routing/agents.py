"""Where agents are: at the other end of a session, or nowhere just now."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed

from ..model.hop import NextHop, Site
from ..model.identity import Identity
from ..model.outcome import Scope, TransientFailure
from ..model.ports import Agents, Sessions
from ..model.reply import TABLE
from .site import Located, give_up

AWAY: Final = TransientFailure(Scope.ABSENT, TABLE["agent-not-connected"])


class AgentRouter:
    """Finds the site of a next hop of kind ``agent``, one an agent."""

    def __init__(self, agents: Agents, sessions: Sessions) -> None:
        self._agents = agents
        self._sessions = sessions

    def __call__(self, hop: NextHop) -> Deferred[Located]:
        """Locate an agent; one that may not come any more is no such mailbox."""
        identity = Identity(hop.name)
        if self._sessions.to(identity) is not None:
            return succeed(Site(f"agent:{identity}", "agent"))
        if not self._agents.may_hold(identity):
            return succeed(give_up("no-such-user"))
        return succeed(AWAY)
