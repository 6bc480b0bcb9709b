"""The same promise with the kill at a chosen system call: the Nth of its kind in a thread.

    clients --SMTP--> strace -f protege-mta run --SMTP--> a sink that fails and cuts at random

strace delivers SIGKILL as the call is entered, so that its effect and everything behind it is
missing: what kills at random rarely hit, such as the time between a big file's sync and the record
that names it, or between a segment's making and its first use.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..e2e.service import needs
from .killed import KilledTestCase
from .load import Load
from .plain import without_writing_through

CALLS: Final = {
    "fsync": (1, 2, 3, 4, 5, 6, 8),
    "fdatasync": (1, 2, 3, 5, 9, 14),
    "fallocate": (1, 2),
    "ftruncate": (1,),
    "io_uring_enter": (1, 2, 3, 5, 8, 13),
    "pwritev2,pwritev": (1, 2, 3, 5, 8, 13),
    "unlink": (1, 2, 3),
    "rename": (1, 2, 3),
    "write": (40, 160),
}
"""Which calls of a thread are its last."""

LOAD_S: Final = 1.0


class SyscallTests(KilledTestCase):
    def test_killed_in_calls(self) -> None:
        """None lost, none altered, none invented, whatever is the last thing that was done."""
        strace = needs("strace")
        variables = without_writing_through(Path(self.mktemp()))
        plain = ("env", *(f"{name}={value}" for name, value in variables.items()))
        killed: Counter[str] = Counter()
        starts = 0
        for call, numbers in CALLS.items():
            for number in numbers:
                inject = f"inject={call}:signal=SIGKILL:when={number}"
                name = call.partition(",")[0]
                trace = ["-D", "-f", "-o", "/dev/null", "-e", f"trace={call},io_uring_setup"]
                trace += ["-e", inject]
                if name == "pwritev2":
                    trace += ["-e", "inject=io_uring_setup:error=ENOSYS"]
                starts += 1
                system = plain if name == "fdatasync" else ()
                killed[name] += self.round(f"{name}-{number}", (*system, strace, *trace))
        hits = ", ".join(f"{count} in {name}" for name, count in killed.items())
        self.settle(f"{starts} starts, killed {hits}")
        self.assertGreater(killed.total(), starts // 2)

    def round(self, name: str, prefix: Sequence[str]) -> bool:
        """Start, and be killed in a call or, when it has not come to that in time, by us.

        :return: whether it was in a call.
        """
        load = None
        if self.service.start_or_end(prefix):
            port = self.service.port("relay")
            load = Load(port, name, self.rng, self.sent, clients=2, messages=15, big=0.3)
            give_up_at = time.monotonic() + LOAD_S
            while not self.service.has_ended() and time.monotonic() < give_up_at:
                time.sleep(0.005)
        was_hit = self.service.has_ended()
        self.kill()
        if load is not None:
            load.wait()
        return was_hit
