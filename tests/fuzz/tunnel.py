"""What comes through a tunnel, from either side, before and after login."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from twisted.internet.defer import Deferred, succeed

from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Attestation, Stream
from protege_mta.testing.strangers import ME, Stranger, agent, original_relay, reliable_relay
from protege_mta.testing.tunnels import HouseIntake, Net, OctetsInMemory, TunnelHouse, frame_parts
from protege_mta.tunnel.connection import Stage
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.wire.tunnel.bodies import (
    StartBody,
    format_end,
    format_start,
    parse_end,
    parse_start,
)
from protege_mta.wire.tunnel.frames import (
    BODY_OCTETS,
    BadFrame,
    End,
    FramePart,
    FrameReader,
    Kind,
    Piece,
    Start,
    encode,
)
from protege_mta.wire.tunnel.messages import (
    MESSAGE_OCTETS,
    AuthError,
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Credit,
    DeliveryResult,
    Malformed,
    StreamCancel,
    StreamResult,
    StreamResume,
    Terms,
    Unknown,
    format_message,
    parse,
)

from .target import Target, chunks, nothing_logged

TERMS: Final = Terms(65_536, 1_000_000)
LIMITS: Final = TunnelLimits(window_octets=65_536, message_octets=1_000_000, storing=8)

# --- frames --------------------------------------------------------------------------------------


class _Watched(FrameReader):
    def feed(self, octets: bytes) -> list[FramePart]:
        found = super().feed(octets)
        kept = len(self._kept) + len(self._body)
        assert kept <= 7 + 255 + BODY_OCTETS, "too much is kept"
        return found


def _parts(pieces: list[bytes]) -> list[FramePart]:
    return frame_parts(pieces, _Watched())


def frame(data: bytes) -> None:
    """The first octet cuts the rest, a binary message, into pieces."""
    if not data:
        return
    octets = data[1:]
    whole, cut = _parts([octets]), _parts(chunks(octets, 1 + data[0] % 50))
    match whole:
        case [*_, BadFrame() as bad]:
            assert cut[-1] == bad, "pieces are seen"
            return
        case [Start(name, body)]:
            again = encode(Kind.START, name, body)
        case [Piece(name, body)]:
            again = encode(Kind.CHUNK, name, body)
        case [End(name, body)]:
            again = encode(Kind.END, name, body)
            parse_end(body)
        case []:
            again = octets
        case _:
            raise AssertionError(f"one frame is {whole}")
    assert cut == whole, "pieces are seen"
    assert again == octets, "a frame has two forms"


def control(data: bytes) -> None:
    """A control message."""
    message = parse(data)
    if not isinstance(message, Malformed | Unknown):
        again = format_message(message)
        assert parse(again) == message, "what is read is not what is written"


def start(data: bytes) -> None:
    """The body of a start, in a session of either kind."""
    for is_reliable in (False, True):
        read = parse_start(data, "s", is_reliable=is_reliable)
        if isinstance(read, StartBody) and _can_be_written(read.stream, is_reliable):
            body = format_start(read.stream, is_reliable=is_reliable, is_resume=read.is_resume)
            assert parse_start(body, "s", is_reliable=is_reliable) == read


def _can_be_written(stream: Stream, is_reliable: bool) -> bool:
    """Not what we never write: a reliable stream without a name, an attestation of no octets."""
    word = stream.attestation
    is_empty = word is not None and not (word.payload and word.signature)
    return not is_empty and bool(stream.request_id or not is_reliable)


# --- connections ---------------------------------------------------------------------------------


def _script(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Messages: an octet for the kind, two for the length."""
    while len(data) >= 3:
        size = int.from_bytes(data[1:3], "big")
        yield data[0], data[3 : 3 + size]
        data = data[3 + size :]


def _play(stranger: Stranger, house: TunnelHouse, data: bytes) -> None:
    net, connection, socket = stranger.net, stranger.connection, stranger.socket
    held: list[Deferred[Reply]] = []

    def on_finish(intake: HouseIntake) -> Deferred[Reply]:
        if len(held) % 3 != 2:
            held.append(succeed(house.keep(intake)))
        else:
            held.append(Deferred())
        return held[-1]

    house.on_finish = on_finish
    for kind, octets in _script(data):
        if connection.stage not in (Stage.OPENING, Stage.OPEN):
            break
        match kind % 8:
            case 0 | 1 as is_binary:
                connection.heard()
                connection.message_began(bool(is_binary))
                for piece in chunks(octets, 1 + kind):
                    connection.message_data(piece)
                connection.message_ended()
            case 2:
                connection.ponged(octets)
            case 3:
                connection.pinged(octets)
            case 4:
                connection.stuck(not connection.is_stuck)
            case 5:
                net.clock.advance(len(octets))
            case 6:
                for waiting in held:
                    if not waiting.called:
                        waiting.callback(TABLE["local-error"])
            case _:
                house.on_write = lambda intake: Deferred() if octets else None  # noqa: B023
        assert len(house.open) <= 64, "more streams than there may be"
        assert len(connection._kept) <= MESSAGE_OCTETS
        assert sum(map(len, _octets(connection._queue))) <= len(data), "octets are doubled"
        if len(connection._queue) > 1:
            assert socket.is_paused or socket.is_aborted or connection.stage is not Stage.OPEN
    said = len(socket.said)
    connection.gone(1006, "")
    assert connection.stage is Stage.CLOSED
    for waiting in held:
        if not waiting.called:
            waiting.callback(TABLE["ok"])
    assert len(socket.said) == said, "words for nobody"


def _octets(queue: object) -> list[bytes]:
    return [item for item in queue if isinstance(item, bytes)]  # type: ignore[attr-defined]


def relay(data: bytes) -> None:
    """What an agent says.  The first octet: before login, an original's, or a reliable session."""
    if not data:
        return
    with nothing_logged():
        net = Net(limits=LIMITS)
        match data[0] % 3:
            case 0:
                stranger = Stranger(net)
                stranger.meet_relay()
            case 1:
                stranger = agent(net)
            case _:
                stranger = agent(net, TERMS)
        if data[0] % 3:
            sent = stranger.session.send(Stream("", "a@b.test"), OctetsInMemory(bytes(200_000)))
            sent.addErrback(lambda failure: None)
        _play(stranger, net.relay_house, data[1:])
        assert net.relay.to(ME) is None
        assert not net.relay.connections
        net.relay.unfinished.close()


def client(data: bytes) -> None:
    """What a relay says.  The first octet as in :func:`relay`."""
    if not data:
        return
    with nothing_logged():
        net = Net(limits=LIMITS)
        match data[0] % 3:
            case 0:
                stranger = Stranger(net)
                stranger.meet_agent()
            case 1:
                stranger = original_relay(net)
            case _:
                stranger = reliable_relay(net)
        if data[0] % 3:
            sent = stranger.session.send(
                Stream("", "a@b.test", stream_id="s"), OctetsInMemory(bytes(200_000))
            )
            sent.addErrback(lambda failure: None)
        _play(stranger, net.agent_house, data[1:])
        net.agents.close()


def _messages(*messages: tuple[int, bytes]) -> bytes:
    return b"".join(
        bytes([kind]) + len(octets).to_bytes(2, "big") + octets for kind, octets in messages
    )


def _start_body(request_id: str, size: int | None, *, is_resume: bool = False) -> bytes:
    stream = Stream("a@b.test", "c@d.test", None, request_id, size, "s")
    return format_start(stream, is_reliable=bool(request_id), is_resume=is_resume)


def _start(request_id: str, size: int | None, *, is_resume: bool = False) -> bytes:
    return encode(Kind.START, "s", _start_body(request_id, size, is_resume=is_resume))


_HELLO: Final = format_end("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
_ORIGINAL: Final = _messages(
    (1, _start("", None)), (9, encode(Kind.CHUNK, "s", b"hello")), (1, encode(Kind.END, "s"))
)
_RELIABLE: Final = _messages(
    (1, _start("r", 5)), (9, encode(Kind.CHUNK, "s", b"hello")), (1, encode(Kind.END, "s", _HELLO))
)
_RESUMED: Final = _messages(
    (1, _start("r", 5, is_resume=True)), (0, format_message(StreamCancel("s"))),
    (0, format_message(Credit(16_384))), (0, format_message(StreamResume("s", 3))),
    (0, format_message(StreamResult("s", "r", True, "2.0.0", "ok"))), (4, b""), (5, bytes(40)),
    (2, bytes(7) + b"\1"), (3, b"x"), (6, b""), (7, b""),
)  # fmt: skip
_LOGIN: Final = _messages(
    (0, format_message(ChallengeRequest(ME, "inbound"))),
    (0, format_message(ChallengeRequest("abc"))),
    (0, format_message(ChallengeResponse(ME, "id-1", "AAAA", None, TERMS))),
)
_WORDS: Final = (
    b"\1", b"\2", b"\3", b"\0", b"\xff", b'"', b"{", b"}", b":", b",", b"null", b"true", b"[]", b"-1",
    b"1e9", b"\1\1\1\0\0\0", b"\1\2\1\0\0\0", b"\1\3\1\0\0\0", b'"type":"', b'"streamId":"s"',
    b'"mailFrom":""', b'"rcptTo":""', b'"requestId":"r"', b'"size":5', b'"resume":true',
    b'"reliable":{"version":1}', b'"authAttestation":{', b"credit", b"stream_result", b"\\ud800",
    b"9007199254740993",
)  # fmt: skip

FRAME: Final = Target(
    "tunnel_frame",
    frame,
    [b"\0" + _start("r", 5), b"\3" + encode(Kind.CHUNK, "s", b"hello"), b"\1" + encode(Kind.END, "ä", _HELLO)],
    _WORDS,
)  # fmt: skip
CONTROL: Final = Target(
    "tunnel_control",
    control,
    [
        format_message(ChallengeRequest(ME, "inbound")),
        format_message(Challenge(ME, "c", "t", 1.5, (1,))),
        format_message(ChallengeResponse(ME, "c", "AAAA", "outbound", TERMS)),
        format_message(AuthError("x")),
        format_message(DeliveryResult("s", "no")),
        format_message(StreamResult("s", "r", False, "5.1.1", "no", is_permanent=True)),
        format_message(StreamResume("s", 3)),
        format_message(Credit(9)),
    ],
    _WORDS,
)
START: Final = Target(
    "tunnel_start",
    start,
    [
        _start_body("", None),
        _start_body("r", 5, is_resume=True),
        format_start(
            Stream("", "c@d.test", Attestation("k", b"{}", bytes(64)), "r"), is_reliable=True
        ),
    ],
    _WORDS,
)
RELAY: Final = Target(
    "tunnel_relay",
    relay,
    [b"\0" + _LOGIN, b"\1" + _ORIGINAL, b"\2" + _RELIABLE, b"\2" + _RESUMED],
    _WORDS,
)
CLIENT: Final = Target(
    "tunnel_client",
    client,
    [
        b"\0" + _messages((0, format_message(Challenge(ME, "c", "t", 1.5, (1,))))),
        b"\1" + _ORIGINAL,
        b"\1" + _messages((0, format_message(DeliveryResult("s", "550 no")))),
        b"\2" + _RELIABLE,
        b"\2" + _RESUMED,
    ],
    _WORDS,
)
