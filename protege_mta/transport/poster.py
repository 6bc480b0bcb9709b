"""POST requests to endpoints that operators name: connections that are kept, TLS that is checked,
answers that are bounded.

Redirects are answers like any other: where a body goes, the configuration says.  An answer is its
status; whatever else an endpoint has to say, or never comes to an end of, changes nothing about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs
from OpenSSL import SSL, crypto
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from ..model.ports import Octets

HEAD_OCTETS: Final = 65_536
"""What an answer may have before its body; a connection that brings more is closed."""

ANSWER_OCTETS: Final = 65_536
"""What is read of an answer's body; likewise."""

PIECE_OCTETS: Final = 65_536
CONNECT_S: Final = 10.0
KEPT_S: Final = 30
"""How long a connection is kept for another request."""

_UNSAFE: Final = re.compile(r"[^\x20-\x7e]+")


@attrs.frozen
class Answered:
    """What an endpoint said.

    :ivar retry_after: as it wrote it (RFC 9110, 10.2.3); None where it did not.
    :ivar body: as much of it as came, and as is read.
    """

    status: int
    retry_after: str | None = None
    body: bytes = attrs.field(default=b"", eq=False, repr=False)

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def retry_after_s(self, now: float) -> float:
        """How long it wants to be left alone, in seconds; 0 where it does not say.

        :param now: POSIX seconds.
        """
        text = (self.retry_after or "").strip()
        if text.isascii() and text.isdigit() and len(text) < 10:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except (ValueError, OverflowError):
            return 0.0


@attrs.frozen
class Unanswered:
    """It said nothing.

    :ivar cause: for the log and the operator, a line of printable US-ASCII.
    :ivar kind: ``away``: nobody is there, or not who should be; ``silent``: no answer in time;
        ``cut``: the connection ended before the answer, be it one that was kept and that the other
        end closed in this very moment.
    """

    cause: str
    kind: Literal["away", "silent", "cut"] = "away"


class Poster:
    """Requests to one endpoint, over connections of its own.

    :param url: ASCII, ``http`` or ``https``.
    :param timeout_s: how long nothing of a body may leave, and then from its end to the end of the
        answer.
    :param ca_file: certificates that may sign the endpoint's; None for the system's.
    :param agent: what requests say they come from.
    :param kept: so many connections are kept open.
    :raise ValueError, OSError: there are no certificates in it.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        timeout_s: float,
        ca_file: Path | None,
        agent: str,
        kept: int = 2,
    ) -> None:
        self._reactor = reactor
        self._url = url.encode("ascii")
        self._timeout_s = timeout_s
        self._name = agent
        self._pool = _Pool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = kept
        trust = None if ca_file is None else trustRootFromCertificates(certificates_in(ca_file))
        policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._agent = Agent(reactor, policy, connectTimeout=CONNECT_S, pool=self._pool)

    def post(
        self,
        body: bytes | Octets,
        fields: Mapping[str, str],
        content_type: str = "application/json",
    ) -> Deferred[Answered | Unanswered]:
        """Never fails, unless it is cancelled."""
        headers = Headers({"content-type": [content_type], "user-agent": [self._name]})
        for name, value in fields.items():
            headers.addRawHeader(name, value)
        octets = _InMemory(body) if isinstance(body, bytes) else body
        return Deferred.fromCoroutine(self._post(octets, headers))

    def close(self) -> Deferred[None]:
        """Close what is kept open."""
        return cast("Deferred[None]", self._pool.closeCachedConnections())

    async def _post(self, body: Octets, headers: Headers) -> Answered | Unanswered:
        patience = _Patience(self._timeout_s)
        asking = Deferred.fromCoroutine(self._exchange(body, headers, patience))
        patience.call = self._reactor.callLater(self._timeout_s, asking.cancel)
        try:
            return await asking
        except Exception as error:
            if patience.is_over:  # which the client tells in several ways
                return Unanswered("no answer in time", "silent")
            if isinstance(error, CancelledError):
                raise
            cause = _inmost(error)
            is_begun = isinstance(error, ResponseNeverReceived | RequestTransmissionFailed)
            if is_begun and isinstance(cause, ConnectionDone | ConnectionLost):
                return Unanswered("connection closed before the answer", "cut")
            return Unanswered(_brief(cause))
        finally:
            patience.end()

    async def _exchange(self, body: Octets, headers: Headers, patience: _Patience) -> Answered:
        producer = _Body(body, patience.renew)
        response = await self._agent.request(b"POST", self._url, headers, producer)
        said = await _body_of(response)
        retry_after = response.headers.getRawHeaders("retry-after")
        return Answered(response.code, retry_after[0] if retry_after else None, said)


class _Patience:
    """Ends an exchange in which nothing has moved for so long."""

    call: IDelayedCall | None = None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @property
    def is_over(self) -> bool:
        return self.call is not None and not self.call.active()

    def renew(self) -> None:
        if self.call is not None and self.call.active():
            self.call.reset(self._seconds)

    def end(self) -> None:
        if self.call is not None and self.call.active():
            self.call.cancel()


# --- connections ---------------------------------------------------------------------------------


class _Protocol(HTTP11ClientProtocol):
    """Bounds what comes before a body, which Twisted takes line by line without an end."""

    _head_octets = 0
    _is_in_head = False

    def request(self, request: Any) -> Deferred[Any]:
        self._head_octets, self._is_in_head = 0, True

        def had(result: Any) -> Any:
            self._is_in_head = False
            return result

        asked: Deferred[Any] = super().request(request)
        return asked.addBoth(had)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self._is_in_head:
            self._head_octets += len(data)
            if self._head_octets > HEAD_OCTETS:
                cast(Any, self.transport).abortConnection()


class _Factory(_HTTP11ClientFactory):
    """Does not log each connection."""

    noisy = False

    def buildProtocol(self, addr: object) -> _Protocol:
        return _Protocol(self._quiescentCallback)


class _Pool(HTTPConnectionPool):
    _factory = _Factory
    cachedConnectionTimeout = KEPT_S
    # What a server has closed meanwhile is found out by the request that fails; whether it is made
    # again is the caller's to say.
    retryAutomatically = False


# --- bodies --------------------------------------------------------------------------------------


@attrs.frozen
class _InMemory:
    """An :class:`~..model.ports.Octets` that is there already."""

    octets: bytes

    @property
    def size_octets(self) -> int:
        return len(self.octets)

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        return self.octets[offset:] if size < 0 else self.octets[offset : offset + size]


@implementer(IBodyProducer)
class _Body:
    """Octets, a piece at a time, as fast as the connection takes them.

    :param moved: called for each piece.
    """

    def __init__(self, octets: Octets, moved: Callable[[], None]) -> None:
        self.length = octets.size_octets
        self._octets = octets
        self._moved = moved
        self._offset = 0
        self._is_paused = False
        self._consumer: Any = None
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self._consumer = consumer
        self._go_on()
        return self._done

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._go_on()

    def stopProducing(self) -> None:
        self._is_paused = True

    def _go_on(self) -> None:
        # The connection says stop once it has a piece in its buffer.
        while not self._is_paused and not self._done.called:
            piece = self._octets.read(self._offset, PIECE_OCTETS)
            self._offset += len(piece)
            if piece:
                self._moved()
                self._consumer.write(piece)
            if self._offset >= self.length:
                self._done.callback(None)
            elif not piece:
                self._done.errback(Failure(OSError("content ends early")))


class _Collector(Protocol):
    """Reads a body, or as much of it as anybody wants to know."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.stop())
        self._pieces: list[bytes] = []
        self._octets = 0

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return  # until the connection is closed
        self._pieces.append(data)
        self._octets += len(data)
        if self._octets > ANSWER_OCTETS:
            self.stop()

    def stop(self) -> None:
        """Close the connection, whatever the other end still has to say."""
        # A body's transport stands in for the real one, and has no word for that: under TLS
        # loseConnection would wait for the other end.
        transport: Any = getattr(self.transport, "_producer", None) or self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()
        self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()

    def _end(self) -> None:
        if not self.done.called:
            self.done.callback(b"".join(self._pieces)[:ANSWER_OCTETS])


def _body_of(response: IResponse) -> Deferred[bytes]:
    collector = _Collector()
    response.deliverBody(collector)
    return collector.done


# --- certificates and causes ---------------------------------------------------------------------


def certificates_in(path: Path) -> list[Certificate]:
    """The certificates of a PEM file.  :raise ValueError, OSError: there are none."""
    pem, mark = path.read_bytes(), b"-----BEGIN CERTIFICATE-----"
    try:
        found = [
            Certificate(crypto.load_certificate(crypto.FILETYPE_PEM, mark + one))
            for one in pem.split(mark)[1:]
        ]
    except (crypto.Error, SSL.Error) as error:
        raise ValueError(f"{path}: a certificate cannot be read") from error
    if not found:
        raise ValueError(f"{path}: wanted certificates (PEM), got none")
    return found


def _inmost(error: BaseException) -> BaseException:
    """What lies behind what the client says."""
    reasons = getattr(error, "reasons", None)
    return _inmost(reasons[0].value) if reasons else error


def printable(text: str) -> str:
    """A line of printable US-ASCII, for what others have written."""
    return _UNSAFE.sub(" ", text).strip()


def _brief(error: BaseException) -> str:
    """What went wrong, in a line."""
    text = printable(str(error))
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
