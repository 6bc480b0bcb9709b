"""One very large message: it shall not be in memory."""

from __future__ import annotations

import attrs

from .bench import Bench
from .figures import megabytes
from .load import Cell, Run, measure, sinking
from .machine import free_port, require
from .processes import Memory, Peak, memory
from .report import Sheet, steps
from .servers import Ours, Postfix, Server, running


@attrs.frozen
class Plan:
    size_octets: int = 50_000_000
    messages: int = 1


def run(bench: Bench, plan: Plan) -> None:
    require("postfix", "smtp-source", "smtp-sink", "twistd", root=True)
    port = free_port()
    servers: list[Server] = [
        Ours(bench.folder / "ours", sink_port=port),
        Postfix(bench.folder / "postfix", port),
    ]
    found: dict[str, tuple[Memory, Memory, Run]] = {}
    with steps(len(servers)) as progress, sinking(port) as sink, running(*servers):
        for server in servers:
            bench.configuration(server)
            progress.next(server.name)
            measure(server, sink, Cell(20, 4096, True), 300)  # what it needs at all
            before = memory(server.roots)
            with Peak(server.roots) as peak:
                cell = Cell(plan.messages, plan.size_octets, True)
                result = measure(server, sink, cell, plan.messages)
            found[server.name] = before, peak.memory, result
    rows = [
        (
            name,
            megabytes(before.pss),
            megabytes(peak.pss),
            f"{plan.messages / result.accepted_per_s:.2f}",
            f"{plan.messages / result.relayed_per_s:.2f}",
            f"{result.cpu_s_per_1000 * plan.messages / 1000:.2f}",
        )
        for name, (before, peak, result) in found.items()
    ]
    count = "one message" if plan.messages == 1 else f"{plan.messages} messages at a time"
    titles = ("server", "PSS before MB", "peak MB", "accepted s", "relayed s", "CPU s")
    bench.finish(
        "big",
        plan,
        [Sheet(f"{count.capitalize()} of {megabytes(plan.size_octets)} MB", titles, rows)],
        configurations={server.name: server.configuration for server in servers},
        servers={
            name: {
                "before": attrs.asdict(before),
                "peak": attrs.asdict(peak),
                "run": attrs.asdict(result),
            }
            for name, (before, peak, result) in found.items()
        },
    )
