"""An answer that is read as it is sent, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from zope.interface import implementer


async def send(request: IRequest, headers: Mapping[bytes, bytes], pieces: Iterator[bytes]) -> None:
    """Write pieces as fast as the client takes them, until the last one, or until it has gone.

    The first one is had before anything is said: where that fails, there is an answer about it.

    :raise Exception: what reading a piece raises.
    """
    first = next(pieces, b"")
    for name, value in headers.items():
        request.setHeader(name, value)
    await _Sender(request, chain((first,), pieces)).done


@implementer(IPullProducer)
class _Sender:
    """:ivar done: resolves at the end, or when the client is gone; fails where reading does."""

    def __init__(self, request: Any, pieces: Iterator[bytes]) -> None:
        self.done: Deferred[None] = Deferred()
        self._request = request
        self._pieces = pieces
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.done.called:
            return
        try:
            piece = next(self._pieces, None)
        except Exception:
            self._request.unregisterProducer()
            self.done.errback(Failure())
            return
        if piece is None:
            self._request.unregisterProducer()
            self.done.callback(None)
            return
        self._request.write(piece)

    def stopProducing(self) -> None:
        self._gone(None)

    def _gone(self, _: object) -> None:
        if not self.done.called:
            self.done.callback(None)
