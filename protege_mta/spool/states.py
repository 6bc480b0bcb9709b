"""Where a message's recipients stand, packed: as it lies in records, and in the index.

A queue holds a million of these, so that they are octets and not objects: msgpack of the number of
recipients and of the statuses, each with the recipients it is true of.  A recipient in none of them
has met its fate.  All functions are pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from ..model.status import RecipientStatus

States = bytes
"""Packed statuses of all recipients of one message, of whom at least one has met no fate."""


class Standing(msgspec.Struct, array_like=True):
    """A status and the recipients it is true of: all of them where ``recipients`` is None.

    Fields may be added at the end, with defaults: older records read as if they had them.
    """

    recipients: tuple[int, ...] | None
    state: Literal["scheduled", "deferred", "held"]
    attempts: int
    due_at: float
    transitions: int
    is_warned: bool = False
    cause: str = ""

    def status(self) -> RecipientStatus:
        return RecipientStatus(
            self.state, self.attempts, self.due_at, self.transitions, self.is_warned, self.cause
        )


class _Packed(msgspec.Struct, array_like=True):
    count: int
    standings: list[Standing]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Packed).decode

_ONE: Final = b"\x92\x01"  # how the states of a message with one recipient begin


def standing(recipients: tuple[int, ...] | None, status: RecipientStatus) -> Standing:
    return Standing(
        recipients,
        status.state,
        status.attempts,
        status.due_at,
        status.transitions,
        status.is_warned,
        # What has no octets (lone surrogates) becomes question marks.
        status.cause
        if status.cause.isascii()
        else status.cause.encode("utf-8", "replace").decode("utf-8"),
    )


def initial(count: int, status: RecipientStatus) -> States:
    """Every one of ``count`` recipients in the same state."""
    return _encode((count, (standing(None, status),)))  # a _Packed


def pack(statuses: Sequence[RecipientStatus | None]) -> States | None:
    """:return: None where every recipient has met its fate."""
    groups: dict[RecipientStatus, list[int]] = {}
    for recipient, status in enumerate(statuses):
        if status is not None:
            groups.setdefault(status, []).append(recipient)
    if not groups:
        return None
    count = len(statuses)
    return _encode(
        _Packed(
            count,
            [
                standing(None if len(group) == count else tuple(group), status)
                for status, group in groups.items()
            ],
        )
    )


def unpack(states: States) -> tuple[RecipientStatus | None, ...]:
    """For each recipient its status, or None where it has met its fate."""
    packed = _decode(states)
    statuses: list[RecipientStatus | None] = [None] * packed.count
    for one in packed.standings:
        status = one.status()
        if one.recipients is None:
            return (status,) * packed.count
        for recipient in one.recipients:
            statuses[recipient] = status
    return tuple(statuses)


def updated(states: States, recipients: Iterable[int], status: RecipientStatus) -> States:
    """Some recipients in a new state; those who have met their fate stay as they are."""
    if states.startswith(_ONE):
        return initial(1, status) if 0 in recipients else states
    statuses = list(unpack(states))
    for recipient in recipients:
        if recipient < len(statuses) and statuses[recipient] is not None:
            statuses[recipient] = status
    fresh = pack(statuses)
    if fresh is None:
        raise RuntimeError("an update ended a recipient")
    return fresh


def ended(states: States, recipients: Iterable[int]) -> States | None:
    """Some recipients at their end.  :return: None where that was the last of them."""
    if states.startswith(_ONE):
        return None if 0 in recipients else states
    gone = set(recipients)
    return pack([None if at in gone else status for at, status in enumerate(unpack(states))])
