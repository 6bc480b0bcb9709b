"""Who sends, over HTTP or by submission, and what they may send."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..address import Address
from ..caller import Caller, Flaw
from ..envelope import Envelope
from ..reply import Reply
from .reception import Peer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class Callers(Protocol):
    """Finds out who asks.  Comparisons take the same time whatever is compared."""

    def bearer(self, secret: str) -> Caller | None:
        """The holder of an API key; None for nobody.  :raise StateFailed:"""

    def basic(self, name: str, password: str, peer: Peer) -> Deferred[Caller | Reply]:
        """A submission account, by its password, or a key by its secret, with the waits and locks of
        AUTH."""


class Contacts(Protocol):
    """Whom callers have written to.  Answers come from memory or a page cache."""

    def strangers(
        self, identity: str, recipients: Iterable[Address], *, is_known: bool = False
    ) -> list[Address]:
        """Those that it has never written to.

        :param is_known: whether to count among them those whose mail no person has released yet.
        :raise StateFailed:
        """

    def since(self, identity: str, at: float) -> int:
        """How many it wrote to for the first time after that moment, POSIX seconds.

        :raise StateFailed:
        """

    def add(self, identity: str, recipients: Sequence[Address], *, is_known: bool) -> None:
        """A message to them was accepted.

        :param is_known: whether it goes without a person's word.
        """


class Permit(Protocol):
    """A message that may be sent, as far as it has been judged, and the place that it takes in its
    caller's limits until it is ended, once, by :meth:`settle` or :meth:`release`.

    :ivar caller: as it was when the message began.
    :ivar hold: why a person has to release it first, for its :class:`~..envelope.Origin`; empty
        where nobody has to.  There once the last recipient is.
    """

    caller: Caller
    hold: str

    def add(self, address: Address) -> Flaw | None:
        """One more recipient, which has its place unless it is refused."""

    def look(
        self, fields: bytes, *, from_member: str = "", members: Sequence[str] = ()
    ) -> Flaw | None:
        """What the header section says, behind the last recipient.

        :param fields: with or without the blank line behind it.
        :param from_member: where in the request its author is, as a JSON pointer.
        :param members: likewise for each recipient, in order; empty for unknown.
        """

    def settle(self) -> None:
        """The message was accepted."""

    def release(self) -> None:
        """It was not."""


class Sending(Protocol):
    """What callers may send: the one place that says so, whatever door they come by."""

    def begin(self, caller: Caller, sender: Address) -> Permit | Flaw:
        """For doors that hear of a message piece by piece: :meth:`Permit.add` and
        :meth:`Permit.look` follow."""

    def judge(
        self,
        caller: Caller,
        envelope: Envelope,
        fields: bytes,
        *,
        from_member: str = "/from",
        sender_member: str = "",
        members: Sequence[str] = (),
    ) -> Permit | Flaw:
        """Whether a message may be sent as it is; what is under way holds its place meanwhile.

        The other parameters are those of :meth:`Permit.look`.

        :param sender_member: where the envelope's sender is; empty where the author is that.
        """
