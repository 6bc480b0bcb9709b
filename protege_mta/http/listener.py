"""An ``http`` listener: limits, quiet, and errors in one shape, around an app of endpoints.

HTTP/1 only, in the clear or under TLS.  Each family of endpoints has a module with an ``add``
that puts its routes on the app.  ``/ws`` alone is none of them: whoever upgrades there leaves HTTP,
and its limits with it (RFC 6455, 4.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import attrs
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import Request as HTTPRequest
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ..model.caller import Flaw
from ..model.networks import Network
from ..model.outcome import TlsFacts
from ..transport.tls_server import facts
from . import answer
from .channel import LINGER_OCTETS, Channel, SizedApp, settle_persistence
from .forwarded import client_of, is_in
from .reading import Refused

_log = Logger()

TUNNEL: Final = b"/ws"
"""The one request target that may be upgraded, to the octet."""

Upgrade = Callable[[str], IProtocol | None]
"""Makes what speaks WebSocket to a client from its address on; None where there is no room.  It is
given the request as the client wrote it, to answer."""

Gate = Callable[[bytes, object], Flaw | None]
"""Given the target and the request, of which the header is there: why its body need not be read;
None to go on."""

_PHRASES: Final = {422: b"Unprocessable Content"}
"""What Twisted has no words for (RFC 9110, 15.5.21)."""

SLOWEST: Final = 500
"""Octets a second: who keeps connections open by an octet now and then is cut off."""


@attrs.frozen
class HttpLimits:
    """What clients may take.

    :ivar idle_s: how long a connection may say nothing, and a request may come slower than
        :data:`SLOWEST`.
    :ivar body_octets: the largest request body; 413 above it.
    """

    connections: int = 1000
    connections_per_ip: int = 100
    idle_s: float = 60.0
    body_octets: int = 64 * 2**20


class _App(SizedApp):
    """Klein names a route by its function, and of two with one name keeps the later."""

    def route(self, url: str, *args: Any, **kwargs: Any) -> Any:
        methods = ",".join(kwargs.get("methods", ()))
        return super().route(url, *args, **{"endpoint": f"{methods} {url}", **kwargs})


def new_app() -> Klein:
    """An app without endpoints, whose errors are problems as JSON, and never a traceback."""
    app = _App()

    @app.handle_errors(HTTPException)
    def refused(request: IRequest, failure: Failure) -> bytes:
        error = failure.value
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            request.setHeader(b"Allow", ", ".join(sorted(error.valid_methods)).encode("ascii"))
        code = error.code if isinstance(error, HTTPException) else None
        return answer.problem(request, code or 500)

    @app.handle_errors(Refused)
    def flawed(request: IRequest, failure: Failure) -> bytes:
        return answer.flaw(request, cast(Refused, failure.value).flaw)

    @app.handle_errors(*answer.LOCAL_TROUBLE)
    def in_trouble(request: IRequest, failure: Failure) -> bytes | Deferred[bytes]:
        error = failure.value
        _log.error(
            "a {method} request cannot be answered: {kind}: {error}",
            method=request.method,
            kind=type(error).__name__,
            error=error,
        )
        if _has_begun(request):
            return _hang_up(request)
        return answer.in_form(request, cast(bytes, request.path), answer.trouble(error))

    @app.handle_errors
    def broken(request: IRequest, failure: Failure) -> bytes | Deferred[bytes]:
        _log.failure("bug in an endpoint: {method}", failure=failure, method=request.method)
        return _hang_up(request) if _has_begun(request) else answer.problem(request, 500)

    return app


def _has_begun(request: IRequest) -> bool:
    return bool(cast(Any, request).startedWriting)


def _hang_up(request: IRequest) -> Deferred[bytes]:
    """Half an answer must not look like a whole one.

    :return: fires never: Klein cancels it once the connection is gone.
    """
    cast(Any, request).channel.forceAbortClient()
    return Deferred()


def site(app: Klein, *, clock: IReactorTime, limits: HttpLimits) -> HttpFactory:
    """What a listener's endpoint accepts connections with."""
    return HttpFactory(_Site(app.resource(), clock, limits))


class _Request(Request):
    """A request with a bounded body."""

    _taken_octets = 0
    _is_refused = False
    _lingers = False
    _kinds: Sequence[bytes] | None = None

    @property
    def _site(self) -> _Site:
        site: _Site = self.channel.site  # type: ignore[attr-defined]  # untyped in Twisted
        return site

    @property
    def _limit_octets(self) -> int:
        return self._site.limits.body_octets

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > self._limit_octets:
            self._refuse()
            return
        gate = self._site.gate
        if gate is None or length == 0:  # there is nothing to be spared
            return
        flaw = gate(self.channel._path, self)
        if flaw is not None:
            self._turn_away(flaw)

    def handleContentChunk(self, data: bytes) -> None:
        self._taken_octets += len(data)
        if self._is_refused:
            if self._lingers and self._taken_octets > LINGER_OCTETS:
                self._lingers = False
                self.channel.loseConnection()
            return
        if self._taken_octets > self._limit_octets:
            self._refuse()
            return
        super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Twisted would read a form into the arguments of the query, and answer a broken one by
        itself: no endpoint of ours takes any, and so it does not see what kind the body is."""
        self._kinds = self.requestHeaders.getRawHeaders(b"content-type")
        self.requestHeaders.removeHeader(b"content-type")
        super().requestReceived(command, path, version)

    def process(self) -> None:
        if self._kinds is not None:
            self.requestHeaders.setRawHeaders(b"content-type", self._kinds)
        if self._is_refused:
            if self._lingers:
                self.channel.loseConnection()
            return
        hosts = self.requestHeaders.getRawHeaders(b"host") or ()
        if len(hosts) > 1 or (not hosts and self.clientproto == b"HTTP/1.1"):  # RFC 9112, 3.2
            self._answer(answer.problem(self, 400, "a request has one Host field"))
            return
        try:  # Klein would log a traceback of each such request
            unquote_to_bytes(self.path).decode("utf-8")
            self.getRequestHostname().decode("utf-8")
        except UnicodeDecodeError:
            self._answer(answer.problem(self, 400, "the URL and Host are not UTF-8"))
            return
        upgrade = self._site.upgrade
        if upgrade is not None and self.uri == TUNNEL and self._is_upgrade():
            self._leave_http(upgrade)
            return
        super().process()

    @property
    def trusted_networks(self) -> Sequence[Network]:
        """Whose clients need no credentials where an endpoint says so."""
        return self._site.trusted_networks

    @property
    def client_address(self) -> str:
        """The client's IP address, as far as the listener's proxies know it."""
        fields = self.requestHeaders.getRawHeaders("x-forwarded-for") or ()
        return client_of(_host(self.channel.getPeer()), fields, self._site.trusted_proxies)

    @property
    def tls(self) -> TlsFacts | None:
        """How the client's channel is protected."""
        return cast(_Counted, self.channel.transport).tls_facts()

    def _is_upgrade(self) -> bool:
        wanted = ",".join(self.requestHeaders.getRawHeaders("upgrade") or ())
        is_wanted = any(word.strip().lower() == "websocket" for word in wanted.split(","))
        return is_wanted and self.method == b"GET"

    def _leave_http(self, upgrade: Upgrade) -> None:
        protocol = upgrade(self.client_address)
        if protocol is None:
            self.setHeader(b"Retry-After", b"30")
            self._answer(answer.problem(self, 503, "too many connections"))
            return
        fields = self.requestHeaders.getAllRawHeaders()
        lines = [b"%b: %b\r\n" % (name, value) for name, values in fields for value in values]
        head = b"%b %b %b\r\n%b\r\n" % (
            *(self.method, self.uri, self.clientproto),
            b"".join(lines),
        )
        connection = cast(Any, self.channel.transport)  # a _Counted
        connection.leave_http(protocol)
        protocol.makeConnection(connection)
        protocol.dataReceived(head)

    def write(self, data: bytes) -> None:
        if not self.startedWriting:
            self.responseHeaders.removeHeader(b"Server")
            self.setHeader(b"X-Content-Type-Options", b"nosniff")
            if self.code in _PHRASES:
                self.code_message = _PHRASES[self.code]
            settle_persistence(self)
        super().write(data)

    def _answer(self, body: bytes) -> None:
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def _refuse(self) -> None:
        """Answer before the body is here, and hang up."""
        self._answer_early(answer.in_form(self, self.channel._path, answer.TOO_LARGE))
        self.channel.loseConnection()

    def _turn_away(self, flaw: Flaw) -> None:
        """Answer before the body is here, and let what the client has sent already go by: to hang
        up at once would take the answer from it (RFC 9112, 9.6)."""
        awaits_word = self.requestHeaders.hasHeader(b"expect")
        self._answer_early(answer.in_form(self, self.channel._path, flaw))
        self._lingers = not awaits_word
        if awaits_word:  # and so has sent nothing yet
            self.channel.loseConnection()

    def _answer_early(self, body: bytes) -> None:
        self._is_refused = True
        if self.content is not None:
            self.content.close()  # a file on disk, for big ones
        self.content = BytesIO()
        self.requestHeaders.removeHeader(b"Expect")
        self.setHeader(b"Content-Length", str(len(body)).encode("ascii"))
        self.setHeader(b"Connection", b"close")
        self.clientproto = b"HTTP/1.1"
        self.write(body)


class _Site(Site):
    """Keeps no access log, and does not say what it runs on."""

    protocol = Channel  # type: ignore[assignment]  # untyped in Twisted, which calls it alone
    requestFactory = _Request

    def __init__(self, resource: IResource, clock: IReactorTime, limits: HttpLimits) -> None:
        super().__init__(resource, timeout=limits.idle_s, reactor=clock)
        self.limits = limits
        self.clock = clock
        self.trusted_proxies: Sequence[Network] = ()
        self.trusted_networks: Sequence[Network] = ()
        self.upgrade: Upgrade | None = None
        self.gate: Gate | None = None

    def startFactory(self) -> None:
        """No access log, and so no clock for its stamps."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: HTTPRequest) -> None:
        """Metrics count; lines for each scrape tell nobody anything."""


class _Counted(ProtocolWrapper):
    """A connection that counts against its peer's share, until it leaves HTTP."""

    host = ""
    is_counted = True
    factory: HttpFactory
    _since: float | None = None  # when what has come since the last answer began to
    _octets = 0
    _is_tls = False
    _tls_facts: TlsFacts | None = None

    def makeConnection(self, transport: Any) -> None:
        self.host = _host(transport.getPeer())
        if self.factory.tls is not None:
            self._is_tls = True
            transport.startTLS(self.factory.tls)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        if self.is_counted:
            now = self.factory.clock.seconds()
            if self._since is None:
                self._since, self._octets = now, 0
            self._octets += len(data)
            if self._octets < SLOWEST * (now - self._since - self.factory.idle_s):
                self.abortConnection()
                return
        super().dataReceived(data)

    def write(self, data: bytes) -> None:
        self._since = None
        super().write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self._since = None
        super().writeSequence(data)

    def tls_facts(self) -> TlsFacts | None:
        """What the handshake agreed on, once there was a request; None in the clear."""
        if self._is_tls and self._tls_facts is None:
            self._tls_facts = facts(cast(Any, self.transport).getHandle())
        return self._tls_facts

    def leave_http(self, protocol: IProtocol) -> None:
        """Be another protocol's connection from now on."""
        self.unregisterProducer()  # it was the HTTP side
        self.factory.unregisterProtocol(self)
        self.is_counted = False
        self.wrappedProtocol = protocol


class HttpFactory(WrappingFactory):
    """Hangs up at once on who comes above a limit.

    :ivar tls: None for HTTP in the clear.  May be replaced, by another context.
    """

    protocol = _Counted
    noisy = False

    def __init__(self, wrapped: _Site) -> None:
        super().__init__(wrapped)
        self.tls: IOpenSSLServerConnectionCreator | None = None
        self.clock = wrapped.clock
        self.idle_s = wrapped.limits.idle_s
        self._site = wrapped
        self._hosts: Counter[str] = Counter()

    def configure(
        self,
        *,
        trusted_proxies: Sequence[Network],
        trusted_networks: Sequence[Network] = (),
        upgrade: Upgrade | None,
        gate: Gate | None = None,
    ) -> None:
        """Put other settings into force.

        :param trusted_proxies: whose word about the client's address is taken; many clients come
            by one of them.
        :param trusted_networks: whose clients need no credentials where an endpoint says so.
        :param upgrade: for those who come to ``/ws``; None where nobody is served there.
        :param gate: asked about each request with a body as soon as its header is there.
        """
        self._site.trusted_networks = trusted_networks
        self._site.gate = gate
        self._site.trusted_proxies = trusted_proxies
        self._site.upgrade = upgrade

    def buildProtocol(  # type: ignore[override]  # None is allowed, whatever the base class says
        self, addr: IAddress | None
    ) -> ProtocolWrapper | None:
        limits, host = self._site.limits, _host(addr)
        if len(self.protocols) >= limits.connections:
            return None
        if self._hosts[host] >= limits.connections_per_ip and not is_in(
            host, self._site.trusted_proxies
        ):
            return None
        return super().buildProtocol(addr)

    def registerProtocol(self, p: _Counted) -> None:
        super().registerProtocol(p)
        self._hosts[p.host] += 1

    def unregisterProtocol(self, p: _Counted) -> None:
        if not p.is_counted:
            return
        super().unregisterProtocol(p)
        self._hosts[p.host] -= 1
        if not self._hosts[p.host]:
            del self._hosts[p.host]


def _host(address: object) -> str:
    return str(getattr(address, "host", ""))
