"""From a draft to a message for the queue, with its envelope: the last step of every endpoint that
takes messages in parts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import attrs

from ..message import compose
from ..message.compose import Attachment, Draft, Mailbox
from ..model.address import Address
from ..model.caller import Flaw
from ..model.envelope import Envelope, Recipient
from ..model.ids import QueueId
from .mailroom import Outgoing
from .reading import Refused, unfit


@attrs.frozen(kw_only=True)
class MessageLimits:
    """:ivar recipients: of one message.
    :ivar message_octets: the largest message, as it is queued.
    :ivar attachment_octets: of all attachments of one, decoded.
    :ivar future_release_s: how far off ``send_at`` may be.
    """

    recipients: int
    message_octets: int
    attachment_octets: int
    future_release_s: float


@attrs.frozen(kw_only=True)
class Common:
    """What is the same for all messages of a request.

    :ivar hold_until: POSIX seconds; 0 to go at once.
    """

    author: Mailbox
    reply_to: tuple[Mailbox, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    tenant: str = ""
    campaign: str = ""
    tags: tuple[str, ...] = ()
    is_urgent: bool = False
    hold_until: float = 0.0
    limits: MessageLimits


def outgoing(
    draft: Draft,
    recipients: Sequence[Address],
    *,
    id: QueueId,
    members: tuple[str, ...],
    from_member: str,
    shared: Common,
    at: str,
) -> Outgoing:
    """A draft with its envelope, each recipient once.  :raise Refused: it is too large, or cannot be written."""
    try:
        content = compose.composed(draft)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can say and UTF-8 cannot
        raise unfit("bad-member", "a text has a half of a character", at) from None
    if len(content) > shared.limits.message_octets:
        raise Refused(Flaw(413, "message-too-large", "the message is too large", at))
    sender = draft.author.address
    first: dict[Address, str] = {}
    for address, member in zip(recipients, members, strict=True):
        first.setdefault(address, member)
    return Outgoing(
        id=id,
        envelope=envelope_of(sender, tuple(first), shared.hold_until),
        content=content,
        tenant=shared.tenant,
        campaign=shared.campaign,
        tags=shared.tags,
        is_urgent=shared.is_urgent,
        from_member=from_member,
        members=tuple(first.values()),
    )


def envelope_of(
    sender: Address, recipients: Sequence[Address], hold_until: float = 0.0
) -> Envelope:
    """An envelope; ``send_at`` is what FUTURERELEASE is by SMTP."""
    until = ""
    if hold_until:
        until = f"until;{datetime.fromtimestamp(int(hold_until), UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Envelope(
        sender,
        tuple(map(Recipient, recipients)),
        is_smtputf8=not (sender.isascii() and all(map(str.isascii, recipients))),
        hold_until=hold_until,
        future_release=until,
    )
