"""Where a recipient stands between acceptance and its fate."""

from __future__ import annotations

from typing import Literal

from .value import value

State = Literal["incoming", "scheduled", "active", "deferred", "held", "corrupt"]


@value
class RecipientStatus:
    """What is durable about a recipient that has met no fate yet.

    :ivar attempts: real contacts that have failed.
    :ivar due_at: the next attempt's time, POSIX seconds; it is stored before an attempt starts
        and then says when the one after that is due.
    :ivar transitions: how many transitions of this recipient have events; numbers the next one.
    :ivar is_warned: whether the sender has been told of the delay.
    :ivar cause: the last failure, ``code enhanced text``; empty before the first.
    """

    state: Literal["scheduled", "deferred", "held"] = "scheduled"
    attempts: int = 0
    due_at: float = 0.0
    transitions: int = 1
    is_warned: bool = False
    cause: str = ""
