"""Between tunnels and the house."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..address import Address
from ..identity import Identity
from ..outcome import Outcome
from ..reply import Reply
from ..stream import DeliveryState, Stream
from .reception import Intake
from .storage import Octets

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class Session(Protocol):
    """An authenticated connection of one agent, seen from either end of the tunnel."""

    @property
    def identity(self) -> Identity:
        """The agent's, on both sides."""

    @property
    def peer_address(self) -> str:
        """The IP address at the other end, as far as we can see."""

    @property
    def is_reliable(self) -> bool:
        """Whether both sides acknowledge streams."""

    @property
    def takes_mail(self) -> bool:
        """Whether the agent has its mail sent here: not so in the role ``outbound``."""

    def send(self, stream: Stream, octets: Octets) -> Deferred[Outcome]:
        """Send one message.  Never fails: an end of the session in between is a
        :class:`~..outcome.TransientFailure` of scope HOST.

        The other side has it when the outcome says so: acknowledged where the session is reliable;
        else, by an agent, that it has answered a ping sent after the end of the stream, and by a
        relay, its ``relay_delivery_result``.  ``octets`` is read until then.  Cancelling the Deferred
        gives the stream up.
        """

    def tell(self, state: DeliveryState) -> None:
        """Say what became of a message that the agent sent earlier; nothing where the session is
        not reliable, or is over."""

    def close(self, code: int, reason: str) -> None:
        """End it, with a status code of RFC 6455, 7.4."""


class StreamDoor(Protocol):
    """What a tunnel asks the house, at either end."""

    def opened(self, session: Session) -> None:
        """Authenticated.  Each ``opened`` is followed by one ``closed``."""

    def closed(self, session: Session) -> None: ...

    def receive(
        self, session: Session, stream: Stream
    ) -> Intake | Reply | Deferred[Intake | Reply]:
        """A stream has begun.  A reply ends it: 2yz where the message is known to be here already,
        else why it is refused; its content is passed over.

        In reliable sessions an intake may outlive its session: for some minutes it waits for the
        agent's next one, which goes on with it, or it is aborted.
        """


class Sessions(Protocol):
    """Who is connected."""

    def to(self, identity: Identity) -> Session | None:
        """The session that takes the agent's mail (at the agent's end: the one to its relay)."""


class Agents(Protocol):
    """The agents of a relay server, as they are now: a change of their file shows within a second.

    Answers come from memory.
    """

    def at(self, address: Address) -> Identity | None:
        """Whose mailbox it is: an agent's key or one of its aliases, in any case, at one of our
        tunnel domains; None where it is nobody's.

        Where any key may log in, each key is somebody's mailbox.
        """

    def may_hold(self, identity: Identity) -> bool:
        """Whether its mail may be kept until it comes: it is listed, or has logged in before."""
