"""What the machine itself says of names: ``resolv.conf(5)`` and ``hosts(5)``, read again when they
change."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

from .dns_exchange import Server

LOOK_AGAIN_S: Final = 5.0
"""How old what we know of a file may be."""

_T = TypeVar("_T")


class _Watched(Generic[_T]):
    """A file's meaning, kept until it changes; a file that is not there is an empty one."""

    def __init__(
        self, path: Path, seconds: Callable[[], float], parse: Callable[[str], _T]
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._parse = parse
        self._stamp: tuple[int, ...] = ()
        self._look_at = 0.0
        self._value: _T | None = None

    def value(self) -> _T:
        now = self._seconds()
        if self._value is None or now >= self._look_at:
            self._look_at = now + LOOK_AGAIN_S
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
                if self._value is None or stamp != self._stamp:
                    self._value = self._parse(self._path.read_text("utf-8", "replace"))
                    self._stamp = stamp
            except OSError:
                self._stamp = ()
                self._value = self._parse("")
        return self._value


class SystemNameservers:
    """The name servers of ``resolv.conf``; the one on this machine where it names none.

    Its other settings do not matter here: mail domains are never completed from a search list.

    :param seconds: a clock that never jumps back.
    """

    def __init__(self, seconds: Callable[[], float], path: Path = Path("/etc/resolv.conf")) -> None:
        self._file = _Watched(path, seconds, _nameservers)

    def __call__(self) -> tuple[Server, ...]:
        return self._file.value()


def _nameservers(text: str) -> tuple[Server, ...]:
    servers: list[Server] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_] if _is_address(address.partition("%")[0]):
                servers.append((address, 53))
    return tuple(servers[:3]) or (("127.0.0.1", 53),)


class HostsFile:
    """The names of ``/etc/hosts``, as far as they are looked up here: for smarthosts.

    :param seconds: a clock that never jumps back.
    """

    def __init__(self, seconds: Callable[[], float], path: Path = Path("/etc/hosts")) -> None:
        self._file = _Watched(path, seconds, _hosts)

    def addresses(self, name: str) -> tuple[str, ...]:
        """The addresses in the order of the file; none for most names."""
        return self._file.value().get(name.lower().removesuffix("."), ())


def _hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    hosts: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if _is_address(address):
            for name in map(str.lower, names):
                hosts[name] = (*hosts.get(name, ()), address)
    return hosts


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
