"""UNIX sockets in folders whose path is longer than a socket's address may be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ADDRESS_OCTETS: Final = 107
"""What ``sun_path`` of Linux holds, its closing NUL left out (unix(7))."""


def address_of(path: Path) -> str:
    """What to bind or connect to for a socket at ``path``.

    The path itself where it fits; else one through an open file descriptor of its folder, which
    stays open, and the address good, for the life of the process.

    :raise OSError: the folder is not there, or closed to us.
    """
    if len(os.fsencode(path)) <= ADDRESS_OCTETS:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"
