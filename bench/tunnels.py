"""A relay server and its agents: rates, latency and memory; big mail; deaf agents; all come at once.

The agents are :mod:`.agents`, a process whose processor time is told apart.  The same server relays
the same number of messages to smtp-sink in the same rounds: what a tunnel costs is the ratio.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from typing import Final

import attrs

from .agents import Plan as AgentsPlan
from .agents import identity
from .bench import Bench
from .figures import Latency, latency, matched, megabytes, ratios, spread
from .load import SETTLE_S, Cell, Sink, measure, send, sinking, source
from .machine import free_port, raise_descriptors, require
from .paced import TAIL_S, Sent, send_paced
from .processes import Memory, Peak, memory, own_cpu_s, tree
from .report import Sheet, Steps, steps
from .servers import Server, running, wait_quiet
from .tunnel_servers import DOMAIN, NUMBERED, PACED, Agents, Gateway, RelayServer

RELAY: Final = "smtp-sink, by SMTP"
KINDS: Final = {"reliable agents": True, "original agents": False}
"""Where mail goes beside :data:`RELAY`, and whether those sessions are reliable."""

SIZE_OCTETS: Final = 4096
FILLING: Final = Cell(1, 262_144, True)
FILLINGS: Final = 20
"""So many of those messages to a deaf agent first: 5 MB, which no buffer of the kernel has room for."""

LIMIT_S: Final = 300.0
PEAK_EVERY_S: Final = 0.5

to_agents = functools.partial(source, recipient=f"{NUMBERED}@{DOMAIN}", is_numbered=True)
"""A load with a recipient of its own for each message."""


@attrs.frozen
class Plan:
    """What to measure.

    :ivar messages: a turn, to all agents evenly; as many are held for those who come all at once.
    :ivar sessions: of SMTP, by which they come.
    :ivar seconds: of the paced load, at most; it is of ``share`` of the rate just measured.
    :ivar others: so many agents are there when the first ``deaf`` of them read nothing.
    :ivar per_s: messages to those, all together.
    """

    rounds: int = 3
    agents: int = 1000
    messages: int = 10_000
    sessions: int = 20
    share: float = 0.5
    seconds: float = 15.0
    big_octets: int = 50_000_000
    others: int = 100
    deaf: int = 10
    per_s: float = 200.0


@attrs.frozen
class Cost:
    """Of one load, for a thousand messages.

    :ivar main_cpu_s: of the service's main process; ``delivery_cpu_s`` of its others.
    :ivar sink_cpu_s: of who gets the messages, which is no part of the service.
    """

    per_s: float
    main_cpu_s: float
    delivery_cpu_s: float
    sink_cpu_s: float


@attrs.frozen
class Turn:
    """Mail to all agents.

    :ivar cost: ``per_s`` is until the last agent has acknowledged its last.
    :ivar without: memory before they come; ``idle`` once they are there.
    :ivar arrival: from the final dot to the arrival at the agent; ``accept`` to the 250.
    :ivar late_p99_ms: how long messages were due before they could be sent.
    :ivar surplus: messages that came once more.
    """

    cost: Cost
    without: Memory
    idle: Memory
    peak: Memory
    paced_per_s: float
    arrival: Latency
    accept: Latency
    late_p99_ms: float
    surplus: int


@attrs.frozen
class Big:
    """A large message, by which way.

    :ivar accepted_s: until the load tool had its 250; ``delivered_s`` until it was there.
    """

    accepted_s: float
    delivered_s: float
    relay_before: Memory
    relay_peak: Memory
    gateway_before: Memory
    gateway_peak: Memory


@attrs.frozen
class Storm:
    """Everybody logs in at once after a restart, with mail held for all.

    :ivar started_s: from the start to the banner, with that mail in the spool.
    :ivar logins_s: until the last one was in; ``mail_s`` until the last message had come.
    """

    started_s: float
    logins_s: float
    mail_s: float
    main_cpu_s: float
    agents_cpu_s: float
    surplus: int


def run(bench: Bench, plan: Plan) -> None:
    require("smtp-source", "smtp-sink", "twistd")
    raise_descriptors(plan.agents + 2000)
    relayed: list[Cost] = []
    turns: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    with steps(plan.rounds * 3 + 5) as progress:
        configurations = _rates(bench, plan, progress, relayed, turns)
        big = _big(bench, plan, progress, configurations)
        hearing = _hearing(bench, plan, progress)
        storm = _storm(bench, plan, progress)
    bench.finish(
        "tunnels",
        plan,
        [
            _rate_sheet(plan, relayed, turns),
            _memory_sheet(plan, turns),
            _big_sheet(plan, big),
            _hearing_sheet(plan, hearing),
            _storm_sheet(plan, storm),
        ],
        configurations=configurations,
        relayed=list(map(attrs.asdict, relayed)),
        turns={kind: list(map(attrs.asdict, found)) for kind, found in turns.items()},
        big={way: attrs.asdict(one) for way, one in big.items()},
        hearing={who: attrs.asdict(one) for who, one in hearing.items()},
        storm=attrs.asdict(storm),
    )


# --- mail to everybody ---------------------------------------------------------------------------


def _rates(
    bench: Bench,
    plan: Plan,
    progress: Steps,
    relayed: list[Cost],
    turns: dict[str, list[Turn]],
) -> dict[str, str]:
    """Fill both in.  :return: the configuration of the server."""
    server, port = _relay_server(bench, plan, "rates")
    bench.configuration(server)
    cell = Cell(plan.sessions, SIZE_OCTETS, True)
    with running(server), sinking(port) as sink:
        measure(server, sink, cell, min(300, plan.messages))
        for number in range(plan.rounds):
            ways = [RELAY, *KINDS]
            for way in ways if number % 2 == 0 else reversed(ways):
                progress.next(f"round {number + 1}: {plan.messages} messages to {way}")
                if way == RELAY:
                    relayed.append(_relay(plan, server, sink))
                else:
                    turns[way].append(_turn(bench, plan, server, is_reliable=KINDS[way]))
    return {server.name: server.configuration}


def _relay_server(bench: Bench, plan: Plan, name: str) -> tuple[RelayServer, int]:
    """With the port of the sink that is its smarthost."""
    port = free_port()
    names = max(plan.messages, round(plan.per_s * plan.seconds))
    server = RelayServer(bench.folder / name, agents=plan.agents, names=names, sink_port=port)
    return server, port


class _Meter:
    """Processor time from when it is made on."""

    def __init__(self, server: Server, sink_pid: int) -> None:
        self._server = server
        self._sink_pid = sink_pid
        self._before = self._now()

    def _now(self) -> tuple[float, float, float]:
        [root] = self._server.roots
        others = sum(own_cpu_s(pid) for pid in tree([root]) if pid != root)
        return own_cpu_s(root), others, own_cpu_s(self._sink_pid)

    def cost(self, messages: int, seconds: float) -> Cost:
        main, delivery, sink = (
            (now - before) * 1000 / messages
            for now, before in zip(self._now(), self._before, strict=True)
        )
        return Cost(messages / seconds, main, delivery, sink)


def _relay(plan: Plan, server: RelayServer, sink: Sink) -> Cost:
    meter = _Meter(server, sink.pid)
    found = measure(server, sink, Cell(plan.sessions, SIZE_OCTETS, True), plan.messages, LIMIT_S)
    return meter.cost(plan.messages, plan.messages / found.relayed_per_s)


def _turn(bench: Bench, plan: Plan, server: RelayServer, *, is_reliable: bool) -> Turn:
    without = memory(server.roots)
    everybody = AgentsPlan(server.http_port, plan.agents, is_reliable)
    with Agents(everybody, bench.folder) as agents:
        agents.connect()
        wait_quiet(server)
        idle = memory(server.roots)
        with Peak(server.roots, PEAK_EVERY_S) as peak:
            meter, began = _Meter(server, agents.pid), time.monotonic()
            send_all(plan, server)
            ended = agents.wait("mail", plan.messages, LIMIT_S)
            time.sleep(SETTLE_S)
            cost = meter.cost(plan.messages, ended - began)
        per_s = cost.per_s * plan.share
        sent, late = _paced(server, per_s, min(plan.seconds, plan.messages / per_s))
        agents.wait("mail", plan.messages + len(sent.accepted), TAIL_S)
        told = agents.told
    return Turn(
        cost,
        without,
        idle,
        peak.memory,
        per_s,
        latency(matched(sent.dots, told.mail)),
        latency(matched(sent.dots, sent.accepted)),
        late.p99_ms,
        told.surplus,
    )


def send_all(plan: Plan, server: Server) -> float:
    """Every message of a turn.  :return: seconds until the load tool had its last 250."""
    return send(server, Cell(plan.sessions, SIZE_OCTETS, True), plan.messages, LIMIT_S, to_agents)


def _paced(server: Server, per_s: float, seconds: float) -> tuple[Sent, Latency]:
    """Mail to all agents in turn, and how late it was.

    :raise RuntimeError: something was refused.
    """
    sent = send_paced(
        server.port, per_s=per_s, seconds=seconds, domain=lambda _: DOMAIN, prefix=PACED
    )
    if sent.refused:
        raise RuntimeError(f"{server.name} said {sent.refused[0]!r}")
    return sent, latency(sent.late_s)


# --- large mail ----------------------------------------------------------------------------------


def _big(
    bench: Bench, plan: Plan, progress: Steps, configurations: dict[str, str]
) -> dict[str, Big]:
    """One large message to a gateway, and one from it."""
    relay, port = _relay_server(bench, plan, "big-relay")
    gateway = Gateway(bench.folder / "big-gateway", relay)
    bench.configuration(gateway)
    configurations[gateway.name] = gateway.configuration
    inwards = functools.partial(source, recipient=gateway.address)
    outwards = functools.partial(source, sender=gateway.address)
    small, cell = Cell(5, SIZE_OCTETS, True), Cell(1, plan.big_octets, True)
    found: dict[str, Big] = {}
    with sinking(port) as sink, running(relay, gateway):
        send(relay, small, 100, LIMIT_S, inwards)  # what they need at all
        gateway.wait(100, LIMIT_S)
        send(gateway, small, 100, LIMIT_S, outwards)
        sink.wait(100, LIMIT_S)
        for way in ("to the gateway", "from the gateway"):
            progress.next(f"{megabytes(plan.big_octets)} MB {way}")
            before = memory(relay.roots), memory(gateway.roots)
            with Peak(relay.roots) as relay_peak, Peak(gateway.roots) as gateway_peak:
                began = time.perf_counter()
                if way == "to the gateway":
                    accepted_s = send(relay, cell, 1, LIMIT_S, inwards)
                    gateway.wait(101, LIMIT_S)
                else:
                    accepted_s = send(gateway, cell, 1, LIMIT_S, outwards)
                    sink.wait(101, LIMIT_S)
                delivered_s = time.perf_counter() - began
            found[way] = Big(
                accepted_s,
                delivered_s,
                before[0],
                relay_peak.memory,
                before[1],
                gateway_peak.memory,
            )
    return found


# --- deaf agents ---------------------------------------------------------------------------------


def _hearing(bench: Bench, plan: Plan, progress: Steps) -> dict[str, Latency]:
    """From the final dot to the arrival at agents that read, with and without others that do not."""
    found: dict[str, Latency] = {}
    for who, deaf in (("all read", 0), (f"{plan.deaf} read nothing", plan.deaf)):
        progress.next(f"{plan.others} agents: {who}")
        server, _ = _relay_server(bench, attrs.evolve(plan, agents=plan.others), f"hearing-{deaf}")
        some = AgentsPlan(server.http_port, plan.others, deaf=deaf)
        with running(server), Agents(some, bench.folder) as agents:
            agents.connect()
            _fill(server, deaf)
            _paced(server, plan.per_s, 1.0)
            wait_quiet(server)
            agents.look()
            agents.told.mail.clear()  # the names come again
            sent, _ = _paced(server, plan.per_s, plan.seconds)
            dots = {
                name: at
                for name, at in sent.dots.items()
                if int(name.removeprefix(PACED)) % plan.others >= plan.deaf
            }
            agents.wait("mail", sum(name in sent.accepted for name in dots), TAIL_S)
            time.sleep(SETTLE_S)
            agents.look()
            found[who] = latency(matched(dots, agents.told.mail))
            if found[who].count < len(dots):
                raise RuntimeError(f"{len(dots) - found[who].count} messages did not arrive")
    return found


def _fill(server: RelayServer, deaf: int) -> None:
    for number in range(deaf):
        to_one = functools.partial(source, recipient=f"{identity(number)}@{DOMAIN}")
        send(server, FILLING, FILLINGS, LIMIT_S, to_one)


# --- all at once ---------------------------------------------------------------------------------


def _storm(bench: Bench, plan: Plan, progress: Steps) -> Storm:
    progress.next(f"{plan.agents} agents come at once, {plan.messages} messages are held for them")
    server, _ = _relay_server(bench, plan, "storm")
    everybody = AgentsPlan(server.http_port, plan.agents)
    with running(server), Agents(everybody, bench.folder) as agents:
        send_all(plan, server)
        server.stop()
        started_at = time.perf_counter()
        server.start()
        started_s = time.perf_counter() - started_at
        wait_quiet(server)
        meter, began = _Meter(server, agents.pid), agents.go()
        logins_s = agents.wait("login", plan.agents, LIMIT_S) - began
        mail_s = agents.wait("mail", plan.messages, LIMIT_S) - began
        time.sleep(SETTLE_S)
        cost = meter.cost(1000, mail_s)  # of all together, not of a thousand
        agents.look()
        surplus = agents.told.surplus
    return Storm(started_s, logins_s, mail_s, cost.main_cpu_s, cost.sink_cpu_s, surplus)


# --- what is shown -------------------------------------------------------------------------------


def _rate_sheet(plan: Plan, relayed: Sequence[Cost], turns: dict[str, list[Turn]]) -> Sheet:
    theirs = [one.per_s for one in relayed]
    rows = [(RELAY, *_costs(relayed), "", "", "", "", "")]
    for kind, found in turns.items():
        costs = [one.cost for one in found]
        rows.append(
            (
                kind,
                *_costs(costs),
                ratios([one.per_s for one in costs], theirs).text(2),
                spread([one.arrival.p50_ms for one in found]).text(1),
                spread([one.arrival.p95_ms for one in found]).text(1),
                spread([one.arrival.p99_ms for one in found]).text(1),
                str(sum(one.surplus for one in found)),
            )
        )
    titles = (
        "to", "per s", "main CPU s/1000", "delivery", "receivers'", "times",
        "p50 ms", "p95 ms", "p99 ms", "surplus",
    )  # fmt: skip
    text = f"{plan.messages} messages of 4 KB to {plan.agents} agents; latency at {plan.share:.0%}"
    return Sheet(f"{text} of the rate: median (range)", titles, rows)


def _costs(costs: Sequence[Cost]) -> tuple[str, ...]:
    return (
        spread([one.per_s for one in costs]).text(),
        spread([one.main_cpu_s for one in costs]).text(2),
        spread([one.delivery_cpu_s for one in costs]).text(2),
        spread([one.sink_cpu_s for one in costs]).text(2),
    )


def _memory_sheet(plan: Plan, turns: dict[str, list[Turn]]) -> Sheet:
    rows = [
        (
            kind,
            megabytes(statistics.median(one.without.pss for one in found)),
            megabytes(statistics.median(one.idle.pss for one in found)),
            f"{(found[0].idle.pss - found[0].without.pss) / plan.agents / 1000:.1f}",
            megabytes(max(one.peak.pss for one in found)),
        )
        for kind, found in turns.items()
    ]
    titles = ("sessions", "PSS without MB", "idle MB", "KB each, first", "peak MB")
    return Sheet(f"Memory with {plan.agents} sessions", titles, rows)


def _big_sheet(plan: Plan, big: dict[str, Big]) -> Sheet:
    rows = [
        (
            way,
            f"{one.accepted_s:.2f}",
            f"{one.delivered_s:.2f}",
            megabytes(one.relay_before.pss),
            megabytes(one.relay_peak.pss),
            megabytes(one.gateway_before.pss),
            megabytes(one.gateway_peak.pss),
        )
        for way, one in big.items()
    ]
    titles = (
        "way", "accepted s", "delivered s", "relay PSS MB", "peak", "gateway PSS MB", "peak",
    )  # fmt: skip
    return Sheet(f"One message of {megabytes(plan.big_octets)} MB", titles, rows)


def _hearing_sheet(plan: Plan, hearing: dict[str, Latency]) -> Sheet:
    rows = [
        (who, f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.worst_ms:.1f}")
        for who, one in hearing.items()
    ]
    title = f"{plan.others} agents, {plan.per_s:.0f} messages a second; those that read"
    return Sheet(title, ("agents", "p50 ms", "p95 ms", "p99 ms", "worst ms"), rows)


def _storm_sheet(plan: Plan, storm: Storm) -> Sheet:
    row = (
        f"{plan.agents} agents",
        f"{storm.started_s:.2f}",
        f"{storm.logins_s:.2f}",
        f"{plan.agents / storm.logins_s:.0f}",
        f"{storm.mail_s:.2f}",
        f"{plan.messages / storm.mail_s:.0f}",
        f"{storm.main_cpu_s:.2f}",
        f"{storm.agents_cpu_s:.2f}",
        str(storm.surplus),
    )
    titles = (
        "come at once", "banner s", "all in s", "logins/s", "all mail s", "mail/s", "main CPU s",
        "agents'", "surplus",
    )  # fmt: skip
    return Sheet(f"{plan.messages} messages held over a restart", titles, [row])
