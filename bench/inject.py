"""Injection over HTTP beside our own SMTP: the same messages, the same server, in turns."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from protege_mta.model.apikey import SECRET_OCTETS, ApiKey, KeySecret, fingerprint, secret_text
from protege_mta.state import apikeys
from protege_mta.state.database import connect

from . import configurations
from .bench import Bench
from .figures import spread
from .load import Cell, Run, Source, measure, sinking, source
from .machine import free_port, require
from .report import Sheet, steps
from .servers import Ours, running

SEEN_S: Final = 1.5
"""A running service sees a new key within a second."""


@attrs.frozen
class Plan:
    """:ivar messages: a turn.
    :ivar batch: of the batch form.
    """

    rounds: int = 5
    messages: int = 4000
    sessions: int = 20
    size_octets: int = 4096
    batch: int = 100


def run(bench: Bench, plan: Plan) -> None:
    require("smtp-source", "smtp-sink", "twistd", root=True)
    folder, sink_port, http_port = bench.folder / "ours", free_port(), free_port()
    server = Ours(folder, configurations.INJECT, sink_port=sink_port, http_port=http_port)
    bench.configuration(server)
    cell = Cell(plan.sessions, plan.size_octets, True)
    results: dict[str, list[Run]] = {}
    with sinking(sink_port) as sink, running(server):
        key = _key(folder / "state")
        loads: dict[str, Source] = {
            "SMTP, many a connection": source,
            "HTTP, one a request": _source(http_port, key, 0),
            f"HTTP, {plan.batch} a request": _source(http_port, key, plan.batch),
        }
        with steps((plan.rounds + 1) * len(loads)) as progress:
            for number in range(plan.rounds + 1):
                turns = list(loads.items())
                for name, load in turns if number % 2 else reversed(turns):
                    progress.next(name)
                    found = measure(server, sink, cell, plan.messages, load=load)
                    if number:  # the first one warms up
                        results.setdefault(name, []).append(found)
    bench.finish(
        "inject",
        plan,
        [_sheet(plan, results)],
        configuration=server.configuration,
        runs={name: list(map(attrs.asdict, runs)) for name, runs in results.items()},
    )


def _source(http_port: int, key: str, batch: int) -> Source:
    @contextlib.contextmanager
    def load(_: int, cell: Cell, messages: int) -> Iterator[subprocess.Popen[bytes]]:
        numbers = (http_port, cell.sessions, messages, cell.size_octets, batch)
        with subprocess.Popen(
            [sys.executable, "-m", "bench.inject_client", *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(f"{key}\n".encode("ascii"))
            process.stdin.flush()
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    return load


def _key(state: Path) -> str:
    secret = secret_text(secrets.token_bytes(SECRET_OCTETS))
    digest = fingerprint(secret)
    assert digest is not None
    kept = KeySecret(digest=digest, created_at=time.time())
    with contextlib.closing(connect(state)) as connection, connection:
        apikeys.put(connection, ApiKey(name="bench", secrets=(kept,)))
    time.sleep(SEEN_S)
    return secret


def _sheet(plan: Plan, results: dict[str, list[Run]]) -> Sheet:
    smtp = results["SMTP, many a connection"]
    rows = [
        (
            name,
            spread([one.accepted_per_s for one in runs]).text(),
            spread(
                [
                    one.accepted_per_s / beside.accepted_per_s
                    for one, beside in zip(runs, smtp, strict=True)
                ]
            ).text(2),
            spread([one.cpu_s_per_1000 for one in runs]).text(2),
        )
        for name, runs in results.items()
    ]
    title = f"{plan.sessions} clients, {plan.size_octets // 1024} KB, all durable: median (range)"
    return Sheet(title, ("door", "accepted/s", "to SMTP", "CPU s/1000"), rows)
