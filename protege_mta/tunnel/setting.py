"""What a session stands between: its socket, and what all sessions of one side have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.interfaces import IReactorTime

from ..model.outcome import Outcome
from ..model.ports import Session, StreamDoor
from ..model.stream import DeliveryState
from .limits import TunnelLimits
from .unfinished import Unfinished


class Wire(Protocol):
    """The socket, as a session sees it."""

    @property
    def is_stuck(self) -> bool:
        """Whether what was sent has yet to leave."""

    def send_text(self, octets: bytes) -> None: ...

    def send_binary(self, octets: bytes) -> None: ...

    def ping(self, number: int) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Calls :meth:`.session.TunnelSession.over`."""

    def go_on(self) -> None:
        """The session waits no longer."""


@attrs.frozen(kw_only=True)
class Setting:
    """What every session of one side shares.

    :ivar is_relay: whether this is the relay's side.
    :ivar new_id: gives a fresh UUID, version 4.
    :ivar told: at an agent's side, gets what its relay says of earlier messages.
    :ivar sent: told of each stream that the other side, or its silence, has ended: how, and how many
        octets of content it had.
    """

    is_relay: bool
    door: StreamDoor
    limits: TunnelLimits
    unfinished: Unfinished
    clock: IReactorTime
    new_id: Callable[[], str]
    told: Callable[[Session, DeliveryState], None] = lambda session, state: None
    sent: Callable[[Outcome, int], None] = lambda outcome, octets: None
