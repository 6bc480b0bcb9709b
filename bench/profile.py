"""Where the time goes: processor time, waiting and switches of each part, and what two of us do.

By thread for this program, by program for Postfix, and for the load tools; all from the kernel's
scheduler, a message: 4 KB and 64 KB, and 4 KB signed with RSA-2048, beside what such a signature
takes by itself.  Then the same load through two services of ours side by side, which share nothing:
what they relay together is the most that any division of the work could bring on this machine.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from protege_mta.dkim import keys

from . import configurations
from .bench import Bench
from .figures import Spread, spread
from .load import Cell, Sink, Source, send, sinking, source
from .machine import free_port, require
from .processes import own_cpu_s, tree
from .report import Sheet, steps
from .servers import Ours, Postfix, Server, running

ALONE: Final = '[workers]\ndelivery = "main"\n'
SMALL: Final = (Cell(20, 4096, True), Cell(20, 4096, False))
BIG: Final = (Cell(20, 65536, True), Cell(20, 65536, False))
SIGNATURES: Final = 1000
READY_S: Final = 2.0
"""What a delivery process takes to be there."""


@attrs.frozen
class Plan:
    """:ivar messages: a turn.  :ivar rounds: of the comparison with two services."""

    messages: int = 4000
    rounds: int = 5


@attrs.frozen
class Time:
    """Of some threads; of one message, once divided.

    :ivar run_ms: on a processor, in the kernel too.
    :ivar wait_ms: ready to run, and no processor free.
    :ivar gave_way: switches by its own will, having to wait for something.
    :ivar was_moved: switches because somebody else had the better claim.
    """

    run_ms: float = 0.0
    wait_ms: float = 0.0
    gave_way: float = 0.0
    was_moved: float = 0.0

    def plus(self, other: Time, times: float = 1.0) -> Time:
        return Time(
            *(
                mine + times * its
                for mine, its in zip(attrs.astuple(self), attrs.astuple(other), strict=True)
            )
        )


def run(bench: Bench, plan: Plan) -> None:
    require("postfix", "smtp-source", "smtp-sink", "opendkim", "twistd", root=True)
    sink_port = free_port()
    ours = Ours(bench.folder / "ours", sink_port=sink_port)
    alone = Ours(bench.folder / "alone", configurations.RELAY + ALONE, sink_port=sink_port)
    second = Ours(bench.folder / "second", configurations.RELAY + ALONE, sink_port=sink_port)
    alone.name = "protege-mta, one process"
    postfix = Postfix(bench.folder / "postfix", sink_port)
    signing = Ours(bench.folder / "signing", signing=("rsa",), sink_port=sink_port)
    opendkim = Postfix(bench.folder / "opendkim", sink_port, is_signing=True)
    subjects: Sequence[tuple[Server, Sequence[Cell]]] = (
        (ours, (*SMALL, *BIG)),
        (alone, SMALL),
        (postfix, (*SMALL, *BIG)),
        (signing, SMALL),
        (opendkim, SMALL),
    )
    for server, _ in subjects:
        bench.configuration(server)
    parts: dict[str, dict[str, Time]] = {}
    rates: dict[str, dict[str, list[float]]] = {}
    with (
        steps(sum(len(cells) for _, cells in subjects) + len(SMALL) * plan.rounds) as progress,
        running(ours, alone, second, postfix, signing, opendkim),
        sinking(sink_port) as sink,
    ):
        time.sleep(READY_S)
        for server in (*(one for one, _ in subjects), second):
            _together([server], SMALL[0], 300, sink)
        for server, cells in subjects:
            for cell in cells:
                progress.next(f"{server.name}: {cell}")
                messages = plan.messages // (2 if cell in BIG else 1)
                parts[f"{server.name}: {cell.short}"] = parts_of(server, cell, messages, sink)
        for cell, number in itertools.product(SMALL, range(plan.rounds)):
            progress.next(f"round {number + 1}, two beside one: {cell}")
            found = rates.setdefault(cell.each, defaultdict(list))
            for name, together in (
                ("one process", [alone]),
                ("with its delivery process", [ours]),
                ("two services, half the load each", [alone, second]),
            ):
                found[name].append(_together(together, cell, plan.messages, sink))
    signature_ms = _signature_ms()
    sheets = [parts_sheet(name, found) for name, found in parts.items()]
    spreads = {
        each: {name: spread(values) for name, values in found.items()}
        for each, found in rates.items()
    }
    bench.finish(
        "profile",
        plan,
        [*sheets, _signature_sheet(signature_ms), _rates_sheet(spreads)],
        configurations={server.name: server.configuration for server, _ in subjects},
        rsa_signature_ms=signature_ms,
        parts={
            name: {part: attrs.asdict(one) for part, one in found.items()}
            for name, found in parts.items()
        },
        relayed_per_s={
            each: {name: attrs.asdict(one) for name, one in found.items()}
            for each, found in spreads.items()
        },
    )


def _signature_ms() -> float:
    """Processor time of an RSA-2048 signature, with nothing around it."""
    key = keys.load(keys.generate_rsa(2048))
    began = time.process_time()
    for _ in range(SIGNATURES):
        key.sign(b"\0" * 32)
    return (time.process_time() - began) * 1000 / SIGNATURES


def _together(servers: Sequence[Server], cell: Cell, messages: int, sink: Sink) -> float:
    """Messages a second, relayed by all of them, each of which gets an equal part of the load."""
    share = attrs.evolve(cell, sessions=max(1, cell.sessions // len(servers)))
    each = messages // len(servers)
    already, began = sink.count(), time.perf_counter()
    sending = [threading.Thread(target=send, args=(one, share, each)) for one in servers]
    for one in sending:
        one.start()
    for one in sending:
        one.join()
    sink.wait(already + each * len(servers), 240.0)
    return each * len(servers) / (time.perf_counter() - began)


def parts_of(
    server: Server,
    cell: Cell,
    messages: int,
    sink: Sink,
    load: Source = source,
    name: str = "smtp-source",
) -> dict[str, Time]:
    """Who takes how much of one message.

    :param name: of what sends it.
    """
    before = {**_looked(server), **_threads(sink.pid, "smtp-sink")}
    already = sink.count()
    with load(server.port, cell, messages) as process:
        of_source = begun = _threads(process.pid, name)
        while process.poll() is None:
            of_source = _threads(process.pid, name) or of_source
            time.sleep(0.005)
    sink.wait(already + messages, 240.0)
    before.update(begun)  # what it took to start is no message's
    after = {**_looked(server), **_threads(sink.pid, "smtp-sink"), **of_source}
    found: dict[str, Time] = defaultdict(Time)
    for thread, (part, now) in after.items():
        _, then = before.get(thread, (part, Time()))
        found[part] = found[part].plus(now.plus(then, -1.0), 1.0 / messages)
    return dict(found)


def _looked(server: Server) -> dict[int, tuple[str, Time]]:
    """Every thread of a server, by its id: which part it belongs to, and its time so far."""
    root = server.roots[0]
    found: dict[int, tuple[str, Time]] = {}
    for pid in tree(server.roots):
        name = _comm(pid)
        if isinstance(server, Ours):
            name = "main process" if pid == root else "delivery process"
        threads = _threads(pid, name)
        for thread, (_, so_far) in threads.items():
            is_other = isinstance(server, Ours) and thread != pid
            found[thread] = f"{name}, other threads" if is_other else name, so_far
        # OpenDKIM has a thread a connection, and nothing tells of an ended one but the process.
        ended_ms = own_cpu_s(pid) * 1000 - sum(one.run_ms for _, one in threads.values())
        found[-pid] = name, Time(run_ms=max(0.0, ended_ms))
    return found


def _threads(pid: int, name: str) -> dict[int, tuple[str, Time]]:
    """The threads of a process; none where it is gone."""
    found: dict[int, tuple[str, Time]] = {}
    try:
        for folder in Path(f"/proc/{pid}/task").iterdir():
            thread = int(folder.name)
            run_ns, wait_ns, _ = map(int, (folder / "schedstat").read_text().split())
            lines = (folder / "status").read_text().splitlines()
            switches = dict(line.split(":", 1) for line in lines)
            found[thread] = (
                name,
                Time(
                    run_ns / 1e6,
                    wait_ns / 1e6,
                    int(switches["voluntary_ctxt_switches"]),
                    int(switches["nonvoluntary_ctxt_switches"]),
                ),
            )
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def parts_sheet(title: str, parts: Mapping[str, Time]) -> Sheet:
    total = Time()
    for one in parts.values():
        total = total.plus(one)
    ordered = sorted(parts.items(), key=lambda item: -item[1].run_ms)
    rows = [
        (
            name,
            f"{one.run_ms:.3f}",
            f"{one.wait_ms:.3f}",
            f"{one.gave_way:.2f}",
            f"{one.was_moved:.2f}",
        )
        for name, one in [*ordered, ("all", total)]
        if one.run_ms >= 0.001
    ]
    titles = ("a message takes", "run ms", "wait ms", "gave way", "was moved")
    return Sheet(f"{title} a connection", titles, rows)


def _signature_sheet(ms: float) -> Sheet:
    return Sheet("An RSA-2048 signature by itself", ("run ms",), [(f"{ms:.3f}",)])


def _rates_sheet(rates: Mapping[str, Mapping[str, Spread]]) -> Sheet:
    rows = [
        (each if number == 0 else "", name, one.text())
        for each, found in rates.items()
        for number, (name, one) in enumerate(found.items())
    ]
    titles = ("messages a connection", "protege-mta", "relay/s")
    return Sheet("What more processes would bring: median (range)", titles, rows, keys=2)
