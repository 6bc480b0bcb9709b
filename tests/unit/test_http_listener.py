"""Tests of the HTTP listener and its first endpoints, octet for octet over an in-memory wire."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, cast

from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest

from protege_mta.http import health as health_endpoints
from protege_mta.http import metrics as metrics_endpoints
from protege_mta.http.listener import HttpLimits, new_app, site
from protege_mta.model.tally import Tally
from protege_mta.observe.health import Health, HealthLimits, ReactorLag
from protege_mta.observe.metrics import Metrics

from .test_metrics import STATS

CLOSED: Final = Failure(ConnectionDone())


class Wire(StringTransport):
    protocol: IProtocol


class Case(SynchronousTestCase):
    limits = HttpLimits(connections=3, connections_per_ip=2, idle_s=30, body_octets=20)

    def setUp(self) -> None:
        self.clock = Clock()
        self.app: Klein = new_app()
        self.factory = site(self.app, clock=self.clock, limits=self.limits)
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)

    def connect(self, host: str = "192.0.2.1") -> Wire | None:
        address = IPv4Address("TCP", host, 50000)
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            return None
        transport = Wire(peerAddress=address)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport

    def ask(self, octets: bytes) -> tuple[int, dict[str, str], bytes]:
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(octets)
        return self.parse(transport.value())

    def parse(self, octets: bytes) -> tuple[int, dict[str, str], bytes]:
        head, _, body = octets.partition(b"\r\n\r\n")
        status, *fields = head.decode("ascii").split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        if headers.get("Transfer-Encoding") == "chunked":
            size, _, rest = body.partition(b"\r\n")
            body = rest[: int(size, 16)]
        return int(status.split()[1]), headers, body

    def get(self, path: str, more: str = "") -> tuple[int, dict[str, str], bytes]:
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: mx.test\r\n{more}\r\n".encode())

    def healthy(self) -> Health:
        return Health(
            Path(self.mktemp()),
            HealthLimits(0, 0),
            clock=self.clock,
            in_thread=lambda work: succeed(None),
            stats=lambda: STATS,
            lag=ReactorLag(self.clock),
        )


class ListenerTests(Case):
    """Errors have one shape, and nobody takes more than a share."""

    def test_unknown(self) -> None:
        status, headers, body = self.get("/nothing")
        self.assertEqual((status, headers["Content-Type"]), (404, "application/problem+json"))
        self.assertEqual(
            json.loads(body), {"type": "about:blank", "title": "Not Found", "status": 404}
        )

    def test_no_banner(self) -> None:
        """Nothing says what we run on."""
        for path in ("/nothing", "*"):
            _, headers, body = self.get(path)
            self.assertNotIn("twisted", f"{headers}{body!r}".lower())

    def test_wrong_method(self) -> None:
        health_endpoints.add(self.app, self.healthy())
        status, headers, _ = self.ask(b"DELETE /health HTTP/1.1\r\nHost: mx.test\r\n\r\n")
        self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"))

    def test_bug_in_an_endpoint(self) -> None:
        """A bug is ours to see: the client is told no more than that."""

        @self.app.route("/bug")
        def bug(request: IRequest) -> bytes:
            raise RuntimeError("secret")

        status, _, body = self.get("/bug")
        self.assertEqual(status, 500)
        self.assertNotIn(b"secret", body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_body_too_long(self) -> None:
        """A body above the limit is refused before it is here."""
        status, headers, body = self.ask(
            b"POST /health HTTP/1.1\r\nHost: mx.test\r\nContent-Length: 21\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        self.assertEqual((status, headers["Connection"]), (413, "close"))
        self.assertEqual(json.loads(body)["status"], 413)

    def test_chunked_body_too_long(self) -> None:
        """A body that does not say its length is cut where it crosses the limit."""
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(
            b"POST /nothing HTTP/1.1\r\nHost: mx.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"14\r\n01234567890123456789\r\n"
        )
        self.assertEqual(transport.value(), b"")
        transport.protocol.dataReceived(b"1\r\nx\r\n0\r\n\r\n")
        self.assertEqual(self.parse(transport.value())[0], 413)
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
        self.assertTrue(transport.disconnecting)

    def test_body_at_the_limit(self) -> None:
        @self.app.route("/echo", methods=["POST"])
        def echo(request: IRequest) -> bytes:
            octets: bytes = request.content.read()
            return octets

        status, _, body = self.ask(
            b"POST /echo HTTP/1.1\r\nHost: mx.test\r\nContent-Length: 20\r\n\r\n"
            b"01234567890123456789"
        )
        self.assertEqual((status, body), (200, b"01234567890123456789"))

    def test_connections_of_one_address(self) -> None:
        self.assertIsNotNone(self.connect())
        second = self.connect()
        assert second is not None
        self.assertIsNone(self.connect())
        self.assertIsNotNone(self.connect("192.0.2.2"))
        second.protocol.connectionLost(CLOSED)
        self.assertIsNotNone(self.connect())

    def test_connections(self) -> None:
        for last in range(1, 4):
            self.assertIsNotNone(self.connect(f"192.0.2.{last}"))
        self.assertIsNone(self.connect("192.0.2.4"))

    def test_idle(self) -> None:
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(b"GET / HT")
        self.clock.advance(31)
        self.assertTrue(transport.disconnecting)

    def test_no_timer_of_its_own(self) -> None:
        """A listener nobody talks to wakes nobody."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """Whatever comes gets an answer of ours or a hang-up, and no traceback."""
        health_endpoints.add(self.app, self.healthy())
        for octets in (
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            b"GET\r\n\r\n",
            b"GE\xffT /health HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: \xc3\xa9..\x80\r\n\r\n",
            b"GET /%ff%00/../health HTTP/1.1\r\nHost: [::1\r\n\r\n",
            b"GET //health HTTP/1.1\r\nHost: a b\r\n\r\n",
            b"POST /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /health HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
        ):
            transport = self.connect(f"192.0.2.{len(octets) % 250}")
            assert transport is not None
            transport.protocol.dataReceived(octets)
            answer = transport.value()
            if answer:
                self.assertLess(self.parse(answer)[0], 500, octets)
            self.assertTrue(answer or transport.disconnecting, octets)
            transport.protocol.connectionLost(CLOSED)
        self.assertEqual(self.flushLoggedErrors(), [])


class SlowTests(Case):
    """An octet now and then does not hold a connection for good."""

    limits = HttpLimits(idle_s=60, body_octets=1_000_000)

    def slow(self, octets: int, every_s: float, seconds: float) -> Wire:
        wire = self.connect()
        assert wire is not None
        wire.protocol.dataReceived(
            b"POST /nothing HTTP/1.1\r\nHost: mx.test\r\nContent-Length: 900000\r\n\r\n"
        )
        for _ in range(int(seconds / every_s)):
            self.clock.advance(every_s)
            if wire.disconnected:
                break
            wire.protocol.dataReceived(b"x" * octets)
        return wire

    def test_drops(self) -> None:
        self.assertFalse(self.slow(1, 1, 59).disconnected)
        self.assertTrue(self.slow(1, 1, 70).disconnected)

    def test_a_slow_line_is_no_attack(self) -> None:
        self.assertFalse(self.slow(2000, 4, 1000).disconnected)

    def test_what_is_between_requests_does_not_count(self) -> None:
        wire = self.connect()
        assert wire is not None
        for _ in range(10):
            for octets in (b"GET /nothing HTTP/1.1\r\n", b"Host: mx.test\r\n\r\n"):
                self.clock.advance(29)
                wire.protocol.dataReceived(octets)
        self.assertFalse(wire.disconnected)
        self.assertEqual(wire.value().count(b"HTTP/1.1 404"), 10)


class RequestTests(Case):
    """What endpoints get to see."""

    limits = HttpLimits()

    def test_forms_are_nobodys(self) -> None:
        """Whatever kind a body says it is, the endpoint has it as it came, and its kind."""

        @self.app.route("/kind", methods=["POST"])
        def kind(request: IRequest) -> bytes:
            told = request.getHeader("content-type") or ""
            return f"{told} {request.content.read()!r} {request.args}".encode()

        for name in ("multipart/form-data", "application/x-www-form-urlencoded", "text/plain"):
            status, _, body = self.ask(
                f"POST /kind?a=1 HTTP/1.1\r\nHost: mx.test\r\nContent-Type: {name}\r\n"
                "Content-Length: 3\r\n\r\na=2".encode()
            )
            self.assertEqual((status, body), (200, f"{name} b'a=2' {{b'a': [b'1']}}".encode()))

    def test_host(self) -> None:
        """RFC 9112, 3.2: HTTP/1.1 has one."""
        health_endpoints.add(self.app, self.healthy())
        for version, fields, status in (
            ("1.1", "", 400),
            ("1.1", "Host: a\r\nHost: b\r\n", 400),
            ("1.0", "", 200),
            ("1.1", "Host: [::1]:8026\r\n", 200),
        ):
            request = f"GET /health HTTP/{version}\r\n{fields}\r\n"
            self.assertEqual(self.ask(request.encode())[0], status, request)

    def test_phrase(self) -> None:
        """Twisted would say "Unknown Status"."""

        @self.app.route("/odd")
        def odd(request: IRequest) -> bytes:
            request.setResponseCode(422)
            return b""

        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(b"GET /odd HTTP/1.1\r\nHost: mx.test\r\n\r\n")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 422 Unprocessable Content\r\n"))


class FramingTests(Case):
    """Where an answer ends, and whether another may follow."""

    limits = HttpLimits()

    def setUp(self) -> None:
        super().setUp()

        @self.app.route("/whole", methods=["GET"])
        def whole(request: IRequest) -> bytes:
            return b"12345"

        @self.app.route("/later", methods=["GET"])
        async def later(request: IRequest) -> bytes:
            return b"1234567"

        @self.app.route("/stream", methods=["GET"])
        def stream(request: IRequest) -> bytes:
            cast(Any, request).write(b"123")
            return b"45"

        @self.app.route("/half", methods=["GET"])
        def half(request: IRequest) -> bytes:
            request.setHeader(b"Content-Length", b"99")
            raise RuntimeError("before anything was written")

    def said(self, octets: bytes) -> Wire:
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(octets)
        return transport

    def test_whole_answers_say_their_length(self) -> None:
        for path, length in (("/whole", 5), ("/later", 7), ("/nothing", None), ("/half", None)):
            _, headers, body = self.get(path)
            self.assertNotIn("Transfer-Encoding", headers)
            self.assertEqual(headers["Content-Length"], str(length or len(body)), path)
        for octets in (b"GET / HTTP/1.1\r\n\r\n", b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n"):
            _, headers, body = self.ask(octets)
            self.assertEqual(headers["Content-Length"], str(len(body)))
            self.factory = site(self.app, clock=self.clock, limits=self.limits)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_streams_are_chunked(self) -> None:
        transport = self.said(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(transport.value().endswith(b"\r\n\r\n3\r\n123\r\n2\r\n45\r\n0\r\n\r\n"))
        self.assertNotIn(b"Content-Length", transport.value())

    def test_head(self) -> None:
        """RFC 9110, 9.3.2: as GET, without the body."""
        for path in ("/whole", "/later", "/nothing"):
            got = self.said(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).value()
            head = self.said(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).value()
            self.assertEqual(head, got.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", path)

    def test_http_1_0_may_stay(self) -> None:
        """RFC 9112, 9.3: who asks for it, where the answer has a length."""
        transport = self.said(b"GET /whole HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" * 2)
        self.assertEqual(transport.value().count(b"12345"), 2)
        self.assertEqual(transport.value().count(b"Connection: keep-alive\r\n"), 2)
        self.assertFalse(transport.disconnecting)
        transport.protocol.dataReceived(b"GET /whole HTTP/1.0\r\n\r\n")
        self.assertEqual(transport.value().count(b"12345"), 3)
        self.assertTrue(transport.disconnecting)
        transport = self.said(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertTrue(transport.value().endswith(b"\r\n\r\n12345"))
        self.assertNotIn(b"keep-alive", transport.value())
        self.assertTrue(transport.disconnecting)


class UnreadableTests(Case):
    """What is no request is told so, and then hung up on."""

    limits = HttpLimits(connections_per_ip=100, connections=100)

    cases = (
        (414, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        (414, b"GET /" + b"a" * 20_000),
        (414, b"a" * 200_000),
        (431, b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"),
        (431, b"GET / HTTP/1.1\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 450 + b"\r\n"),
        (431, b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 501 + b"\r\n"),
        (400, b"nonsense\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
    )  # fmt: skip

    def test_answer(self) -> None:
        for wanted, octets in self.cases:
            for size in (len(octets), 1000):
                transport = self.connect()
                assert transport is not None
                for at in range(0, len(octets), size):
                    transport.protocol.dataReceived(octets[at : at + size])
                status, headers, body = self.parse(transport.value())
                self.assertEqual(status, wanted, octets[:40])
                self.assertEqual(json.loads(body)["status"], wanted)
                self.assertEqual(headers["Content-Type"], "application/problem+json")
                self.assertEqual(headers["Content-Length"], str(len(body)))
                self.assertEqual(headers["Connection"], "close")
                transport.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)
                self.assertFalse(transport.disconnecting)  # it may be reading the answer still
                self.clock.advance(3)
                self.assertTrue(transport.disconnecting)
                transport.protocol.connectionLost(CLOSED)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_after_a_request(self) -> None:
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(
            b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /" + b"a" * 20_000 + b" HTTP/1.1\r\n"
        )
        answers = transport.value()
        self.assertEqual((answers.count(b"HTTP/1.1 404"), answers.count(b"HTTP/1.1 414")), (1, 1))

    def test_who_sends_on_and_on(self) -> None:
        transport = self.connect()
        assert transport is not None
        for _ in range(50):
            transport.protocol.dataReceived(b"a" * 50_000)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)


class Echo(Protocol):
    """Speaks something else than HTTP, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.is_lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        assert self.transport is not None
        self.transport.write(b"[%b]" % data.split(b"\r\n")[0])

    def connectionLost(self, reason: Failure = CLOSED) -> None:
        self.is_lost = True


class UpgradeTests(Case):
    """``/ws`` leaves HTTP, its limits and its time-outs."""

    fields = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.made: list[tuple[str, Echo]] = []
        self.has_room = True
        self.configure()

    def configure(self, *trusted: str) -> None:
        self.factory.configure(
            trusted_proxies=[ip_network(one) for one in trusted], upgrade=self.upgrade
        )

    def upgrade(self, address: str) -> Echo | None:
        if not self.has_room:
            return None
        self.made.append((address, Echo()))
        return self.made[-1][1]

    def request(self, target: str = "/ws", more: str = "", method: str = "GET") -> bytes:
        return f"{method} {target} HTTP/1.1\r\nHost: mx.test\r\n{self.fields}{more}\r\n".encode()

    def open(self, more: str = "", host: str = "192.0.2.1") -> Wire:
        transport = self.connect(host)
        assert transport is not None
        transport.protocol.dataReceived(self.request(more=more))
        return transport

    def test_upgrade(self) -> None:
        """The other protocol has the request as it came, and all that comes after it."""
        transport = self.open()
        [(address, echo)] = self.made
        self.assertEqual(address, "192.0.2.1")
        self.assertEqual(
            echo.heard,
            b"GET /ws HTTP/1.1\r\nHost: mx.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-Websocket-Key: x\r\n\r\n",
        )
        for octets in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100):
            transport.protocol.dataReceived(octets)
        self.assertTrue(echo.heard.endswith(b"GET / HTTP/1.1\r\n\r\n" + b"\0" * 100))
        self.assertTrue(transport.value().startswith(b"[GET /ws HTTP/1.1][GET / HTTP/1.1]["))
        self.assertIsNone(transport.producer)
        transport.protocol.connectionLost(CLOSED)
        self.assertTrue(echo.is_lost)
        self.assertEqual(self.factory.protocols, {})

    def test_octet_by_octet(self) -> None:
        transport = self.connect()
        assert transport is not None
        for octet in self.request() + b"more":
            transport.protocol.dataReceived(bytes([octet]))
        self.assertTrue(self.made[0][1].heard.endswith(b"\r\n\r\nmore"))

    def test_other_requests(self) -> None:
        """Whatever is not exactly ``/ws``, and who does not upgrade, is told 404."""
        targets = ("/ws/", "/ws?", "/ws?x=1", "/WS", "/%77s", "//ws", "http://mx.test/ws")
        for octets in (
            b"GET /ws HTTP/1.1\r\nHost: mx.test\r\n\r\n",
            self.request(method="POST"),
            *map(self.request, targets),
        ):
            transport = self.connect()
            assert transport is not None
            transport.protocol.dataReceived(octets)
            self.assertEqual(self.parse(transport.value())[0], 404, octets)
            transport.protocol.connectionLost(CLOSED)
        self.assertEqual(self.made, [])

    def test_no_relay_server(self) -> None:
        self.factory.configure(trusted_proxies=(), upgrade=None)
        self.assertEqual(self.ask(self.request())[0], 404)

    def test_no_room(self) -> None:
        self.has_room = False
        status, headers, _ = self.ask(self.request())
        self.assertEqual((status, headers["Retry-After"]), (503, "30"))

    def test_limits_are_for_requests(self) -> None:
        """Sessions count against no share of connections, and are never idle for HTTP."""
        open_now = [self.open() for _ in range(20)]
        self.assertEqual(len(self.made), 20)
        self.assertIsNotNone(self.connect())
        self.clock.advance(3600)
        self.assertFalse(any(one.disconnecting for one in open_now))
        for one in open_now:
            one.protocol.connectionLost(CLOSED)
        self.assertIsNotNone(self.connect())
        self.assertIsNone(self.connect())  # two of one address, as ever

    def test_client_behind_a_proxy(self) -> None:
        self.configure("192.0.2.0/28")
        self.open("X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\nX-Forwarded-For: 192.0.2.3\r\n")
        self.open("X-Forwarded-For: 203.0.113.9\r\n", host="198.51.100.8")
        self.assertEqual([address for address, _ in self.made], ["198.51.100.7", "198.51.100.8"])

    def test_proxy_has_many_clients(self) -> None:
        """No limit of one address is for it; that of all is."""
        self.configure("192.0.2.1")
        self.assertEqual([self.connect() is None for _ in range(4)], [False] * 3 + [True])


class TlsTests(Case):
    def test_tls_from_the_first_octet(self) -> None:
        """The transport is put under TLS before HTTP says or hears anything."""
        begun: list[object] = []

        class Transport(Wire):
            def startTLS(self, context: object) -> None:
                begun.append(context)
                assert not self.producer

        context = cast(Any, object())
        self.factory.tls = context
        address = IPv4Address("TCP", "192.0.2.1", 50000)
        protocol = self.factory.buildProtocol(address)
        assert protocol is not None
        protocol.makeConnection(Transport(peerAddress=address))
        self.assertEqual(begun, [context])


class EndpointTests(Case):
    """What monitoring reads."""

    def test_healthy(self) -> None:
        health_endpoints.add(self.app, self.healthy())
        status, headers, body = self.get("/healthz")
        self.assertEqual((status, body), (200, b'{"ok":true}'))
        self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(self.get("/health")[2], b'{"status":"ok"}')

    def test_unhealthy(self) -> None:
        health = self.healthy()
        health.stopping()
        health_endpoints.add(self.app, health)
        status, _, body = self.get("/healthz")
        self.assertEqual(
            (status, json.loads(body)), (503, {"ok": False, "problems": ["shutting down"]})
        )

    def test_client_gone_before_the_answer(self) -> None:
        """A probe that nobody waits for any more ends without an error."""
        probe: Deferred[None] = Deferred()
        health = Health(
            Path(self.mktemp()),
            HealthLimits(0, 0),
            clock=self.clock,
            in_thread=lambda work: probe,
            stats=lambda: STATS,
            lag=ReactorLag(self.clock),
        )
        health_endpoints.add(self.app, health)
        transport = self.connect()
        assert transport is not None
        transport.protocol.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        transport.protocol.connectionLost(CLOSED)
        probe.callback(None)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_metrics(self) -> None:
        metrics_endpoints.add(self.app, Metrics(Tally(connections_in=4), "1.2.3"))
        status, headers, body = self.get("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["Content-Type"].startswith("text/plain; version="))
        self.assertIn(b'protege_mta_connections_total{direction="in"} 4.0\n', body)
