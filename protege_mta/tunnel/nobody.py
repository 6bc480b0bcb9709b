"""A tunnel server that is not there."""

from __future__ import annotations

from ..model.address import Address
from ..model.identity import Identity


class Nobody:
    """:class:`~..model.ports.Agents` and :class:`~..model.ports.Sessions` of a service that has no
    agents."""

    def at(self, address: Address) -> None:
        """No address is anybody's."""

    def may_hold(self, identity: Identity) -> bool:
        return False

    def to(self, identity: Identity) -> None:
        """Nobody is connected."""
