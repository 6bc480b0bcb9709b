"""Lists of addresses and domains, as accounts are given them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import attrs

from ..model.address import Address, domain_of, local_part_of, parse
from ..model.domain import ascii_domain


@attrs.frozen
class Addresses:
    """The addresses that a list of entries stands for.

    An entry is an address, a domain for all addresses of it, or a domain with a dot before it for
    all of its subdomains.  Case does not matter, in local-parts neither, nor do quoting that was
    not needed, or the form of a domain, A-labels or U-labels.  An entry that is none of these
    stands for nothing.
    """

    mailboxes: frozenset[tuple[str, str]]
    domains: frozenset[str]
    parents: tuple[str, ...]

    def __contains__(self, address: Address) -> bool:
        local_part, domain = _parts(address)
        return (
            domain in self.domains
            or (local_part, domain) in self.mailboxes
            or domain.endswith(self.parents)
        )


@lru_cache(1024)  # an account's lists are the same for each of its messages
def addresses(entries: tuple[str, ...]) -> Addresses:
    """What entries stand for."""
    return listed(entries)


def listed(entries: Iterable[str]) -> Addresses:
    """:func:`addresses`, of what is not asked about again."""
    mailboxes, domains, parents = [], [], []
    for entry in entries:
        if "@" in entry:
            address = parse(entry, is_smtputf8=True)
            if address is not None:
                mailboxes.append(_parts(address))
        elif entry.startswith("."):
            parents.append(f".{ascii_domain(entry[1:].lower())}")
        else:
            domains.append(ascii_domain(entry.lower()))
    return Addresses(frozenset(mailboxes), frozenset(domains), tuple(parents))


def _parts(address: Address) -> tuple[str, str]:
    return _lowered(local_part_of(address)), ascii_domain(domain_of(address))


def _lowered(local_part: str) -> str:
    lower = local_part.lower()
    # The Kelvin sign in lower case is a k: another mailbox, in any reading of it.
    return lower if lower.isascii() == local_part.isascii() else local_part
