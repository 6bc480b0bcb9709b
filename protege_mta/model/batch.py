"""What is made durable together."""

from __future__ import annotations

import attrs

from .envelope import Message
from .ids import QueueId
from .outcome import Fate
from .status import RecipientStatus
from .value import value


@attrs.frozen
class BigFile:
    """Content above the spool's threshold, already on stable storage in a file of its own.

    :ivar name: of the file in the spool's ``big`` folder.
    :ivar size_octets: of the file.
    :ivar checksum: its CRC-32, where it is known.
    :ivar head: octets of the content that come before the file's: what was known only when the
        file was there.  They lie in the message's record.
    """

    name: str
    size_octets: int
    checksum: int | None = None
    head: bytes = b""


def with_head(content: tuple[bytes, ...] | BigFile, head: bytes) -> tuple[bytes, ...] | BigFile:
    """Content with octets put in front of it that have no others there yet."""
    if isinstance(content, BigFile):
        return attrs.evolve(content, head=head)
    return (head, *content)


@value
class Append:
    """A message and its content.

    :ivar content: the octets in pieces, or the name of the file that already holds them durably.
    :ivar status: every recipient's first status; its ``due_at`` is the time of the first attempt
        that a restart would make.
    """

    message: Message
    content: tuple[bytes, ...] | BigFile
    status: RecipientStatus


@value
class Update:
    """New statuses of some recipients."""

    id: QueueId
    recipients: tuple[int, ...]
    status: RecipientStatus


@value
class End:
    """Recipients' fates.  With the last of them the message is gone from the spool."""

    id: QueueId
    recipients: tuple[int, ...]
    fate: Fate


Operation = Append | Update | End


@value
class Batch:
    """All or nothing.

    :ivar events: lines for the event journal, each ending in LF, published once and in order
        after the batch is durable.
    :ivar is_lazy: it may wait for the next batch's sync, 50 ms at most; only for ends of
        deliveries, where a crash in between costs a duplicate and no loss.
    """

    operations: tuple[Operation, ...]
    events: tuple[bytes, ...] = ()
    is_lazy: bool = False
