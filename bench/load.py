"""One measurement: a load through a server into a sink."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from typing import Final

import attrs

from .processes import cpu_s, pss_octets
from .servers import Server, wait_for

F_SETPIPE_SZ: Final = 1031
_COUNTED: Final = re.compile(rb"mesg=(\d+)")


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

    def __str__(self) -> str:
        each = "many" if self.is_reusing else "one"
        return f"{self.sessions} sessions, {self.size_octets // 1024} KB, {each} a connection"


@attrs.frozen
class Run:
    """What one load showed.

    :ivar accepted_per_s: until the load tool had its last 250.
    :ivar relayed_per_s: until the sink had the last message.
    :ivar cpu_s_per_1000: of the server's processes.
    """

    accepted_per_s: float
    relayed_per_s: float
    cpu_s_per_1000: float
    pss_octets: int


class Sink:
    """Postfix's smtp-sink, which counts what it takes."""

    def __init__(self, port: int) -> None:
        self._pipe, write_end = os.pipe()
        fcntl.fcntl(self._pipe, F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(self._pipe, False)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = ["smtp-sink", "-c", *user, "-m", "1000", f"127.0.0.1:{port}", "1000"]
        self._process = subprocess.Popen(command, stdout=write_end, stderr=subprocess.DEVNULL)
        os.close(write_end)
        self._tail = b""
        self._count = 0
        wait_for(port)

    def count(self) -> int:
        """Messages so far."""
        try:
            while octets := os.read(self._pipe, 1 << 20):
                self._tail = (self._tail + octets)[-400:]
        except BlockingIOError:
            pass  # it has said no more yet
        whole = self._tail[: self._tail.rfind(b"\r") + 1]
        counts = _COUNTED.findall(whole)
        if counts:
            self._count = int(counts[-1])
        return self._count

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._pipe)


def measure(server: Server, sink: Sink, cell: Cell, messages: int, limit_s: float = 120.0) -> Run:
    """Send so many messages, and wait until the sink has them.

    :raise RuntimeError: the load tool failed, or they did not all arrive in time.
    """
    already, cpu_before = sink.count(), cpu_s(server.pid)
    command = ["smtp-source", "-s", str(cell.sessions), "-m", str(messages)]
    command += ["-l", str(cell.size_octets), "-f", "sender@client.test", "-t", "rcpt@dest.test"]
    command += ["-M", "client.test", *(["-d"] if cell.is_reusing else [])]
    began = time.perf_counter()
    source = subprocess.Popen(
        [*command, f"127.0.0.1:{server.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    accepted_s = relayed_s = 0.0
    while not (accepted_s and relayed_s):
        time.sleep(0.002)
        now = time.perf_counter() - began
        if not accepted_s and source.poll() is not None:
            accepted_s = now
        if not relayed_s and sink.count() - already >= messages:
            relayed_s = now
        if source.returncode or now > limit_s:
            source.kill()
            _, complaint = source.communicate()
            arrived = sink.count() - already
            raise RuntimeError(f"{server.name}: {arrived} of {messages} arrived: {complaint!r}")
    source.communicate()
    used = cpu_s(server.pid) - cpu_before
    return Run(
        messages / accepted_s, messages / relayed_s, used * 1000 / messages, pss_octets(server.pid)
    )
