"""Changing the file of a relay server's agents, as a careful person would: what people have written
there stays, comments included, and nobody ever sees half of it.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.items import AoT

from ..config.toml import ConfigError, parse_identities
from ..model.identity import Identity, parse_identity
from .faults import Fault

_HEAD: Final = """\
# The agents that may log in to the relay server. "protege-mta tunnel allow KEY" adds one; the
# service sees a change within a second. Other keys of an entry: aliases, send_per_hour, tenant.
"""
_ENTRY: Final = re.compile(r"""[ \t]*\[\[[ \t]*(?:identity|"identity"|'identity')[ \t]*\]\]""")
_HEADER: Final = re.compile(r"[ \t]*\[")
_NOTE: Final = re.compile(r"[ \t]*(?:#.*)?\Z")

Change = Callable[[str], str]
"""From the text of the file to another one."""


def change(path: Path, how: Change) -> None:
    """Change the file under a lock.

    :raise Fault: it is broken, would be broken by this, or cannot be written.
    """
    path = Path(os.path.realpath(path))
    try:
        with _alone_in(path.parent):
            parse_identities(path, None)  # the complaints name its lines
            try:
                before = path.read_bytes().decode("utf-8")
                status = path.stat()
            except FileNotFoundError:
                before, status = "", None
            after = how(before or _HEAD)
            parse_identities(path, after)
            if after != before:
                _replace(path, after.encode("utf-8"), status)
    except ConfigError as error:
        raise Fault(str(error), os.EX_CONFIG) from error
    except OSError as error:
        raise Fault(f"{path}: {error.strerror}", os.EX_CANTCREAT) from error


def put(identity: Identity, values: Mapping[str, Any]) -> Change:
    """Set keys of an agent's entry, which is made where there is none; None takes a key away."""

    def how(text: str) -> str:
        document = tomlkit.parse(text)
        entries: Any = document.get("identity")
        index = _index(entries or (), identity)
        if index is not None and isinstance(entries, AoT):
            new = {name: value for name, value in values.items() if name not in entries[index]}
            _set(entries[index], {name: values[name] for name in values.keys() - new.keys()})
            return _with(tomlkit.dumps(document), index, new)
        if index is not None:
            _set(entries[index], values)
        elif entries is None or isinstance(entries, AoT):
            entry = tomlkit.document()
            _set(entry, {"key": identity, **values})
            gap = "\n" if text.endswith("\n") else "\n\n" if text else ""
            return f"{text}{gap}[[identity]]\n{tomlkit.dumps(entry)}"
        else:
            inline = tomlkit.inline_table()
            _set(inline, {"key": identity, **values})
            entries.append(inline)
        return tomlkit.dumps(document)

    return how


def remove(identity: Identity) -> Change:
    """Take an agent's entry out, but none of the comments between entries."""

    def how(text: str) -> str:
        document = tomlkit.parse(text)
        entries = document.get("identity", [])
        index = _index(entries, identity)
        if index is None:
            return text
        if isinstance(entries, AoT):
            return _without(text, index)
        del entries[index]
        return tomlkit.dumps(document)

    return how


def _index(entries: Any, identity: Identity) -> int | None:
    for index, entry in enumerate(entries):
        if parse_identity(str(entry.get("key", ""))) == identity:
            return index
    return None


def _set(entry: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            entry[name] = value
        elif name in entry:
            del entry[name]


def _with(text: str, index: int, values: Mapping[str, Any]) -> str:
    """The text with more keys at the end of one ``[[identity]]``.

    tomlkit would put them behind the comments that are about what follows.
    """
    entry = tomlkit.document()
    _set(entry, values)
    lines, _, end = _entry(text, index)
    return "".join([*lines[:end], tomlkit.dumps(entry), *lines[end:]])


def _without(text: str, index: int) -> str:
    """The text without one ``[[identity]]``."""
    lines, start, end = _entry(text, index)
    return "".join(lines[:start] + lines[end:])


def _entry(text: str, index: int) -> tuple[list[str], int, int]:
    """All lines, and which of them are one ``[[identity]]``; comments behind its last key are about
    what follows."""
    lines = text.splitlines(keepends=True)
    start = [number for number, line in enumerate(lines) if _ENTRY.match(line)][index]
    end = start + 1
    while end < len(lines) and not _HEADER.match(lines[end]):
        end += 1
    while end > start + 1 and _NOTE.match(lines[end - 1].rstrip("\r\n")):
        end -= 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    return lines, start, end


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One command at a time changes files of a folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        os.fsync(fd)
    finally:
        os.close(fd)


def _replace(path: Path, octets: bytes, status: os.stat_result | None) -> None:
    """Put a new file in the old one's place, with its owner and mode; one that was not there may
    be read by everybody, for it has no secrets."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(octets)
            out.flush()
            os.fchmod(fd, 0o644 if status is None else status.st_mode & 0o7777)
            if status is not None and (status.st_uid, status.st_gid) != (
                os.geteuid(),
                os.getegid(),
            ):
                os.fchown(fd, status.st_uid, status.st_gid)
            os.fsync(fd)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
