"""A service under load, with its sink, and all that happens to the two."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Final

from ..crash.account import Account, Stall, lines_of, settle
from ..crash.killed import TABLES
from ..crash.load import Load, Sent
from ..e2e.service import Service
from .samples import Sample, look

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = 2
MESSAGES: Final = 10
BIG: Final = 0.004
DRAIN_S: Final = 180.0

GAPS_S: Final = {"kill": (25.0, 70.0), "reload": (8.0, 40.0), "outage": (40.0, 120.0)}
"""How long it takes from one of each to the next."""
OUTAGE_S: Final = (2.0, 12.0)
"""Shorter than any gap between two."""


class Subject:
    """Made, then :meth:`live`\\ d in a thread, :meth:`settled`, and :meth:`close`\\ d.

    :param is_killed: whether it is.
    :ivar events: what was done to it, with the time since the start.
    :ivar faults: what went wrong that should not have.
    """

    def __init__(self, name: str, *, is_killed: bool, seed: int) -> None:
        self.name = name
        self._is_killed = is_killed
        self._seed = seed
        self._rng = random.Random(f"{seed} {name}")
        self._folder = Path(tempfile.mkdtemp(prefix="soak-"))
        self._record = self._folder / "record"
        self._record.touch()
        self._outage_end: threading.Timer | None = None
        self._sink: subprocess.Popen[str] | None = None
        self._sink_port = 0
        self._sent: dict[str, Sent] = {}
        self._kills: list[float] = []
        self._stalls: list[Stall] = []
        self._life = threading.Lock()  # nobody looks at a service that is being started or ended
        self._began = time.monotonic()
        self.samples: list[Sample] = []
        self.events: list[tuple[float, str]] = []
        self.faults: list[str] = []
        self._open_sink()
        self.service = Service(TABLES.format(port=self._sink_port))
        self.service.start()

    # --- life ------------------------------------------------------------------------------------

    def live(self, began: float, length_s: float) -> None:
        """Send, and be treated badly, until the time is over."""
        self._began = began
        due = {
            what: began + self._gap(what) for what in GAPS_S if what != "kill" or self._is_killed
        }
        count = 0
        try:
            while time.monotonic() < began + length_s:
                load = Load(
                    self.service.port("relay"),
                    str(count),
                    self._rng,
                    self._sent,
                    CLIENTS,
                    MESSAGES,
                    BIG,
                )
                count += 1
                now = time.monotonic()
                for what in [what for what, at in due.items() if at <= now]:
                    time.sleep(self._rng.uniform(0.0, 0.3))
                    self._do(what)
                    due[what] = time.monotonic() + self._gap(what)
                load.wait()
                time.sleep(self._rng.uniform(0.3, 1.0))
        except Exception as error:
            self.faults.append(f"{self.name}: {error!r}")

    def _gap(self, what: str) -> float:
        return self._rng.uniform(*GAPS_S[what])

    def _do(self, what: str) -> None:
        self.events.append((time.monotonic() - self._began, what))
        match what:
            case "kill":
                with self._life:
                    self._kills.append(time.time())
                    self.service.kill()
                    self.service.start()
            case "reload":
                self.service.reload()
            case _:
                self._outage()

    def _outage(self) -> None:
        """The next host dies, or hangs, and comes back after a while."""
        if self._rng.random() < 0.3:
            sink = self._running_sink()
            began = time.time()
            sink.send_signal(signal.SIGSTOP)
            end = partial(self._go_on, sink, began)
        else:
            self._kills.append(time.time())
            self._close_sink()
            end = partial(self._open_sink)
        self._outage_end = threading.Timer(self._rng.uniform(*OUTAGE_S), end)
        self._outage_end.start()

    def _go_on(self, sink: subprocess.Popen[str], began: float) -> None:
        sink.send_signal(signal.SIGCONT)
        self._stalls.append((began, time.time()))

    def look(self) -> None:
        """Take a sample, unless it is not up just now."""
        if self._life.acquire(blocking=False):
            try:
                control = self.service.folder / "run" / "control.sock"
                found = look(self.service.pid, control, time.monotonic() - self._began)
            finally:
                self._life.release()
            if found is not None:
                self.samples.append(found)

    # --- the end ---------------------------------------------------------------------------------

    def settled(self) -> Account:
        """Let everything drain, end the service, and account for every 250."""
        if self._outage_end is not None:
            self._outage_end.join()
        self._running_sink().send_signal(signal.SIGUSR1)
        give_up_at = time.monotonic() + DRAIN_S
        while self._queued() and time.monotonic() < give_up_at:
            self.service.cli("queue", "retry", "--all")
            time.sleep(0.5)
        if self._queued():
            self.faults.append(f"{self.name}: the queue does not drain")
        self.service.terminate()
        events = lines_of(self.service.folder / "state" / "events.jsonl")
        taken = lines_of(self._record)
        account = settle(self._sent, taken, events, self._kills, self._stalls)
        self.faults += [f"{self.name}: {fault}" for fault in account.faults]
        self.faults += [f"{self.name}: {path}" for path in self.service.folder.rglob("corrupt/*")]
        return account

    def keep(self, folder: Path) -> None:
        """Put what is to be looked at after a fault into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in (
            self._record,
            self.service.folder / "state" / "events.jsonl",
            self.service.folder / "log",
        ):
            shutil.copy(path, folder / path.name)
        story = {"kills": self._kills, "stalls": self._stalls}
        (folder / "story.json").write_text(json.dumps(story))

    def _queued(self) -> int:
        status = json.loads(self.service.cli("status", "--json").stdout)
        return int(status["queue"]["messages"])

    def close(self) -> None:
        if self._outage_end is not None:
            self._outage_end.join()
        self.service.kill()
        self.service.close()
        self._close_sink()
        if not os.environ.get("KEEP_E2E"):
            shutil.rmtree(self._folder)

    # --- the sink --------------------------------------------------------------------------------

    def _open_sink(self) -> None:
        self._sink = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.crash.sink",
                self._record,
                str(self._seed + len(self.events)),
                str(self._sink_port),
            ],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert self._sink.stdout is not None
        self._sink_port = int(self._sink.stdout.readline())

    def _running_sink(self) -> subprocess.Popen[str]:
        if self._sink is None:
            raise RuntimeError(f"{self.name} has no sink")
        return self._sink

    def _close_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.kill()
            sink.wait()
            assert sink.stdout is not None
            sink.stdout.close()
