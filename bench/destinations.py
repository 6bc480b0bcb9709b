"""Many destinations, a few of them dead or slow: do the healthy ones suffer?

Each destination is a domain with an MX host of its own on 127.1.0.0/16, found through a name server
of ours.  A dead one refuses connections or accepts them and says nothing; a slow one takes 3 s for
each answer.  The same load is sent with all of them well, and then with some ill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import attrs

from protege_mta.testing.nameserver import NameServer

from . import configurations
from .bench import Bench
from .figures import Latency, latency, matched, megabytes, spread
from .machine import free_port, require
from .paced import TAIL_S, TimingSink, send_paced
from .processes import memory
from .report import Sheet, steps
from .servers import Ours, running

Kind = Literal["good", "slow", "silent", "refusing"]


@attrs.frozen
class Plan:
    """:ivar refusing: so many destinations refuse connections; ``silent`` and ``slow`` likewise.
    :ivar per_s: messages to all together.
    """

    rounds: int = 3
    destinations: int = 100
    refusing: int = 4
    silent: int = 3
    slow: int = 3
    per_s: float = 300.0
    seconds: float = 20.0

    def kinds(self, is_ill: bool) -> list[Kind]:
        """Of each destination; the healthy ones are the same either way."""
        counts: dict[Kind, int] = {
            "refusing": self.refusing,
            "silent": self.silent,
            "slow": self.slow,
            "good": self.destinations - self.ill,
        }
        if not is_ill:
            counts = {"good": self.destinations}
        return [kind for kind, count in counts.items() for _ in range(count)]

    @property
    def ill(self) -> int:
        return self.refusing + self.silent + self.slow


@attrs.frozen
class Turn:
    """:ivar healthy: from the final dot to the 250 of destinations that are well either way.
    :ivar lost: messages to those that did not arrive while we waited.
    """

    healthy: Latency
    lost: int
    rss_octets: int


def run(bench: Bench, plan: Plan) -> None:
    require("nsd", "twistd")
    results: dict[str, list[Turn]] = {"all well": [], f"{plan.ill} ill": []}
    configuration = ""
    with steps(plan.rounds * 2) as progress:
        for number in range(plan.rounds):
            for title, turns in results.items():
                progress.next(f"round {number + 1}: {title}")
                kinds = plan.kinds(title != "all well")
                with _running(bench, kinds, f"{number}-{title}") as (server, hop):
                    if not configuration:
                        configuration = server.configuration
                        bench.configuration(server)
                    turns.append(_turn(plan, server, hop))
    bench.finish(
        "destinations",
        plan,
        [_sheet(plan, results)],
        configuration=configuration,
        turns={title: list(map(attrs.asdict, turns)) for title, turns in results.items()},
    )


def address(number: int) -> str:
    """Of a destination's MX host."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def zone(count: int) -> str:
    """A master file with so many destinations, ``d0.test`` and so on."""
    lines = ["$ORIGIN .", "$TTL 3600", ". SOA ns.test. admin.test. 1 3600 600 86400 60"]
    lines.append(". NS ns.test.")
    lines.append("ns.test. A 127.0.0.1")
    for number in range(count):
        lines.append(f"d{number}.test. MX 10 mx.d{number}.test.")
        lines.append(f"mx.d{number}.test. A {address(number)}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _running(bench: Bench, kinds: list[Kind], name: str) -> Iterator[tuple[Ours, TimingSink]]:
    port = free_port("127.0.0.1")
    listening = {address(number): kind for number, kind in enumerate(kinds) if kind != "refusing"}
    with (
        NameServer(zone(len(kinds))) as names,
        TimingSink(port, bench.folder, listening) as hop,
    ):
        server = Ours(
            bench.folder / name.replace(" ", "-"),
            configurations.MX,
            sink_port=port,
            dns_port=names.port,
        )
        with running(server):
            yield server, hop


def _turn(plan: Plan, server: Ours, hop: TimingSink) -> Turn:
    to: Callable[[int], str] = lambda number: f"d{number % plan.destinations}.test"  # noqa: E731
    # Every host is met once before the clock runs: DNS and connections are made anyhow.
    send_paced(server.port, per_s=plan.per_s, seconds=1.0, domain=to, prefix="w")
    sent = send_paced(server.port, per_s=plan.per_s, seconds=plan.seconds, domain=to)
    if sent.refused:
        raise RuntimeError(f"{server.name} said {sent.refused[0]!r}")
    dots = {
        name: at for name, at in sent.dots.items() if int(name[1:]) % plan.destinations >= plan.ill
    }
    arrived = hop.wait(frozenset(dots), TAIL_S)
    return Turn(
        latency(matched(dots, arrived)),
        len(dots.keys() - arrived.keys()),
        memory(server.roots).rss,
    )


def _sheet(plan: Plan, results: dict[str, list[Turn]]) -> Sheet:
    rows = [
        (
            title,
            spread([one.healthy.p50_ms for one in turns]).text(1),
            spread([one.healthy.p95_ms for one in turns]).text(1),
            spread([one.healthy.p99_ms for one in turns]).text(1),
            str(sum(one.lost for one in turns)),
            megabytes(spread([one.rss_octets for one in turns]).median),
        )
        for title, turns in results.items()
    ]
    titles = ("destinations", "p50 ms", "p95 ms", "p99 ms", "lost", "RSS MB")
    what = f"{plan.destinations} destinations, {plan.per_s:.0f}/s"
    return Sheet(f"Delivery to the healthy of {what}: median (range)", titles, rows)
