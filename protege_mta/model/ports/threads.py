"""Work that blocks, away from the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_T = TypeVar("_T")


class InThread(Protocol):
    """Does work in some thread; the Deferred fires in the reactor's."""

    def __call__(self, work: Callable[[], _T], /) -> Deferred[_T]: ...
