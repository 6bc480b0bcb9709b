"""Slow writers and slow readers among the clients: does a healthy one suffer?

A slow writer sends a line of content a second; a slow reader has sent commands until the server
took no more, and reads no reply.  A healthy client sends at a steady rate, first alone, then among
them, then alone again.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

import attrs

from .bench import Bench
from .figures import megabytes
from .machine import free_port, raise_descriptors, require
from .paced import Noticed, TimingSink, notice, send_paced
from .processes import memory
from .report import Sheet, steps
from .servers import Ours, running, wait_quiet
from .tls_client import is_whole

COMMANDS: Final = b"EHLO slow.test\r\n" * 64
"""Each has a long reply."""

DEAF_OCTETS: Final = 4096
FILL_S: Final = 60.0


@attrs.frozen
class Plan:
    """:ivar writers: slow ones; ``readers`` likewise.
    :ivar per_s: messages of the healthy client.
    """

    writers: int = 200
    readers: int = 200
    per_s: float = 200.0
    seconds: float = 20.0


@attrs.frozen
class Phase(Noticed):
    rss_octets: int


def run(bench: Bench, plan: Plan) -> None:
    require("twistd")
    raise_descriptors(plan.writers + plan.readers + 1000)
    port = free_port()
    server = Ours(
        bench.folder / "ours", sink_port=port, connections=plan.writers + plan.readers + 500
    )
    bench.configuration(server)
    phases: dict[str, Phase] = {}
    among = f"among {plan.writers} slow writers and {plan.readers} slow readers"
    with (
        steps(3) as progress,
        TimingSink(port, bench.folder, {"127.0.0.1": "good"}) as hop,
        running(server),
    ):
        progress.next("the healthy client alone")
        send_paced(server.port, per_s=plan.per_s, seconds=1.0, prefix="w")
        phases["alone"] = _phase(plan, server, hop, "a")
        with nuisances(server.port, plan.writers, plan.readers):
            wait_quiet(server)  # it still answers what the kernel has taken in
            progress.next(among)
            phases[among] = _phase(plan, server, hop, "b")
        progress.next("and alone again")
        phases["alone again"] = _phase(plan, server, hop, "c")
    rows = [
        (
            title,
            *phase.cells(),
            megabytes(phase.rss_octets),
        )
        for title, phase in phases.items()
    ]
    titles = ("healthy client", *Noticed.TITLES, "RSS MB")
    bench.finish(
        "slow",
        plan,
        [Sheet(f"A healthy client at {plan.per_s:.0f}/s", titles, rows)],
        configuration=server.configuration,
        phases={title: attrs.asdict(phase) for title, phase in phases.items()},
    )


def _phase(plan: Plan, server: Ours, hop: TimingSink, prefix: str) -> Phase:
    noticed = notice(server, hop, per_s=plan.per_s, seconds=plan.seconds, prefix=prefix)
    return Phase(*noticed, memory(server.roots).rss)


@contextlib.contextmanager
def nuisances(port: int, writers: int, readers: int) -> Iterator[None]:
    """So many slow clients, for as long as this is entered."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(_begun(port)) for _ in range(writers)]
        deaf = [stack.enter_context(greeted(port, DEAF_OCTETS)) for _ in range(readers)]
        _fill(deaf)
        thread = threading.Thread(target=_write, args=(slow, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _fill(deaf: list[socket.socket]) -> None:
    """Send commands until the server takes no more, since nobody reads its replies.

    :raise RuntimeError: it takes them without end, or it has hung up.
    """
    give_up_at = time.monotonic() + FILL_S
    with selectors.DefaultSelector() as selector:
        for channel in deaf:
            channel.setblocking(False)
            selector.register(channel, selectors.EVENT_WRITE)
        while ready := selector.select(1.0):
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                try:
                    key.fileobj.send(COMMANDS)
                except BlockingIOError:
                    continue  # full since we looked
                except ConnectionError as error:
                    raise RuntimeError(f"a slow reader was hung up on: {error}") from error
            if time.monotonic() > give_up_at:
                raise RuntimeError("commands of slow readers are taken without end")


def _write(slow: list[socket.socket], over: threading.Event) -> None:
    for channel in slow:
        channel.setblocking(False)
    while not over.wait(1.0):
        for channel in slow:
            _try_send(channel, b"a line of content\r\n")


def _try_send(channel: socket.socket, octets: bytes) -> None:
    """What does not fit is dropped, and who was hung up on does not matter here."""
    with contextlib.suppress(BlockingIOError, ConnectionError):
        channel.send(octets)


def greeted(port: int, room_octets: int = 0) -> socket.socket:
    """A connection after its EHLO.

    :param room_octets: for what it has not read; 0 for the system's usual.
    """
    channel = socket.socket()
    channel.settimeout(30)
    if room_octets:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_octets)
    channel.connect(("127.0.0.1", port))
    _talk(channel, b"")
    _talk(channel, b"EHLO slow.test\r\n")
    return channel


def _begun(port: int) -> socket.socket:
    """A connection in the middle of a content."""
    channel = greeted(port)
    for command in (
        b"MAIL FROM:<slow@client.test>\r\n",
        b"RCPT TO:<slow@dest.test>\r\n",
        b"DATA\r\n",
    ):
        _talk(channel, command)
    channel.sendall(b"Subject: slow\r\n\r\n")
    return channel


def _talk(channel: socket.socket, command: bytes) -> None:
    """:raise RuntimeError: it was refused."""
    channel.sendall(command)
    reply = channel.recv(4096)
    while reply and not is_whole(reply):
        reply += channel.recv(4096)
    if reply[:1] not in (b"2", b"3"):
        raise RuntimeError(f"{command!r} was answered {reply!r}")
