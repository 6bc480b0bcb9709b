"""What agents may send through their tunnels to a relay server.

An agent is nobody but itself: its envelope, From and Sender name its own addresses, or nothing of
the message leaves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..message.line_ends import LineEnds
from ..model.account import AccountLimits
from ..model.address import NULL, Address, is_ascii, parse
from ..model.envelope import Envelope, Message, Origin, Recipient
from ..model.identity import Agent, Identity
from ..model.outcome import Delivered, Fate, Outcome
from ..model.ports import About, Events, Intake, Peer, Session, Sessions
from ..model.reply import TABLE, Reply
from ..model.stream import DeliveryState, Stream
from .addresses import Addresses, addresses
from .authorship import completed, may_claim
from .clients import Window
from .door import Begin
from .header_first import HeaderFirst
from .relaying import Relaying
from .stream_intake import LISTENER, StreamIntake
from .usage import Reservation, Usage

TOLD_A_MINUTE: Final = 60
"""So many refusals of one agent are events; more would let a broken one fill the journal."""

COMING: Final = 128
COMING_OF_ALL: Final = 2000
"""Streams of one agent, in all its sessions, and of all agents, that have begun and not come: each may
hold a header section in memory, and a file."""

SHOWN_CHARACTERS: Final = 512
"""As much as is told of what stands where an address should."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_ENDS: Final[dict[str, tuple[str, str]]] = {
    "expired": ("4.4.7", "not delivered in time"),
    "removed": ("5.7.1", "taken out of the queue"),
}
"""Code and text for what ends without a reply (RFC 3463, 3.5 and 3.8)."""


class Rights(Protocol):
    """What each agent may do, as it is now."""

    def get(self, identity: Identity) -> Agent | None:
        """Who may log in with that key, ``send_per_hour`` filled in; None where nobody may."""

    def addresses(self, identity: Identity) -> Sequence[str]:
        """All addresses that it may send as, which may be aliases elsewhere; none for nobody."""


class Presence(Sessions, Protocol):
    """Keeps the list of who is connected."""

    def opened(self, session: Session) -> None: ...

    def closed(self, session: Session) -> None: ...

    def of(self, identity: Identity) -> Sequence[Session]:
        """All sessions of an agent, the one that takes its mail first."""


class AgentsDoor:
    """:class:`~..model.ports.StreamDoor` of a relay server.

    :param begin: opens the way into the spool; a reply of 2yz says that the message is there.
    :param usage: counts what agents send; they are named apart from accounts.
    :param now: POSIX seconds, for Date.
    :param monotonic: any seconds that never jump back much.
    :param new_message_id: makes a Message-ID, with its angle brackets.
    :param ended: told how each stream ended, and how many octets of it came: the reply, or None
        where it was broken off.
    :ivar relaying: replaced as a whole when the configuration is read again.
    :ivar message_octets: the largest message; likewise.
    :ivar streams: messages on their way in.
    :ivar is_closing: whether the service stops, and takes no more.
    """

    log = Logger()

    def __init__(
        self,
        agents: Rights,
        present: Presence,
        relaying: Relaying,
        events: Events,
        begin: Begin,
        *,
        usage: Usage,
        clock: IReactorTime,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        new_message_id: Callable[[], str],
        new_session_id: Callable[[], str],
        ended: Callable[[Reply | None, int], None],
        message_octets: int,
    ) -> None:
        self.relaying = relaying
        self.message_octets = message_octets
        self.streams = 0
        self.is_closing = False
        self._agents = agents
        self._present = present
        self._events = events
        self._begin = begin
        self._usage = usage
        self._clock = clock
        self._now = now
        self._refusals = Window(monotonic)
        self._new_message_id = new_message_id
        self._new_session_id = new_session_id
        self._ended = ended
        self._peers: dict[Session, Peer] = {}
        self._coming: Counter[Identity] = Counter()
        self._coming_of_all = 0

    def opened(self, session: Session) -> None:
        self._peers[session] = Peer(
            *(session.peer_address, 0, LISTENER, self._new_session_id()),
            identity=session.identity,
            source="tunnel",
        )
        self._present.opened(session)

    def closed(self, session: Session) -> None:
        del self._peers[session]
        self._present.closed(session)

    def receive(self, session: Session, stream: Stream) -> Intake | Reply:
        peer = self._peers[session]
        opened = self._open(session, peer, stream)
        if isinstance(opened, Reply):
            self._told(peer, stream, opened, 0)
        else:
            self.streams += 1
        return opened

    def _open(self, session: Session, peer: Peer, stream: Stream) -> Intake | Reply:
        if self.is_closing:
            return TABLE["shutting-down"]
        sender = parse(stream.sender, is_smtputf8=True) if stream.sender else NULL
        if sender is None:
            return TABLE["bad-sender"]
        recipient = parse(stream.recipient, is_smtputf8=True)
        if recipient is None:
            return TABLE["bad-recipient"]
        agent = self._agents.get(session.identity)
        allowed = addresses(tuple(self._agents.addresses(session.identity)))
        # The null reverse-path is anybody's (RFC 5321, 4.5.5); From is held to the rule all the same.
        if agent is None or (sender != NULL and sender not in allowed):
            return TABLE["sender-not-allowed"]
        if (stream.size_octets or 0) > self.message_octets:
            return TABLE["message-too-big"]
        coming = self._coming[session.identity]
        if coming >= COMING or self._coming_of_all >= COMING_OF_ALL:
            return TABLE["too-many-streams"]
        judged = self.relaying.judge(peer, recipient)
        if judged.code >= 400:
            return judged
        envelope = Envelope(
            sender,
            (Recipient(recipient),),
            body="8BITMIME",
            is_smtputf8=not (is_ascii(sender) and is_ascii(recipient)),
        )
        origin = Origin(
            "tunnel",
            session.identity,
            session.peer_address,
            may_sign=True,
            tenant=agent.tenant,
            request_id=stream.request_id or _own_name(stream.stream_id),
        )
        # Before the limit: what is here already is no further message.
        intake = self._begin(peer, self.relaying.readdressed(envelope), origin)
        if isinstance(intake, Reply):
            return intake
        reservation = self._usage.begin(
            f"{LISTENER}:{agent.identity}",
            AccountLimits(messages_per_hour=agent.send_per_hour or 0),
        )
        if reservation is None:
            intake.abort()
            return TABLE["rate-limited"]
        reservation.add_recipient()
        self._coming[session.identity] += 1
        self._coming_of_all += 1
        return StreamIntake(
            HeaderFirst(
                intake, partial(self._complete, allowed, sender), partial(_settle, reservation)
            ),
            LineEnds(),
            most_octets=self.message_octets,
            clock=None if session.is_reliable else self._clock,
            came=partial(self._came, session.identity),
            ended=partial(self._over, peer, stream),
        )

    def _complete(self, allowed: Addresses, sender: Address, fields: bytes) -> bytes | Reply:
        """The header section as it is queued, or why the message is not."""
        if not may_claim(allowed, fields):
            return TABLE["from-not-allowed"]
        return completed(fields, sender, at=self._now(), message_id=self._new_message_id())

    def _came(self, identity: Identity) -> None:
        self._coming_of_all -= 1
        self._coming[identity] -= 1
        if not self._coming[identity]:
            del self._coming[identity]

    def _over(self, peer: Peer, stream: Stream, reply: Reply | None, octets: int) -> None:
        self.streams -= 1
        self._told(peer, stream, reply, octets)

    def _told(self, peer: Peer, stream: Stream, reply: Reply | None, octets: int) -> None:
        if (
            reply is not None
            and reply.code >= 400
            and self._refusals.add(peer.identity) <= TOLD_A_MINUTE
        ):
            named = stream.sender[:SHOWN_CHARACTERS], stream.recipient[:SHOWN_CHARACTERS]
            agent = self._agents.get(Identity(peer.identity))
            tenant = "" if agent is None else agent.tenant
            self._events.rejected(peer, *named, reply, About(tenant=tenant))
        self._ended(reply, octets)

    # --- what becomes of it ----------------------------------------------------------------------

    def settled(
        self,
        message: Message,
        fate: Fate | Literal["deferred"],
        outcome: Outcome | None,
        next_attempt_at: float | None,
    ) -> None:
        """Tell an agent what became of its message, where it is connected and understands.

        :param outcome: the last attempt's; None where a person or the clock ended it.
        """
        origin = message.origin
        if origin.source != "tunnel" or not origin.request_id:
            return
        try:
            for session in self._present.of(Identity(origin.identity)):
                if session.is_reliable:
                    session.tell(_state(origin.request_id, fate, outcome, next_attempt_at))
                    return
        except Exception:
            # What is told here must not keep a fate from being recorded.
            self.log.failure("could not tell an agent about {id}", id=message.id)


def _own_name(stream_id: str) -> str:
    """What an original gateway calls a message, for want of a better name: it makes a UUID for each."""
    return stream_id if _UUID.match(stream_id) else ""


def _settle(reservation: Reservation, reply: Reply | None, fields: bytes) -> None:
    if reply is not None and reply.code < 300:
        reservation.settle()
    else:
        reservation.release()


def _state(
    request_id: str,
    fate: Fate | Literal["deferred"],
    outcome: Outcome | None,
    next_attempt_at: float | None,
) -> DeliveryState:
    if isinstance(outcome, Delivered):
        return DeliveryState(request_id, "sent", "2.0.0", str(outcome.reply))
    if outcome is not None:
        code, text = (
            outcome.cause.enhanced or f"{outcome.cause.code // 100}.0.0",
            str(outcome.cause),
        )
    else:
        code, text = _ENDS.get(fate, ("5.0.0", fate))
    state: Literal["deferred", "failed"] = "deferred" if fate == "deferred" else "failed"
    return DeliveryState(request_id, state, code, text, next_attempt_at)
