"""What a tunnel promises, against cut connections and SIGKILL at both its ends.

    clients --SMTP--> relay server <==WebSocket== a proxy that cuts <==WebSocket== gateway --> Maildir
    smtp-sink <--SMTP-- relay server <==WebSocket== a proxy that cuts <==WebSocket== gateway <--SMTP-- clients

Connections are cut after any number of octets, so that a message larger than all of them only comes
through in parts.  What got its 250 arrives, and is taken into the other side's spool once.
"""

from __future__ import annotations

import os
import random
import smtplib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from ..e2e.cutting import CuttingProxy, random_budget
from ..e2e.gateway import Gateway
from ..e2e.relay_server import RelayServer
from ..e2e.service import Service, until
from .killed import SEED

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "12"))
ROUND_S: Final = 1.5
SIZES: Final = (500, 500, 500, 4_000, 30_000, 300_000)
SHORTEST: Final = 300
LONGEST: Final = 200_000
"""Octets that a connection carries before it is cut, the login among them: some never log in, and
the largest message needs several."""

SETTLE_S: Final = 120.0


class Load:
    """Sends messages by SMTP until it is stopped, and knows which were promised.

    :ivar promised: the keys of those that got a 250.
    """

    def __init__(self, prefix: str, sender: str, recipient: str, rng: random.Random) -> None:
        self.promised: set[str] = set()
        self._prefix = prefix
        self._sender = sender
        self._recipient = recipient
        self._rng = rng
        self._count = 0

    def run(self, port: int, until_at: float) -> threading.Thread:
        """Send in a thread of its own until the time has come, or the service is gone."""
        thread = threading.Thread(target=self._run, args=(port, until_at), daemon=True)
        thread.start()
        return thread

    def _run(self, port: int, until_at: float) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", port, "client.test", timeout=30) as client:
                while time.monotonic() < until_at:
                    self._count += 1
                    key = f"{self._prefix}-{self._count}"
                    line = b"z" * 70 + b"\r\n"
                    content = (
                        f"From: {self._sender}\r\nMessage-ID: <{key}@load.test>\r\n\r\n"
                    ).encode() + line * (self._rng.choice(SIZES) // len(line))
                    try:
                        client.sendmail(self._sender, self._recipient, content)
                        self.promised.add(key)
                    except smtplib.SMTPRecipientsRefused:
                        pass  # an agent that has never been there, or not long enough to be known
                    time.sleep(0.02)
        except (smtplib.SMTPServerDisconnected, ConnectionError):
            return  # that is what being killed looks like


def taken(service: Service) -> Counter[str]:
    """The messages that came through the tunnel, and how often each was taken into the spool."""
    return Counter(
        event["header_message_id"].strip("<>").removesuffix("@load.test")
        for event in service.events()
        if event["event"] == "received" and event["source"] == "tunnel"
    )


def keys(messages: Iterable[bytes]) -> Counter[str]:
    """Which messages these are, and how often each is there."""
    return Counter(
        octets.partition(b"Message-ID: <")[2].partition(b"@")[0].decode() for octets in messages
    )


class TunnelTests(SynchronousTestCase):
    timeout = 900

    def test_cut_and_killed(self) -> None:
        rng = random.Random(SEED)
        with ExitStack() as stack:
            relay = RelayServer(stack)
            relay.service.start()
            is_cutting = threading.Event()
            is_cutting.set()
            budget = random_budget(random.Random(rng.random()), SHORTEST, LONGEST)
            proxy = CuttingProxy(
                lambda: relay.service.port("http"),
                lambda: budget() if is_cutting.is_set() else None,
            )
            stack.callback(proxy.close)
            gateway = Gateway(stack, f"ws://127.0.0.1:{proxy.port}/ws")
            gateway.service.start()
            inward = Load("in", "alice@example.net", gateway.address, random.Random(rng.random()))
            outward = Load("out", gateway.address, "b@elsewhere.test", random.Random(rng.random()))
            kills = 0
            for _ in range(ROUNDS):
                end_at = time.monotonic() + ROUND_S
                threads = [
                    inward.run(relay.service.port("relay"), end_at),
                    outward.run(gateway.service.port("relay"), end_at),
                ]
                time.sleep(rng.uniform(0.3, ROUND_S))
                dead = [
                    service for service in (relay.service, gateway.service) if rng.random() < 0.5
                ]
                for service in dead:
                    service.kill()
                    kills += 1
                for thread in threads:
                    thread.join(60)
                for service in dead:
                    service.start()
            is_cutting.clear()
            self.settle(inward, gateway.service)
            self.settle(outward, relay.service)
            # What was taken last is still on its way from the spool, and may wait for a retry.
            until(lambda: inward.promised <= set(keys(gateway.mail())), "the Maildir", SETTLE_S)
            until(lambda: outward.promised <= set(keys(relay.sink.captured())), "sink", SETTLE_S)
            arrived = keys(gateway.mail())
            sys.stdout.write(
                f"\nseed {SEED}: {len(inward.promised)} in, {len(outward.promised)} out, "
                f"{proxy.cuts} cuts, {kills} kills\n"
            )
            self.assertEqual([key for key, n in arrived.items() if n > 1], [], f"seed {SEED}")

    def settle(self, load: Load, service: Service) -> None:
        """Wait until all that was promised is there, and look that nothing is there twice."""
        self.assertGreater(len(load.promised), 10)
        try:
            until(lambda: load.promised <= set(taken(service)), "all that was promised", SETTLE_S)
        except AssertionError:
            missing = sorted(load.promised - set(taken(service)))
            self.fail(f"seed {SEED}: never arrived: {missing[:20]}\n{service.log_tail()}")
        doubled = [key for key, times in taken(service).items() if times > 1]
        self.assertEqual(doubled, [], f"seed {SEED}: in the spool more than once")
