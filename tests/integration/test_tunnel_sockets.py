"""Tunnels over real TCP.

agent (TunnelClient, or octets by hand) --WebSocket--> an http listener --> TunnelServer
"""

from __future__ import annotations

import base64
import json
import time
import tracemalloc
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import crypto
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IListeningPort, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from protege_mta.http.listener import HttpLimits, new_app, site
from protege_mta.model.identity import identity_of
from protege_mta.model.outcome import Delivered, TransientFailure
from protege_mta.model.ports import Intake, Session
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import Stream
from protege_mta.testing.tunnels import OctetsInMemory, TunnelHouse, Watch
from protege_mta.transport.self_signed import self_signed
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.tunnel.socket_client import Agent, TunnelClient
from protege_mta.tunnel.socket_server import TunnelServer

from ..unit.test_tunnel_wire import VECTORS

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ME = identity_of(KEY.public_key().public_bytes_raw())
STREAM = Stream("a@b.test", "c@d.test", request_id="r-1")
BIG_OCTETS = 50 * 2**20


@attrs.frozen
class Zeros:
    """Content that takes no memory."""

    size_octets: int

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        rest = self.size_octets - offset
        return bytes(rest if size < 0 else min(size, rest))


class CountingHouse(TunnelHouse):
    """Takes messages, and keeps their sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def receive(
        self, session: Session, stream: Stream
    ) -> Intake | Reply | Deferred[Intake | Reply]:
        return _Counter(self)


class _Counter:
    def __init__(self, house: CountingHouse) -> None:
        self._house = house
        self._octets = 0

    def write(self, octets: bytes) -> Deferred[None] | None:
        self._octets += len(octets)
        return None

    def finish(self) -> Deferred[Reply]:
        self._house.sizes.append(self._octets)
        return succeed(TABLE["ok"])

    def abort(self) -> None: ...


class RawClient(Protocol):
    """A WebSocket client by hand.

    :ivar came: every octet.
    """

    def __init__(self) -> None:
        self.came = b""
        self.is_lost = False
        self._waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.came += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self._look()

    def _look(self) -> None:
        for waiting in list(self._waiting):
            found = waiting[0]()
            if found is not None:
                self._waiting.remove(waiting)
                waiting[1].callback(found)

    def until(self, find: Callable[[], Any]) -> Deferred[Any]:
        """Fires with what ``find`` gives, once that is not None."""
        waiting: Deferred[Any] = Deferred()
        self._waiting.append((find, waiting))
        self._look()
        return waiting

    def lost(self) -> Deferred[Any]:
        return self.until(lambda: True if self.is_lost else None)

    def head(self) -> Deferred[bytes]:
        """The HTTP answer, taken out of what came."""

        def find() -> bytes | None:
            head, end, rest = self.came.partition(b"\r\n\r\n")
            if not end:
                return None
            self.came = rest
            return head

        return cast("Deferred[bytes]", self.until(find))

    def frame(self) -> Deferred[tuple[int, bytes]]:
        """The next frame: opcode and payload."""

        def find() -> tuple[int, bytes] | None:
            came = self.came
            if len(came) < 2:
                return None
            size, at = came[1], 2
            if size == 126:
                size, at = int.from_bytes(came[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(came[2:10], "big"), 10
            if len(came) < at + size:
                return None
            self.came = came[at + size :]
            return came[0] & 15, came[at : at + size]

        return cast("Deferred[tuple[int, bytes]]", self.until(find))


def masked(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    mask = b"\x12\x34\x56\x78"
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    body = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    return bytes([opcode | (0x80 if is_final else 0)]) + length + mask + body


REQUEST = VECTORS["handshake"]["request"].encode() + b"\r\n\r\n"


class SocketTests(TestCase):
    timeout = 60

    async def serve(self, *, limits: TunnelLimits | None = None, is_tls: bool = False) -> None:
        """A relay, and a client that knows where it is."""
        clock = cast(Any, reactor)
        self.clock = clock
        self.relay_house, self.agent_house = CountingHouse(), CountingHouse()
        limits = limits or TunnelLimits(message_octets=2 * BIG_OCTETS)

        def new_id() -> str:
            return str(uuid.uuid4())

        self.server = server = TunnelServer(
            self.relay_house,
            limits=limits,
            clock=clock,
            now=time.time,
            new_id=new_id,
            may_attempt=lambda address: True,
            may_log_in=lambda identity: True,
        )
        factory: Any = site(new_app(), clock=clock, limits=HttpLimits())
        factory.configure(trusted_proxies=(), upgrade=server.sockets.socket)
        if is_tls:
            factory = TLSMemoryBIOFactory(_certificate(), False, factory)
        endpoint = TCP4ServerEndpoint(clock, 0, interface="127.0.0.1")
        port: IListeningPort = await endpoint.listen(factory)
        self.port = cast(Any, port.getHost()).port
        scheme = "wss" if is_tls else "ws"
        self.client = TunnelClient(
            f"{scheme}://127.0.0.1:{self.port}/ws",
            self.agent_house,
            limits=limits,
            clock=clock,
            new_id=new_id,
        )
        self.addCleanup(self._stop, port)

    async def _stop(self, port: IListeningPort) -> None:
        await self.server.close()
        while self.client.sweep._all:
            await deferLater(self.clock, 0.01, lambda: None)
        self.client.close()
        await cast(Any, port.stopListening())

    def endpoint(self) -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(self.clock, "127.0.0.1", self.port)

    async def agent(self, *, is_tls: bool = False) -> Session:
        """A session of our own client."""
        endpoint: Any = self.endpoint()
        if is_tls:
            endpoint = wrapClientTLS(cast(Any, CertificateOptions(verify=False)), endpoint)
        self.watch = Watch()
        self.connecting = self.client.connect(endpoint, Agent(ME, KEY.sign), self.watch)
        while self.watch.session is None:
            self.assertEqual(self.watch.ends, [])
            await deferLater(self.clock, 0.005, lambda: None)
        return self.watch.session

    def relay_session(self) -> Session:
        session = self.server.to(ME)
        assert session is not None
        return session

    async def raw(self) -> RawClient:
        client: RawClient = await connectProtocol(self.endpoint(), RawClient())
        self.addCleanup(cast(Any, client.transport).abortConnection)
        return client

    async def logged_in(
        self, write: Callable[[ITransport, bytes], None] | None = None
    ) -> RawClient:
        """An original gateway, by hand."""
        write = write or (lambda transport, octets: transport.write(octets))
        client = await self.raw()
        transport = cast(Any, client.transport)
        write(transport, REQUEST)
        await client.head()
        request = {
            "type": "auth_challenge_request",
            "publicKeyBase32": ME,
            "sessionRole": "inbound",
        }
        write(transport, masked(1, json.dumps(request).encode()))
        _, text = await client.frame()
        challenge = json.loads(text)
        response = {
            "type": "auth_challenge_response",
            "publicKeyBase32": ME,
            "challengeId": challenge["challengeId"],
            "signatureBase64": _base64(KEY.sign(challenge["challengeText"].encode())),
            "sessionRole": "inbound",
        }
        write(transport, masked(1, json.dumps(response).encode()))
        _, text = await client.frame()
        self.assertEqual(json.loads(text)["type"], "auth_ok")
        return client

    # --- both shells -----------------------------------------------------------------------------

    async def test_both_ways(self) -> None:
        await self.serve()
        agent = await self.agent()
        self.assertTrue(agent.is_reliable)
        there = await agent.send(STREAM, OctetsInMemory(b"x" * 200_000))
        back = await self.relay_session().send(STREAM, OctetsInMemory(b""))
        self.assertIsInstance(there, Delivered)
        self.assertIsInstance(back, Delivered)
        self.assertEqual((self.relay_house.sizes, self.agent_house.sizes), ([200_000], [0]))

    async def test_under_tls(self) -> None:
        await self.serve(is_tls=True)
        agent = await self.agent(is_tls=True)
        there = agent.send(STREAM, Zeros(3_000_000))
        back = self.relay_session().send(STREAM, Zeros(3_000_000))
        self.assertIsInstance(await there, Delivered)
        self.assertIsInstance(await back, Delivered)

    async def test_ends(self) -> None:
        """Each side hears why."""
        await self.serve()
        await self.agent()
        first = self.watch
        await self.agent()
        self.assertEqual(first.ends, [(4400, "replaced_by_new_session")])
        self.connecting.stop()
        self.assertEqual(self.watch.ends, [(1000, "client_stopped")])
        while self.server.connections:
            await deferLater(self.clock, 0.01, lambda: None)
        nowhere = Watch()
        endpoint = TCP4ClientEndpoint(self.clock, "127.0.0.1", 1)
        self.client.connect(endpoint, Agent(ME, KEY.sign), nowhere)
        while not nowhere.ends:
            await deferLater(self.clock, 0.01, lambda: None)
        self.assertEqual(nowhere.ends[0][0], 1006)

    async def test_big_messages_both_ways_at_once(self) -> None:
        """Do not lock each other up, and neither is ever whole in memory."""
        await self.serve()
        agent = await self.agent()
        tracemalloc.start()
        try:
            there = agent.send(STREAM, Zeros(BIG_OCTETS))
            back = self.relay_session().send(STREAM, Zeros(BIG_OCTETS))
            self.assertIsInstance(await there, Delivered)
            self.assertIsInstance(await back, Delivered)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertEqual(self.relay_house.sizes + self.agent_house.sizes, [BIG_OCTETS] * 2)
        self.assertLess(peak, 4_000_000)

    async def test_a_relay_that_is_none(self) -> None:
        """An HTTP server without tunnels."""
        await self.serve()
        other = TunnelClient(
            f"ws://127.0.0.1:{self.port}/nothing",
            self.agent_house,
            limits=TunnelLimits(),
            clock=self.clock,
            new_id=lambda: "",
        )
        watch = Watch()
        other.connect(self.endpoint(), Agent(ME, KEY.sign), watch)
        while not watch.ends:
            await deferLater(self.clock, 0.01, lambda: None)
        self.assertEqual(watch.ends[0][0], 1006)
        other.close()

    # --- by hand ---------------------------------------------------------------------------------

    async def test_the_recorded_handshake(self) -> None:
        """Is answered as the original relay answers it: no compression, nothing more."""
        await self.serve()
        client = await self.raw()
        cast(Any, client.transport).write(REQUEST)
        head = await client.head()
        status, *fields = head.decode().split("\r\n")
        recorded = VECTORS["handshake"]["response"].split("\r\n")
        self.assertTrue(status.startswith("HTTP/1.1 101 "))
        self.assertEqual(
            {field.lower() for field in fields}, {field.lower() for field in recorded[1:]}
        )

    async def test_the_first_subprotocol_is_spoken(self) -> None:
        await self.serve()
        client = await self.raw()
        fields = b"\r\nsec-websocket-protocol: one, two\r\n\r\n"
        cast(Any, client.transport).write(REQUEST.removesuffix(b"\r\n\r\n") + fields)
        self.assertIn(b"\r\nSec-WebSocket-Protocol: one", await client.head())

    async def test_other_targets(self) -> None:
        await self.serve()
        for target in (b"/ws/", b"/ws?x=1", b"/WS", b"//ws", b"/ws%20"):
            client = await self.raw()
            cast(Any, client.transport).write(REQUEST.replace(b"/ws ", target + b" ", 1))
            head = await client.head()
            self.assertNotIn(b" 101 ", head.split(b"\r\n")[0], target)
        client = await self.raw()
        cast(Any, client.transport).write(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b" 404 ", await client.head())

    async def test_octet_by_octet(self) -> None:
        """A whole session of an original gateway."""
        await self.serve()

        def slowly(transport: ITransport, octets: bytes) -> None:
            socket = cast(Any, transport).socket
            socket.setblocking(True)
            for at in range(len(octets)):
                socket.send(octets[at : at + 1])
            socket.setblocking(False)

        client = await self.logged_in(slowly)
        transport = cast(Any, client.transport)
        for vector in VECTORS["frameVectors"]:
            if vector["name"] in ("start_tiny", "chunk_tiny", "chunk_zero_length", "end_tiny"):
                frame = bytes.fromhex(vector["hex"])
                slowly(transport, masked(2, frame[:3], is_final=False))
                slowly(transport, masked(0, b"", is_final=False))
                slowly(transport, masked(9, b"ping"))
                slowly(transport, masked(0, frame[3:]))
        said = [await client.frame() for _ in range(5)]
        self.assertEqual([frame for frame in said if frame[0] == 10], [(10, b"ping")] * 4)
        self.assertEqual(
            json.loads(said[-1][1]),
            {"type": "relay_delivery_result", "streamId": "s", "status": "sent", "messageId": None},
        )
        self.assertEqual(self.relay_house.sizes, [4])
        outcome = self.relay_session().send(STREAM, OctetsInMemory(b"hello"))
        frames = [await client.frame() for _ in range(4)]
        self.assertEqual([opcode for opcode, _ in frames], [2, 2, 2, 9])
        self.assertEqual(frames[1][1][-5:], b"hello")
        slowly(transport, masked(10, frames[3][1]))
        self.assertIsInstance(await outcome, Delivered)
        slowly(transport, masked(8, b"\x03\xe8client_stopped"))
        opcode, _ = await client.frame()
        self.assertEqual(opcode, 8)
        await client.lost()

    async def test_a_whole_message_as_one_chunk(self) -> None:
        """As the original sends it: it is never whole in memory."""
        await self.serve()
        client = await self.logged_in()
        transport = cast(Any, client.transport)
        transport.write(masked(2, bytes.fromhex(_vector("start_tiny"))))
        head = b"\1\2\1" + BIG_OCTETS.to_bytes(4, "big") + b"s"
        size = (len(head) + BIG_OCTETS).to_bytes(8, "big")
        transport.write(b"\x82\xff" + size + bytes(4) + head)  # a mask of zeros changes nothing
        tracemalloc.start()
        try:
            sent = 0
            while sent < BIG_OCTETS:
                transport.write(bytes(65_536))
                sent += 65_536
                while transport._tempDataLen or transport.dataBuffer:
                    await deferLater(self.clock, 0, lambda: None)
            transport.write(masked(2, bytes.fromhex(_vector("end_tiny"))))
            _, text = await client.frame()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertEqual(json.loads(text)["status"], "sent")
        self.assertEqual(self.relay_house.sizes, [BIG_OCTETS])
        self.assertLess(peak, 4_000_000)

    async def test_an_agent_that_stops_reading(self) -> None:
        """Holds up nobody else, takes little memory, and is gone in the end."""
        await self.serve(limits=TunnelLimits(ping_s=1, idle_s=4))
        client = await self.logged_in()
        deaf = self.relay_session()
        cast(Any, client.transport).pauseProducing()
        tracemalloc.start()
        try:
            outcomes = [deaf.send(STREAM, Zeros(BIG_OCTETS)) for _ in range(10)]
            other = await self.other_agent()
            self.assertIsInstance(await other.send(STREAM, Zeros(1_000_000)), Delivered)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 4_000_000)
        for outcome in outcomes:
            self.assertIsInstance(await outcome, TransientFailure)

    async def test_an_agent_that_takes_leave_and_does_not_read(self) -> None:
        """Its octets do not hold the connection."""
        await self.serve(limits=TunnelLimits(close_s=1))
        client = await self.logged_in()
        outcome = self.relay_session().send(STREAM, Zeros(BIG_OCTETS))
        transport = cast(Any, client.transport)
        transport.pauseProducing()
        transport.write(masked(8, b"\x03\xe8"))
        self.assertIsInstance(await outcome, TransientFailure)
        while self.server.connections:
            await deferLater(self.clock, 0.05, lambda: None)

    async def other_agent(self) -> Session:
        key = Ed25519PrivateKey.generate()
        watch = Watch()
        who = Agent(identity_of(key.public_key().public_bytes_raw()), key.sign)
        self.client.connect(self.endpoint(), who, watch)
        while watch.session is None:
            await deferLater(self.clock, 0.005, lambda: None)
        return watch.session

    async def test_a_flood_before_login(self) -> None:
        """A message without an end, of a stranger: refused, and the connection closed."""
        await self.serve()
        client = await self.raw()
        transport = cast(Any, client.transport)
        transport.write(REQUEST)
        await client.head()
        transport.write(b"\x81\xff" + (2**40).to_bytes(8, "big") + bytes(4) + b"x" * 100_000)
        _, text = await client.frame()
        opcode, close = await client.frame()
        self.assertEqual(text, b'{"type":"auth_error","code":"invalid_message"}')
        self.assertEqual((opcode, close), (8, (4401).to_bytes(2, "big") + b"invalid_message"))

    async def test_broken_websockets(self) -> None:
        """End with a close, and nothing in the log."""
        await self.serve()
        for octets in (b"\x81\x05hello", b"\xf1\x80\0\0\0\0", b"\x83\x80\0\0\0\0", masked(1, b"\xff"),
                       masked(0, b"x")):  # fmt: skip
            client = await self.raw()
            transport = cast(Any, client.transport)
            transport.write(REQUEST)
            await client.head()
            transport.write(octets)
            opcode, _ = await client.frame()
            self.assertEqual(opcode, 8, octets)
        client = await self.raw()
        cast(Any, client.transport).write(REQUEST + masked(8, b"\0\0"))
        await client.lost()


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _vector(name: str) -> str:
    [found] = [vector["hex"] for vector in VECTORS["frameVectors"] if vector["name"] == name]
    return cast(str, found)


def _certificate() -> CertificateOptions:
    certificate, key = self_signed(["relay.test"], datetime.now(UTC))
    return CertificateOptions(
        privateKey=cast(Any, crypto.load_privatekey(crypto.FILETYPE_PEM, key)),
        certificate=cast(Any, crypto.load_certificate(crypto.FILETYPE_PEM, certificate)),
    )
