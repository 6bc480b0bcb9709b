"""Tests of the exposition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Stats
from protege_mta.model.tally import Tally
from protege_mta.observe.families import Histogram
from protege_mta.observe.metrics import Depth, Metrics, RelayFigures

STATS = Stats(
    messages=3,
    content_octets=12_288,
    disk_octets=67_108_864,
    free_octets=10**10,
    free_inodes=10**6,
    segments=1,
    corrupt=0,
    commits=2,
    operations=5,
    is_failed=False,
)
REFERENCE = Path(__file__).parents[2] / "docs/reference/metrics.md"


class MetricsTests(SynchronousTestCase):
    """What a scrape shows."""

    def setUp(self) -> None:
        self.tally = Tally()
        self.metrics = Metrics(self.tally, "1.2.3")
        self.metrics.watch(
            depth=lambda: Depth({"deferred": 7, "held": 0}, 90.5),
            stats=lambda: STATS,
            lag_s=lambda: 0.002,
            certificates=lambda: {("mx.test", "rsa"): 1.8e9, ("mx.test", "ecdsa"): 1.9e9},
        )
        self.metrics.relay = lambda: RelayFigures(3, 2, 7, {"lost": 4, "replaced": 1}, {"ok": 5})

    def families(self) -> dict[str, Metric]:
        _, octets = self.metrics.render("")
        return {family.name: family for family in text_string_to_metric_families(octets.decode())}

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        (found,) = (
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == f"protege_mta_{name}" and sample.labels == (labels or {})
        )
        return found

    def test_relay(self) -> None:
        """A gateway's sessions, and nothing of them where there is no gateway."""
        self.assertEqual(self.value("relay_identities"), 3)
        self.assertEqual(self.value("relay_sessions"), 2)
        self.assertEqual(self.value("relay_logins_total"), 7)
        self.assertEqual(self.value("relay_losses_total", {"reason": "replaced"}), 1)
        self.assertEqual(self.value("relay_attestations_total", {"result": "ok"}), 5)
        self.metrics.relay = None
        self.assertNotIn("protege_mta_relay_sessions", self.families())

    def test_tally(self) -> None:
        """Plain counts of the SMTP sides show without anybody telling."""
        self.tally.connections_in += 5
        self.tally.replies_in[5] += 2
        self.tally.tls_failures_out += 1
        self.assertEqual(self.value("connections_total", {"direction": "in"}), 5)
        self.assertEqual(self.value("replies_total", {"direction": "in", "class": "5yz"}), 2)
        self.assertEqual(self.value("tls_failures_total", {"direction": "out"}), 1)

    def test_queue_and_spool(self) -> None:
        self.assertEqual(self.value("queue_entries", {"state": "deferred"}), 7)
        self.assertEqual(self.value("queue_oldest_age_seconds"), 90.5)
        self.assertEqual(self.value("spool_content_octets"), 12_288)
        self.assertEqual(self.value("spool_failed"), 0)
        self.assertEqual(self.value("reactor_lag_seconds"), 0.002)

    def test_certificates(self) -> None:
        """Those of one name and different keys end at different times."""
        for algorithm, at in (("rsa", 1.8e9), ("ecdsa", 1.9e9)):
            labels = {"name": "mx.test", "algorithm": algorithm}
            self.assertEqual(self.value("certificate_expires_at", labels), at)

    def test_commits(self) -> None:
        self.metrics.committed(0.004, 16)
        self.assertEqual(self.value("spool_commit_seconds_bucket", {"le": "0.0025"}), 0)
        self.assertEqual(self.value("spool_commit_seconds_bucket", {"le": "0.005"}), 1)
        self.assertEqual(self.value("spool_commit_operations_sum"), 16)

    def test_events_start_at_zero(self) -> None:
        """An alert on a rate sees the first event, since the series was there before it."""
        self.assertEqual(self.value("events_total", {"event": "bounced", "route": ""}), 0)

    def test_build(self) -> None:
        (sample,) = self.families()["protege_mta_build_info"].samples
        self.assertEqual(sample.labels["version"], "1.2.3")

    def test_before_the_service_runs(self) -> None:
        """A scrape during start shows what is there."""
        _, octets = Metrics(Tally(), "1").render("")
        self.assertNotIn(b"queue_entries", octets)

    def test_two_services(self) -> None:
        """Services in one process keep their figures apart."""
        Metrics(Tally(), "1").committed(1.0, 1)
        self.assertEqual(self.value("spool_commit_operations_count"), 0)

    def test_openmetrics(self) -> None:
        """Who asks for OpenMetrics gets it."""
        content_type, octets = self.metrics.render("application/openmetrics-text; version=1.0.0")
        self.assertIn("application/openmetrics-text", content_type)
        self.assertTrue(octets.endswith(b"# EOF\n"))

    def test_names(self) -> None:
        """What ``promtool check metrics`` complains of: no help, odd names, scaled units."""
        for name, family in self.families().items():
            self.assertTrue(family.documentation, name)
            self.assertRegex(name, r"^[a-z][a-z0-9_]*$")
            self.assertIsNone(re.search(r"_(ms|us|millis\w*|minutes|kb|mb)(_|$)", name), name)
            if family.type == "counter":
                for sample in family.samples:
                    self.assertRegex(sample.name, "(_total|_created)$")
            elif name.startswith("protege_mta_"):
                self.assertFalse(name.endswith("_total"), name)

    def test_reference(self) -> None:
        """The reference names every metric of ours, and none that is not."""
        written = set(re.findall(r"`(protege_mta_\w+)`", REFERENCE.read_text("utf-8")))
        ours = {
            name + ("_total" if family.type == "counter" else "")
            for name, family in self.families().items()
            if name.startswith("protege_mta_")
        }
        self.assertEqual(ours ^ written, set())


class HistogramTests(SynchronousTestCase):
    def test_cumulative(self) -> None:
        """A value on a bound belongs to the bucket below it."""
        histogram = Histogram((1.0, 2.5))
        for value in (0.5, 1.0, 2.0, 9.0):
            histogram.observe(value)
        self.assertEqual(histogram.buckets(), [("1.0", 2), ("2.5", 3), ("+Inf", 4)])
        self.assertEqual(histogram.sum, 12.5)
