"""Listening sockets: bound while we may still be root, accepting only when everything is ready.

Sockets come from systemd where it hands them over (``sd_listen_fds(3)``), else are made here.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import attrs
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorCore
from twisted.logger import Logger

from . import fast

log = Logger()

_FIRST_FD = 3
BACKLOG = 511


class CannotBind(Exception):
    """An address that is not ours, a port that is taken or not for us; the text says which."""


@attrs.define
class BoundSocket:
    """A TCP socket with its address, not accepting yet."""

    name: str
    socket: socket.socket

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    def accept(self, reactor: IReactorCore, factory: IProtocolFactory) -> IListeningPort:
        """Begin to serve.  The socket belongs to the returned port from now on."""
        self.socket.listen(BACKLOG)  # harmless where systemd has done it already
        return fast.adopt(reactor, self.socket, factory)

    def close(self) -> None:
        self.socket.close()


def bind(name: str, address: str, port: int) -> BoundSocket:
    """Make a socket.  :param port: 0 for any free one.  :raise CannotBind:"""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except OSError as error:
        made.close()
        reason = {
            errno.EADDRINUSE: "another program has this port",
            errno.EADDRNOTAVAIL: "this machine does not have this address",
            errno.EACCES: "ports under 1024 are for root or CAP_NET_BIND_SERVICE",
        }.get(error.errno or 0, os.strerror(error.errno or 0))
        raise CannotBind(f"listener {name}: cannot bind {address} port {port}: {reason}") from error
    return BoundSocket(name, made)


def first_environ() -> Mapping[str, str]:
    """The variables that this process was started with.

    ``os.environ`` will not do: Twisted takes ``LISTEN_FDS`` and ``LISTEN_PID`` out of it as soon as
    its endpoints are imported, which twistd does before it knows of us.
    """
    try:
        octets = Path("/proc/self/environ").read_bytes()
    except OSError:  # no Linux, and so no systemd
        return os.environ
    found = {}
    for variable in octets.split(b"\0"):
        name, _, value = variable.partition(b"=")
        found[os.fsdecode(name)] = os.fsdecode(value)
    return found


def inherited(environ: Mapping[str, str], pid: int) -> list[BoundSocket]:
    """The sockets that systemd has handed over; none where it has not.

    :param environ: see :func:`first_environ`.
    """
    listen_pid = environ.get("LISTEN_PID", "")
    count = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if listen_pid != str(pid) or not count.isdigit():
        return []
    found = []
    for index in range(int(count)):
        given = socket.socket(fileno=_FIRST_FD + index)
        # A blocking one would hang the reactor in accept() when a client is gone again.
        given.setblocking(False)
        given.set_inheritable(False)
        found.append(BoundSocket(names[index] if index < len(names) else "", given))
    return found


def matching(given: list[BoundSocket], name: str, address: str, port: int) -> BoundSocket | None:
    """Take from ``given`` the socket for one listener: one of its name, else of its address; of
    several of its name, for a unit names all of its sockets alike, the one of its address."""
    there = [one for one in given if port and _is_at(one, address, port)]
    named = [one for one in given if one.name == name]
    for one in (*(one for one in named if one in there), *named, *there):
        given.remove(one)
        return BoundSocket(name, one.socket)
    return None


def _is_at(bound: BoundSocket, address: str, port: int) -> bool:
    return bound.socket.family != socket.AF_UNIX and bound.address == (address, port)


def tell_systemd(environ: Mapping[str, str], state: str) -> None:
    """``sd_notify(3)``: ``READY=1``, ``RELOADING=1``, ``STOPPING=1``; nothing where nobody asked.

    Whoever asked may have gone away, and that must not keep us from stopping as we should.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.connect(path)
            notify.sendall(state.encode())
    except OSError as error:
        log.warn("cannot tell systemd {state}: {error}", state=state, error=error)
