"""A tunnel server that is not there."""

from __future__ import annotations

from ..model.address import Address
from ..model.identity import Identity
from ..model.ports import Session


class Nobody:
    """:class:`~..model.ports.Agents` and :class:`~..model.ports.Sessions` of a service that has no
    agents."""

    def at(self, address: Address) -> Identity | None:
        return None

    def may_hold(self, identity: Identity) -> bool:
        return False

    def to(self, identity: Identity) -> Session | None:
        return None
