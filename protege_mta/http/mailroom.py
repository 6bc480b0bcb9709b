"""What the endpoints that take messages ask the house, and what they are told."""

from __future__ import annotations

from typing import Final, Literal, Protocol

import attrs
from twisted.internet.defer import Deferred

from ..model.address import Address
from ..model.caller import Caller, Flaw
from ..model.envelope import Envelope
from ..model.ids import QueueId
from ..model.outcome import Fate
from ..model.ports import Peer

RecipientState = Literal["queued", "scheduled", "held", "suppressed", "rejected"]
"""``scheduled`` waits for ``send_at``; ``held`` for a person; ``suppressed`` is taken, and never tried."""

FAILED: Final[frozenset[Fate]] = frozenset(("bounced", "expired", "suppressed", "removed"))
"""The fates of those who will not have their message."""


@attrs.frozen(kw_only=True)
class Outgoing:
    """A message that a caller hands in.

    :ivar id: from :meth:`Posting.new_id`.
    :ivar content: with CRLF line ends, and no trace field of ours.
    :ivar is_urgent: whether it takes the fast lane.
    :ivar from_member: where in the request its author is, as a JSON pointer.
    :ivar sender_member: likewise its envelope's sender; empty where the author is that.
    :ivar members: likewise for each recipient of the envelope.
    """

    id: QueueId
    envelope: Envelope
    content: bytes = attrs.field(repr=False)
    tenant: str = ""
    campaign: str = ""
    tags: tuple[str, ...] = ()
    is_urgent: bool = False
    from_member: str = "/from"
    sender_member: str = ""
    members: tuple[str, ...] = ()


@attrs.frozen
class RecipientResult:
    """:ivar detail: why it is rejected or suppressed; empty else."""

    address: Address
    state: RecipientState
    detail: str = ""


@attrs.frozen
class Accepted:
    """A message that will be ours, once its posting is stored; a recipient at least is not
    rejected."""

    id: QueueId
    recipients: tuple[RecipientResult, ...]


@attrs.frozen
class Replay:
    """The same request came before.

    :ivar answer: what was to be answered then.
    :ivar id: its message's, or that of its first.
    """

    answer: str
    id: QueueId


class Posting(Protocol):
    """The messages of one request, which are stored together.  Ends by :meth:`store` or
    :meth:`abandon`; the latter after the former does nothing."""

    def new_id(self) -> QueueId: ...

    def add(self, outgoing: Outgoing) -> Accepted | Flaw:
        """Judge a message; it holds its place in the caller's limits until the end."""

    def store(self, answer: str) -> Deferred[Flaw | None]:
        """Make what was added durable, and the answer with it, where the request has a name.

        :return: never fails; None once all is durable, or why nothing is ours.
        """

    def abandon(self) -> None:
        """Nothing of it is to be."""


class Mailroom(Protocol):
    """Takes what callers send."""

    def begin(
        self, caller: Caller, peer: Peer, *, name: str = "", digest: str = ""
    ) -> Posting | Replay | Flaw:
        """Open the way for the messages of one request.

        :param peer: who asks, its identity the caller's.
        :param name: the Idempotency-Key; empty if none.
        :param digest: tells requests of one name apart.
        """

    def outcome(self, id: QueueId) -> Deferred[bool]:
        """Whether the first attempt of a message failed for good, for any of its recipients; to be
        asked for before its posting is stored, and cancelled by who gives up waiting."""
