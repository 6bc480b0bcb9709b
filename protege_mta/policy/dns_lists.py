"""What lists in the DNS say of a client: those that block, and those that vouch (RFC 5782).

A list that does not answer, or answers what no list should, blocks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final, Literal

import attrs
from twisted.logger import Logger

from ..model.networks import client_address
from ..model.ports import Answer, Found, TryAgain
from ..model.reply import Reply
from .lookups import Lookups

Verdict = Literal["listed", "clear", "failed"]

_ANSWERS: Final = IPv4Network("127.0.0.0/8")
_ERRORS: Final = IPv4Network("127.255.255.0/24")
"""What several lists answer in place of "you may not ask", or "you ask too much"."""


@attrs.frozen
class DnsList:
    """One zone.

    :ivar answers: lowest and highest of each range of answers that mean "listed".
    :ivar refusal: what a listed client is told; None for a list that vouches.
    """

    zone: str
    answers: Sequence[tuple[IPv4Address, IPv4Address]]
    refusal: Reply | None = None

    def meaning(self, records: Sequence[object]) -> Verdict:
        """What A records say."""
        verdict: Verdict = "clear"
        for record in records:
            address = IPv4Address(str(record))
            if address not in _ANSWERS or address in _ERRORS:
                return "failed"  # a zone that was sold answers anything
            if any(low <= address <= high for low, high in self.answers):
                verdict = "listed"
        return verdict


def refusal(zone: str, action: Literal["reject", "defer"]) -> Reply:
    """What a client is told that a zone lists."""
    text = f"your address is listed in {zone}"
    return Reply(550, "5.7.1", (text,)) if action == "reject" else Reply(450, "4.7.1", (text,))


def reversed_name(address: str, zone: str) -> str:
    """Where a zone speaks of an address (RFC 5782, 2.1 and 2.4)."""
    parsed = client_address(address)
    if isinstance(parsed, IPv6Address):
        nibbles = f"{int(parsed):032x}"
        return f"{'.'.join(reversed(nibbles))}.{zone}"
    return f"{'.'.join(reversed(str(parsed).split('.')))}.{zone}"


@attrs.define
class Standing:
    """What the lists have said of one client so far.

    :ivar refusal: by the first list, in their order, that blocks it; None for none.
    :ivar is_vouched_for: whether a list does that, whatever the others say.
    """

    refusal: Reply | None = None
    is_vouched_for: bool = False
    _rank: int = attrs.field(default=0, init=False)

    def add(self, rank: int, refusal: Reply | None) -> None:
        """A list has the client.  :param rank: its place."""
        if refusal is None:
            self.is_vouched_for = True
        elif self.refusal is None or rank < self._rank:
            self.refusal, self._rank = refusal, rank


class DnsLists:
    """The lists of a configuration.

    :param count: called with each answer's zone and what it meant.
    """

    log = Logger()

    def __init__(self, lists: Sequence[DnsList], count: Callable[[str, Verdict], None]) -> None:
        self._lists = lists
        self._count = count
        self._failing: set[str] = set()

    def ask(self, address: str, lookups: Lookups) -> Standing:
        """Begin to ask all of them about a client.

        :return: complete once ``lookups`` is.
        """
        standing = Standing()
        for rank, one in enumerate(self._lists):
            lookups.ask(
                reversed_name(address, one.zone), "A", partial(self._heard, standing, rank, one)
            )
        return standing

    def _heard(self, standing: Standing, rank: int, one: DnsList, answer: Answer) -> None:
        verdict: Verdict = "clear"
        cause = "an answer that no list gives"
        match answer:
            case Found(records=records):
                verdict = one.meaning(records)
            case TryAgain(cause=cause):
                verdict = "failed"
        self._count(one.zone, verdict)
        if verdict == "listed":
            standing.add(rank, one.refusal)
        if verdict != "failed":
            self._failing.discard(one.zone)
        elif one.zone not in self._failing:  # told once, not for each client
            self._failing.add(one.zone)
            self.log.warn("DNS list {zone} fails: {cause}", zone=one.zone, cause=cause)
