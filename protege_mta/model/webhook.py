"""What is known of a webhook: its secrets, and how it is."""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

import msgspec

PREFIX: Final = "whsec_"
"""Of a secret as text (Standard Webhooks 1.0)."""

State = Literal["ok", "failing", "down", "gone"]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook.

    :ivar state: ``down`` after several failures in a row: it is probed with one request now and
        then; ``gone`` where it says that it wants nothing more: it is asked no more.
    :ivar delivered: events that were taken, ever; ``failed`` counts requests that were not.
    :ivar dead: requests that were given up and are kept.
    :ivar lost: how often events were no longer kept when it was their turn, and how many the disk
        had spoilt.
    :ivar lag_events: events of the journal that have not been looked at for it.
    :ivar lag_s: the age of the first event that it has not; 0 where it has all.
    :ivar next_try_at: POSIX seconds; None where nothing waits.
    """

    name: str
    state: State = "ok"
    cursor: str = ""
    delivered: int = 0
    failed: int = 0
    dead: int = 0
    lost: int = 0
    lag_events: int = 0
    lag_s: float = 0.0
    last_error: str = ""
    last_delivered_at: float | None = None
    next_try_at: float | None = None


def secrets_of(text: str) -> tuple[bytes, ...]:
    """The keys in a file of secrets, one ``whsec_...`` a line.

    :raise ValueError: there is none, or what is there is no secret.  The text says nothing of it.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not word.startswith(PREFIX) or not key:
            raise ValueError(f"line {number}: wanted a secret, {PREFIX} and base64")
        found.append(key)
    if not found:
        raise ValueError(f"wanted a secret, {PREFIX} and base64, got nothing")
    return tuple(found)
