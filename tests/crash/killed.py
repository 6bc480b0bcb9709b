"""A service under load that is killed again and again, and the account of it at last."""

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
from .load import Sent

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


class KilledTestCase(SynchronousTestCase):
    """Has a service and a :mod:`.sink` for all that it relays.

    :ivar sent: all messages, by their keys.
    :ivar kills: when the service was killed, POSIX seconds.
    """

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
        if not os.environ.get("KEEP_E2E"):
            self.record.unlink()
            self.record.parent.rmdir()

    def kill(self) -> None:
        self.kills.append(time.time())
        self.service.kill()

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
