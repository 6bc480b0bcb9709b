"""Names of messages in memory: a :class:`~..model.ports.Requests` for tests."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, fail, succeed

from ..model.envelope import Message, Origin
from ..model.ports import Known, StateFailed

_Key = tuple[str, str, str]


def _nothing() -> None:
    """Nobody is told."""


@attrs.define(eq=False)
class MemoryRequest:
    """:class:`~..model.ports.Request`."""

    key: _Key
    _requests: MemoryRequests
    is_settled: bool = False
    superseded: Callable[[], None] = _nothing

    def settle(self) -> None:
        self.is_settled = True

    def remember(self, message: Message, then: Callable[[], None]) -> Deferred[None]:
        requests = self._requests
        if requests.is_failed:
            requests.waiting.append((self, message, then))
            return fail(StateFailed("no disk"))
        requests.known[self.key] = Known(message.id, message.origin.answer)
        del requests.open[self.key]
        then()
        return succeed(None)

    def release(self) -> None:
        requests = self._requests
        is_waiting = any(request is self for request, _, _ in requests.waiting)
        if requests.open.get(self.key) is self and not is_waiting:
            del requests.open[self.key]


@attrs.define(eq=False)
class MemoryRequests:
    """:ivar known: by source, identity and name.  :ivar open: those that are being handed in.
    :ivar waiting: those whose message is in the spool, and which could not be kept.
    :ivar is_failed: set it, and nothing new is remembered until :meth:`mend`.
    """

    known: dict[_Key, Known] = attrs.field(factory=dict)
    open: dict[_Key, MemoryRequest] = attrs.field(factory=dict)
    waiting: list[tuple[MemoryRequest, Message, Callable[[], None]]] = attrs.field(factory=list)
    is_failed: bool = False

    def begin(self, origin: Origin) -> Known | MemoryRequest | None:
        key = (origin.source, origin.identity, origin.request_id)
        before = self.open.get(key)
        if before is not None and before.is_settled:
            return None
        if key in self.known:
            return self.known[key]
        if self.is_failed:
            raise StateFailed("no disk")
        request = self.open[key] = MemoryRequest(key, self)
        if before is not None:
            before.superseded()
        return request

    def mend(self) -> None:
        """What could not be kept is, and what comes will be."""
        self.is_failed = False
        waiting, self.waiting = self.waiting, []
        for request, message, then in waiting:
            request.remember(message, then)
