"""Which agents are connected to a relay server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..model.identity import Identity
from ..model.ports import Session


def _nobody(identity: Identity) -> None:
    """Nobody is told."""


class Registry:
    """:class:`~..model.ports.Sessions` of a relay server.

    An agent has its mail sent to one session: the one that came last.  Whoever makes sessions
    closes the one before.  Those that take no mail are beside it.

    :ivar arrived: told of an agent that mail can be sent to from now on, also where it could
        before, by another session.
    :ivar count: sessions of either kind.
    :ivar left: told of one that mail cannot be sent to any more.
    """

    def __init__(self) -> None:
        self.arrived: Callable[[Identity], None] = _nobody
        self.left: Callable[[Identity], None] = _nobody
        self._taking: dict[Identity, Session] = {}
        self._all: dict[Identity, dict[Session, None]] = {}  # the oldest first
        self.count = 0

    def __iter__(self) -> Iterator[Session]:
        """Every session; a copy, so that they may be closed meanwhile."""
        return iter([session for sessions in self._all.values() for session in sessions])

    @property
    def reachable(self) -> int:
        """Agents that mail can be sent to."""
        return len(self._taking)

    def identities(self) -> list[Identity]:
        """Everybody who is connected."""
        return list(self._all)

    def of(self, identity: Identity) -> list[Session]:
        """All sessions of an agent: the one that takes its mail, then the others, the oldest first."""
        taking = self._taking.get(identity)
        return sorted(self._all.get(identity, ()), key=lambda session: session is not taking)

    def to(self, identity: Identity) -> Session | None:
        return self._taking.get(identity)

    def opened(self, session: Session) -> None:
        """A session has authenticated; if it takes mail, no other one of its agent does any more."""
        identity = session.identity
        self._all.setdefault(identity, {})[session] = None
        self.count += 1
        if session.takes_mail:
            self._taking[identity] = session
            self.arrived(identity)

    def closed(self, session: Session) -> None:
        """It is over."""
        identity = session.identity
        sessions = self._all[identity]
        del sessions[session]
        self.count -= 1
        if not sessions:
            del self._all[identity]
        if self._taking.get(identity) is session:
            del self._taking[identity]
            self.left(identity)
