"""A connection that speaks HTTP/1: what cannot be read is answered too, and HTTP/1.0 may stay.

Answers are framed by their length wherever it is known (RFC 9112, 6); :class:`SizedApp` sees to that
for whatever an endpoint returns whole.
"""

from __future__ import annotations

from typing import Any, Final, cast

from klein import Klein
from twisted.internet.defer import maybeDeferred
from twisted.web.http import HTTPChannel, Request
from twisted.web.iweb import IRequest

from . import answer

LINGER_OCTETS: Final = 1_048_576
"""So much of what a client goes on to send is passed over before it is cut off."""

LINGER_S: Final = 2.0
"""So long whoever has sent what cannot be read has to take the answer; to hang up at once would take
it away (RFC 9112, 9.6)."""


class Channel(HTTPChannel):
    """One client's requests, one after the other."""

    _is_over = False
    _passed_octets = 0

    def dataReceived(self, data: bytes) -> None:
        if not self._is_over:
            super().dataReceived(data)
            return
        before = self._passed_octets
        self._passed_octets += len(data)
        if before <= LINGER_OCTETS < self._passed_octets:
            self.setTimeout(None)
            self.loseConnection()

    def lineReceived(self, line: bytes) -> None:
        if self._is_over:  # it was in the buffer
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self._too_long()
            return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """The buffer is longer than a line may be."""
        self._too_long()

    def headerReceived(self, line: bytes) -> bool:
        if self._is_over:
            return False
        if self._receivedHeaderCount >= self.maxHeaders:
            self._refuse(431, "too many header fields")
            return False
        return bool(super().headerReceived(line))

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether the client would stay; what the answer turns out to be has a say too."""
        if version != b"HTTP/1.0":
            return bool(super().checkPersistence(request, version))
        fields = request.requestHeaders.getRawHeaders(b"connection") or ()
        return b"keep-alive" in {one.strip().lower() for one in b",".join(fields).split(b",")}

    def _too_long(self) -> None:
        if self._receivedHeaderSize == 0:
            self._refuse(414, "the request line is too long")
        else:
            self._refuse(431, "the header fields are too long")

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's own answer has no body, and no length."""
        self._refuse(400, "this is no request that can be read")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer once, and let what comes go by for a while."""
        if self._is_over:
            return
        self._is_over = True
        if self.requests and self.requests[-1].startedWriting:
            self.loseConnection()  # this one has its answer
            return
        cast(Any, self.transport).write(answer.to_nobody(status, detail))
        self.setTimeout(LINGER_S)


class SizedApp(Klein):
    """An app whose answers say how long they are."""

    def execute_endpoint(self, *args: Any, **kwargs: Any) -> Any:
        found = maybeDeferred(super().execute_endpoint, *args, **kwargs)
        return found.addCallback(_sized, args[1])

    def execute_error_handler(self, handler: Any, request: IRequest, failure: Any) -> Any:
        found = maybeDeferred(super().execute_error_handler, handler, request, failure)
        return found.addCallback(_sized, request)


def _sized(result: object, request: Any) -> object:
    """What an endpoint has written before by itself is a stream, and what it returns its end."""
    is_unsaid = request.method == b"HEAD" and not result  # GET would write it by and by
    if isinstance(result, bytes) and not request.startedWriting and not is_unsaid:
        request.setHeader(b"Content-Length", b"%d" % len(result))
    return result


def settle_persistence(request: Any) -> None:
    """Before an answer begins: a client of HTTP/1.0 that would stay is told that it may, where it can
    see the answer's end (RFC 9112, 9.3)."""
    channel = request.channel
    if request.clientproto != b"HTTP/1.0" or not channel.persistent:
        return
    if request.responseHeaders.hasHeader(b"content-length") or request.method == b"HEAD":
        request.setHeader(b"Connection", b"keep-alive")
    else:
        channel.persistent = False
