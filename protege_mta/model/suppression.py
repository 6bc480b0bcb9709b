"""Who is not to be written to: reasons, and the one spelling of an address."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final, Literal, get_args

import attrs

from .address import Address, domain_of, local_part_of, parse
from .domain import ascii_domain

if TYPE_CHECKING:
    from .ports import Suppressed

Reason = Literal["hard_bounce", "complaint", "unsubscribe", "manual", "policy"]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


Place = tuple[str, str, str]
"""Address, tenant and reason: what the list is in order of."""


@attrs.frozen
class Chosen:
    """Which entries.  What is None or empty chooses nothing.

    :ivar address: normalised.
    :ivar domain: in lower case, with A-labels.
    :ivar tenants: those of these tenants only, the empty one for everybody's among them.
    :ivar at: those that hold then, POSIX seconds.
    """

    address: str = ""
    domain: str = ""
    reason: str = ""
    tenants: tuple[str, ...] | None = None
    at: float | None = None


def place_of(entry: Suppressed) -> Place:
    return (entry.address, entry.tenant, entry.reason)


def normalised(text: str) -> str | None:
    """An address as the list has it; None for what is none.

    The domain is in lower case with A-labels.  So is the local-part in lower case, its quoting
    undone, in Unicode's form NFC: only its own host may say that case matters (RFC 5321, 2.4), no
    host of today does, and a letter too many that is not sent does less harm than one that is.
    ``user+tag`` is another mailbox than ``user``.
    """
    address = parse(text.strip(), is_smtputf8=True)
    return None if address is None else of_address(address)


def of_address(address: Address) -> str:
    """The same for what is known to be an address."""
    local = local_part_of(address)
    local = local.lower() if local.isascii() else unicodedata.normalize("NFC", local).lower()
    return f"{local}@{ascii_domain(domain_of(address))}"


def written_address(known: str) -> str:
    """A normalised address as people and programs write it: quoted where it has to be, so that
    :func:`normalised` gives the same again."""
    if parse(known, is_smtputf8=True) is not None:
        return known
    local, _, domain = known.rpartition("@")
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"@{domain}'
