"""What is told of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs

from ..envelope import Message
from ..hop import Site
from ..ids import QueueId
from ..outcome import Fate, Outcome, TransientFailure
from ..reply import Reply
from ..return_path import Sent
from .reception import Peer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@attrs.frozen(kw_only=True)
class About:
    """What is known of mail that is refused at the door, besides who was named.

    :ivar tenant: whose it would have been.
    :ivar size_octets: 0 where it has not come yet.
    """

    tenant: str = ""
    campaign: str = ""
    size_octets: int = 0
    header_message_id: str = ""
    subject: str = ""


NOTHING_MORE: Final = About()


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

    def delayed(
        self,
        message: Message,
        recipient: int,
        transition: int,
        attempt: int,
        dsn: str,
        next_attempt_at: float,
    ) -> bytes:
        """The sender is told of the delay.

        :param attempt: real contacts so far.
        :param dsn: the DSN's id, or ``none``.
        :param next_attempt_at: POSIX seconds; 0, or in the past, where nobody knows.
        """

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
        self,
        message: Message,
        recipient: int,
        transition: int,
        event: Literal["held", "released"],
        attempt: int = 0,
        reason: str = "",
        next_attempt_at: float = 0.0,
    ) -> bytes:
        """:param attempt: real contacts so far.
        :param reason: why, where a rule and not a person did it.
        :param next_attempt_at: of what is released, POSIX seconds; 0 or in the past for at once.
        """

    def returned(
        self,
        sent: Sent,
        recipient: int,
        address: str,
        action: str,
        reply: Reply,
        *,
        report: QueueId,
        reporting_mta: str,
    ) -> bytes:
        """Another server reports what became of a message that left, long after its fate here.

        :param address: whom it is about, as far as it is known.
        :param action: of RFC 3464, 2.3.3.
        :param report: our own name of the report, which makes the event's id.
        """

    def feedback(
        self,
        sent: Sent,
        recipient: int,
        address: str,
        kind: str,
        *,
        report: QueueId,
        user_agent: str,
    ) -> bytes:
        """A recipient's provider says what the recipient thinks of a message (RFC 5965).

        :param kind: the feedback type.
        """

    def rejected(
        self,
        peer: Peer,
        sender: str | None,
        recipient: str,
        reply: Reply,
        about: About = NOTHING_MORE,
    ) -> None:
        """Refused at the door: told at once, since there is no message to wait for.

        :param sender: None where the connection was, and nobody was named.
        """


class CursorGone(LookupError):
    """What lies behind a cursor is no longer kept, or it was never one of ours.

    :ivar oldest: where to go on: the cursor before all that is kept, or of one that lies within an
        event the one behind that.
    """

    def __init__(self, cursor: str, oldest: str) -> None:
        super().__init__(f"the events behind {cursor!r} are no longer kept")
        self.oldest = oldest


@attrs.frozen
class Page:
    """Some of the journal's events.

    :ivar lines: each without its LF.
    :ivar ends: the cursor behind each of them.
    :ivar cursor: where to go on, which may be behind the last of them.
    :ivar is_end: whether there was no more.
    """

    lines: Sequence[bytes]
    ends: Sequence[str]
    cursor: str
    is_end: bool


class JournalReader(Protocol):
    """The events, in order, from any place on.

    A cursor is text that sorts as the events do, and stays good over restarts for as long as the
    events behind it are kept.
    """

    def after(self, cursor: str, most: int) -> Deferred[Page]:
        """Events behind a cursor; not always all that there are.

        :param cursor: empty for the oldest that is kept.
        :raise CursorGone:
        """

    def end(self) -> str:
        """The cursor behind what there is now."""
