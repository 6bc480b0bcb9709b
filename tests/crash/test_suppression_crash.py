"""Who has bounced is on the suppression list, and nobody else, whatever dies between the reply, the
list and the fate.

    a client --SMTP--> strace -f protege-mta run --SMTP--> a host that knows some mailboxes, or not yet

The kill is at a chosen system call of a thread, as in :mod:`.test_kill_syscalls`, among those by which
SQLite and the spool write.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from ..e2e.service import Service, needs
from .killed import TABLES

CALLS: Final = {
    "fdatasync": (2, 3, 4, 5, 6, 7, 14),
    "pwrite64": (2, 5, 9, 15, 20, 45),
    "pwritev,pwritev2": (2, 3, 4, 5),
}
LOAD_S: Final = 1.5
DRAIN_S: Final = 60.0
KINDS: Final = ("gone", "blocked", "there", "wavering")

_GONE: Final = b"550 5.1.1 no such user\r\n"
_ANSWERS: Final = {
    "gone": _GONE,
    "blocked": b"550 5.7.1 your address is on our block list\r\n",
    "there": b"250 2.1.5 ok\r\n",
}


class _Host(socketserver.StreamRequestHandler):
    """``wavering`` ones are gone when they are asked for first, and there ever after."""

    server: Host

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the service has died
            self.serve()

    def serve(self) -> None:
        self.wfile.write(b"220 host.test ESMTP\r\n")
        is_data = False
        for line in self.rfile:
            if is_data:
                is_data = line != b".\r\n"
                answer = b"" if is_data else b"250 2.0.0 ok\r\n"
            else:
                answer = self.answer(line)
                is_data = answer.startswith(b"354")
            self.wfile.write(answer)

    def answer(self, line: bytes) -> bytes:
        match line[:4].upper():
            case b"EHLO":
                return b"250-host.test\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n"
            case b"RCPT":
                name = line.partition(b"<")[2].partition(b"@")[0].decode()
                kind = name.partition("-")[0]
                if kind == "wavering":
                    kind = "there" if name in self.server.asked else "gone"
                    self.server.asked.add(name)
                return _ANSWERS[kind]
            case b"DATA":
                # With all of its recipients refused the rest of the group is refused too.
                return b"354 go\r\n"
        return b"250 2.0.0 ok\r\n"


class Host(socketserver.ThreadingTCPServer):
    """:ivar asked: which of the wavering have been asked for."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Host)
        self.asked: set[str] = set()


class SuppressionTests(SynchronousTestCase):
    timeout = 900

    def setUp(self) -> None:
        self.host = Host()
        threading.Thread(target=self.host.serve_forever, daemon=True).start()
        self.addCleanup(self.host.server_close)
        self.addCleanup(self.host.shutdown)
        self.service = Service(TABLES.format(port=self.host.server_address[1]))
        self.addCleanup(self.service.close)
        self.promised: set[str] = set()

    def test_entry_and_fate_agree(self) -> None:
        strace = needs("strace")
        killed: Counter[str] = Counter()
        for call, numbers in CALLS.items():
            for number in numbers:
                inject = f"inject={call}:signal=SIGKILL:when={number}"
                trace = ("-D", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
                name = call.partition(",")[0]
                killed[name] += self.round(f"{name}-{number}", (strace, *trace))
        fates = self.settled()
        listed = self.listed()
        told = Counter((name.partition("-")[0], fate) for name, fate in fates.items())
        sys.stdout.write(f"\nkilled {dict(killed)}; {dict(told)}; {len(listed)} on the list\n")
        self.assertEqual({name for name in self.promised if name not in fates}, set())
        self.assertEqual(
            listed,
            {n for n, fate in fates.items() if fate == "bounced" and not n.startswith("blocked")},
        )
        for name, fate in fates.items():
            if name.startswith("gone"):
                self.assertEqual(fate, "bounced", name)
        self.assertGreater(killed.total(), sum(map(len, CALLS.values())) // 3)

    def round(self, name: str, prefix: Sequence[str]) -> bool:
        """:return: whether it was killed in a call, and not by us when it had not come to that."""
        if self.service.start_or_end(prefix):
            load = threading.Thread(target=self.load, args=(name,))
            load.start()
            give_up_at = time.monotonic() + LOAD_S
            while not self.service.has_ended() and time.monotonic() < give_up_at:
                time.sleep(0.005)
            was_hit = self.service.has_ended()
            self.service.kill()
            load.join()
            return was_hit
        self.service.kill()
        return True

    def load(self, name: str) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", self.service.port("relay"), timeout=10) as client:
                for number in range(5):
                    for kind in KINDS:
                        recipient = f"{kind}-{name}-{number}"
                        client.sendmail(
                            "a@local.test", f"{recipient}@x.test", b"Subject: x\r\n\r\n"
                        )
                        self.promised.add(recipient)
        except (OSError, smtplib.SMTPException):
            pass  # it has died

    def settled(self) -> dict[str, str]:
        """The fate of each recipient, once all is over."""
        self.service.start()
        end = time.monotonic() + DRAIN_S
        while self.queued() and time.monotonic() < end:
            self.service.cli("queue", "retry", "--all")
            time.sleep(0.3)
        self.assertEqual(self.queued(), 0)
        self.service.terminate()
        fates: dict[str, set[str]] = {}
        for event in self.service.events():
            if event["event"] in ("bounced", "relayed", "delivered", "suppressed", "expired"):
                recipient = str(event["recipient"])
                if recipient.endswith("@x.test"):
                    fates.setdefault(recipient.partition("@")[0], set()).add(event["event"])
        self.assertEqual({name: one for name, one in fates.items() if len(one) != 1}, {})
        return {name: one.pop() for name, one in fates.items()}

    def queued(self) -> int:
        status: Any = json.loads(self.service.cli("status", "--json").stdout)
        return int(status["queue"]["messages"])

    def listed(self) -> set[str]:
        rows = json.loads(self.service.cli("suppression", "list", "--json").stdout)
        return {str(row["address"]).partition("@")[0] for row in rows}
