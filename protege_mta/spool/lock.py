"""Who may use a spool: one process, and none that would leave files of another owner."""

from __future__ import annotations

import os
from pathlib import Path

from ..model.ports import SpoolLocked
from .files import Files


class ForeignOwner(Exception):
    """The spool belongs to another user than the one who runs this."""


def check_owner(folder: Path, *, files: Files | None = None, user: int | None = None) -> None:
    """Refuse to work on a spool as another user than its owner, root included: what we would write
    there, the service could not read.  A spool that is not there yet is nobody's.

    :raise ForeignOwner:
    """
    try:
        owner = (files or Files()).owner(folder)
    except FileNotFoundError:
        return
    me = os.geteuid() if user is None else user
    if owner != me:
        raise ForeignOwner(
            f"{folder} belongs to user {owner}, and this is user {me}: run it as {owner}"
        )


def lock(files: Files, path: Path) -> int:
    """Take the lock and leave our process id in it.

    :return: a descriptor; closing it gives the lock back, as our death does.
    :raise SpoolLocked: another process has it.
    """
    fd = files.lock(path)
    if fd is None:
        raise SpoolLocked(f"{path.parent} is in use by process {_holder(files, path)}")
    files.truncate(fd, 0)
    files.write(fd, [b"%d\n" % os.getpid()], 0)
    return fd


def _holder(files: Files, path: Path) -> str:
    fd = files.open(path)
    try:
        return files.read(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        files.close(fd)
