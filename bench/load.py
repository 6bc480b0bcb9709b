"""One measurement: a load through a server into a sink."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from .figures import counted
from .machine import run_path, wait_for
from .processes import cpu_s, memory
from .servers import Server, end

F_SETPIPE_SZ: Final = 1031
SETTLE_S: Final = 0.3
"""After each load, for what a server still tidies up."""


@attrs.frozen
class Cell:
    """A kind of load.

    :ivar sessions: clients at a time.
    :ivar size_octets: of each message.
    :ivar is_reusing: many messages a connection, or one.
    """

    sessions: int
    size_octets: int
    is_reusing: bool

    @property
    def short(self) -> str:
        """Sessions, size, messages a connection."""
        return f"{self.sessions} x {self.size_octets // 1024} KB, {self.each}"

    @property
    def each(self) -> str:
        return "many" if self.is_reusing else "one"

    def __str__(self) -> str:
        plural = "s" if self.sessions != 1 else ""
        return f"{self.sessions} session{plural}, {self.size_octets // 1024} KB, {self.each} a connection"


@attrs.frozen
class Run:
    """What one load showed.

    :ivar accepted_per_s: until the load tool had its last 250.
    :ivar relayed_per_s: until the sink had the last message.
    :ivar cpu_s_per_1000: of the server's processes.
    :ivar surplus: messages that the sink has had more than once.
    """

    accepted_per_s: float
    relayed_per_s: float
    cpu_s_per_1000: float
    rss_octets: int
    pss_octets: int
    surplus: int


class Sink:
    """Postfix's smtp-sink, which counts what it takes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._pipe, write_end = os.pipe()
        fcntl.fcntl(self._pipe, F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(self._pipe, False)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [run_path("smtp-sink"), "-c", *user, "-m", "1000", f"127.0.0.1:{port}", "1000"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.DEVNULL
        )
        os.close(write_end)
        self._tail = b""
        self._count = 0
        wait_for(port)

    @property
    def pid(self) -> int:
        return self._process.pid

    def count(self) -> int:
        """Messages so far."""
        try:
            while octets := os.read(self._pipe, 1 << 20):
                self._tail = (self._tail + octets)[-400:]
        except BlockingIOError:
            pass  # it has said no more yet
        found = counted(self._tail)
        if found is not None:
            self._count = found
        return self._count

    def wait(self, count: int, limit_s: float) -> float:
        """Wait until it has so many.

        :return: how long that took, in seconds.
        :raise TimeoutError: they do not come in time.
        """
        began = time.perf_counter()
        while (arrived := self.count()) < count:
            if time.perf_counter() - began > limit_s:
                raise TimeoutError(f"{arrived} of {count} messages arrived in {limit_s:.0f} s")
            time.sleep(0.002)
        return time.perf_counter() - began

    def stop(self) -> None:
        end(self._process)
        os.close(self._pipe)


@contextlib.contextmanager
def sinking(port: int) -> Iterator[Sink]:
    """A sink for as long as this is entered."""
    sink = Sink(port)
    try:
        yield sink
    finally:
        sink.stop()


@contextlib.contextmanager
def source(
    port: int,
    cell: Cell,
    messages: int,
    *,
    sender: str = "sender@client.test",
    recipient: str = "rcpt@dest.test",
    is_numbered: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A load under way; it is ended at the end, should it still run.

    :param is_numbered: whether each message has a recipient of its own: a number from 1 on is put
        before the local-part.
    """
    command = [run_path("smtp-source"), "-s", str(cell.sessions), "-m", str(messages)]
    command += ["-l", str(cell.size_octets), "-f", sender, "-t", recipient]
    command += ["-M", "client.test", *(["-d"] if cell.is_reusing else [])]
    command += [*(["-N"] if is_numbered else []), f"127.0.0.1:{port}"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


Source = Callable[[int, Cell, int], contextlib.AbstractContextManager[subprocess.Popen[bytes]]]
"""Sends to a port so many messages of a kind, from when it is entered."""


def send(
    server: Server, cell: Cell, messages: int, limit_s: float = 600.0, load: Source = source
) -> float:
    """Send so many messages, wherever they go then.

    :return: seconds until the load tool had its last 250.
    :raise RuntimeError: it failed, or was not ready in time.
    """
    began = time.perf_counter()
    with load(server.port, cell, messages) as process:
        try:
            _, complaint = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{server.name} took no {messages} in {limit_s:.0f} s") from None
    if process.returncode:
        raise RuntimeError(f"smtp-source to {server.name}: {complaint.decode().strip()}")
    return time.perf_counter() - began


def measure(
    server: Server,
    sink: Sink,
    cell: Cell,
    messages: int,
    limit_s: float = 240.0,
    load: Source = source,
) -> Run:
    """Send so many messages, and wait until the sink has them.

    :raise RuntimeError: the load tool failed, or they did not all arrive in time.
    """
    already, cpu_before = sink.count(), cpu_s(server.roots)
    accepted_s = relayed_s = 0.0
    with load(server.port, cell, messages) as process:
        began = time.perf_counter()
        while not (accepted_s and relayed_s):
            time.sleep(0.002)
            now = time.perf_counter() - began
            if not accepted_s and process.poll() is not None:
                accepted_s = now
            if not relayed_s and sink.count() - already >= messages:
                relayed_s = now
            if process.returncode or now > limit_s:
                process.kill()
                _, complaint = process.communicate()
                arrived = sink.count() - already
                raise RuntimeError(
                    f"{server.name}, {cell}: {arrived} of {messages} arrived in {now:.0f} s;"
                    f" the load tool says {complaint.decode().strip()!r}, the server in {server.log}:"
                    f"\n{_last_lines(server)}"
                )
    used, size = cpu_s(server.roots) - cpu_before, memory(server.roots)
    time.sleep(SETTLE_S)
    os.sync()  # what one has still to write is not to be on the next one's bill
    return Run(
        messages / accepted_s,
        messages / relayed_s,
        used * 1000 / messages,
        size.rss,
        size.pss,
        sink.count() - already - messages,
    )


def _last_lines(server: Server) -> str:
    """The end of a server's log, which is gone with its folder."""
    if not server.log.exists():
        return ""
    return "\n".join(server.log.read_text(errors="replace").splitlines()[-5:])
