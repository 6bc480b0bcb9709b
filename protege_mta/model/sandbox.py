"""What becomes of mail that never leaves: the magic recipients of a sandbox."""

from __future__ import annotations

from typing import Final, Literal, cast, get_args

from .address import Address, domain_of, local_part_of

Play = Literal["delivered", "bounced", "deferred", "complained"]
"""``deferred`` is delivered in the end, ``complained`` with a report of abuse behind it."""

DEFERRALS: Final = 2
"""So many attempts fail of mail that is deferred."""

_PLAYS: Final = frozenset(get_args(Play))


def play_of(recipient: Address) -> Play:
    """By the local-part, up to a plus sign, or by the first label of the domain: ``bounced@``,
    ``bounced+1@``, ``anybody@bounced.example.org``; everything else is delivered."""
    local_part = local_part_of(recipient).lower().partition("+")[0]
    label = domain_of(recipient).lower().partition(".")[0]
    found = next((word for word in (local_part, label) if word in _PLAYS), "delivered")
    return cast(Play, found)
