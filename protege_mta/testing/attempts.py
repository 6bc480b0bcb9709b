"""Attempts to deliver, made of octets in memory."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ..model.address import Address
from ..model.envelope import Envelope, Message, Origin, Recipient
from ..model.hop import HopKind, Host, Site
from ..model.ids import QueueId
from ..model.ports import Attempt, HopAbilities, Prepare, Prepared
from ..model.reply import Reply

CONTENT = b"Subject: hello\r\n\r\nOne line.\r\n"


@attrs.define(eq=False)
class OctetContent:
    """A :class:`~..model.ports.Content` in memory.

    :ivar reads: each ``read``, as (offset, size).
    """

    octets: bytes
    message: Message
    reads: list[tuple[int, int]] = attrs.field(factory=list)
    is_closed: bool = False

    @property
    def size_octets(self) -> int:
        return self.message.size_octets

    def read(self, offset: int = 0, size: int = -1) -> bytes:
        self.reads.append((offset, size))
        return self.octets[offset:] if size < 0 else self.octets[offset : offset + size]

    def close(self) -> None:
        self.is_closed = True


def as_it_is(abilities: HopAbilities) -> Prepared | Reply:
    """The content unchanged, whatever the hop."""
    return Prepared()


def make_attempt(
    *hosts: tuple[str, Sequence[str]],
    recipients: Sequence[str | Recipient] = ("b@b.test",),
    sender: str = "a@a.test",
    content: bytes = CONTENT,
    kind: HopKind = "mx",
    port: int = 25,
    envelope: Envelope | None = None,
    prepare: Prepare = as_it_is,
    requires_tls: bool = False,
    is_authentic: bool = False,
) -> Attempt:
    """An attempt for all recipients.

    :param hosts: name and addresses of each.
    :param envelope: in place of ``sender``, ``recipients`` and ``requires_tls``.
    """
    if envelope is None:
        envelope = Envelope(
            Address(sender),
            tuple(
                each if isinstance(each, Recipient) else Recipient(Address(each))
                for each in recipients
            ),
            requires_tls=requires_tls,
        )
    message = Message(
        QueueId("01hzzzzzzz0000000000000001"),
        envelope,
        Origin("smtp"),
        arrived_at=0.0,
        size_octets=len(content),
    )
    names = " ".join(name for name, _ in hosts)
    return Attempt(
        Site(
            f"{kind}:{names}",
            kind,
            tuple(Host(n, tuple(a), port) for n, a in hosts),
            is_authentic,
        ),
        "b.test",
        OctetContent(content, message),
        tuple(range(len(envelope.recipients))),
        prepare,
    )
