"""How much an account has sent, and whether it may send more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from ..model.account import AccountLimits
from ..model.account import Usage as Row

HOUR_S: Final = 3600
DAY_S: Final = 86400


@attrs.define(eq=False)
class _Window:
    """What was accepted from one account since ``start``, and what may yet be."""

    start: int
    messages: int = 0
    recipients: int = 0
    pending_messages: int = 0
    pending_recipients: int = 0


class Usage:
    """Counts what accounts send, in an hour and in a day.

    A window opens with the first message behind the end of the last one.  What is counted is what
    was accepted; what is under way holds its place in the meantime, so that no number of sessions
    at once gets more than one after the other would.

    :param now: POSIX seconds; where it jumps back behind the start of a window, a new one opens.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[tuple[str, int], _Window] = {}

    def begin(self, name: str, limits: AccountLimits) -> Reservation | None:
        """Hold a place for one message; None where there is none.

        :param name: an account's, or whatever else no account can be called.
        """
        hour = self._window(name, HOUR_S)
        day = self._window(name, DAY_S)
        for window, most in ((hour, limits.messages_per_hour), (day, limits.messages_per_day)):
            if most and window.messages + window.pending_messages >= most:
                return None
        hour.pending_messages += 1
        day.pending_messages += 1
        return Reservation(limits, hour, day)

    def wait_s(self, name: str, limits: AccountLimits, recipients: int) -> float | None:
        """When a message to so many would have a place that has none now, in seconds: at the end
        of a window at the latest, earlier where what is under way is not accepted; None for never.
        """
        most = (limits.recipients_per_hour, limits.recipients_per_day)
        if any(each and recipients > each for each in most):
            return None
        wait_s = 0.0
        for length_s, messages, addresses in (
            (HOUR_S, limits.messages_per_hour, most[0]),
            (DAY_S, limits.messages_per_day, most[1]),
        ):
            window = self._window(name, length_s)
            taken = window.recipients + window.pending_recipients
            if (messages and window.messages + window.pending_messages >= messages) or (
                addresses and taken + recipients > addresses
            ):
                wait_s = max(wait_s, window.start + length_s - self._now())
        return wait_s

    def rows(self) -> list[Row]:
        """What is counted now, to be kept over a restart."""
        now = self._now()
        self._windows = {
            key: window for key, window in self._windows.items() if _is_open(window, key[1], now)
        }
        return [
            Row(name, window.start, length_s, window.messages, window.recipients)
            for (name, length_s), window in self._windows.items()
            if window.messages
        ]

    def restore(self, rows: Iterable[Row]) -> None:
        """Go on where :meth:`rows` was; once, before the first :meth:`begin`."""
        for name, start, length_s, messages, recipients in rows:
            self._windows[name, length_s] = _Window(start, messages, recipients)

    def _window(self, name: str, length_s: int) -> _Window:
        now = self._now()
        window = self._windows.get((name, length_s))
        if window is None or not _is_open(window, length_s, now):
            window = self._windows[name, length_s] = _Window(int(now))
        return window


class Reservation:
    """The place of one message; ended once, by :meth:`settle` or :meth:`release`."""

    __slots__ = ("_day", "_hour", "_limits", "_recipients")

    def __init__(self, limits: AccountLimits, hour: _Window, day: _Window) -> None:
        self._limits = limits
        self._hour = hour
        self._day = day
        self._recipients = 0

    def add_recipient(self) -> bool:
        """Hold a place for one more recipient; False where there is none."""
        limits, hour, day = self._limits, self._hour, self._day
        for window, most in ((hour, limits.recipients_per_hour), (day, limits.recipients_per_day)):
            if most and window.recipients + window.pending_recipients >= most:
                return False
        hour.pending_recipients += 1
        day.pending_recipients += 1
        self._recipients += 1
        return True

    def settle(self) -> None:
        """The message was accepted."""
        for window in (self._hour, self._day):
            window.messages += 1
            window.recipients += self._recipients
        self.release()

    def release(self) -> None:
        """Give the place back."""
        for window in (self._hour, self._day):
            window.pending_messages -= 1
            window.pending_recipients -= self._recipients


def _is_open(window: _Window, length_s: int, now: float) -> bool:
    return window.start <= now < window.start + length_s
