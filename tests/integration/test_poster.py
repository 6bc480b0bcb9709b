"""Requests to endpoints that fail in all ways, over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from protege_mta.testing.authority import Authority
from protege_mta.transport.poster import ANSWER_OCTETS, Answered, Poster, Unanswered

TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Endpoint(Protocol):
    """Answers whatever comes with the same octets, and hangs up where it is told to."""

    factory: Any
    _dripping: Any = None

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self._octets = b""

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if not self._octets.endswith(b"}"):
            return
        self.factory.requests.append(self._octets)
        self._octets = b""
        assert self.transport is not None
        self.transport.write(self.factory.answer)
        if self.factory.hangs_up:
            self.transport.loseConnection()
        if self.factory.goes_on:
            self.drip()

    def drip(self) -> None:
        """Have more to say, for as long as anybody listens."""
        assert self.transport is not None
        self.transport.write(self.factory.goes_on)
        self._dripping = cast(Any, reactor).callLater(self.factory.every_s, self.drip)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lost += 1
        if self._dripping is not None:
            self._dripping.cancel()


class PosterTests(TestCase):
    def setUp(self) -> None:
        self.factory = cast(Any, Factory.forProtocol(Endpoint))
        self.factory.noisy = False
        self.factory.connections, self.factory.requests = 0, []
        self.factory.answer, self.factory.hangs_up = TAKEN, False
        self.factory.goes_on, self.factory.every_s, self.factory.lost = b"", 0.02, 0
        self.it = cast(Any, reactor)
        port = self.it.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/hook?a=b"

    def poster(self, url: str = "", timeout_s: float = 10.0, ca_file: Path | None = None) -> Poster:
        poster = Poster(
            reactor, url or self.url, timeout_s=timeout_s, ca_file=ca_file, agent="test"
        )
        self.addCleanup(poster.close)
        return poster

    async def answer(
        self, octets: bytes, *, hangs_up: bool = False, timeout_s: float = 10.0
    ) -> Answered | Unanswered:
        self.factory.answer, self.factory.hangs_up = octets, hangs_up
        return await self.poster(timeout_s=timeout_s).post(b"{}", {"webhook-id": "m1.0.1"})

    async def test_connections_are_kept(self) -> None:
        poster = self.poster()
        for _ in range(3):
            self.assertEqual(await poster.post(b"{}", {"webhook-id": "m1.0.1"}), Answered(204))
        self.assertEqual(self.factory.connections, 1)
        request = self.factory.requests[0]
        self.assertTrue(request.startswith(b"POST /hook?a=b HTTP/1.1\r\n"))
        self.assertIn(b"webhook-id: m1.0.1\r\n", request.lower())
        self.assertIn(b"content-length: 2\r\n", request.lower())

    async def test_redirects_are_answers(self) -> None:
        octets = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(await self.answer(octets), Answered(302))
        self.assertEqual(len(self.factory.requests), 1)

    async def test_retry_after(self) -> None:
        octets = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
        self.assertEqual(await self.answer(octets), Answered(503, "7"))

    async def test_no_answer(self) -> None:
        for octets in (b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"220 mx.test ESMTP\r\n"):
            found = await self.answer(octets, hangs_up=True)
            self.assertIsInstance(found, Unanswered)

    async def test_nobody_listens(self) -> None:
        found = await self.poster("http://127.0.0.1:1/").post(b"{}", {})
        assert isinstance(found, Unanswered)
        self.assertIn("refused", found.cause)

    async def test_silence(self) -> None:
        """Neither a head that never comes nor a body that never ends takes longer than it may; with
        the head, the answer is there."""
        found = await self.answer(b"", timeout_s=0.3)
        self.assertEqual(found, Unanswered("no answer in time", "silent"))
        octets = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
        self.assertEqual(await self.answer(octets, timeout_s=0.3), Answered(200))

    async def test_giant_answer(self) -> None:
        """A status counts, whatever else an endpoint has to say."""
        octets = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
        found = await self.answer(octets + b"x" * (3 * ANSWER_OCTETS))
        self.assertEqual(found, Answered(200))

    async def test_an_octet_at_a_time(self) -> None:
        """An answer that comes slower than it may is none, and the connection is closed."""
        self.factory.goes_on = b"H"
        found = await self.answer(b"", timeout_s=0.4)
        self.assertEqual(found, Unanswered("no answer in time", "silent"))
        await self.until_lost()

    async def test_a_body_without_end(self) -> None:
        """Is read no further than it is worth, and for no longer than an answer may take."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.factory.goes_on = b"1\r\nx\r\n"
        self.assertEqual(await self.answer(head, timeout_s=0.4), Answered(200))
        await self.until_lost()
        self.factory.goes_on, self.factory.every_s = b"4000\r\n%b\r\n" % (b"x" * 0x4000), 0.0
        self.assertEqual(await self.answer(head), Answered(200))
        await self.until_lost(2)

    async def test_a_head_without_end(self) -> None:
        """Neither fields nor provisional answers (RFC 9110, 15.2) fill our memory."""
        self.factory.every_s = 0.0
        for number, octets in enumerate((b"A: b\r\n" * 999, b"HTTP/1.1 100 Continue\r\n\r\n" * 99)):
            self.factory.goes_on = octets
            start = b"" if number else b"HTTP/1.1 200 OK\r\n"
            found = await self.answer(start, timeout_s=60)
            self.assertIsInstance(found, Unanswered)
            await self.until_lost(number + 1)

    async def test_an_end_in_the_middle(self) -> None:
        """With its head an answer is there, though not all of its body comes."""
        octets = b"HTTP/1.1 %d OK\r\nContent-Length: 9\r\n\r\nx"
        self.assertEqual(await self.answer(octets % 200, hangs_up=True), Answered(200))
        self.assertEqual(await self.answer(octets % 500, hangs_up=True), Answered(500))

    async def test_cut(self) -> None:
        """A connection that ends before the answer is told apart from one that never was."""
        found = await self.answer(b"", hangs_up=True)
        self.assertEqual(found, Unanswered("connection closed before the answer", "cut"))

    async def until_lost(self, connections: int = 1) -> None:
        """Wait until the endpoint has seen so many of its connections end; it was hung up on."""
        for _ in range(500):
            if self.factory.lost >= connections:
                return
            soon: Deferred[None] = Deferred()
            self.it.callLater(0.01, soon.callback, None)
            await soon
        self.fail("the connection is still there")

    async def test_a_connection_that_was_closed_meanwhile(self) -> None:
        """The request may fail once, and the next one has a new connection."""
        poster = self.poster()
        self.factory.hangs_up = True
        self.assertEqual(await poster.post(b"{}", {}), Answered(204))
        gone: Deferred[None] = Deferred()
        self.it.callLater(0.1, gone.callback, None)
        await gone
        self.assertEqual(await poster.post(b"{}", {}), Answered(204))
        self.assertEqual(self.factory.connections, 2)


class AddressTests(TestCase):
    """Where there is an endpoint, or none."""

    async def test_ipv6(self) -> None:
        factory = cast(Any, Factory.forProtocol(Endpoint))
        factory.noisy = False
        factory.connections, factory.requests, factory.lost = 0, [], 0
        factory.answer, factory.hangs_up, factory.goes_on = TAKEN, False, b""
        it = cast(Any, reactor)
        port = it.listenTCP(0, factory, interface="::1")
        self.addCleanup(port.stopListening)
        url = f"http://[::1]:{port.getHost().port}/"
        poster = Poster(reactor, url, timeout_s=10, ca_file=None, agent="test")
        self.addCleanup(poster.close)
        self.assertEqual(await poster.post(b"{}", {}), Answered(204))
        self.assertIn(
            f"host: [::1]:{port.getHost().port}\r\n".encode(), factory.requests[0].lower()
        )

    async def test_no_such_name(self) -> None:
        poster = Poster(reactor, "http://x.invalid/", timeout_s=20, ca_file=None, agent="test")
        self.addCleanup(poster.close)
        found = await poster.post(b"{}", {})
        assert isinstance(found, Unanswered)
        self.assertEqual(found.kind, "away")


class TlsTests(PosterTests):
    """All of it under TLS, by a certificate that ``ca_file`` alone knows."""

    def setUp(self) -> None:
        super().setUp()
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority(folder)
        certificate, key = authority.issue("localhost")
        pem = certificate.read_bytes() + key.read_bytes()
        options = PrivateCertificate.loadPEM(pem).options()
        port = self.it.listenSSL(0, self.factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"https://localhost:{port.getHost().port}/hook?a=b"
        self.ca_file = authority.ca_file
        other = folder / "other"
        other.mkdir()
        self.other_ca_file = Authority(other).ca_file

    def poster(self, url: str = "", timeout_s: float = 10.0, ca_file: Path | None = None) -> Poster:
        return super().poster(url, timeout_s, ca_file or self.ca_file)

    async def test_another_authority(self) -> None:
        """Who cannot be trusted is sent nothing."""
        found = await self.poster(ca_file=self.other_ca_file).post(b"{}", {})
        self.assertIsInstance(found, Unanswered)
        self.assertEqual(self.factory.requests, [])

    async def test_another_name(self) -> None:
        url = self.url.replace("localhost", "127.0.0.1")
        found = await self.poster(url).post(b"{}", {})
        self.assertIsInstance(found, Unanswered)
        self.assertEqual(self.factory.requests, [])

    def test_no_certificates(self) -> None:
        empty = self.ca_file.with_name("empty.pem")
        empty.write_bytes(b"# none")
        self.assertRaises(ValueError, self.poster, ca_file=empty)
