"""The HTTP listener over real TCP, asked by the standard library's client.

test (http.client in a thread) --TCP--> site(app) --> health, metrics
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from protege_mta.http import health as health_endpoints
from protege_mta.http import metrics as metrics_endpoints
from protege_mta.http.listener import HttpLimits, new_app, site
from protege_mta.model.tally import Tally
from protege_mta.observe.health import Health, HealthLimits, ReactorLag
from protege_mta.observe.metrics import Metrics

from ..unit.test_metrics import STATS

PROBE = b"written and synced by the health check\n"


class ListenerTests(TestCase):
    timeout = 30

    async def test_one_connection(self) -> None:
        """A monitoring client keeps its connection, and a real write stands behind healthz."""
        clock = cast(Any, reactor)
        path = Path(self.mktemp())
        app = new_app()
        lag = ReactorLag(clock)
        health = Health(
            path,
            HealthLimits(0, 0),
            clock=clock,
            in_thread=deferToThread,
            stats=lambda: STATS,
            lag=lag,
        )
        health_endpoints.add(app, health)
        metrics_endpoints.add(app, Metrics(Tally(), "1"))
        factory = site(app, clock=clock, limits=HttpLimits())
        endpoint = TCP4ServerEndpoint(clock, 0, interface="127.0.0.1")
        port: IListeningPort = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        number = cast(Any, port.getHost()).port

        def talk() -> list[tuple[int, bytes]]:
            client = http.client.HTTPConnection("127.0.0.1", number, timeout=20)
            answers = []
            for method, target in (
                ("GET", "/healthz"),
                ("HEAD", "/healthz"),
                ("GET", "/metrics"),
                ("GET", "/admin"),
                ("GET", "/" + "a" * 300_000),
            ):
                client.request(method, target)
                response = client.getresponse()
                answers.append((response.status, response.read()))
            client.close()
            return answers

        whole, head, metrics, unknown, long = await deferToThread(talk)
        self.assertEqual((whole[0], json.loads(whole[1])), (200, {"ok": True}))
        self.assertEqual(head, (200, b""))
        self.assertIn(b"\nprotege_mta_build_info{", metrics[1])
        self.assertEqual(unknown[0], 404)
        self.assertEqual((long[0], json.loads(long[1])["status"]), (414, 414))
        self.assertEqual(await deferToThread(path.read_bytes), PROBE)
