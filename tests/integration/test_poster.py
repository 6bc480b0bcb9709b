"""Requests to endpoints that fail in all ways, over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.trial.unittest import TestCase

from protege_mta.testing.authority import Authority
from protege_mta.transport.poster import ANSWER_OCTETS, Answered, Poster, Unanswered

TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Endpoint(Protocol):
    """Answers whatever comes with the same octets, and hangs up where it is told to."""

    factory: Any

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


class PosterTests(TestCase):
    def setUp(self) -> None:
        self.factory = cast(Any, Factory.forProtocol(Endpoint))
        self.factory.noisy = False
        self.factory.connections, self.factory.requests = 0, []
        self.factory.answer, self.factory.hangs_up = TAKEN, False
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
        """Neither a head that never comes nor a body that never ends takes longer than it may."""
        for octets in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):
            found = await self.answer(octets, timeout_s=0.3)
            self.assertEqual(found, Unanswered("no answer in time"))

    async def test_giant_answer(self) -> None:
        """A status counts, whatever else an endpoint has to say."""
        octets = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
        found = await self.answer(octets + b"x" * (3 * ANSWER_OCTETS))
        self.assertEqual(found, Answered(200))

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
