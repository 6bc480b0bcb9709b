"""UNIX sockets of ours: where they lie, and who is at the other end."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final, NamedTuple

from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IReactorUNIX, IStreamServerEndpoint

_CREDENTIALS: Final = struct.Struct("3i")


class SocketTaken(Exception):
    """Somebody listens on the socket, or the path is something else than a socket.

    :ivar path: the socket's.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class Credentials(NamedTuple):
    """Who connected, as the kernel says (``SO_PEERCRED``)."""

    pid: int
    uid: int
    gid: int


def claim(path: Path) -> None:
    """Make way for a socket of ours: remove a file that a crash left, if nobody answers there.

    :raise SocketTaken: somebody does.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SocketTaken(path, "exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(os.fspath(path))
    if code == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif code != errno.ENOENT:
        raise SocketTaken(path, "another process listens there")


def endpoint(reactor: IReactorUNIX, path: Path, *, is_public: bool) -> IStreamServerEndpoint:
    """Where to listen, :func:`claim` done: for every user of the machine, or for our own only."""
    mode = 0o666 if is_public else 0o600
    return UNIXServerEndpoint(reactor, os.fspath(path), mode=mode)


def credentials(channel: socket.socket) -> Credentials:
    """Of the process that connected, at the time it did."""
    octets = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(octets))
