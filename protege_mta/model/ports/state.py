"""What is kept beside the spool: accounts, and under which names messages were handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..account import Account
from ..envelope import Message, Origin
from ..ids import QueueId
from ..value import value

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class StateFailed(OSError):
    """The database of accounts and settings cannot be read or written: no start, 4yz later."""


class Accounts(Protocol):
    """The submission accounts, as they are now: a change by another process shows within a second.

    Answers come from memory.
    """

    def get(self, name: str) -> Account | None:
        """:raise StateFailed: nobody knows what they are now."""


@value
class Known:
    """Handed in before, under this very name, and ours since then.

    :ivar id: the message's, which may have met all its fates.
    :ivar answer: what its origin's ``answer`` was.
    """

    id: QueueId
    answer: str


class Request(Protocol):
    """The name of a message that is being handed in; ends by :meth:`remember` or :meth:`release`.

    :ivar superseded: called when the same is handed in anew: forget what has come so far.  This
        one is over then.
    """

    superseded: Callable[[], None]

    def settle(self) -> None:
        """All of it is there, and about to be stored: nobody supersedes it from now on."""

    def remember(self, message: Message, then: Callable[[], None]) -> Deferred[None]:
        """The message is in the spool: keep its name, durably.

        :param then: called once that is so, whenever that is, unless we go down first; then it is
            made good at the next start.
        :return: resolves behind ``then``; fails with :class:`StateFailed` where it is not so yet.
        """

    def release(self) -> None:
        """There is no message under this name; whoever brings it next is the first."""


class Requests(Protocol):
    """Remembers by which names messages were handed in, so that each is taken once.

    A name is an origin's ``request_id``, within its source and identity.
    """

    def begin(self, origin: Origin) -> Known | Request | None:
        """Someone hands in what has a name; what the same one has begun, and is not all there yet,
        is superseded.

        Blocks for a page-cache read at most.

        :return: None while the same is being stored.
        :raise StateFailed: nobody knows now whether it is known, or can be remembered.
        """
