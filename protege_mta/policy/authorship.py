"""Who a message says it is from, and whether whoever hands it in may say so (RFC 6409, 6.1 and 8)."""

from __future__ import annotations

from typing import Final

from ..message import headers
from ..message.mailboxes import mailboxes, names_somebody
from ..message.repair import repaired
from ..message.trace import date
from ..model.address import NULL, Address
from ..model.reply import TABLE, Reply
from .addresses import Addresses

_CLAIMS: Final = (
    (b"from", True),
    (b"sender", True),
    (b"resent-from", False),
    (b"resent-sender", False),
)
"""Fields that say who somebody is, and whether there may be but one (RFC 5322, 3.6)."""


def may_claim(allowed: Addresses, fields: bytes) -> bool:
    """Whether no reader can find an author or a sender that is not allowed.

    A header section without any is well: From is made of the reverse-path.
    """
    if not headers.is_well_formed(fields):
        return False
    for name, is_single in _CLAIMS:
        values = headers.values(fields, name)
        if is_single and len(values) > 1:
            return False
        for value in values:
            found = mailboxes(value)
            if found is None or not all(address in allowed for address in found):
                return False
    return True


def completed(fields: bytes, sender: Address, *, at: float, message_id: str) -> bytes | Reply:
    """The header section as it is queued, or why the message is not.

    :param at: the present, POSIX seconds, for Date.
    :param message_id: with its angle brackets, for a message that has none.
    """
    authors = headers.values(fields, b"from")
    if not authors and sender == NULL:
        return TABLE["no-author"]
    if len(authors) > 1 or not all(map(names_somebody, authors)):
        return TABLE["bad-author"]
    return repaired(fields, date=date(int(at)), author=sender, message_id=message_id)
