"""Mail that is handed to agents while its sender waits, and never kept.

250 says that every recipient's session has the message; nothing of it is on the disk at any time.
What has come in lies in memory, of which all transactions together have a bounded share.  Every door
opens this way by :meth:`PassThrough.begin`, as it opens that into the queue.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..message import headers
from ..message.loop import HOPS
from ..model.envelope import Envelope, Message, Origin
from ..model.ids import QueueId
from ..model.outcome import Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import About, Agents, Content, Events, Held, MailCommand, Peer, Session, Sessions
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from ..model.verdicts import UNCHECKED, Verdicts

HEADER_OCTETS: Final = 262_144
"""So much of a header is looked at."""
REMEMBERED: Final = 10_000
"""So many recipients are remembered who have a message whose sender was told to come again."""

_ENHANCED: Final = re.compile(r"5\.\d{1,3}\.\d{1,3}\Z")

Outcomes = Sequence[tuple[int, Outcome]]
Tell = Callable[[Content, Outcomes], None]
"""Told of the recipients who have got a message; the content is there until it returns."""


@attrs.frozen(kw_only=True)
class PassThroughSettings:
    """:ivar room_octets: of memory, for all transactions together.
    :ivar message_octets: the largest message.
    :ivar wait_s: so long the agents have to take a message, in seconds.
    """

    room_octets: int
    message_octets: int
    wait_s: float = 60.0


class PassThrough:
    """Passes messages on.

    :param stream: says what an agent is told before the content, given the recipient's index and
        the octets of the content.
    :param told: see :data:`Tell`.
    :ivar settings: replaced when the configuration is read again.
    """

    log = Logger()

    def __init__(
        self,
        agents: Agents,
        sessions: Sessions,
        events: Events,
        settings: PassThroughSettings,
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        new_id: Callable[[], QueueId],
        stream: Callable[[Message, int, int], Stream],
        told: Tell,
    ) -> None:
        self.settings = settings
        self._agents = agents
        self._sessions = sessions
        self._events = events
        self._clock = clock
        self._now = now
        self._new_id = new_id
        self._stream = stream
        self._told = told
        self._used_octets = 0
        self._ways: dict[Peer, tuple[MailCommand, bool]] = {}
        self._under_way: set[Passing] = set()
        self._have: OrderedDict[bytes, None] = OrderedDict()

    @property
    def used_octets(self) -> int:
        """Of memory, just now."""
        return self._used_octets

    # --- what a door asks ------------------------------------------------------------------------

    def refusal(self, peer: Peer, mail: MailCommand, is_passed_through: bool) -> Reply | None:
        """Why a recipient cannot be in this transaction: one reply at its end cannot say what became
        of those that are passed through and of those that are queued.

        :param mail: the transaction's own.
        """
        before = self._ways.get(peer)
        if before is not None and before[0] is mail and before[1] is not is_passed_through:
            return TABLE["comes-by-itself"]
        return None

    def accepted(self, peer: Peer, mail: MailCommand, is_passed_through: bool) -> None:
        """A recipient is in the transaction; others like it may follow."""
        self._ways[peer] = (mail, is_passed_through)

    def closed(self, peer: Peer) -> None:
        """The peer has hung up: nobody hears a reply any more, so that nothing is handed on whose
        sender would have to send it again."""
        self._ways.pop(peer, None)
        for passing in [one for one in self._under_way if one.peer is peer]:
            passing.give_up()

    def begin(
        self,
        peer: Peer | None,
        envelope: Envelope,
        origin: Origin,
        trace: Callable[[QueueId, float], bytes],
    ) -> Passing | Reply:
        """Open the way for one message, all of whose recipients' mail is passed through.

        :param peer: None for users of this machine, whom no events tell of.
        :param trace: makes the Received field from the id and the time of arrival.
        """
        if envelope.hold_until:
            return TABLE["release-too-late"]
        if envelope.requires_tls:
            return TABLE["tunnel-requiretls"]
        id, arrived_at = self._new_id(), self._now()
        message = Message(id, envelope, origin, arrived_at, 0)
        return Passing(self, peer, message, trace(id, arrived_at))

    # --- memory ----------------------------------------------------------------------------------

    def reserve(self, octets: int) -> bool:
        """Take so much of the room, if it is there."""
        if self._used_octets + octets > self.settings.room_octets:
            return False
        self._used_octets += octets
        return True

    def release(self, octets: int) -> None:
        """Give it back."""
        self._used_octets -= octets

    # --- handing on ------------------------------------------------------------------------------

    def hand_on(self, passing: Passing) -> Deferred[Reply]:
        """Give a message to the session of each recipient that has not got it yet, and say what
        came of it."""
        sessions: list[tuple[int, Session]] = []
        for index, recipient in enumerate(passing.message.envelope.recipients):
            if passing.mark_of(index) in self._have:
                continue
            identity = self._agents.at(recipient.address)
            if identity is None:
                return succeed(self._refused(passing, TABLE["no-such-user"]))
            session = self._sessions.to(identity)
            if session is None:
                return succeed(self._refused(passing, TABLE["not-passed-on"]))
            sessions.append((index, session))
        passing.handing = [self._send(session, passing, index) for index, session in sessions]
        self._under_way.add(passing)
        patience = self._clock.callLater(self.settings.wait_s, passing.give_up)

        def ended(outcomes: Sequence[Outcome]) -> Reply:
            if patience.active():
                patience.cancel()
            self._under_way.discard(passing)
            indexes = [index for index, _ in sessions]
            return self._settled(passing, list(zip(indexes, outcomes, strict=True)))

        return gatherResults(passing.handing).addCallback(ended)

    def _send(self, session: Session, passing: Passing, index: int) -> Deferred[Outcome]:
        def send() -> Deferred[Outcome]:
            stream = self._stream(passing.message, index, passing.size_octets)
            origin = passing.message.origin
            if origin.request_id:
                # Whoever hands it in has a name for it and may do so again: by another message of
                # ours the agent would not know that it has it.
                about = f"{origin.identity}\n{origin.request_id}\n{stream.recipient}"
                name = hashlib.sha256(about.encode()).hexdigest()
                stream = attrs.evolve(stream, request_id=name)
            return session.send(stream, passing)

        return maybeDeferred(send).addErrback(self._broke)

    def _broke(self, failure: Failure) -> Outcome:
        if not failure.check(CancelledError):
            self.log.failure("a message could not be handed to an agent", failure=failure)
        return TransientFailure(Scope.RECIPIENT, TABLE["not-passed-on"])

    def _settled(self, passing: Passing, outcomes: Outcomes) -> Reply:
        message = passing.message
        done = [one for one in outcomes if isinstance(one[1], Delivered)]
        failed = [one for one in outcomes if not isinstance(one[1], Delivered)]
        if done:
            try:
                self._told(passing, done)
            except Exception:
                # They have it all the same.
                self.log.failure("nobody has heard that {id} was passed on", id=message.id)
        if not failed:
            for index in range(len(message.envelope.recipients)):
                self._have.pop(passing.mark_of(index), None)
            return Reply(250, "2.0.0", (f"ok, passed on as {message.id}",))
        for index, _ in done:  # its sender comes again with all of them
            self._have[passing.mark_of(index)] = None
            if len(self._have) > REMEMBERED:
                self._have.popitem(last=False)
        causes = [outcome.cause for _, outcome in failed if isinstance(outcome, PermanentFailure)]
        reply = TABLE["not-passed-on"] if len(causes) < len(failed) else refused_by(causes[0])
        self._reject(passing, [index for index, _ in failed], reply)
        return reply

    def _refused(self, passing: Passing, reply: Reply) -> Reply:
        """Nobody has been handed anything."""
        self._reject(passing, range(len(passing.message.envelope.recipients)), reply)
        return reply

    def _reject(self, passing: Passing, recipients: Sequence[int], reply: Reply) -> None:
        message, peer = passing.message, passing.peer
        envelope = message.envelope
        about = About(
            tenant=message.origin.tenant,
            size_octets=message.size_octets,
            header_message_id=message.header_message_id,
            subject=message.subject,
        )
        if peer is not None:
            for index in recipients:
                address = envelope.recipients[index].address
                self._events.rejected(peer, envelope.sender, address, reply, about)


class Passing:
    """One message on its way through; an :class:`~..model.ports.Arrival`, and its own
    :class:`~..model.ports.Content`.

    :ivar peer: see :meth:`PassThrough.begin`.
    :ivar message: complete from :meth:`finish` on.
    :ivar handing: what its sessions will say of it.
    """

    __slots__ = (
        "_digest",
        "_flaw",
        "_head",
        "_house",
        "_octets",
        "_trace_octets",
        "_verdicts",
        "handing",
        "message",
        "peer",
    )

    def __init__(
        self, house: PassThrough, peer: Peer | None, message: Message, trace: bytes
    ) -> None:
        self._house = house
        self.peer = peer
        self.message = message
        self.handing: list[Deferred[Outcome]] = []
        self._octets = bytearray()
        self._head = b""
        self._trace_octets = len(trace)
        self._verdicts = UNCHECKED
        self._digest = hashlib.sha256()
        self._flaw: Reply | None = None
        self._take(trace)

    # --- as an arrival ---------------------------------------------------------------------------

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._flaw is None:
            self._digest.update(octets)
            self._take(octets)
        return None

    def look(self) -> Deferred[Held | Reply]:
        return succeed(self if self._flaw is None else self._flaw)

    def mark(self, head: bytes, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        if self._flaw is None and self._has_room_for(len(head)):
            self._head = head + self._head

    def finish(self) -> Deferred[Reply]:
        reply = self._judge()
        if reply is not None:
            self._drop()
            return succeed(reply)
        handing = maybeDeferred(self._house.hand_on, self)
        return handing.addErrback(self._broke).addCallback(self._over)

    def abort(self) -> None:
        self._drop()

    def give_up(self) -> None:
        """Have the sessions that have not taken it go no further."""
        for one in self.handing:
            one.cancel()

    def mark_of(self, recipient: int) -> bytes:
        """What the same message for the same recipient is known by when its sender comes again;
        our own trace field is another one then."""
        envelope = self.message.envelope
        digest = self._digest.copy()
        digest.update(f"{envelope.sender}\n{envelope.recipients[recipient].address}".encode())
        return digest.digest()

    def _judge(self) -> Reply | None:
        """Whether it may go on; if so, the message is complete."""
        if self._flaw is not None:
            return self._flaw
        start = self._trace_octets
        glance = headers.glance(bytes(self._octets[start : start + HEADER_OCTETS]))
        if glance.received_count >= HOPS:
            return TABLE["routing-loop"]
        self.message = attrs.evolve(
            self.message,
            size_octets=self.size_octets,
            header_message_id=glance.message_id,
            subject=glance.subject,
            is_eight_bit=not self._octets.isascii(),
            verdicts=self._verdicts,
        )
        return None

    def _over(self, reply: Reply) -> Reply:
        self._drop()
        return reply

    def _broke(self, failure: Failure) -> Reply:
        id = self.message.id
        self._house.log.failure("{id} could not be passed on", failure=failure, id=id)
        return TABLE["local-error"]

    # --- as content ------------------------------------------------------------------------------

    @property
    def size_octets(self) -> int:
        """Of the whole, as it is handed on."""
        return len(self._head) + len(self._octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        """As :meth:`~..model.ports.Content.read`."""
        end = self.size_octets if size < 0 else offset + size
        head_octets = len(self._head)
        rest = self._octets[max(0, offset - head_octets) : max(0, end - head_octets)]
        return self._head[offset:end] + rest

    def close(self) -> None:
        """It is given up by who owns it, when its sender has the answer."""

    # --- memory ----------------------------------------------------------------------------------

    def _take(self, octets: bytes) -> None:
        most = self._house.settings.message_octets + self._trace_octets
        if len(self._octets) + len(octets) > most:
            self._refuse(TABLE["message-too-big"])
        elif self._has_room_for(len(octets)):
            self._octets += octets

    def _has_room_for(self, octets: int) -> bool:
        """Reserve room; where there is none the message is refused, and gives back what it has."""
        if self._house.reserve(octets):
            return True
        never = self.size_octets + octets > self._house.settings.room_octets
        self._refuse(TABLE["message-too-big" if never else "pass-through-full"])
        return False

    def _refuse(self, reply: Reply) -> None:
        self._drop()
        self._flaw = reply

    def _drop(self) -> None:
        self._house.release(self.size_octets)
        self._octets, self._head = bytearray(), b""


def refused_by(cause: Reply) -> Reply:
    """What a sender hears of an agent's refusal for good: its codes, and a text of ours."""
    code = cause.code if 500 <= cause.code <= 599 else 554
    enhanced = cause.enhanced if _ENHANCED.match(cause.enhanced) else "5.0.0"
    return Reply(code, enhanced, ("refused by the agent",))
