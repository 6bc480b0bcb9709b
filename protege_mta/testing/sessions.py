"""Tunnel sessions in memory: a :class:`~..model.ports.Session` that a test answers for."""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred

from ..model.address import Address
from ..model.identity import Identity
from ..model.outcome import Outcome
from ..model.ports import Octets
from ..model.stream import DeliveryState, Stream


@attrs.define(eq=False)
class Sent:
    """A stream that was handed to the session.

    :ivar content: all its octets.
    :ivar outcome: to be fired by the test.
    """

    stream: Stream
    content: bytes
    outcome: Deferred[Outcome] = attrs.field(factory=Deferred)


@attrs.define(eq=False)
class FakeSession:
    """:ivar sent: every stream, in order.  :ivar told: likewise what became of earlier ones.
    :ivar closed_with: status code and reason, once it was closed.
    """

    identity: Identity
    peer_address: str = "192.0.2.1"
    is_reliable: bool = True
    takes_mail: bool = True
    sent: list[Sent] = attrs.field(factory=list)
    told: list[DeliveryState] = attrs.field(factory=list)
    closed_with: tuple[int, str] | None = None

    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        sent = Sent(stream, octets.read())
        self.sent.append(sent)
        return sent.outcome

    def tell(self, state: DeliveryState) -> None:
        self.told.append(state)

    def close(self, code: int, reason: str) -> None:
        self.closed_with = (code, reason)


@attrs.define(eq=False)
class FakeSessions:
    """Who is connected, as the test says: a :class:`~..model.ports.Sessions`."""

    there: dict[Identity, FakeSession] = attrs.field(factory=dict)

    def to(self, identity: Identity) -> FakeSession | None:
        return self.there.get(identity)


@attrs.define(eq=False)
class FakeAgents:
    """Whose an address is, as the test says: a :class:`~..model.ports.Agents`.

    :ivar mailboxes: by address, in lower case.
    :ivar known: those whose mail may be held.
    """

    mailboxes: dict[str, Identity] = attrs.field(factory=dict)
    known: set[Identity] = attrs.field(factory=set)

    def at(self, address: Address) -> Identity | None:
        return self.mailboxes.get(address.lower())

    def may_hold(self, identity: Identity) -> bool:
        return identity in self.known
