"""Mail over STARTTLS, and handshakes, beside Postfix with the same certificate and settings.

The load is :mod:`.tls_client`, the same for both, whose processor time is told apart.  Every server
runs all the time, and each load goes through one after the other, as in :mod:`.relay`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

from protege_mta.testing.authority import Authority

from .bench import Bench
from .figures import megabytes, ratios, spread
from .load import SETTLE_S, Cell, Run, measure, sinking
from .machine import free_port, require
from .processes import cpu_s
from .profile import Time, parts_of, parts_sheet
from .report import Sheet, Steps, steps
from .servers import Ours, Postfix, Server, running
from .tls_client import Load, Report, Version

Key = Literal["P-256", "RSA-2048"]

SESSIONS: Final = 20
CELLS: Final = tuple(
    Cell(SESSIONS, size, is_reusing)
    for size, is_reusing in itertools.product((4096, 65536), (True, False))
)
NAMES: Final = ("protege-mta", "Postfix")
"""The last is the one to compare with."""

LIMIT_S: Final = 240.0


@attrs.frozen
class Shake:
    """A kind of connection without mail: EHLO, STARTTLS, handshake, EHLO, QUIT.

    :ivar key: the certificate's.
    :ivar version: of TLS; empty for none, and then there is one EHLO.
    :ivar is_resumed: whether a session before is taken up.
    """

    key: Key
    version: Version
    is_resumed: bool

    def __str__(self) -> str:
        if not self.version:
            return "no TLS"
        return f"TLS {self.version}, {self.key}, {'resumed' if self.is_resumed else 'full'}"


SHAKES: Final = (
    Shake("P-256", "", False),
    Shake("P-256", "1.3", False),
    Shake("P-256", "1.3", True),
    Shake("P-256", "1.2", False),
    Shake("P-256", "1.2", True),
    Shake("RSA-2048", "1.3", False),
)


@attrs.frozen
class Plan:
    """What to measure.

    :ivar messages: a turn, of those of 4 KB; a quarter of it above.
    :ivar connections: a turn.
    """

    rounds: int = 5
    messages: int = 2500
    connections: int = 2000

    def messages_of(self, cell: Cell) -> int:
        return max(self.messages // (4 if cell.size_octets > 16384 else 1), cell.sessions)


@attrs.frozen
class Shaken:
    """What a load of handshakes showed.

    :ivar cpu_ms: of the server's processes, a connection; ``client_cpu_ms`` of the client.
    """

    per_s: float
    cpu_ms: float
    client_cpu_ms: float


@attrs.frozen
class Relayed:
    """:ivar client_cpu_s_per_1000: which is in no figure of the server's."""

    run: Run
    client_cpu_s_per_1000: float


@attrs.define
class Results:
    """By what was measured and the server's name; turns in their order.

    :ivar ciphers: that were agreed on, by server.
    """

    relayed: dict[tuple[Cell, str], list[Relayed]] = attrs.field(factory=dict)
    shaken: dict[tuple[Shake, str], list[Shaken]] = attrs.field(factory=dict)
    parts: dict[str, dict[str, Time]] = attrs.field(factory=dict)
    ciphers: dict[str, set[str]] = attrs.field(factory=dict)


def run(bench: Bench, plan: Plan) -> None:
    require("postfix", "smtp-sink", "twistd", root=True)
    results = Results()
    configurations: dict[str, str] = {}
    with steps(len(NAMES) * (plan.rounds * (len(CELLS) + len(SHAKES)) + 1)) as progress:
        for number in range(plan.rounds):
            folder = bench.folder / str(number)
            _round(bench, plan, folder, number, progress, results, configurations)
    ours, theirs = (results.ciphers[name] for name in NAMES)
    if ours != theirs:
        raise RuntimeError(f"agreed on {sorted(ours)} with us, on {sorted(theirs)} with Postfix")
    bench.finish(
        "tls",
        plan,
        [
            _relay_sheet(results),
            _shake_sheet(results),
            *(
                parts_sheet(f"{name} over TLS: many", found)
                for name, found in results.parts.items()
            ),
        ],
        configurations=configurations,
        ciphers=sorted(ours),
        cells=_cells(plan, results),
        handshakes=_handshakes(results),
        parts={
            name: {part: attrs.asdict(one) for part, one in found.items()}
            for name, found in results.parts.items()
        },
    )


def _round(
    bench: Bench,
    plan: Plan,
    folder: Path,
    number: int,
    progress: Steps,
    results: Results,
    configurations: dict[str, str],
) -> None:
    sink_port = free_port()
    servers = {key: _pair(folder / key, sink_port, key) for key in ("P-256", "RSA-2048")}
    for server in servers["P-256"]:
        if server.name not in configurations:
            configurations[server.name] = server.configuration
            bench.configuration(server)
    turn: Callable[[Key], list[Server]] = lambda key: (  # noqa: E731
        servers[key] if number % 2 == 0 else servers[key][::-1]
    )
    with running(*itertools.chain(*servers.values())), sinking(sink_port) as sink:
        for server in itertools.chain(*servers.values()):
            measure(server, sink, CELLS[0], min(300, plan.messages), load=source)
        for cell in CELLS:
            for server in turn("P-256"):
                progress.next(f"round {number + 1}, {server.name}: {cell}")
                reports: list[Report] = []
                messages = plan.messages_of(cell)
                load = functools.partial(source, reports=reports)
                found = measure(server, sink, cell, messages, load=load)
                # Its process ends a little after its last reply.
                found = attrs.evolve(found, accepted_per_s=messages / reports[0].seconds)
                client = reports[0].cpu_s * 1000 / messages
                results.relayed.setdefault((cell, server.name), []).append(Relayed(found, client))
        for shake in SHAKES:
            for server in turn(shake.key):
                progress.next(f"round {number + 1}, {server.name}: {shake}")
                shaken, ciphers = _shake(server, shake, plan.connections)
                results.shaken.setdefault((shake, server.name), []).append(shaken)
                results.ciphers.setdefault(server.name, set()).update(ciphers)
        if number == 0:
            for server in servers["P-256"]:
                progress.next(f"{server.name}: where the time goes")
                results.parts[server.name] = parts_of(
                    server, CELLS[0], plan.messages, sink, source, "the client"
                )


def _pair(folder: Path, sink_port: int, key: Key) -> list[Server]:
    """We and Postfix, with the same certificate."""
    folder.mkdir(parents=True)
    pair = Authority(folder).issue(
        "relay.bench.test", algorithm="rsa" if key == "RSA-2048" else "ecdsa"
    )
    return [
        Ours(folder / "ours", sink_port=sink_port, pair=pair),
        Postfix(folder / "postfix", sink_port, pair=pair),
    ]


@contextlib.contextmanager
def source(
    port: int, cell: Cell, messages: int, reports: list[Report] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """As that of :mod:`.load`, over TLS 1.3.

    :param reports: the client's is added.
    """
    load = Load(port, cell.sessions, messages, cell.size_octets, cell.is_reusing)
    with sending(load, [] if reports is None else reports) as process:
        yield process


@contextlib.contextmanager
def sending(load: Load, reports: list[Report]) -> Iterator[subprocess.Popen[bytes]]:
    """A load that begins now; it is ended at the end, should it still run.

    :raise RuntimeError: the client could not be started, or complains.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "bench.tls_client", json.dumps(attrs.asdict(load))],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdout.readline()  # that it is ready
            process.stdin.write(b"go\n")
            process.stdin.flush()
            yield process
            if process.wait(LIMIT_S):
                raise RuntimeError(f"the client says {process.stderr.read().decode().strip()!r}")
            reports.append(Report(**json.loads(process.stdout.read())))
        finally:
            if process.poll() is None:
                process.kill()


def is_as_meant(report: Report, shake: Shake, count: int) -> bool:
    """Whether all handshakes were made, full or resumed; the first of each session has to be full."""
    least, most = (count - SESSIONS, count) if shake.is_resumed else (0, 0)
    wanted = count if shake.version else 0
    return report.count == count and report.handshakes == wanted and least <= report.resumed <= most


def _shake(server: Server, shake: Shake, count: int) -> tuple[Shaken, Sequence[str]]:
    """So many connections.

    :raise RuntimeError: they did not all go as they should.
    """
    load = Load(server.port, SESSIONS, count, version=shake.version, is_resuming=shake.is_resumed)
    before, reports = cpu_s(server.roots), list[Report]()
    with sending(load, reports):
        pass
    time.sleep(SETTLE_S)
    used, [report] = cpu_s(server.roots) - before, reports
    if not is_as_meant(report, shake, count):
        raise RuntimeError(f"{server.name}, {shake}: {report}")
    each_ms = 1000 / count
    return Shaken(count / report.seconds, used * each_ms, report.cpu_s * each_ms), report.ciphers


def _relay_sheet(results: Results) -> Sheet:
    rows = []
    for cell, name in itertools.product(CELLS, NAMES):
        turns = results.relayed[cell, name]
        relayed = [one.run.relayed_per_s for one in turns]
        rows.append(
            (
                cell.short if name == NAMES[0] else "",
                name,
                f"{statistics.median(one.run.accepted_per_s for one in turns):.0f}",
                spread(relayed).text(),
                "" if name == NAMES[-1] else ratios(relayed, _relayed(results, cell)).text(1),
                f"{statistics.median(one.run.cpu_s_per_1000 for one in turns):.2f}",
                f"{statistics.median(one.client_cpu_s_per_1000 for one in turns):.2f}",
                megabytes(statistics.median(one.run.pss_octets for one in turns)),
            )
        )
    titles = ("load", "server", "accept/s", "relay/s", "times", "CPU s/1000", "client's", "PSS MB")
    return Sheet("Relay rates over STARTTLS: median (range)", titles, rows, keys=2)


def _shake_sheet(results: Results) -> Sheet:
    rows = []
    for shake, name in itertools.product(SHAKES, NAMES):
        turns = results.shaken[shake, name]
        rates = [one.per_s for one in turns]
        rows.append(
            (
                str(shake) if name == NAMES[0] else "",
                name,
                spread(rates).text(),
                "" if name == NAMES[-1] else ratios(rates, _shaken(results, shake)).text(1),
                spread([one.cpu_ms for one in turns]).text(2),
                spread([one.client_cpu_ms for one in turns]).text(2),
            )
        )
    titles = ("handshake", "server", "connections/s", "times", "CPU ms each", "client's")
    return Sheet("Connections without mail, 20 at a time: median (range)", titles, rows, keys=2)


def _relayed(results: Results, cell: Cell) -> list[float]:
    """Postfix's rates."""
    return [one.run.relayed_per_s for one in results.relayed[cell, NAMES[-1]]]


def _shaken(results: Results, shake: Shake) -> list[float]:
    return [one.per_s for one in results.shaken[shake, NAMES[-1]]]


def _cells(plan: Plan, results: Results) -> list[dict[str, object]]:
    """By cell and server, as the relay scenario keeps them, and the client's time."""
    found: list[dict[str, object]] = []
    for cell, name in itertools.product(CELLS, NAMES):
        turns = results.relayed[cell, name]
        runs = [one.run for one in turns]
        relayed = [one.relayed_per_s for one in runs]
        client = [one.client_cpu_s_per_1000 for one in turns]
        found.append(
            {
                "server": name,
                **attrs.asdict(cell),
                "messages": plan.messages_of(cell),
                "relayed_per_s": attrs.asdict(spread(relayed)),
                "accepted_per_s": attrs.asdict(spread([one.accepted_per_s for one in runs])),
                "times": attrs.asdict(ratios(relayed, _relayed(results, cell))),
                "cpu_s_per_1000": attrs.asdict(spread([one.cpu_s_per_1000 for one in runs])),
                "client_cpu_s_per_1000": attrs.asdict(spread(client)),
                "pss_octets": attrs.asdict(spread([one.pss_octets for one in runs])),
                "runs": [attrs.asdict(one) for one in turns],
            }
        )
    return found


def _handshakes(results: Results) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for shake, name in itertools.product(SHAKES, NAMES):
        turns = results.shaken[shake, name]
        rates = [one.per_s for one in turns]
        found.append(
            {
                "server": name,
                **attrs.asdict(shake),
                "per_s": attrs.asdict(spread(rates)),
                "times": attrs.asdict(ratios(rates, _shaken(results, shake))),
                "cpu_ms": attrs.asdict(spread([one.cpu_ms for one in turns])),
                "client_cpu_ms": attrs.asdict(spread([one.client_cpu_ms for one in turns])),
                "runs": [attrs.asdict(one) for one in turns],
            }
        )
    return found
