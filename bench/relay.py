"""Relay rates beside Postfix, with and without DKIM.

The servers that are compared run all the time, and have relayed enough before that each works as one
that has been running for long: ours goes round in files that it has written before.  Each load goes
through one after the other, so that what is compared was measured within seconds.  Their order turns
round with each round.
"""

from __future__ import annotations

import itertools
import socket
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs
import click

from .bench import Bench
from .figures import megabytes, ratios, spread
from .load import Cell, Run, measure, sinking, source
from .machine import free_port, require
from .publish import draw
from .report import Sheet, Steps, steps
from .servers import Ours, Postfix, Server, running

Signing = Literal["none", "rsa", "ed25519"]

SIGNINGS: Final[tuple[Signing, ...]] = ("none", "rsa", "ed25519")
WARM: Final = Cell(20, 4096, True)

Results = dict[tuple[str, Cell], list[Run]]


@attrs.frozen
class Plan:
    """What to measure.

    :ivar messages: a turn, of those up to 4 KB; a quarter of it above, one connection a quarter too.
    :ivar warm: messages through each server before the first turn; more than go into a segment.
    """

    rounds: int = 5
    messages: int = 2500
    warm: int = 16_000
    sessions: tuple[int, ...] = (1, 20, 100)
    sizes: tuple[int, ...] = (4096, 65536)
    signing: tuple[Signing, ...] = SIGNINGS

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(count, size, is_reusing)
            for size, count, is_reusing in itertools.product(
                self.sizes, self.sessions, (True, False)
            )
        ]

    def messages_of(self, cell: Cell) -> int:
        few = cell.sessions == 1 or cell.size_octets > 16384
        return max(self.messages // (4 if few else 1), cell.sessions)


def run(bench: Bench, plan: Plan) -> None:
    is_signing = any(kind != "none" for kind in plan.signing)
    extra = ["opendkim"] if is_signing else []
    require("postfix", "smtp-source", "smtp-sink", "twistd", *extra, root=True)
    results: Results = {}
    groups = _groups(plan.signing)
    turns = (1 + plan.rounds * len(plan.cells)) * sum(map(len, groups.values()))
    configurations: dict[str, str] = {}
    with steps(turns) as progress:
        for title, makers in groups.items():
            _compare(bench, plan, bench.folder / title, makers, progress, results, configurations)
    sheets = [
        sheet
        for title, makers in groups.items()
        for sheet in [_sheet(title, plan, list(makers), results)]
    ]
    cells = _cells(plan, groups, results)
    bench.finish("relay", plan, sheets, configurations=configurations, cells=cells)
    try:
        draw(bench.console, cells, bench.out)
    except click.ClickException as error:
        bench.console.print(error.message, style="yellow", markup=False)


Maker = Callable[[Path, int], Server]


def _groups(signing: Sequence[Signing]) -> dict[str, dict[str, Maker]]:
    """Which servers are compared with each other; Postfix is the last of each group."""
    groups: dict[str, dict[str, Maker]] = {}
    if "none" in signing:
        groups["plain"] = {
            "protege-mta": lambda folder, sink: Ours(folder, sink_port=sink),
            "Postfix": Postfix,
        }
    kinds = [kind for kind in signing if kind != "none"]
    if kinds:
        signed: dict[str, Maker] = {}
        if "rsa" in kinds:
            signed["protege-mta + rsa"] = lambda folder, sink: Ours(
                folder, signing=("rsa",), sink_port=sink
            )
        if "ed25519" in kinds:
            signed["protege-mta + ed25519"] = lambda folder, sink: Ours(
                folder, signing=("ed25519",), sink_port=sink
            )
        signed["Postfix + OpenDKIM"] = lambda folder, sink: Postfix(folder, sink, is_signing=True)
        groups["signed"] = signed
    return groups


def _compare(
    bench: Bench,
    plan: Plan,
    folder: Path,
    makers: dict[str, Maker],
    progress: Steps,
    results: Results,
    configurations: dict[str, str],
) -> None:
    sink_port = free_port()
    servers = [
        make(folder / f"server-{index}", sink_port) for index, make in enumerate(makers.values())
    ]
    for server in servers:
        configurations[server.name] = server.configuration
        bench.configuration(server)
    with running(*servers):
        for server in servers:
            _check_signature(server, sink_port)
        with sinking(sink_port) as sink:
            for server in servers:
                progress.next(f"warming up, {server.name}")
                measure(server, sink, WARM, plan.warm)
            for number, cell in itertools.product(range(plan.rounds), plan.cells):
                for server in servers if number % 2 == 0 else reversed(servers):
                    progress.next(f"round {number + 1}, {server.name}: {cell}")
                    found = measure(server, sink, cell, plan.messages_of(cell))
                    results.setdefault((server.name, cell), []).append(found)


def _check_signature(server: Server, sink_port: int) -> None:
    """Make sure that a message comes out signed if, and only if, it shall be.

    :raise RuntimeError: it does not.
    """
    with socket.create_server(("127.0.0.1", sink_port)) as listener:
        listener.settimeout(30)
        with source(server.port, Cell(1, 100, False), 1) as process:
            try:
                content = receive(listener)
            except TimeoutError:
                raise RuntimeError(f"{server.name} relays nothing") from None
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{server.name} does not end its dialog") from None
    is_signed = b"\r\ndkim-signature:" in b"\r\n" + content.lower()
    wants = "+" in server.name
    if is_signed != wants:
        raise RuntimeError(f"{server.name}: signed is {is_signed}, should be {wants}")


def receive(listener: socket.socket) -> bytes:
    """Take one message over SMTP, plainly; its content with the final dot."""
    channel, _ = listener.accept()
    with channel, channel.makefile("rwb", buffering=0) as stream:
        channel.settimeout(30)
        stream.write(b"220 capture\r\n")
        while line := stream.readline():
            if line.upper().startswith(b"DATA"):
                stream.write(b"354 go on\r\n")
                content = b""
                while not content.endswith(b"\r\n.\r\n"):
                    content += stream.readline()
                stream.write(b"250 taken\r\n")
                return content
            stream.write(b"250 capture\r\n")
    raise RuntimeError("the server left without a message")


def _sheet(title: str, plan: Plan, names: Sequence[str], results: Results) -> Sheet:
    rows = []
    for cell in plan.cells:
        reference = [run.relayed_per_s for run in results[names[-1], cell]]
        for name in names:
            runs = results[name, cell]
            relayed = [run.relayed_per_s for run in runs]
            rows.append(
                (
                    cell.short if name == names[0] else "",
                    name,
                    f"{statistics.median(run.accepted_per_s for run in runs):.0f}",
                    spread(relayed).text(),
                    "" if name == names[-1] else ratios(relayed, reference).text(1),
                    f"{statistics.median(run.cpu_s_per_1000 for run in runs):.2f}",
                    megabytes(statistics.median(run.pss_octets for run in runs)),
                )
            )
    titles = ("load", "server", "accept/s", "relay/s", "times", "CPU s/1000", "PSS MB")
    text = f"Relay rates, {title}: sessions x size, messages a connection; median (range)"
    return Sheet(text, titles, rows, keys=2)


def _cells(
    plan: Plan, groups: dict[str, dict[str, Maker]], results: Results
) -> list[dict[str, object]]:
    """Figures by group, cell and server; ``times`` is against the group's Postfix."""
    found: list[dict[str, object]] = []
    for title, makers in groups.items():
        names = list(makers)
        for cell, name in itertools.product(plan.cells, names):
            runs = results[name, cell]
            relayed = [run.relayed_per_s for run in runs]
            theirs = [run.relayed_per_s for run in results[names[-1], cell]]
            found.append(
                {
                    "group": title,
                    "server": name,
                    **attrs.asdict(cell),
                    "messages": plan.messages_of(cell),
                    "relayed_per_s": attrs.asdict(spread(relayed)),
                    "accepted_per_s": attrs.asdict(spread([one.accepted_per_s for one in runs])),
                    "times": attrs.asdict(ratios(relayed, theirs)),
                    "cpu_s_per_1000": attrs.asdict(spread([one.cpu_s_per_1000 for one in runs])),
                    "pss_octets": attrs.asdict(spread([one.pss_octets for one in runs])),
                    "runs": [attrs.asdict(one) for one in runs],
                }
            )
    return found
