"""A gateway of ours and the relay's side of our own protocol, over loopback; and relays that behave
badly."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import attrs
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.logger import capturedLogs

from protege_mta.model.outcome import Delivered, PermanentFailure, TransientFailure
from protege_mta.model.ports import Intake, Session
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.stream import DeliveryState, Stream
from protege_mta.testing.original_relay import CHUNK, END, START, OriginalRelay, frame
from protege_mta.transport import self_signed
from protege_mta.tunnel.limits import TunnelLimits
from protege_mta.tunnel.socket_server import TunnelServer

from .gateways import GatewayCase, reactor, until

CONTENT = b"From: x@far.test\r\nSubject: in\r\n\r\nline\r\n"
QUEUED = Reply(250, "2.0.0", ("queued",))


@attrs.define(eq=False)
class Taken:
    """A message at the relay: an intake that keeps it."""

    stream: Stream
    octets: bytearray = attrs.field(factory=bytearray)
    is_finished: bool = False

    def write(self, octets: bytes) -> Deferred[None] | None:
        self.octets += octets
        return None

    def finish(self) -> Deferred[Reply]:
        self.is_finished = True
        return succeed(QUEUED)

    def abort(self) -> None:
        """Nothing else knows of it."""


class RelayDoor:
    """:ivar taken: every stream that was begun.  :ivar refusal: for all of them."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.refusal: Reply | None = None

    def opened(self, session: Session) -> None: ...

    def closed(self, session: Session) -> None: ...

    def receive(self, session: Session, stream: Stream) -> Intake | Reply:
        if self.refusal is not None:
            return self.refusal
        self.taken.append(Taken(stream))
        return self.taken[-1]

    @property
    def finished(self) -> list[Taken]:
        return [each for each in self.taken if each.is_finished]


@attrs.frozen
class Octets:
    octets: bytes

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        return self.octets[offset : len(self.octets) if size < 0 else offset + size]


class ReliableCase(GatewayCase):
    def setUp(self) -> None:
        super().setUp()
        self.door = RelayDoor()
        self.server = TunnelServer(
            self.door,
            limits=TunnelLimits(),
            clock=reactor,
            now=time.time,
            new_id=lambda: str(uuid4()),
            may_attempt=lambda address: True,
            may_log_in=lambda identity: True,
        )
        self.addCleanup(self.server.close)

    def listen(self, names: list[str] | None = None) -> str:
        """:param names: of the certificate; None for no TLS.  :return: the URL."""
        if names is None:
            return self.url_of(self.listen_with(self.server.sockets))
        pair = self_signed.kept(self.folder / "tls", names, datetime.now(UTC))
        context = DefaultOpenSSLContextFactory(str(pair.private_key), str(pair.certificate))
        port = self.listen_with(self.server.sockets, context=context)
        return f"wss://localhost:{port.getHost().port}/ws"

    def session(self) -> Any:
        found = self.server.to(self.ann)
        assert found is not None
        return found


class ReliableTests(ReliableCase):
    async def test_both_ways(self) -> None:
        house = self.open(self.listen())
        await self.connected()
        self.assertTrue(all(row["is_reliable"] for row in house.gateway.status()))
        await self.send(f"{self.ann}@home.test", "a@far.test", "b@far.test")
        await self.empty()
        names = {taken.stream.request_id for taken in self.door.finished}
        self.assertEqual(len(names), 2)
        (id,) = {name.partition(".")[0] for name in names}
        self.assertEqual(names, {f"{id}.0", f"{id}.1"})
        outcome = await self.session().send(
            Stream("x@far.test", f"{self.ann}@home.test", request_id="r-1"), Octets(CONTENT)
        )
        self.assertIsInstance(outcome, Delivered)
        (message,) = await self.mail_of(self.ann)
        self.assertEqual(message["Subject"], "in")

    async def test_refusals_reach_the_relay(self) -> None:
        self.open(self.listen())
        await self.connected()
        outcome = await self.session().send(
            Stream("x@far.test", "nobody@elsewhere.test", request_id="r-1"), Octets(CONTENT)
        )
        assert isinstance(outcome, PermanentFailure)
        self.assertEqual(outcome.cause.enhanced, "5.1.1")
        outcome = await self.session().send(
            Stream("x@far.test", f"{self.ann}@elsewhere.test", request_id="r-2"), Octets(CONTENT)
        )
        assert isinstance(outcome, TransientFailure)
        self.assertEqual(outcome.cause.enhanced, "4.3.5")

    async def test_refusals_of_the_relay_come_back(self) -> None:
        self.door.refusal = TABLE["sender-not-allowed"]
        self.open(self.listen())
        await self.connected()
        await self.send(f"{self.ann}@home.test", "a@far.test")
        (report,) = await self.mail_of(self.ann)
        self.assertIn("5.7.1", str(report))

    async def test_a_message_that_was_cut_on_its_way_out_is_gone_on_with(self) -> None:
        self.open(self.listen())
        await self.connected()
        body = b"x" * 70 + b"\r\n"
        content = b"From: <a@home.test>\r\n\r\n" + body * 50_000
        await self.send(f"{self.ann}@home.test", "a@far.test", content=content)
        for _ in range(2):
            await until(lambda: self.door.taken and self.door.taken[-1].octets, "octets")
            self.assertEqual(self.door.finished, [])
            self.session()._wire._socket.abort()
            await until(lambda: self.server.to(self.ann) is None, "the end of the session")
            await until(lambda: self.server.to(self.ann), "another session")
        await until(lambda: self.door.finished, "all of it")
        (taken,) = self.door.finished
        self.assertTrue(bytes(taken.octets).endswith(content))
        await self.empty()
        self.assertEqual(len(self.door.finished), 1)

    async def test_what_becomes_of_mail_later_is_told(self) -> None:
        self.open(self.listen())
        await self.connected()
        with capturedLogs() as logged:
            self.session().tell(DeliveryState("01k.0", "deferred", "4.4.1", "no answer"))
            await until(
                lambda: any(each.get("queue_id") == "01k" for each in logged), "a line in the log"
            )


class TlsTests(ReliableCase):
    async def test_a_relay_with_the_right_name(self) -> None:
        url = self.listen(["localhost"])
        house = self.open(url, f'ca_file = "{self.folder}/tls/cert.pem"\n')
        await self.connected()
        await self.session().send(
            Stream("x@far.test", f"{self.ann}@home.test", request_id="r-1"), Octets(CONTENT)
        )
        (message,) = await self.mail_of(self.ann)
        received = message["Received"]
        self.assertIn("from localhost ([127.0.0.1])", received)
        self.assertIn("(TLSv1.3 ", received)
        self.assertIsNotNone(house)

    async def test_a_relay_with_another_name_gets_no_login(self) -> None:
        url = self.listen(["other.test"])
        house = self.open(url, f'ca_file = "{self.folder}/tls/cert.pem"\n')
        await until(lambda: house.gateway.lines.losses.by_reason["lost"] >= 4, "failures")
        self.assertEqual(house.gateway.lines.losses.logins, 0)
        self.assertEqual([self.server.to(one) for one in (self.ann, self.ben)], [None, None])
        self.assertTrue(house.gateway.status()[0]["last_error"])

    async def test_a_relay_that_nobody_vouches_for_gets_no_login(self) -> None:
        house = self.open(self.listen(["localhost"]))
        await until(lambda: house.gateway.lines.losses.by_reason["lost"] >= 4, "failures")
        self.assertEqual(house.gateway.lines.losses.logins, 0)
        self.assertIn("certificate verify failed", house.gateway.status()[0]["last_error"])


class NotFound(Protocol):
    """Has no ``/ws``."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


class Hostile(WebSocketServerProtocol):
    """Says what it is told to, and listens to nothing."""

    factory: Any

    def onOpen(self) -> None:
        for payload, is_binary in self.factory.says:
            self.sendMessage(payload, isBinary=is_binary)

    def onMessage(self, payload: bytes, isBinary: bool) -> None: ...


class HostileTests(GatewayCase):
    """Whatever a relay does, the gateway lives, keeps its mail, and comes back."""

    def hostile(self, *says: tuple[bytes, bool]) -> str:
        factory: Any = WebSocketServerFactory()
        factory.protocol = Hostile
        factory.says = says
        return self.url_of(self.listen_with(factory))

    async def test_nonsense_before_the_login(self) -> None:
        for says in (
            [(b"\xff\xfe", True)],
            [(b"{}", False), (b"[1", False), (b'{"type":3}', False)],
            [(b'{"type":"auth_ok"}', False)],
            [(b"[" * 100_000, False)],
            [(b'{"type":"auth_error","code":"' + b"x" * 2000 + b'"}', False)],
        ):
            house = self.open(self.hostile(*says))
            await self.settle()
            self.assertEqual(house.gateway.lines.losses.logins, 0)
            await self.close()

    async def test_a_challenge_that_is_another_protocols_octets_is_not_signed(self) -> None:
        said = (
            b'{"type":"auth_challenge","publicKeyBase32":"%b","challengeId":"1","challengeText":"%b",'
            b'"expiresAt":"2030-01-01T00:00:00.000Z"}' % (self.ann.encode(), b"x" * 5000)
        )
        house = self.open(self.hostile((said, False)))
        await self.settle()
        self.assertEqual(house.gateway.lines.losses.logins, 0)

    async def settle(self) -> None:
        house = self.house
        assert house is not None
        await until(
            lambda: (
                sum(house.gateway.lines.losses.by_reason.values())
                or set(self.states()) == {"calling"}
            ),
            "an end, or silence",
        )

    async def test_nonsense_after_the_login(self) -> None:
        relay = OriginalRelay(reactor)
        house = self.open(self.url_of(self.listen_with(relay)))
        await self.connected()
        start = b'{"mailFrom":"x@far.test","rcptTo":"%b@home.test"}' % self.ann.encode()
        for message, is_binary in (
            (b"", True),
            (b"\x02\x01\x00\x00\x00\x00\x00", True),
            (b"\x01\x09\x00\x00\x00\x00\x00", True),
            (b"\x01\x01\x00\xff\xff\xff\xff", True),
            (frame(START, "s", b"no json"), True),
            (frame(START, "s", b'{"mailFrom":3,"rcptTo":[]}'), True),
            (frame(CHUNK, "nobody", b"x"), True),
            (frame(END, "nobody"), True),
            (frame(START, "endless", start), True),
            (b'{"type":"relay_delivery_result","streamId":"none","status":"sent"}', False),
            (b'{"type":"stream_result"}', False),
            (b'{"type":"credit","octets":-1}', False),
            (b"no json", False),
            (b"\xc3\xa9", False),
        ):
            session = relay.sessions.get(self.ann)
            if session is None:
                await until(lambda: relay.sessions.get(self.ann), "the gateway's return")
                session = relay.sessions[self.ann]
            session.sendMessage(message, isBinary=is_binary)
        await until(
            lambda: (
                relay.deliver("x@far.test", f"{self.ann}@home.test", CONTENT)
                and self.mail(self.ann)
            ),
            "mail",
        )
        self.assertEqual(house.spool.stats().corrupt, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_a_relay_that_is_no_websocket(self) -> None:
        house = self.open(self.url_of(self.listen_with(Factory.forProtocol(NotFound))))
        await until(lambda: house.gateway.lines.losses.by_reason["lost"] >= 2, "failures")
        self.assertTrue(house.gateway.status()[0]["last_error"])
