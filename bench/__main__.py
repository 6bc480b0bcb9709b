"""Measure us beside Postfix; needs root, Postfix and its smtp-source and smtp-sink."""

from __future__ import annotations

import itertools
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .load import Cell, Run, Sink, measure
from .servers import OURS, Ours, Postfix, Server, free_port

Results = dict[tuple[str, Cell], list[Run]]


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Each server's turns at each load.")
@click.option("--messages", default=2500, show_default=True, help="Messages a turn.")
@click.option("--sessions", default="20", show_default=True, help="Clients at a time, with commas.")
@click.option("--sizes", default="4096", show_default=True, help="Octets, with commas.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench/results/relay.json"))
def main(rounds: int, messages: int, sessions: str, sizes: str, out: Path) -> None:
    """Relay rates of protege-mta and of Postfix, in turns on this machine."""
    cells = [
        Cell(int(count), int(size), is_reusing)
        for count, size, is_reusing in itertools.product(
            sessions.split(","), sizes.split(","), (True, False)
        )
    ]
    console = Console()
    console.print("Configuration of protege-mta:\n\n" + OURS, highlight=False)
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Progress(console=console) as bar:
        Path(folder).chmod(0o755)
        sink_port = free_port()
        servers: list[Server] = [Ours(Path(folder), sink_port), Postfix(Path(folder), sink_port)]
        task = bar.add_task("measuring", total=rounds * len(servers) * len(cells))
        for _, server in itertools.product(range(rounds), servers):
            sink = Sink(sink_port)
            server.start()
            try:
                measure(server, sink, cells[0], 300)  # warm
                for cell in cells:
                    bar.update(task, description=f"{server.name}, {cell}")
                    run = measure(server, sink, cell, messages)
                    results.setdefault((server.name, cell), []).append(run)
                    bar.advance(task)
            finally:
                server.stop()
                sink.stop()
    _show(console, results, cells)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(_document(results, messages), indent=1) + "\n")
    console.print(f"Every run: {out}")


def _show(console: Console, results: Results, cells: Sequence[Cell]) -> None:
    table = Table("load", "server", "accept/s", "relay/s", "ratio", "CPU s/1000", "PSS MB")
    for cell in cells:
        reference = statistics.median(run.relayed_per_s for run in results[Postfix.name, cell])
        for name in (Ours.name, Postfix.name):
            runs = results[name, cell]
            relayed = statistics.median(run.relayed_per_s for run in runs)
            table.add_row(
                str(cell),
                name,
                _spread([run.accepted_per_s for run in runs]),
                _spread([run.relayed_per_s for run in runs]),
                f"{relayed / reference:.1f}",
                f"{statistics.median(run.cpu_s_per_1000 for run in runs):.2f}",
                f"{statistics.median(run.pss_octets for run in runs) / 1e6:.0f}",
            )
    console.print(table)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def _document(results: Results, messages: int) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "messages": messages,
        "cells": [
            {"server": name, **attrs.asdict(cell), "runs": [attrs.asdict(run) for run in runs]}
            for (name, cell), runs in results.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
