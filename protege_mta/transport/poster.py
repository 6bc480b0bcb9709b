"""POST requests to endpoints that operators name: connections that are kept, TLS that is checked,
answers that are bounded.

Redirects are answers like any other: where a body goes, the configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import attrs
from OpenSSL import SSL, crypto
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

ANSWER_OCTETS: Final = 65_536
"""What is read of an answer's body; a connection that brings more is closed."""

CONNECT_S: Final = 10.0
KEPT_S: Final = 30
"""How long a connection is kept for another request."""


@attrs.frozen
class Answered:
    """What an endpoint said.

    :ivar retry_after: as it wrote it (RFC 9110, 10.2.3); None where it did not.
    """

    status: int
    retry_after: str | None = None


@attrs.frozen
class Unanswered:
    """It said nothing.  :ivar cause: for the log and the operator."""

    cause: str


class _Factory(_HTTP11ClientFactory):
    """Does not log each connection."""

    noisy = False


class _Pool(HTTPConnectionPool):
    _factory = _Factory
    maxPersistentPerHost = 2
    cachedConnectionTimeout = KEPT_S
    # What a server has closed meanwhile is found out by the request that fails; whether it is made
    # again is the caller's to say.
    retryAutomatically = False


class Poster:
    """Requests to one endpoint, over connections of its own.

    :param url: ASCII, ``http`` or ``https``.
    :param timeout_s: from the request to the end of the answer.
    :param ca_file: certificates that may sign the endpoint's; None for the system's.
    :raise ValueError, OSError: there are no certificates in it.
    """

    def __init__(
        self, reactor: Any, url: str, *, timeout_s: float, ca_file: Path | None, agent: str
    ) -> None:
        self._reactor = reactor
        self._url = url.encode("ascii")
        self._timeout_s = timeout_s
        self._name = agent
        self._pool = _Pool(reactor, persistent=True)
        trust = None if ca_file is None else trustRootFromCertificates(certificates_in(ca_file))
        policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._agent = Agent(reactor, policy, connectTimeout=CONNECT_S, pool=self._pool)

    def post(
        self, body: bytes, fields: Mapping[str, str], content_type: str = "application/json"
    ) -> Deferred[Answered | Unanswered]:
        """Never fails, unless it is cancelled."""
        headers = Headers({"content-type": [content_type], "user-agent": [self._name]})
        for name, value in fields.items():
            headers.addRawHeader(name, value)
        return Deferred.fromCoroutine(self._post(body, headers)).addTimeout(
            self._timeout_s, self._reactor, lambda result, seconds: Unanswered("no answer in time")
        )

    def close(self) -> Deferred[None]:
        """Close what is kept open."""
        return cast("Deferred[None]", self._pool.closeCachedConnections())

    async def _post(self, body: bytes, headers: Headers) -> Answered | Unanswered:
        try:
            response = await self._agent.request(b"POST", self._url, headers, _Body(body))
            await _drained(response)
        except (ResponseNeverReceived, ResponseFailed) as error:
            return Unanswered(_brief(error.reasons[0]))
        except TimeoutError:
            return Unanswered("no connection in time")
        except CancelledError:
            raise
        except Exception:
            return Unanswered(_brief(Failure()))
        retry_after = response.headers.getRawHeaders("retry-after")
        return Answered(response.code, retry_after[0] if retry_after else None)


@implementer(IBodyProducer)
class _Body:
    """Octets that are there already."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.length = len(octets)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        consumer.write(self._octets)
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """All of it was handed on at once."""

    def resumeProducing(self) -> None:
        """Likewise."""

    def stopProducing(self) -> None:
        """Likewise."""


class _Drain(Protocol):
    """Reads a body to its end, as far as it is worth it for the connection's sake."""

    def __init__(self, done: Deferred[None]) -> None:
        self._done = done
        self._octets = 0

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > ANSWER_OCTETS:
            self.abort()
            self._end()

    def abort(self) -> None:
        """Close the connection, whatever the other end still has to say."""
        # A body's transport stands in for the real one, and has no word for that: under TLS
        # loseConnection would wait for the other end.
        transport: Any = getattr(self.transport, "_producer", None) or self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone, PotentialDataLoss):
            self._end()
        elif not self._done.called:
            self._done.errback(reason)

    def _end(self) -> None:
        if not self._done.called:
            self._done.callback(None)


def _drained(response: IResponse) -> Deferred[None]:
    done: Deferred[None] = Deferred(lambda _: drain.abort())
    drain = _Drain(done)
    response.deliverBody(drain)
    return done


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


def _brief(failure: Failure) -> str:
    """What went wrong, in a line."""
    reason = failure.value
    inner = getattr(reason, "reasons", None)
    if inner:
        return _brief(inner[0])
    text = str(reason).strip().replace("\n", " ")
    return f"{type(reason).__name__}: {text}"[:200] if text else type(reason).__name__
