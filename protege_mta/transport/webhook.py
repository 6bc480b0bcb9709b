"""Final delivery to HTTP endpoints: a POST for each recipient, signed as Standard Webhooks 1.0 has it.

A message is posted once for each recipient, so that each has an outcome, and a name that stays the
same however often it comes: at least once, and told apart by ``webhook-id``.  2xx is delivered.  All
else is tried again, but for 410 and an answer that says ``{"reject": "why"}``: those are for good.
Redirects are answers like any other: where mail goes, the configuration says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import quote, urlsplit

import attrs
import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import trustRootFromCertificates
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from ..message.inbound_json import compose
from ..model.envelope import Message
from ..model.outcome import Contact, Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, Octets
from ..model.reply import TABLE, Reply
from ..wire.webhook import signed
from .poster import CONNECT_S, KEPT_S, certificates_in

ANSWER_OCTETS: Final = 65_536
"""So much of an answer's body is read; a connection that brings more is closed."""

PIECE_OCTETS: Final = 65_536
CONNECTIONS: Final = 20
"""As many are kept open for an endpoint as its window may have at work."""

MOST_RETRY_AFTER_S: Final = 3600
"""An endpoint that asks for more patience is tried after this nevertheless."""

_TROUBLE: Final = frozenset({429, 502, 503, 504})
"""Answers about the endpoint as a whole rather than the message (RFC 9110, 15.6; RFC 6585, 4)."""

_MISPLACED: Final = frozenset({401, 403, 404, 405, 407})
"""Answers that every message would get until a person mends the endpoint, or our configuration."""

_UNSAFE: Final = re.compile(r"[^\x20-\x7e]+")

Outcomes = Sequence[tuple[int, Outcome]]
InThread = Callable[[Callable[[], Any]], "Deferred[Any]"]


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where the mail of a domain goes.

    :ivar secrets: what requests are signed with, each by itself; empty for requests without.
    :ivar timeout_s: how long nothing may move.
    :ivar ca_file: certificates that may sign the endpoint's; None for the system's.
    :ivar public_url: what the paths in the JSON form begin with; empty to leave them as paths.
    """

    url: str
    form: Literal["json", "raw"] = "json"
    secrets: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    timeout_s: float = 30.0
    ca_file: Path | None = None
    public_url: str = ""

    @property
    def host(self) -> str:
        """As events name it: neither path nor query, which may hold what is secret."""
        return urlsplit(self.url).netloc

    @property
    def is_secure(self) -> bool:
        return self.url.startswith("https:")


def webhook_id(message: Message, recipient: int) -> str:
    """The one name of a message to a recipient, in every attempt and after every crash."""
    return f"{message.id}.{recipient}"


class WebhookTransport:
    """:class:`~..model.ports.Transport` for sites of the kind ``webhook``.

    :param endpoints: by domain, as A-labels in lower case.
    :param in_thread: runs what takes the processor or the disk for long.
    :param agent: what requests say they come from.
    :raise ValueError, OSError: a file of certificates cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: Mapping[str, Endpoint],
        *,
        now: Callable[[], float],
        in_thread: InThread,
        agent: str,
    ) -> None:
        self._clients = {
            domain: _Client(reactor, endpoint, now=now, in_thread=in_thread, agent=agent)
            for domain, endpoint in endpoints.items()
        }
        self._at_work = 0
        self._closing: Deferred[None] | None = None

    def deliver(self, attempt: Attempt) -> Deferred[Outcomes]:
        """Post to the domain's endpoint, one recipient after the other."""
        client = self._clients.get(attempt.domain)
        if client is None:
            gone = TransientFailure(Scope.SITE, TABLE["no-local-delivery"])
            return succeed([(index, gone) for index in attempt.recipients])
        self._at_work += 1

        def broke(failure: Failure) -> Outcomes:
            id = attempt.content.message.id
            self.log.failure("posting {id} failed", failure=failure, id=id)
            outcome = TransientFailure(Scope.MESSAGE, TABLE["local-error"])
            return [(index, outcome) for index in attempt.recipients]

        return (
            Deferred.fromCoroutine(client.deliver(attempt))
            .addErrback(broke)
            .addCallback(self._ended)
        )

    def close(self) -> Deferred[None]:
        """Resolves once what is at work has ended and idle connections are closed."""
        if self._at_work:
            self._closing = Deferred()
            return self._closing.addCallback(lambda _: self._hang_up())
        return self._hang_up()

    def _hang_up(self) -> Deferred[None]:
        closing = [client.close() for client in self._clients.values()]

        async def all_closed() -> None:
            for one in closing:
                await one

        return Deferred.fromCoroutine(all_closed())

    def _ended(self, outcomes: Outcomes) -> Outcomes:
        self._at_work -= 1
        if self._closing is not None and not self._at_work:
            self._closing.callback(None)
        return outcomes


class _Client:
    """Requests to one endpoint, over connections of its own."""

    def __init__(
        self,
        reactor: Any,
        endpoint: Endpoint,
        *,
        now: Callable[[], float],
        in_thread: InThread,
        agent: str,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._now = now
        self._in_thread = in_thread
        self._name = agent
        self._contact = Contact(endpoint.host)
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = CONNECTIONS
        self._pool.cachedConnectionTimeout = KEPT_S
        self._pool.retryAutomatically = False
        ca_file = endpoint.ca_file
        trust = None if ca_file is None else trustRootFromCertificates(certificates_in(ca_file))
        policy = BrowserLikePolicyForHTTPS(trustRoot=trust)
        self._agent = Agent(reactor, policy, connectTimeout=CONNECT_S, pool=self._pool)
        self._closed_until = 0.0  # as its Retry-After said
        self._closed_by = TABLE["no-answer"]

    def close(self) -> Deferred[None]:
        return cast("Deferred[None]", self._pool.closeCachedConnections())

    async def deliver(self, attempt: Attempt) -> Outcomes:
        content = attempt.content
        message, endpoint = content.message, self._endpoint
        if message.envelope.requires_tls and not endpoint.is_secure:
            refused = PermanentFailure(Scope.MESSAGE, TABLE["webhook-requiretls"], self._contact)
            return [(index, refused) for index in attempt.recipients]
        if self._now() < self._closed_until:
            waits = TransientFailure(Scope.SITE, self._closed_by, self._contact)
            return [(index, waits) for index in attempt.recipients]
        compose_for: Callable[[int], bytes] | None = None
        if endpoint.form == "json":
            compose_for = await self._in_thread(
                lambda: compose(content, message, public_url=endpoint.public_url)
            )
        outcomes: list[tuple[int, Outcome]] = []
        trouble: TransientFailure | None = None
        for index in attempt.recipients:
            outcome: Outcome
            if trouble is not None:  # it would be the same for all
                outcome = trouble
            else:
                body: Octets = content if compose_for is None else _Bytes(compose_for(index))
                outcome = await self._post(message, index, body)
                if isinstance(outcome, TransientFailure) and outcome.scope in (
                    Scope.HOST,
                    Scope.SITE,
                ):
                    trouble = outcome
            outcomes.append((index, outcome))
        return outcomes

    async def _post(self, message: Message, recipient: int, body: Octets) -> Outcome:
        id, timestamp = webhook_id(message, recipient), int(self._now())
        fields = self._fields(message, recipient)
        fields.update(await self._signature(id, timestamp, body))
        headers = Headers({name: [value] for name, value in fields.items()})
        answered = await self._ask(headers, body)
        if isinstance(answered, _Lost):
            # A connection that was kept may have been closed by the other side in this very
            # moment; whatever it was, a name that stays the same makes a second try harmless.
            answered = await self._ask(headers, body)
        if isinstance(answered, _Lost):
            return self._failed(Scope.HOST, "4.4.2", answered.cause)
        return answered if not isinstance(answered, _Answer) else self._judged(answered)

    def _fields(self, message: Message, recipient: int) -> dict[str, str]:
        envelope = message.envelope
        fields = {"user-agent": self._name, "content-type": "application/json"}
        if self._endpoint.form == "raw":
            fields |= {
                "content-type": "message/rfc822",
                "protege-message-id": message.id,
                "protege-mail-from": _ascii(envelope.sender),
                "protege-rcpt-to": _ascii(envelope.recipients[recipient].address),
                "protege-peer-address": message.origin.peer_address,
                "protege-spf": message.verdicts.spf,
                "protege-dkim": message.verdicts.dkim,
                "protege-dmarc": message.verdicts.dmarc,
            }
        return fields

    async def _signature(self, id: str, timestamp: int, body: Octets) -> dict[str, str]:
        def sign() -> dict[str, str]:
            return signed(self._endpoint.secrets, id, timestamp, _pieces(body))

        is_big = body.size_octets > PIECE_OCTETS
        return await self._in_thread(sign) if is_big else sign()

    async def _ask(self, headers: Headers, body: Octets) -> _Answer | _Lost | TransientFailure:
        patience = _Patience()
        asking = Deferred.fromCoroutine(self._exchange(headers, body, patience))
        patience.call = self._reactor.callLater(self._endpoint.timeout_s, asking.cancel)
        patience.seconds = self._endpoint.timeout_s
        try:
            return await asking
        except Exception as error:
            if patience.is_over:  # which the client tells in several ways
                return self._failed(Scope.HOST, "4.4.1", "no answer in time")
            if isinstance(error, CancelledError):
                raise
            causes = getattr(error, "reasons", None) or [Failure(error)]
            is_begun = isinstance(error, ResponseNeverReceived | RequestTransmissionFailed)
            if is_begun and causes[0].check(ConnectionDone, ConnectionLost):
                return _Lost("connection closed before the answer")
            return self._failed(Scope.SITE, "4.4.1", _brief(causes[0]))
        finally:
            patience.end()

    async def _exchange(self, headers: Headers, body: Octets, patience: _Patience) -> _Answer:
        url = self._endpoint.url.encode("ascii")
        response = await self._agent.request(b"POST", url, headers, _Body(body, patience.renew))
        patience.renew()
        said = b""
        try:
            said = await _body_of(response)
        except CancelledError:
            if not 200 <= response.code < 300:
                raise
        return _Answer(response.code, response.headers, said)

    # --- what an answer means --------------------------------------------------------------------

    def _judged(self, answer: _Answer) -> Outcome:
        code = answer.code
        if 200 <= code < 300:
            reply = Reply(250, "2.0.0", (f"the endpoint answered {code}",))
            return Delivered(self._contact, reply, is_final=True)
        why = _rejection(answer)
        if why is not None:
            text = f"rejected by the endpoint: {why}" if why else "rejected by the endpoint"
            return PermanentFailure(Scope.RECIPIENT, Reply(550, "5.7.1", (text,)), self._contact)
        if code == 410:
            return PermanentFailure(Scope.RECIPIENT, TABLE["webhook-gone"], self._contact)
        if code in _TROUBLE or code in _MISPLACED or code < 400:
            failure = self._failed(
                Scope.HOST if code in _TROUBLE else Scope.SITE,
                "4.3.2" if code in _TROUBLE else "4.3.5",
                f"the endpoint answered {code}",
            )
            wait_s = _retry_after_s(answer)
            if wait_s:
                self._closed_until = self._now() + wait_s
                self._closed_by = failure.cause
            return failure
        return self._failed(Scope.RECIPIENT, "4.3.0", f"the endpoint answered {code}")

    def _failed(self, scope: Scope, enhanced: str, cause: str) -> TransientFailure:
        return TransientFailure(scope, Reply(451, enhanced, (cause,)), self._contact)


@attrs.frozen
class _Answer:
    code: int
    headers: Headers
    body: bytes


@attrs.frozen
class _Lost:
    """The connection ended before an answer.  :ivar cause: for people."""

    cause: str


class _Patience:
    """Ends an exchange in which nothing has moved for so long."""

    call: IDelayedCall | None = None
    seconds = 0.0

    @property
    def is_over(self) -> bool:
        return self.call is not None and not self.call.active()

    def renew(self) -> None:
        if self.call is not None and self.call.active():
            self.call.reset(self.seconds)

    def end(self) -> None:
        if self.call is not None and self.call.active():
            self.call.cancel()


@attrs.frozen
class _Bytes:
    """An :class:`~..model.ports.Octets` in memory."""

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

    def __init__(self, done: Deferred[bytes]) -> None:
        self._done = done
        self._octets = b""

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        if len(self._octets) > ANSWER_OCTETS and self.transport is not None:
            self.transport.loseConnection()
            self._end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The status is what counts, and that is here.
        self._end()

    def _end(self) -> None:
        if not self._done.called:
            self._done.callback(self._octets[:ANSWER_OCTETS])


def _body_of(response: IResponse) -> Deferred[bytes]:
    def hang_up(_: object) -> None:
        if collector.transport is not None:
            collector.transport.loseConnection()

    done: Deferred[bytes] = Deferred(hang_up)
    collector = _Collector(done)
    response.deliverBody(collector)
    return done


class _Said(msgspec.Struct):
    reject: str | None = None


def _rejection(answer: _Answer) -> str | None:
    """Why an endpoint will never take the message; None where it does not say so."""
    if not 400 <= answer.code < 500:
        return None
    try:
        said = msgspec.json.decode(answer.body, type=_Said).reject
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if said is None else _UNSAFE.sub(" ", said)[:200].strip()


def _retry_after_s(answer: _Answer) -> int:
    """As the endpoint said in seconds; 0 where it did not (RFC 9110, 10.2.3; a date is not read)."""
    for value in answer.headers.getRawHeaders("retry-after") or ():
        if value.isascii() and value.isdigit() and len(value) < 10:
            return min(int(value), MOST_RETRY_AFTER_S)
    return 0


def _pieces(octets: Octets) -> Iterator[bytes]:
    for offset in range(0, octets.size_octets, PIECE_OCTETS):
        yield octets.read(offset, PIECE_OCTETS)


def _ascii(address: str) -> str:
    """An address in a header field: what is not printable US-ASCII is percent-encoded as UTF-8."""
    return quote(address, safe="!#$&'*+/=?^_`{|}~.@\"(),:;<>[]\\ -", errors="surrogatepass")


def _brief(failure: Failure) -> str:
    """What went wrong, in a line of printable US-ASCII."""
    inner = getattr(failure.value, "reasons", None)
    if inner:
        return _brief(inner[0])
    text = _UNSAFE.sub(" ", f"{type(failure.value).__name__}: {failure.value}")
    return text[:200].strip()
