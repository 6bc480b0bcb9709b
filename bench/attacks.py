"""Attacks on the doors: what they cost in memory, and what a healthy client notices of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from . import configurations
from .bench import Bench
from .figures import megabytes
from .machine import free_port, raise_descriptors, require
from .paced import Noticed, TimingSink, notice, send_paced
from .processes import Peak, cpu_s
from .report import Sheet, steps
from .servers import Ours, running

ATTACKS: Final = {
    "10,000 connections a minute": "flood",
    "1,000 that hold a state each": "loris",
    "a gigabyte without a line end": "line",
    "20 who guess passwords": "guess",
}
SETTLE_S: Final = 3.0


@attrs.frozen
class Plan:
    """:ivar per_s: messages of the healthy client."""

    per_s: float = 200.0
    seconds: float = 60.0


@attrs.frozen
class Phase(Noticed):
    """:ivar cpu_s: of ours, in all.
    :ivar attackers: what they have done.
    """

    rss_octets: int
    cpu_s: float
    attackers: dict[str, int]


def run(bench: Bench, plan: Plan) -> None:
    require("twistd")
    raise_descriptors(4000)
    sink_port, submissions_port = free_port(), free_port()
    server = Ours(
        bench.folder / "ours",
        configurations.ATTACKED,
        sink_port=sink_port,
        submissions_port=submissions_port,
    )
    bench.configuration(server)
    phases: dict[str, Phase] = {}
    with (
        steps(len(ATTACKS) + 1) as progress,
        TimingSink(sink_port, bench.folder, {"127.0.0.1": "good"}) as hop,
        running(server),
    ):
        send_paced(server.port, per_s=plan.per_s, seconds=1.0, prefix="w")
        progress.next("the healthy client alone")
        phases["none"] = _phase(plan, server, hop, "a", {})
        for number, (title, kind) in enumerate(ATTACKS.items()):
            progress.next(title)
            port = submissions_port if kind == "guess" else server.port
            done: dict[str, int] = {}
            with _attack(kind, port, done):
                time.sleep(SETTLE_S)
                phases[title] = _phase(plan, server, hop, f"b{number}-", done)
    rows = [
        (
            title,
            *phase.cells(),
            megabytes(phase.rss_octets),
            f"{phase.cpu_s:.1f}",
            ", ".join(f"{name}: {count}" for name, count in phase.attackers.items()),
        )
        for title, phase in phases.items()
    ]
    titles = ("attack", *Noticed.TITLES, "RSS MB", "CPU s", "attackers")
    bench.finish(
        "attacks",
        plan,
        [
            Sheet(
                f"A healthy client at {plan.per_s:.0f}/s for {plan.seconds:.0f} s",
                titles,
                rows,
            )
        ],
        configuration=server.configuration,
        phases={title: attrs.asdict(phase) for title, phase in phases.items()},
    )


def _phase(
    plan: Plan, server: Ours, hop: TimingSink, prefix: str, attackers: dict[str, int]
) -> Phase:
    before = cpu_s(server.roots)
    with Peak(server.roots) as peak:
        noticed = notice(server, hop, per_s=plan.per_s, seconds=plan.seconds, prefix=prefix)
    return Phase(*noticed, peak.memory.rss, cpu_s(server.roots) - before, attackers)


@contextlib.contextmanager
def _attack(kind: str, port: int, done: dict[str, int]) -> Iterator[None]:
    """An attack for as long as this is entered.

    :param done: gets what the attackers have done.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.attackers", kind, str(port)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        yield
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
        done.update(json.loads(said))
