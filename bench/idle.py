"""Idle connections: what thousands of them cost, and whether mail still flows between them."""

from __future__ import annotations

import contextlib
import time

import attrs

from .bench import Bench
from .figures import megabytes
from .load import Cell, measure, sinking
from .machine import free_port, raise_descriptors, require
from .processes import Memory, memory
from .report import Sheet, steps
from .servers import Ours, running
from .slow import greeted


@attrs.frozen
class Plan:
    """:ivar messages: of the load that shows that mail flows."""

    connections: int = 5000
    messages: int = 1000


def run(bench: Bench, plan: Plan) -> None:
    require("smtp-source", "smtp-sink", "twistd")
    raise_descriptors(plan.connections + 1000)
    port = free_port()
    server = Ours(bench.folder / "ours", sink_port=port, connections=plan.connections + 500)
    bench.configuration(server)
    cell = Cell(20, 4096, True)
    with steps(3) as progress, sinking(port) as sink, running(server):
        progress.next("without connections")
        alone = measure(server, sink, cell, plan.messages)
        before = memory(server.roots)
        with contextlib.ExitStack() as stack:
            progress.next(f"{plan.connections} connections, each after its EHLO")
            began = time.perf_counter()
            for _ in range(plan.connections):
                stack.enter_context(greeted(server.port))
            opened_s = time.perf_counter() - began
            held = memory(server.roots)
            progress.next("mail between them")
            among = measure(server, sink, cell, plan.messages)
    rows = [
        ("without", *_sizes(before), "", f"{alone.relayed_per_s:.0f}"),
        (
            f"{plan.connections} idle",
            *_sizes(held),
            f"{(held.rss - before.rss) / plan.connections / 1000:.1f}",
            f"{among.relayed_per_s:.0f}",
        ),
    ]
    titles = ("connections", "RSS MB", "PSS MB", "KB each", "relay/s")
    bench.finish(
        "idle",
        plan,
        [Sheet("Idle connections", titles, rows)],
        configuration=server.configuration,
        before=attrs.asdict(before),
        held=attrs.asdict(held),
        opened_s=opened_s,
        alone=attrs.asdict(alone),
        among=attrs.asdict(among),
    )


def _sizes(size: Memory) -> tuple[str, str]:
    return megabytes(size.rss), megabytes(size.pss)
