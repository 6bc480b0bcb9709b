"""What a monitoring system sees.

urllib  -- HTTP -->  protege-mta  <-- SMTP -- clients
"""

from __future__ import annotations

import urllib.request
from contextlib import ExitStack
from smtplib import SMTPException, SMTPRecipientsRefused
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families

from .service import TOP, ServiceTestCase, send, until


class HttpTests(ServiceTestCase):
    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, type and text of a page."""
        url = f"http://127.0.0.1:{self.service.port('http')}{path}"
        request = urllib.request.Request(url, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.headers["Content-Type"], response.read().decode()
        except HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read().decode()

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every figure by its name and labels."""
        status, kind, text = self.get("/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(kind.startswith("text/plain"), kind)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def test_health(self) -> None:
        status, _, text = self.get("/healthz")
        self.assertEqual(status, 200, text)

    def test_elsewhere(self) -> None:
        self.assertEqual(self.get("/nowhere")[0], 404)
        self.assertEqual(self.get("/metrics", "POST")[0], 405)

    def test_metrics(self) -> None:
        """Prometheus' own library can read them, and a message in and out is counted once."""
        before = self.samples()
        wanted = {
            ("messages_total", (("source", "smtp"),)): 1,
            ("events_total", (("event", "received"), ("route", ""))): 1,
            ("events_total", (("event", "delivered"), ("route", "maildir"))): 1,
            ("events_total", (("event", "rejected"), ("route", ""))): 1,
            ("rejections_total", (("code", "550"),)): 1,
            ("connections_total", (("direction", "in"),)): 2,
            ("accept_seconds_count", ()): 1,
            ("queued_seconds_count", (("route", "maildir"),)): 1,
        }
        send(self.service.port(), "a@far.test", "agent@local.test", b"Subject: x\r\n\r\nx\r\n")
        with self.assertRaises(SMTPRecipientsRefused):
            send(self.service.port(), "a@far.test", "b@far.test", b"Subject: x\r\n\r\nx\r\n")
        self.service.event("delivered", recipient="agent@local.test")

        def risen() -> bool:
            after = self.samples()
            return wanted == {
                (name, labels): after.get((f"protege_mta_{name}", labels), 0)
                - before.get((f"protege_mta_{name}", labels), 0)
                for name, labels in wanted
            }

        until(risen, "the counts")
        self.assertEqual(self.samples()["protege_mta_queue_entries", (("state", "active"),)], 0)


class FullDiskTests(ServiceTestCase):
    """A disk with less room than [limits] free_octets wants."""

    @classmethod
    def begin(cls, stack: ExitStack) -> None:
        top = TOP.replace("free_octets = 0", f"free_octets = {10**18}")
        cls.service = cls.started(stack, top=top)

    def test_told_to_everybody(self) -> None:
        """The monitor is told 503, a client to come back later."""
        with self.assertRaises(HTTPError) as told:
            urllib.request.urlopen(f"http://127.0.0.1:{self.service.port('http')}/healthz")
        self.assertEqual(told.exception.code, 503)
        with self.assertRaises(SMTPException) as refused:
            send(self.service.port(), "a@far.test", "agent@local.test", b"Subject: x\r\n\r\nx\r\n")
        self.assertIn("452, b'4.3.1", str(refused.exception))
