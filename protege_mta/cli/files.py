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
    """By a new file put in the old one's place, so that nobody sees half a key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file.is_secret else 0o755)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    mode = 0o600 if file.is_secret else 0o644
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as out:
        out.write(file.octets)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
