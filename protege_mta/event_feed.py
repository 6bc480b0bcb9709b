"""The events as programs get them, put together: journal, endpoints, and webhooks in a process of
their own."""

from __future__ import annotations

import time
from collections.abc import Callable

from .config.model import Settings
from .observe.journal import FileJournal
from .observe.segments import Segments


def journal_of(settings: Settings, failed: Callable[[], None]) -> FileJournal:
    """The event journal, not opened yet.

    :param failed: called, in any thread, for each write or sync that failed.
    """
    segments = Segments(
        settings.journal_dir,
        now=time.time,
        failed=failed,
        keep_octets=settings.journal.keep_octets,
        keep_s=settings.journal.keep_s,
    )
    return FileJournal(settings.events_log, failed=failed, segments=segments)
