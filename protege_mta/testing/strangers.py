"""The other side of a tunnel's connection, played by the test: original programs, and worse."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..model.identity import identity_of
from ..model.ports import Session
from ..model.stream import Stream
from ..tunnel.connection import Connection
from ..tunnel.socket_client import Agent, AgentConnection
from ..wire.tunnel.bodies import format_end, format_start
from ..wire.tunnel.frames import FrameReader, Kind, encode
from ..wire.tunnel.messages import (
    AuthOk,
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Terms,
    format_message,
    parse,
)
from .tunnels import Net, StrangeSocket, Watch

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ME: Final = identity_of(KEY.public_key().public_bytes_raw())
TERMS: Final = Terms(65_536, 1_000_000)


class Stranger:
    """The other side of a connection, played by the test.

    :ivar connection: ours.
    :ivar watch: what our agent's gateway is told.
    """

    connection: Connection

    def __init__(self, net: Net) -> None:
        self.net = net
        self.socket = StrangeSocket()
        self.watch = Watch()

    def meet_relay(self) -> None:
        """Connect to our relay."""
        self.connection = self.net.relay.connection(self.socket)
        self.connection.opened()

    def meet_agent(self) -> None:
        """Let our agent connect."""
        who = Agent(ME, KEY.sign)
        self.connection = AgentConnection(self.socket, self.net.agents, who, self.watch)
        self.connection.opened()

    @property
    def session(self) -> Session:
        """Ours."""
        session = self.connection.session
        assert session is not None
        return session

    def text(self, octets: bytes) -> None:
        self._say(octets, is_binary=False)

    def binary(self, *frames: bytes) -> None:
        for frame in frames:
            self._say(frame, is_binary=True)

    def _say(self, octets: bytes, *, is_binary: bool) -> None:
        self.connection.heard()
        self.connection.message_began(is_binary)
        self.connection.message_data(octets)
        self.connection.message_ended()

    def heard(self) -> list[Any]:
        """What was said since it was asked last: messages, parts of frames, pings, closes."""
        said, self.socket.said = self.socket.said, []
        found: list[Any] = []
        for kind, what in said:
            match what:
                case bytes() if kind == "text":
                    found.append(parse(what))
                case bytes() if kind == "binary":
                    reader = FrameReader()
                    found += [*reader.feed(what), *reader.finish()]
                case _:
                    found.append(what)
        return found


def agent(net: Net, terms: Terms | None = None) -> Stranger:
    """Log in at the relay.  :param terms: None for an original gateway."""
    stranger = Stranger(net)
    stranger.meet_relay()
    stranger.text(format_message(ChallengeRequest(ME)))
    [challenge] = stranger.heard()
    assert isinstance(challenge, Challenge)
    signature = base64.b64encode(KEY.sign(challenge.text.encode())).decode()
    response = ChallengeResponse(ME, challenge.challenge_id, signature, "inbound", terms)
    stranger.text(format_message(response))
    [ok] = stranger.heard()
    assert isinstance(ok, AuthOk)
    return stranger


def original_relay(net: Net) -> Stranger:
    """Let our agent in, and offer nothing."""
    return _relay(net, Challenge(ME, "c", "t", 0), AuthOk(ME, "inbound"))


def reliable_relay(net: Net) -> Stranger:
    ok = AuthOk(ME, "inbound", None, (1,), TERMS, TERMS)
    return _relay(net, Challenge(ME, "c", "t", 0, (1,)), ok)


def _relay(net: Net, challenge: Challenge, ok: AuthOk) -> Stranger:
    stranger = Stranger(net)
    stranger.meet_agent()
    stranger.text(format_message(challenge))
    stranger.text(format_message(ok))
    stranger.heard()
    return stranger


def start(stream_id: str, request_id: str = "", size: int | None = None, **more: bool) -> bytes:
    stream = Stream("a@b.test", "c@d.test", None, request_id, size, stream_id)
    is_reliable = bool(request_id)
    body = format_start(stream, is_reliable=is_reliable, is_resume=more.get("resume", False))
    return encode(Kind.START, stream_id, body)


def chunk(stream_id: str, octets: bytes) -> bytes:
    return encode(Kind.CHUNK, stream_id, octets)


def end(stream_id: str, content: bytes | None = None) -> bytes:
    if content is None:
        return encode(Kind.END, stream_id)
    return encode(Kind.END, stream_id, format_end(hashlib.sha256(content).hexdigest()))
