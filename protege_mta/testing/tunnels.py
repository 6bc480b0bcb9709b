"""Both sides of tunnels over sockets in memory, and a house that takes what comes through.

A :class:`Net` has a real :class:`~..tunnel.socket_server.TunnelServer` and a real
:class:`~..tunnel.socket_client.TunnelClient`; between their connections is a line that the test
lets flow, event by event if it likes, and cuts where it likes.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, Literal

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from ..model.identity import Identity, identity_of
from ..model.ports import Intake, Session
from ..model.reply import TABLE, Reply
from ..model.stream import DeliveryState, Stream
from ..tunnel.connection import LOST, Connection
from ..tunnel.limits import TunnelLimits
from ..tunnel.session import TunnelSession
from ..tunnel.socket_client import Agent, AgentConnection, TunnelClient
from ..tunnel.socket_server import TunnelServer
from ..wire.tunnel.frames import FramePart, FrameReader, Piece
from ..wire.tunnel.messages import Role

# --- frames --------------------------------------------------------------------------------------


def frame_parts(pieces: Iterable[bytes], reader: FrameReader | None = None) -> list[FramePart]:
    """What is read of one message that comes in pieces; content that follows content is one."""
    reader = reader or FrameReader()
    found = [part for piece in pieces for part in reader.feed(piece)]
    joined: list[FramePart] = []
    for part in (*found, *reader.finish()):
        if isinstance(part, Piece) and joined and isinstance(joined[-1], Piece):
            joined[-1] = Piece(part.stream_id, joined[-1].octets + part.octets)
        else:
            joined.append(part)
    return joined


# --- houses --------------------------------------------------------------------------------------


@attrs.frozen
class OctetsInMemory:
    """Content to be sent: an :class:`~..model.ports.Octets`."""

    octets: bytes

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        return self.octets[offset:] if size < 0 else self.octets[offset : offset + size]


@attrs.define(eq=False)
class HouseIntake:
    """One message on its way in.

    :ivar ended: ``finished`` or ``aborted`` once it is.
    """

    house: TunnelHouse
    identity: Identity
    stream: Stream
    pieces: list[bytes] = attrs.field(factory=list)
    ended: str = ""

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self.ended:
            raise RuntimeError(f"octets for a message that is {self.ended}")
        self.pieces.append(octets)
        return self.house.on_write(self)

    def finish(self) -> Deferred[Reply]:
        self._end("finished")
        return self.house.on_finish(self)

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if self.ended:
            raise RuntimeError(f"{how}, but it is {self.ended} already")
        self.ended = how
        self.house.open.remove(self)

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)


class TunnelHouse:
    """A :class:`~..model.ports.StreamDoor` that keeps what comes, each request once.

    :ivar taken: what is stored, in order.
    :ivar open: what is coming in.
    :ivar sessions: who is there.
    :ivar doubles: contents that were complete although their request was stored.
    :ivar on_receive: asked first; what it gives is the answer.  Likewise ``on_write``, ``on_finish``.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[Identity, Stream, bytes]] = []
        self.open: list[HouseIntake] = []
        self.sessions: list[Session] = []
        self.closed_sessions: list[Session] = []
        self.doubles = 0
        self.on_receive: Callable[[Stream], Reply | Deferred[Intake | Reply] | None] = (
            lambda stream: None
        )
        self.on_write: Callable[[HouseIntake], Deferred[None] | None] = lambda intake: None
        self.on_finish: Callable[[HouseIntake], Deferred[Reply]] = lambda intake: succeed(
            self.keep(intake)
        )

    def opened(self, session: Session) -> None:
        self.sessions.append(session)

    def closed(self, session: Session) -> None:
        self.sessions.remove(session)
        self.closed_sessions.append(session)

    def receive(
        self, session: Session, stream: Stream
    ) -> Intake | Reply | Deferred[Intake | Reply]:
        answer = self.on_receive(stream)
        if answer is not None:
            return answer
        if self.has(session.identity, stream.request_id):
            return TABLE["ok"]
        return self.intake(session, stream)

    def intake(self, session: Session, stream: Stream) -> HouseIntake:
        intake = HouseIntake(self, session.identity, stream)
        self.open.append(intake)
        return intake

    def has(self, identity: Identity, request_id: str) -> bool:
        return bool(request_id) and any(
            (identity, request_id) == (who, stream.request_id) for who, stream, _ in self.taken
        )

    def keep(self, intake: HouseIntake) -> Reply:
        """What :attr:`on_finish` does, left alone."""
        if self.has(intake.identity, intake.stream.request_id):
            self.doubles += 1
        else:
            self.taken.append((intake.identity, intake.stream, intake.content))
        return TABLE["ok"]


# --- the net -------------------------------------------------------------------------------------

Event = tuple[Literal["text", "binary", "data", "end", "ping", "pong", "close"], bytes, int]
"""What travels: octets, and a close's code."""

ROOM: Final = 64
"""Events on one line above which its sender is told to wait."""


class MemorySocket:
    """One end.

    :param has_extension: if not, the other end never hears of the reliable extension.
    :ivar line: what it has sent and the other end has not got.
    """

    connection: Connection
    other: MemorySocket

    def __init__(
        self, peer_address: str, piece_octets: Callable[[], int], *, has_extension: bool = True
    ) -> None:
        self._peer_address = peer_address
        self._piece_octets = piece_octets
        self._has_extension = has_extension
        self.line: deque[Event] = deque()
        self.is_paused = False
        self.is_open = True
        self.is_frozen = False

    @property
    def peer_address(self) -> str:
        return self._peer_address

    def send_text(self, octets: bytes) -> None:
        if not self._has_extension:
            members = json.loads(octets)
            members.pop("reliable", None)
            octets = json.dumps(members).encode()
        self._send("text", octets)

    def send_binary(self, octets: bytes) -> None:
        self._send("binary", octets)

    def _send(self, kind: Literal["text", "binary"], octets: bytes) -> None:
        self._put(kind)
        at = 0
        while at < len(octets):
            size = self._piece_octets()
            self._put("data", octets[at : at + size])
            at += size
        self._put("end")

    def send_ping(self, payload: bytes) -> None:
        self._put("ping", payload)

    def send_close(self, code: int, reason: str) -> None:
        self._put("close", reason.encode("utf-8"), code)

    def abort(self) -> None:
        self.cut("aborted")

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def _put(
        self,
        kind: Literal["text", "binary", "data", "end", "ping", "pong", "close"],
        octets: bytes = b"",
        code: int = 0,
    ) -> None:
        if self.is_open:
            self.line.append((kind, octets, code))
            if len(self.line) > ROOM and not self.connection.is_stuck:
                self.connection.stuck(True)

    # --- for tests -------------------------------------------------------------------------------

    def flow(self) -> bool:
        """Let the next event arrive at the other end.  :return: whether there was one."""
        other = self.other
        if not self.line or other.is_paused or other.is_frozen or not self.is_open:
            return False
        kind, octets, code = self.line.popleft()
        other.connection.heard()
        match kind:
            case "text" | "binary":
                other.connection.message_began(kind == "binary")
            case "data":
                other.connection.message_data(octets)
            case "end":
                other.connection.message_ended()
            case "ping":
                other._put("pong", octets)
                other.connection.pinged(octets)
            case "pong":
                other.connection.ponged(octets)
            case "close":
                reason = octets.decode("utf-8")
                other.connection.closing(code, reason)
                self.cut(reason, code)
                return True
        if self.connection.is_stuck and len(self.line) <= ROOM // 2:
            self.connection.stuck(False)
        return True

    def cut(self, reason: str = "cut", code: int = LOST) -> None:
        """Nothing gets through any more, and both ends know."""
        for end in (self, self.other):
            end.line.clear()
            if end.is_open:
                end.is_open = False
                end.connection.gone(code, reason)


@attrs.define(eq=False)
class Watch:
    """A :class:`~..tunnel.socket_client.Watcher` that remembers."""

    session: Session | None = None
    ends: list[tuple[int, str]] = attrs.field(factory=list)

    def connected(self, session: Session) -> None:
        self.session = session

    def lost(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))


@attrs.define(eq=False)
class Pair:
    """A connection, both ends of it."""

    relay: MemorySocket
    agent: MemorySocket
    watch: Watch

    @property
    def session(self) -> Session:
        """The agent's."""
        if self.watch.session is None:
            raise RuntimeError(f"there is no session: {self.watch.ends}")
        return self.watch.session


class Net:
    """A relay, agents, and what is between them.

    :param has_extension: if not, both sides take each other for original programs.
    :ivar ahead_s: how far the time of day is ahead of the clock that timers go by.
    :ivar told: states of delivery that agents were told.
    """

    def __init__(
        self,
        *,
        limits: TunnelLimits | None = None,
        seed: int = 0,
        may_attempt: Callable[[str], bool] = lambda address: True,
        may_log_in: Callable[[Identity], bool] = lambda identity: True,
        piece_octets: Callable[[], int] = lambda: 65_536,
        has_extension: bool = True,
    ) -> None:
        self.clock = Clock()
        self.ahead_s = 0.0
        self.random = Random(seed)
        self.relay_house = TunnelHouse()
        self.agent_house = TunnelHouse()
        self.told: list[DeliveryState] = []
        self.pairs: list[Pair] = []
        self._piece_octets = piece_octets
        self._has_extension = has_extension
        self.limits = limits or TunnelLimits()
        self.relay = TunnelServer(
            self.relay_house,
            limits=self.limits,
            clock=self.clock,
            now=lambda: self.clock.seconds() + self.ahead_s,
            new_id=self.new_id,
            may_attempt=may_attempt,
            may_log_in=may_log_in,
        )
        self.agents = TunnelClient(
            "ws://relay.test/ws",
            self.agent_house,
            limits=self.limits,
            clock=self.clock,
            new_id=self.new_id,
            told=lambda session, state: self.told.append(state),
        )

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def connect(self, key: Ed25519PrivateKey, role: Role = "inbound") -> Pair:
        """Open a connection, and let the agent log in as far as it gets at once."""
        relay, agent, watch = self._ends()
        relay.connection = self.relay.connection(relay)
        who = Agent(identity_of(key.public_key().public_bytes_raw()), key.sign, role)
        agent.connection = AgentConnection(agent, self.agents, who, watch)
        pair = Pair(relay, agent, watch)
        self.pairs.append(pair)
        relay.connection.opened()
        agent.connection.opened()
        self.flow()
        return pair

    def _ends(self) -> tuple[MemorySocket, MemorySocket, Watch]:
        has_extension = self._has_extension
        relay, agent = (
            MemorySocket(address, self._piece_octets, has_extension=has_extension)
            for address in ("192.0.2.1", "198.51.100.1")
        )
        relay.other, agent.other = agent, relay
        return relay, agent, Watch()

    def flow(self) -> None:
        """Let everything through, until nothing moves."""
        is_moving = True
        while is_moving:
            is_moving = False
            for pair in self.pairs:
                while pair.relay.flow() or pair.agent.flow():
                    is_moving = True
            if any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                self.clock.advance(0)
                is_moving = True

    def at_relay(self, pair: Pair) -> TunnelSession:
        """The relay's session of a connection."""
        session = pair.relay.connection.session
        if session is None:
            raise RuntimeError("there is no session")
        return session


class StrangeSocket:
    """A socket whose other end is the test itself.

    :ivar said: text messages, binary messages, pings, and the close, as they were sent.
    """

    def __init__(self, peer_address: str = "192.0.2.1") -> None:
        self.peer_address = peer_address
        self.said: list[tuple[str, bytes | tuple[int, str]]] = []
        self.is_aborted = False
        self.is_paused = False

    def send_text(self, octets: bytes) -> None:
        self.said.append(("text", octets))

    def send_binary(self, octets: bytes) -> None:
        self.said.append(("binary", octets))

    def send_ping(self, payload: bytes) -> None:
        self.said.append(("ping", payload))

    def send_close(self, code: int, reason: str) -> None:
        self.said.append(("close", (code, reason)))

    def abort(self) -> None:
        self.is_aborted = True

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
