"""Messages that are no longer in memory, read from their segments; and what becomes of damage."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.envelope import Message
from ..model.ids import QueueId
from ..model.ports import Content, Damaged, InThread, NoSuchMessage
from .corrupt import Corrupt
from .fetch import Fetched, Fetcher, Mismatch
from .index import Index
from .segment import Segment


class Cold:
    """Reads in threads; its own methods are called in the reactor's.

    What is found to be damaged is kept in ``corrupt/``, as far as there is something to keep, and
    is offered to nobody from then on.
    """

    log = Logger()

    def __init__(
        self, fetcher: Fetcher, index: Index, corrupt: Corrupt, in_thread: InThread
    ) -> None:
        self._fetcher = fetcher
        self._index = index
        self._corrupt = corrupt
        self._in_thread = in_thread

    def content(self, id: QueueId) -> Deferred[Content]:
        """A message and its octets.

        Fails with :exc:`~..model.ports.NoSuchMessage`, :exc:`~..model.ports.Damaged` or
        :exc:`OSError`.
        """
        return self._fetch(id, self._fetcher.content).addCallback(lambda it: it.content)

    def header(self, id: QueueId) -> Deferred[Message]:
        """A message without its octets, be they damaged or not.  Fails as :meth:`content` does."""
        return self._fetch(id, self._fetcher.header).addCallback(lambda it: it.content.message)

    def found_damage(self, id: QueueId, octets: bytes = b"") -> Deferred[object]:
        """Content of ``id`` is damaged.

        :param octets: what there is of it.
        """
        self._corrupt.found(id)
        kept = self._in_thread(partial(self._corrupt.save, id, octets))
        return kept.addErrback(
            lambda failure: self.log.failure("cannot keep corrupt/{id}", failure, id=id)
        )

    def _fetch(
        self, id: QueueId, how: Callable[[Segment, int, int, QueueId], Fetched]
    ) -> Deferred[Fetched]:
        place = self._index.place(id)
        if place is None:
            return defer.fail(NoSuchMessage(id))
        if id in self._corrupt.ids and how == self._fetcher.content:
            return defer.fail(Damaged(id))
        segment = self._index.uses[place[0]].segment

        def refused(failure: Failure) -> Deferred[Fetched]:
            error = failure.value
            if not isinstance(error, Mismatch) and not (
                # Others, such as too many open files, say nothing about the content.
                isinstance(error, OSError) and error.errno in {errno.EIO, errno.ENOENT}
            ):
                failure.raiseException()
            if self._index.place(id) != place:
                return self._fetch(id, how)  # carried forward, or gone, in the meantime
            self.log.critical("{id} is damaged: {error}", id=id, error=error)
            if isinstance(error, OSError) and error.errno == errno.EIO:
                # There is nothing to keep, and after a restart the disk may be in its senses.
                self._corrupt.found(id)
                raise Damaged(id)
            octets = error.octets if isinstance(error, Mismatch) else b""
            return self.found_damage(id, octets).addCallback(lambda _: _raise(Damaged(id)))

        work = self._in_thread(partial(how, segment, place[1], place[2], id))
        work.addErrback(refused)
        return work


def _raise(error: Exception) -> Fetched:
    raise error
