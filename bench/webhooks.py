"""Does a webhook slow mail?  Relay rates with a webhook that takes 1,000 events a second all the
while, and without one."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, cast

import attrs

from . import configurations
from .bench import Bench
from .figures import ratios, spread
from .load import Cell, Run, measure, sinking
from .machine import free_port, require
from .report import Sheet, steps
from .servers import Ours, running

BATCH: Final = 100
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUIET_S: Final = 1.0
"""An endpoint that has heard nothing for so long has heard all."""


@attrs.frozen
class Plan:
    """:ivar per_s: events that the endpoint takes a second."""

    rounds: int = 7
    messages: int = 5000
    sessions: int = 20
    size_octets: int = 4096
    per_s: float = 1000.0


@attrs.frozen
class Turn:
    """:ivar events_per_s: what the endpoint took meanwhile; 0 where there is none."""

    run: Run
    events_per_s: float


def run(bench: Bench, plan: Plan) -> None:
    require("twistd", "smtp-source", "smtp-sink")
    results: dict[str, list[Turn]] = {"without": [], "with a webhook": []}
    cell = Cell(plan.sessions, plan.size_octets, True)
    sink_port = free_port()
    with _endpoint(plan.per_s) as endpoint:
        plain = Ours(bench.folder / "plain", sink_port=sink_port)
        secret = bench.folder / "secret"
        secret.write_text(SECRET + "\n")
        hooked = Ours(
            bench.folder / "hooked",
            configurations.RELAY + configurations.WEBHOOK,
            sink_port=sink_port,
            url=endpoint.url,
            secret=secret,
            batch=BATCH,
        )
        bench.configuration(hooked)
        servers = {"without": plain, "with a webhook": hooked}
        with running(plain, hooked), sinking(sink_port) as sink:
            for server in servers.values():
                measure(server, sink, cell, min(500, plan.messages))
            with steps(plan.rounds * 2) as progress:
                for number in range(plan.rounds):
                    for title in sorted(servers, reverse=number % 2 == 1):
                        endpoint.drain()
                        progress.next(f"round {number + 1}: {title}")
                        results[title].append(
                            _turn(plan, cell, servers[title], sink, endpoint, title != "without")
                        )
            endpoint.drain()
    bench.finish(
        "webhooks",
        plan,
        [_sheet(results)],
        configuration=hooked.configuration,
        turns={title: list(map(attrs.asdict, turns)) for title, turns in results.items()},
    )


def _turn(
    plan: Plan, cell: Cell, server: Ours, sink: Any, endpoint: Endpoint, is_hooked: bool
) -> Turn:
    before, began = endpoint.taken, time.perf_counter()
    found = measure(server, sink, cell, plan.messages)
    took_s = time.perf_counter() - began
    return Turn(found, (endpoint.taken - before) / took_s if is_hooked else 0.0)


def _sheet(results: dict[str, list[Turn]]) -> Sheet:
    reference = [one.run.relayed_per_s for one in results["without"]]
    rows = []
    for title, turns in results.items():
        rates = [one.run.relayed_per_s for one in turns]
        rows.append(
            (
                title,
                spread(rates).text(0),
                ratios(rates, reference).text(2),
                spread([one.run.cpu_s_per_1000 for one in turns]).text(3),
                spread([one.events_per_s for one in turns]).text(0),
            )
        )
    titles = ("webhook", "relayed/s", "times without", "CPU s/1,000", "events taken/s")
    return Sheet("Relay with a webhook and without: median (range)", titles, rows)


class Endpoint:
    """Takes events at a steady rate.

    :ivar taken: events so far.
    """

    def __init__(self, per_s: float) -> None:
        self.taken = 0
        self._per_s = per_s
        self._is_draining = False
        self._heard_at = 0.0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.endpoint = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/"

    def take(self, events: int) -> None:
        """Return when so many have taken their time."""
        if not self._is_draining:
            time.sleep(events / self._per_s)
        self.taken += events
        self._heard_at = time.monotonic()

    def drain(self) -> None:
        """Take what waits as fast as it comes."""
        self._is_draining, self._heard_at = True, time.monotonic()
        while time.monotonic() - self._heard_at < QUIET_S:
            time.sleep(0.05)
        self._is_draining = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        cast(Endpoint, self.server.endpoint).take(len(json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Its requests are counted, not logged."""


@contextlib.contextmanager
def _endpoint(per_s: float) -> Iterator[Endpoint]:
    found = Endpoint(per_s)
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
        thread.join()
