"""What is told of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from ..envelope import Message
from ..hop import Site
from ..outcome import Fate, Outcome, TransientFailure
from ..reply import Reply
from .reception import Peer

if TYPE_CHECKING:
    pass


class Events(Protocol):
    """Makes the journal's line for each transition, and counts it; one method an event.

    A line is JSON and ends in LF.  Its ``id`` is ``message.recipient.transition``: the same
    transition told again after a crash has the same id.
    """

    def received(self, message: Message, recipient: int) -> bytes:
        """We took responsibility; transition 0."""

    def scheduled(
        self, message: Message, recipient: int, transition: int, next_attempt_at: float
    ) -> bytes:
        """The first attempt waits for a time that the sender chose (RFC 4865)."""

    def deferred(
        self,
        message: Message,
        recipient: int,
        transition: int,
        attempt: int,
        site: Site | None,
        failure: TransientFailure,
        next_attempt_at: float,
    ) -> bytes: ...

    def delayed(self, message: Message, recipient: int, transition: int, dsn: str) -> bytes:
        """The sender is told of the delay.  :param dsn: the DSN's id, or ``none``."""

    def ended(
        self,
        message: Message,
        recipient: int,
        transition: int,
        fate: Fate,
        attempt: int,
        site: Site | None,
        outcome: Outcome | None,
        dsn: str,
    ) -> bytes:
        """The recipient's one fate.

        :param outcome: the last attempt's; None where a person or the clock ended it.
        :param dsn: the id of the DSN that tells of it; ``none`` where one was due by rights and may
            not be sent; empty where none was due.
        """

    def moved(
        self, message: Message, recipient: int, transition: int, event: Literal["held", "released"]
    ) -> bytes: ...

    def rejected(self, peer: Peer, sender: str | None, recipient: str, reply: Reply) -> None:
        """Refused at the door: told at once, since there is no message to wait for.

        :param sender: None where the connection was, and nobody was named.
        """
