"""From the client's final dot to the next hop's acceptance, at half of each server's peak rate."""

from __future__ import annotations

import attrs

from .bench import Bench
from .figures import Latency, latency, matched, spread
from .load import Cell, measure, sinking
from .machine import free_port, require
from .paced import TAIL_S, TimingSink, send_paced
from .report import Sheet, Steps, steps
from .servers import Ours, Postfix, Server, running

LOAD = Cell(20, 4096, True)


@attrs.frozen
class Plan:
    """:ivar share: of the peak rate that was measured just before.
    :ivar messages: to find the peak.
    :ivar seconds: of the paced load.
    """

    rounds: int = 3
    messages: int = 3000
    seconds: float = 20.0
    share: float = 0.5


@attrs.frozen
class Paced:
    """One turn of one server.

    :ivar relay: from the final dot to the next hop's 250.
    :ivar accept: from the final dot to the server's own 250.
    :ivar late_p99_ms: how long messages were due before they could be sent; where that is not
        small, the load was lighter than meant.
    :ivar lost: messages that were accepted and did not arrive while we waited.
    """

    peak_per_s: float
    per_s: float
    relay: Latency
    accept: Latency
    late_p99_ms: float
    lost: int


def run(bench: Bench, plan: Plan) -> None:
    require("postfix", "smtp-source", "smtp-sink", "twistd", root=True)
    results: dict[str, list[Paced]] = {}
    configurations: dict[str, str] = {}
    with steps(plan.rounds * 4) as progress:
        for number in range(plan.rounds):
            sink_port = free_port()
            folder = bench.folder / str(number)
            servers: list[Server] = [
                Ours(folder / "ours", sink_port=sink_port),
                Postfix(folder / "postfix", sink_port),
            ]
            for server in servers if number % 2 == 0 else reversed(servers):
                if server.name not in configurations:
                    configurations[server.name] = server.configuration
                    bench.configuration(server)
                with running(server):
                    found = _turn(bench, plan, server, sink_port, progress)
                results.setdefault(server.name, []).append(found)
    bench.finish(
        "latency",
        plan,
        [_sheet(plan, results)],
        configurations=configurations,
        servers={name: list(map(attrs.asdict, turns)) for name, turns in results.items()},
    )


def _turn(bench: Bench, plan: Plan, server: Server, sink_port: int, progress: Steps) -> Paced:
    progress.next(f"{server.name}: its peak")
    with sinking(sink_port) as sink:
        measure(server, sink, LOAD, min(300, plan.messages))
        peak = measure(server, sink, LOAD, plan.messages).relayed_per_s
    per_s = peak * plan.share
    progress.next(f"{server.name}: {per_s:.0f} messages a second for {plan.seconds:.0f} s")
    with TimingSink(sink_port, bench.folder, {"127.0.0.1": "good"}) as hop:
        sent = send_paced(server.port, per_s=per_s, seconds=plan.seconds)
        arrived = hop.wait(frozenset(sent.accepted), TAIL_S)
    if sent.refused:
        raise RuntimeError(f"{server.name} said {sent.refused[0]!r}")
    return Paced(
        peak,
        per_s,
        latency(matched(sent.dots, arrived)),
        latency(matched(sent.dots, sent.accepted)),
        latency(sent.late_s).p99_ms,
        len(sent.accepted.keys() - arrived.keys()),
    )


def _sheet(plan: Plan, results: dict[str, list[Paced]]) -> Sheet:
    rows = [
        (
            name,
            spread([one.per_s for one in turns]).text(),
            spread([one.relay.p50_ms for one in turns]).text(1),
            spread([one.relay.p95_ms for one in turns]).text(1),
            spread([one.relay.p99_ms for one in turns]).text(1),
            spread([one.accept.p99_ms for one in turns]).text(1),
            spread([one.late_p99_ms for one in turns]).text(1),
            str(sum(one.lost for one in turns)),
        )
        for name, turns in results.items()
    ]
    titles = ("server", "sent/s", "p50 ms", "p95 ms", "p99 ms", "accept p99", "late p99", "lost")
    title = f"Final dot to the next hop's 250, at {plan.share:.0%} of the peak: median (range)"
    return Sheet(title, titles, rows)
