"""How many attempts a site gets at a time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs
from attrs import validators

from ..model.hop import HopKind


@attrs.frozen
class WindowSettings:
    """:ivar initial: concurrent attempts for a site nothing is known of.  :ivar maximum: ever."""

    initial: int = attrs.field(default=5, validator=validators.ge(1))
    maximum: int = attrs.field(default=20, validator=validators.ge(1))


WINDOWS: Final[Mapping[HopKind, WindowSettings]] = MappingProxyType(
    {
        "mx": WindowSettings(5, 20),
        "smarthost": WindowSettings(5, 50),
        "maildir": WindowSettings(10, 50),
        "lmtp": WindowSettings(5, 20),
        "webhook": WindowSettings(5, 20),
        "agent": WindowSettings(5, 20),
        "tunnel": WindowSettings(10, 100),
        "sandbox": WindowSettings(10, 50),
        "returns": WindowSettings(5, 20),
    }
)
"""Other people's hosts are treated with care; our own take more."""


@attrs.define(eq=False)
class Window:
    """Grows by one with each good attempt, halves with trouble, and is one after silence.

    :ivar size: how many attempts may be active.
    """

    size: int
    maximum: int

    @classmethod
    def opened(cls, settings: WindowSettings) -> Window:
        return cls(min(settings.initial, settings.maximum), settings.maximum)

    def grow(self) -> None:
        if self.size < self.maximum:
            self.size += 1

    def halve(self) -> None:
        self.size = max(1, self.size // 2)

    def close(self) -> None:
        """One attempt at a time, to see whether anybody is there again."""
        self.size = 1
