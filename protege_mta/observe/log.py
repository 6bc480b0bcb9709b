"""Lines for people, from what ``twisted.logger`` is told.

One event is one line, whatever a peer put into it: control characters are escaped.  Only a
traceback has more, indented.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEvent,
)
from zope.interface import implementer

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_PRIORITIES: Final = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
"""sd-daemon(3)."""


@implementer(ILogObserver)
class LineObserver:
    """Writes each event as text.

    :param write: takes a line, or several with a traceback, with the last LF.
    :param for_journald: whether systemd reads it, which stamps lines itself and takes a priority
        in front.
    """

    def __init__(self, write: Callable[[str], object], *, for_journald: bool = False) -> None:
        self._write = write
        self._for_journald = for_journald

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if self._for_journald:
            stamp = f"<{_PRIORITIES.get(level, 6)}>"
        else:
            at = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
            stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z "
        name = event.get("log_namespace", "-")
        lines = [f"{level.name} {name}: {_CONTROL.sub(_escaped, formatEvent(event))}"]
        if "log_failure" in event:
            trace = eventAsText(
                {"log_failure": event["log_failure"]}, includeTimestamp=False, includeSystem=False
            )
            lines += (f"    {_CONTROL.sub(_escaped, line)}" for line in trace.splitlines() if line)
        prefix = stamp if self._for_journald else ""
        self._write(stamp + f"\n{prefix}".join(lines) + "\n")


def observer(
    write: Callable[[str], object],
    level: Literal["debug", "info", "warn", "error"],
    *,
    for_journald: bool = False,
) -> ILogObserver:
    """A :class:`LineObserver` of what is at least as grave as ``level``."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    return FilteringLogObserver(LineObserver(write, for_journald=for_journald), [predicate])


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
