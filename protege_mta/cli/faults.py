"""What ends a command, told on stderr."""

from __future__ import annotations

import os
import sys
from typing import Final

EXIT_CODES: Final = {
    "usage": os.EX_USAGE,
    "not-found": os.EX_NOINPUT,
    "unavailable": os.EX_TEMPFAIL,
    "internal": os.EX_SOFTWARE,
}
"""By the kind of error that the service answers with."""


class Fault(Exception):
    """The command cannot do what it was asked for.

    :ivar exit_code: by ``sysexits.h``.
    :ivar remedy: what to do about it; empty where that is plain.
    """

    def __init__(self, text: str, exit_code: int = os.EX_SOFTWARE, *, remedy: str = "") -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.remedy = remedy


def shown(fault: Fault) -> str:
    """The fault as lines for stderr."""
    head = "protege-mta: "
    if sys.stderr.isatty():
        head = f"\x1b[31m{head}\x1b[0m"
    lines = [f"{head}{line}\n" for line in str(fault).splitlines()]
    if fault.remedy:
        lines.append(f"{fault.remedy}\n")
    return "".join(lines)
