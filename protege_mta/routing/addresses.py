"""The IP addresses of a host (RFC 5321, 5.2: both families, in an order of the client's choice)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from ..model.ports import Found, Resolver, TryAgain

if TYPE_CHECKING:
    import random

_T = TypeVar("_T")

ADDRESSES: Final = 10
"""No more of them are tried of one host and family."""


@attrs.frozen
class Addresses:
    """What the DNS has of a host.

    :ivar ipv6: of the AAAA records; ``ipv4`` of the A records.
    :ivar trouble: why there may be more that we have not seen; empty where there are not.
    """

    ipv6: tuple[str, ...] = ()
    ipv4: tuple[str, ...] = ()
    trouble: str = ""

    def without(self, is_excluded: Callable[[str], bool]) -> Addresses:
        """The same with fewer addresses."""
        ipv6, ipv4 = (
            tuple(address for address in family if not is_excluded(address))
            for family in (self.ipv6, self.ipv4)
        )
        return Addresses(ipv6, ipv4, self.trouble)

    def all(self) -> tuple[str, ...]:
        return (*self.ipv6, *self.ipv4)

    def in_order(self, prefers_ipv6: bool, rng: random.Random) -> tuple[str, ...]:
        """To try one after the other; within a family at random, so that each has its share."""

        def some(family: tuple[str, ...]) -> tuple[str, ...]:
            return (
                family
                if len(family) < 2
                else tuple(rng.sample(family, min(len(family), ADDRESSES)))
            )

        first, second = (self.ipv6, self.ipv4) if prefers_ipv6 else (self.ipv4, self.ipv6)
        return (*some(first), *some(second))

    @classmethod
    def of(cls, addresses: Sequence[str]) -> Addresses:
        """Sorted by family."""
        return cls(
            tuple(address for address in addresses if ":" in address),
            tuple(address for address in addresses if ":" not in address),
        )


def together(lookups: Sequence[Deferred[_T]]) -> Deferred[list[_T]]:
    """All results in order.  Cancelling it cancels all of them, and it says so by
    ``CancelledError``, where ``gatherResults`` would wrap that up."""
    return gatherResults(lookups, consumeErrors=True).addErrback(_unwrapped)


def _unwrapped(failure: Failure) -> Failure:
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure


async def addresses_of(resolver: Resolver, name: str) -> Addresses:
    """Look both families up at once."""
    answers = await together([resolver.lookup(name, "AAAA"), resolver.lookup(name, "A")])
    ipv6, ipv4 = (
        tuple(map(str, answer.records)) if isinstance(answer, Found) else () for answer in answers
    )
    causes = [f"{name}: {answer.cause}" for answer in answers if isinstance(answer, TryAgain)]
    return Addresses(ipv6, ipv4, causes[0] if causes else "")
