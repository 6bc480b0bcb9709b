"""Webhooks under fire: the service and the process that posts are killed at random, the endpoint
fails in all ways, and in the end it has been told everything, in order.

    client ── SMTP ── service ── journal ── notifier ── HTTP ── endpoint
                        ✗ kill -9             ✗ kill -9           ✗ 500, cut, garbage
"""

from __future__ import annotations

import os
import random
import signal
import smtplib
import time
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.webhook import secrets_of
from protege_mta.observe.segments import SegmentReader
from tests.e2e.service import Service, until

from .endpoint import Endpoint

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "6"))

HOOK: Final = """
[[webhook]]
name = "{name}"
url = "{url}"
secret_file = "secret"
batch = {batch}
timeout_s = 5
"""


def notifier_of(parent: int) -> int:
    """The process id of a service's child that serves webhooks; 0 where there is none now."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if b"protege_mta.notifier" in command and int(stat[1]) == parent:
                return int(folder.name)
    return 0


class KillTests(SynchronousTestCase):
    def test_nothing_is_lost(self) -> None:
        """Each event comes at least once, as it is in the journal, each message's in order."""
        seed = int(os.environ.get("KILL_SEED", "0")) or random.randrange(1, 10**9)
        print(f"KILL_SEED={seed}")  # noqa: T201
        rng = random.Random(seed)
        endpoints = [Endpoint(secrets_of(SECRET), seed + n) for n in range(2)]
        service = Service()
        self.addCleanup(service.close)
        for one in endpoints:
            self.addCleanup(one.close)
        (service.folder / "secret").write_text(SECRET + "\n")
        (service.folder / "secret").chmod(0o644)
        single, many = endpoints
        service.configure(
            HOOK.format(name="single", url=single.url, batch=1)
            + HOOK.format(name="many", url=many.url, batch=20)
        )
        service.start()
        sent = kills = 0
        for _ in range(ROUNDS):
            until_at = time.monotonic() + rng.uniform(0.5, 2.5)
            while time.monotonic() < until_at:
                sent += self.send(service, rng)
            if rng.random() < 0.5:
                service.kill()
                service.start()
                kills += 1
            else:
                found = notifier_of(service.pid)
                if found:
                    os.kill(found, signal.SIGKILL)
                    kills += 1
        for one in endpoints:
            one.is_failing = False
        folder = service.folder / "state" / "journal"
        until(lambda: self.is_told(folder, endpoints), "all events at both endpoints", 120)
        journal = self.journal(folder)
        told = {line["id"]: line for line in journal}
        self.assertEqual(len(told), len(journal), "an event is in the journal twice")
        received = [one for one in journal if one["event"] == "received"]
        self.assertGreaterEqual(len(received), sent)
        for one in endpoints:
            self.assertEqual(one.forged, [])
            self.assertEqual({event["id"] for event in one.taken}, set(told))
            for event in one.taken:
                self.assertEqual(event, told[event["id"]])
            first = list(dict.fromkeys(event["id"] for event in one.taken))
            self.assertEqual(first, list(told), "out of order")
        print(  # noqa: T201
            f"{sent} messages, {len(told)} events, {kills} kills; "
            f"{[len(one.taken) - len(told) for one in endpoints]} told again"
        )

    def send(self, service: Service, rng: random.Random) -> int:
        """Hand in one message; whether it got its 250."""
        recipients = [f"r{n}@local.test" for n in range(rng.randint(1, 3))]
        try:
            with smtplib.SMTP("127.0.0.1", service.port(), timeout=20) as client:
                client.sendmail("a@far.test", recipients, b"Subject: x\r\n\r\nx\r\n")
        except (OSError, smtplib.SMTPException):
            return 0
        return 1

    def journal(self, folder: Path) -> list[dict[str, str]]:
        import msgspec

        reader, cursor, found = SegmentReader(folder), "", []
        while True:
            page = reader.read(cursor, 1000)
            found += [msgspec.json.decode(line, type=dict) for line in page.lines]
            cursor = page.cursor
            if page.is_end:
                return found

    def is_told(self, folder: Path, endpoints: list[Endpoint]) -> bool:
        ids = {line["id"] for line in self.journal(folder)}
        return all(ids <= {event["id"] for event in one.taken} for one in endpoints)
