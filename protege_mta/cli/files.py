"""Writing files that must not be overwritten by accident, or read by others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from .faults import Fault


@attrs.frozen
class NewFile:
    """A file to be made.

    :ivar is_secret: readable by its owner alone.
    """

    octets: bytes
    is_secret: bool = False


def write_files(files: Mapping[Path, NewFile], *, is_forced: bool) -> None:
    """Write all files, and their folders; or none, where one is there already.

    :param is_forced: overwrite what is there.
    :raise Fault: something is there, or cannot be written.
    """
    there = [path for path in files if os.path.lexists(path)]
    if there and not is_forced:
        names = ", ".join(map(str, there))
        raise Fault(f"{names}: there already", os.EX_CANTCREAT, remedy="--force overwrites.")
    for path, file in files.items():
        try:
            _write(path, file)
        except OSError as error:
            raise Fault(f"{path}: {error.strerror}", os.EX_CANTCREAT) from error


def _write(path: Path, file: NewFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file.is_secret else 0o755)
    mode = 0o600 if file.is_secret else 0o644
    replace(path, file.octets, mode & ~umask())


def replace(path: Path, octets: bytes, mode: int, group: int | None = None) -> None:
    """Put a file in the old one's place, so that nobody ever sees half of it.

    :param mode: whatever the umask.
    :param group: whose it is to be besides the owner's; None for who makes it.
    :raise OSError: and the old one is still there.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as out:
            if group is not None and os.fstat(out.fileno()).st_gid != group:
                os.fchown(out.fileno(), -1, group)
            os.fchmod(out.fileno(), mode)
            out.write(octets)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Put the folder's names on stable storage."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def umask() -> int:
    """What the user does not want others to be given."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
