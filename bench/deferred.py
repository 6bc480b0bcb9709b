"""A long deferred queue: taking it in, its memory, stop, restart, and the way out.

The next hop is dead while the mail comes in.  When the server has gone quiet, it is stopped and
started again; then the sink comes up and everything is tried at once.
"""

from __future__ import annotations

import itertools
import time

import attrs

from .bench import Bench
from .figures import megabytes
from .load import Cell, send, sinking
from .machine import free_port, need_space, require
from .processes import Memory, Peak, memory
from .report import Sheet, Steps, steps
from .servers import Ours, Postfix, Server, running, wait_quiet

LOAD = Cell(20, 4096, True)
STEPS_EACH = 4
OCTETS_EACH = 12_000
"""Of disk for a message, generously."""


@attrs.frozen
class Plan:
    """:ivar counts: of messages.
    :ivar postfix_up_to: larger queues are ours alone.
    """

    counts: tuple[int, ...] = (10_000, 100_000)
    postfix_up_to: int = 10_000


@attrs.frozen
class Queue:
    """What one queue of one server showed.

    :ivar started_s: from the call to the banner, with the queue in the spool.
    :ivar drained_s: from the command to try all, until the sink had the last message.
    :ivar fresh, queued, restarted, draining: memory, the last one its peak.
    """

    server: str
    count: int
    accepted_per_s: float
    quiet_after_s: float
    stopped_s: float
    started_s: float
    drained_s: float
    fresh: Memory
    queued: Memory
    restarted: Memory
    draining: Memory
    surplus: int


def run(bench: Bench, plan: Plan) -> None:
    with_postfix = any(count <= plan.postfix_up_to for count in plan.counts)
    extra = ["postfix"] if with_postfix else []
    require("smtp-source", "smtp-sink", "twistd", *extra, root=with_postfix)
    need_space(bench.folder, max(plan.counts) * OCTETS_EACH + 500_000_000)
    configurations: dict[str, str] = {}
    found = []
    turns = [
        (kind, count)
        for count, kind in itertools.product(plan.counts, ("ours", "postfix"))
        if kind == "ours" or count <= plan.postfix_up_to
    ]
    with steps(len(turns) * STEPS_EACH) as progress:
        for kind, count in turns:
            port, folder = free_port(), bench.folder / f"{kind}-{count}"
            server: Server
            if kind == "ours":
                server = Ours(folder, sink_port=port)
            else:
                server = Postfix(folder, port)
            if server.name not in configurations:
                configurations[server.name] = server.configuration
                bench.configuration(server)
            with running(server):
                found.append(_queue(server, port, count, progress))
    bench.finish(
        "deferred",
        plan,
        [_sheet(found)],
        configurations=configurations,
        queues=list(map(attrs.asdict, found)),
    )


def _queue(server: Server, sink_port: int, count: int, progress: Steps) -> Queue:
    fresh = memory(server.roots)
    progress.next(f"{server.name}: {count} messages in, the next hop dead")
    accepted_s = send(server, LOAD, count, limit_s=60 + count / 100)
    progress.next(f"{server.name}: until it is quiet")
    began = time.perf_counter()
    wait_quiet(server, limit_s=60 + count / 100)
    quiet_after_s = time.perf_counter() - began
    queued = memory(server.roots)
    progress.next(f"{server.name}: stop and start")
    began = time.perf_counter()
    server.stop()
    stopped = time.perf_counter()
    server.start()
    started = time.perf_counter()
    restarted = memory(server.roots)
    progress.next(f"{server.name}: {count} messages out")
    with sinking(sink_port) as sink, Peak(server.roots, every_s=0.5) as peak:
        asked = time.perf_counter()
        server.retry_all()
        sink.wait(count, limit_s=120 + count / 50)
        drained_s = time.perf_counter() - asked
        time.sleep(1)
        surplus = sink.count() - count
    return Queue(
        server.name,
        count,
        count / accepted_s,
        quiet_after_s,
        stopped - began,
        started - stopped,
        drained_s,
        fresh,
        queued,
        restarted,
        peak.memory,
        surplus,
    )


def _sheet(found: list[Queue]) -> Sheet:
    rows = [
        (
            f"{one.count:,}",
            one.server,
            f"{one.accepted_per_s:.0f}",
            f"{megabytes(one.queued.rss)} / {megabytes(one.queued.pss)}",
            f"{one.stopped_s:.2f}",
            f"{one.started_s:.2f}",
            f"{megabytes(one.restarted.rss)} / {megabytes(one.restarted.pss)}",
            f"{one.drained_s:.1f}",
            f"{megabytes(one.draining.rss)} / {megabytes(one.draining.pss)}",
        )
        for one in found
    ]
    titles = (
        *("queue", "server", "accept/s", "RSS/PSS MB", "stop s", "start s", "RSS/PSS MB"),
        *("drain s", "peak MB"),
    )
    return Sheet("Deferred mail of 4 KB", titles, rows, keys=2)
