"""What ``250`` promises, against SIGKILL.

    clients --SMTP--> protege-mta run --SMTP--> a sink that fails and cuts at random
                      killed 50 times

After the last kill everything drains, and every 250 is accounted for: delivered unaltered, or
bounced, once, unless a cut or a kill came between a delivery and the news of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from ..e2e.service import Service
from .account import lines_of, settle
from .load import Load, Sent

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "50"))
SEED: Final = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Chance is repeatable as far as the machine's own timing allows: KILL_SEED sets it."""

DRAIN_S: Final = 120.0

TABLES: Final = """\
[outbound]
route = "smarthost"
smarthost = {{ host = "127.0.0.1", port = {port}, tls = "none" }}

[retry]
first_s = 0.2
factor = 1.5
max_interval_s = 2
"""


class KillTests(SynchronousTestCase):
    timeout = 900

    def setUp(self) -> None:
        self.rng = random.Random(SEED)
        self.sent: dict[str, Sent] = {}
        self.kills: list[float] = []
        folder = Path(tempfile.mkdtemp(prefix="sink-"))
        self.record = folder / "record"
        self.record.touch()
        self.sink = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.sink", self.record, str(SEED)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        self.addCleanup(self._end_sink)
        assert self.sink.stdout is not None
        self.service = Service(TABLES.format(port=int(self.sink.stdout.readline())))
        self.addCleanup(self.service.close)

    def _end_sink(self) -> None:
        self.sink.kill()
        self.sink.wait()
        assert self.sink.stdout is not None
        self.sink.stdout.close()

    def kill(self) -> None:
        self.kills.append(time.time())
        self.service.kill()

    def round(self, name: str) -> None:
        """Start, take mail in and deliver it, be killed."""
        self.service.start()
        load = Load(self.service.port("relay"), name, self.rng, self.sent)
        time.sleep(self.rng.uniform(0.2, 1.5))
        self.kill()
        load.wait()

    def settle(self, what: str) -> None:
        """Let everything drain, and account for it."""
        self.sink.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        self.service.start()
        while (left := self._queued()) and time.monotonic() < began + DRAIN_S:
            self.service.cli("queue", "retry", "--all")
            time.sleep(0.5)
        drained_s = time.monotonic() - began
        self.assertEqual(left, 0, self.service.log_tail())
        self.service.terminate()
        events = lines_of(self.service.folder / "state" / "events.jsonl")
        account = settle(self.sent, lines_of(self.record), events, self.kills)
        sys.stdout.write(
            f"\nseed {SEED}: {what}, {len(self.kills)} kills; {account}; "
            f"drained in {drained_s:.1f} s\n"
        )
        self.assertEqual(account.faults[:20], [], f"seed {SEED}")
        self.assertGreater(account.promised, 0)
        self.assertEqual(list(self.service.folder.rglob("corrupt/*")), [])

    def _queued(self) -> int:
        status = json.loads(self.service.cli("status", "--json").stdout)
        self.assertEqual(status["spool"]["corrupt"], 0)
        return int(status["queue"]["messages"])

    def test_killed_at_work(self) -> None:
        """None lost, none altered, none invented, whenever it is killed."""
        for number in range(ROUNDS):
            self.round(str(number))
        self.settle(f"{ROUNDS} rounds")

    def test_killed_while_it_recovers(self) -> None:
        """Being killed again and again before it is up does no harm to what was accepted."""
        rounds = max(1, ROUNDS // 6)
        for number in range(rounds):
            self.round(str(number))
            for _ in range(3):
                self.service.launch()
                time.sleep(self.rng.uniform(0.4, 1.4))
                self.kill()
        self.settle(f"{rounds} rounds with kills while it recovers")
