"""Figures for Prometheus: kept as plain numbers where mail flows, read when somebody scrapes.

Every service has its own registry, so that several live in one process.  Labels have few values
each: a domain or an address is never one.  ``docs/reference/metrics.md`` describes every name.

What counts is added to by one thread each: events and latencies by the reactor's, commits by the
spool's writer.  A scrape may see a histogram an observation short of its sum, which the next one
mends.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, get_args

import attrs
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..model.envelope import Source
from ..model.event import EVENTS
from ..model.hop import HopKind
from ..model.ports import Stats
from ..model.tally import Tally, TunnelTally
from ..model.verdicts import Verdicts
from ..model.webhook import Figures
from . import families
from .families import Histogram

ROUTES: Final = ("", *get_args(HopKind))
"""Values of the ``route`` label; empty where no next hop was chosen."""

_LATENCY_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUED_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400, 432000)
_OPERATIONS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@attrs.frozen
class Depth:
    """How much is queued.

    :ivar entries: by state; an entry is one message for one next hop.
    :ivar oldest_age_s: how long ago the oldest arrived; 0 where there is none.
    """

    entries: Mapping[str, int]
    oldest_age_s: float = 0.0


@attrs.frozen
class RelayFigures:
    """A gateway's sessions.

    :ivar identities: keys that are to have one.
    :ivar logins: that the relay let in, since the start.
    :ivar losses: how sessions, and attempts to have one, have ended.
    :ivar attestations: what came of looking at the relay's word, message by message.
    """

    identities: int
    sessions: int
    logins: int
    losses: Mapping[str, int]
    attestations: Mapping[str, int]


@attrs.define(eq=False)
class Counts:
    """What the events add to.

    :ivar events: by event and route.
    :ivar messages: accepted, by source; a message counts once, whatever its recipients.
    :ivar failures: what deferred, bounced and expired recipients failed of, by event and class.
    :ivar rejections: refusals at the door, by reply code.
    :ivar reasons: the same, by the name of the reply.
    :ivar dns_lists: what lists in the DNS said of clients, by zone and meaning.
    :ivar authentications: results for messages of strangers, by method.
    :ivar authentications_skipped: those that there was no room to check.
    :ivar queued_s: from arrival to delivery, by route.
    """

    events: defaultdict[tuple[str, str], int] = attrs.Factory(lambda: defaultdict(int))
    messages: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(get_args(Source), 0))
    octets: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(get_args(Source), 0))
    failures: defaultdict[tuple[str, str], int] = attrs.Factory(lambda: defaultdict(int))
    rejections: defaultdict[int, int] = attrs.Factory(lambda: defaultdict(int))
    reasons: defaultdict[str, int] = attrs.Factory(lambda: defaultdict(int))
    dns_lists: defaultdict[tuple[str, str], int] = attrs.Factory(lambda: defaultdict(int))
    authentications: defaultdict[tuple[str, str], int] = attrs.Factory(lambda: defaultdict(int))
    authentications_skipped: int = 0
    queued_s: dict[str, Histogram] = attrs.Factory(
        lambda: {route: Histogram(_QUEUED_S) for route in ROUTES}
    )

    def dns_list_answered(self, zone: str, meaning: str) -> None:
        """A list was asked about a client."""
        self.dns_lists[zone, meaning] += 1

    def authenticated(self, verdicts: Verdicts) -> None:
        """A message's sender was checked."""
        counts = self.authentications
        counts["spf", verdicts.spf] += 1
        counts["dkim", verdicts.dkim] += 1
        counts["dmarc", verdicts.dmarc] += 1

    def authentication_skipped(self) -> None:
        """There was no room to check one."""
        self.authentications_skipped += 1


class Metrics(Collector):
    """One service's figures.

    :param tally: what the SMTP sides count.
    :param version: ours.
    :ivar accept_s: from the message's last octet to its 250; ``observe`` it.
    :ivar commit_s: one group commit of the spool, its sync included.
    :ivar commit_operations: how many operations a group commit took along.
    :ivar journal_errors: writes and syncs of the event journal that failed.
    :ivar relay: a gateway's figures; None where there is no gateway.
    """

    def __init__(self, tally: Tally, version: str) -> None:
        self.tally = tally
        self.version = version
        self.counts = Counts()
        self.accept_s = Histogram(_LATENCY_S)
        self.commit_s = Histogram(_LATENCY_S)
        self.commit_operations = Histogram(_OPERATIONS)
        self.journal_errors = 0
        self.relay: Callable[[], RelayFigures] | None = None
        self._depth: Callable[[], Depth] | None = None
        self._stats: Callable[[], Stats] | None = None
        self._lag_s: Callable[[], float] | None = None
        self._certificates: Callable[[], Mapping[tuple[str, str], float]] | None = None
        self._tunnel: Callable[[], Mapping[str, int]] = dict
        self._webhooks: Callable[[], Sequence[Figures]] = tuple
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def watch(
        self,
        *,
        depth: Callable[[], Depth],
        stats: Callable[[], Stats],
        lag_s: Callable[[], float],
        certificates: Callable[[], Mapping[tuple[str, str], float]],
        tunnel: Callable[[], Mapping[str, int]] = dict,
        webhooks: Callable[[], Sequence[Figures]] = tuple,
    ) -> None:
        """Name the sources of what is read at a scrape only, once they are there.

        :param depth: of the queue.
        :param lag_s: how late the reactor was.
        :param certificates: when they expire, POSIX seconds, by name and algorithm.
        :param tunnel: a relay server's ``reachable``, ``sessions`` and ``waiting``.
        :param webhooks: how each is.
        """
        self._depth, self._stats, self._lag_s = depth, stats, lag_s
        self._certificates = certificates
        self._tunnel = tunnel
        self._webhooks = webhooks

    def committed(self, took_s: float, operations: int) -> None:
        """The spool made ``operations`` durable in one sync; called on its writer's thread."""
        self.commit_s.observe(took_s)
        self.commit_operations.observe(operations)

    def render(self, accept: str) -> tuple[str, bytes]:
        """The exposition and its content type.

        :param accept: the request's Accept field; OpenMetrics for who asks for it, else the
            Prometheus text format.
        """
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks for at a scrape."""
        yield from self._collect_events()
        yield from self._collect_smtp()
        yield from _collect_tunnel(self.tally.tunnel, self._tunnel())
        if self._depth is not None:
            yield from _collect_depth(self._depth())
        if self._stats is not None:
            yield from _collect_spool(self._stats())
        yield families.histogram(
            "spool_commit_seconds", "Group commits, sync included.", self.commit_s
        )
        yield families.histogram(
            "spool_commit_operations", "Operations in a group commit.", self.commit_operations
        )
        yield families.counter(
            "journal_errors", "Failed writes and syncs of the event journal.", self.journal_errors
        )
        yield from _collect_webhooks(self._webhooks())
        if self._lag_s is not None:
            yield families.gauge("reactor_lag_seconds", "How late the reactor was.", self._lag_s())
        if self._certificates is not None:
            yield _collect_certificates(self._certificates())
        if self.relay is not None:
            yield from _collect_relay(self.relay())
        build = GaugeMetricFamily(
            "protege_mta_build_info", "Which version runs; always 1.", labels=("version", "python")
        )
        build.add_metric((self.version, platform.python_version()), 1)
        yield build

    def _collect_events(self) -> Iterator[Metric]:
        counts = self.counts
        told = dict.fromkeys(((event, "") for event in EVENTS), 0) | counts.events
        yield families.counters(
            "events", "Transitions of recipients.", ("event", "route"), told.items()
        )
        yield families.counters(
            "messages", "Messages accepted.", ("source",), families.keyed(counts.messages)
        )
        yield families.counters(
            "message_octets",
            "Octets of messages accepted.",
            ("source",),
            families.keyed(counts.octets),
        )
        yield families.counters(
            "failures",
            "Failed recipients by event and class.",
            ("event", "class"),
            counts.failures.items(),
        )
        rejections = [((str(code),), n) for code, n in counts.rejections.items()]
        yield families.counters("rejections", "Refusals at the door.", ("code",), rejections)
        yield families.counters(
            "rejection_reasons", "The same, by reason.", ("reason",), families.keyed(counts.reasons)
        )
        yield families.counters(
            "dns_list_answers",
            "Answers of lists in the DNS about clients.",
            ("zone", "meaning"),
            counts.dns_lists.items(),
        )
        yield families.counters(
            "authentications",
            "Checks of strangers' messages.",
            ("method", "result"),
            counts.authentications.items(),
        )
        yield families.counter(
            "authentications_skipped",
            "Messages that there was no room to check.",
            counts.authentications_skipped,
        )
        yield families.histogram(
            "accept_seconds", "From a message's last octet to its 250.", self.accept_s
        )
        queued = HistogramMetricFamily(
            "protege_mta_queued_seconds", "From arrival to delivery.", labels=("route",)
        )
        for route, histogram in counts.queued_s.items():
            if route:
                queued.add_metric((route,), histogram.buckets(), histogram.sum)
        yield queued

    def _collect_smtp(self) -> Iterator[Metric]:
        tally = self.tally
        yield families.counters(
            "connections",
            "SMTP connections opened.",
            ("direction",),
            families.in_out(tally.connections_in, tally.connections_out),
        )
        yield families.gauges(
            "connections_open",
            "SMTP connections open now.",
            "direction",
            {"in": tally.connections_in_open, "out": tally.connections_out_open},
        )
        yield families.counter(
            "connections_refused", "SMTP clients turned away.", tally.connections_refused
        )
        yield families.counter(
            "proxy_headers_refused",
            "Connections of proxies without a PROXY header.",
            tally.proxy_headers_refused,
        )
        yield families.counter(
            "recipients_delayed",
            "Unknown recipients refused after a delay.",
            tally.recipients_delayed,
        )
        yield families.gauge(
            "recipients_delayed_now",
            "Such answers that are held back now.",
            tally.recipients_delayed_now,
        )
        yield families.counter(
            "connections_failed",
            "Attempts to reach an SMTP host that failed.",
            tally.connections_out_failed,
        )
        replies = [
            ((direction, f"{digit}yz"), counts[digit])
            for direction, counts in (("in", tally.replies_in), ("out", tally.replies_out))
            for digit in range(2, 6)
        ]
        yield families.counters(
            "replies",
            "SMTP replies: given to clients (in), taken from hosts (out).",
            ("direction", "class"),
            replies,
        )
        yield families.counters(
            "tls_sessions",
            "Channels put under TLS.",
            ("direction",),
            families.in_out(tally.tls_in, tally.tls_out),
        )
        yield families.counters(
            "tls_failures",
            "Handshakes that failed.",
            ("direction",),
            families.in_out(tally.tls_failures_in, tally.tls_failures_out),
        )
        yield families.counters(
            "logins",
            "Clients that logged in, or tried to.",
            ("result",),
            families.keyed(tally.logins),
        )


def _collect_tunnel(tally: TunnelTally, now: Mapping[str, int]) -> Iterator[Metric]:
    yield families.gauge(
        "tunnel_agents_reachable",
        "Agents that mail can be sent to now.",
        now.get("reachable", 0),
    )
    yield families.gauge("tunnel_sessions", "Agents' sessions now.", now.get("sessions", 0))
    yield families.gauge(
        "tunnel_connections_waiting",
        "Connections to /ws that have not logged in.",
        now.get("waiting", 0),
    )
    yield families.counter(
        "tunnel_connections_refused",
        "Connections to /ws that there was no room for.",
        tally.connections_refused,
    )
    yield families.counters(
        "tunnel_logins",
        "Agents that logged in, or tried to.",
        ("result",),
        families.keyed(tally.logins),
    )
    streams = [
        ((direction, result), count)
        for direction, counts in (("in", tally.streams_in), ("out", tally.streams_out))
        for result, count in counts.items()
    ]
    yield families.counters(
        "tunnel_streams", "Messages through tunnels.", ("direction", "result"), streams
    )
    yield families.counters(
        "tunnel_octets",
        "Octets of their content.",
        ("direction",),
        families.in_out(tally.octets_in, tally.octets_out),
    )


def _collect_webhooks(hooks: Sequence[Figures]) -> Iterator[Metric]:
    def counters(name: str, text: str, value: Callable[[Figures], int]) -> Metric:
        return families.counters(
            name, text, ("webhook",), [((one.name,), value(one)) for one in hooks]
        )

    def gauges(name: str, text: str, value: Callable[[Figures], float]) -> Metric:
        return families.gauges(name, text, "webhook", {one.name: value(one) for one in hooks})

    yield counters(
        "webhook_events", "Events that an endpoint has taken.", lambda one: one.delivered
    )
    yield counters("webhook_failures", "Requests that it has not.", lambda one: one.failed)
    yield counters(
        "webhook_gaps",
        "How often events were no longer kept when it was their turn.",
        lambda one: one.lost,
    )
    yield gauges(
        "webhook_dead_letters", "Requests that were given up and are kept.", lambda one: one.dead
    )
    yield gauges(
        "webhook_lag_events",
        "Events that have not been looked at for it.",
        lambda one: one.lag_events,
    )
    yield gauges(
        "webhook_lag_seconds",
        "Age of the first event that it has not taken.",
        lambda one: one.lag_s,
    )
    yield gauges(
        "webhook_up",
        "0 after several failures in a row.",
        lambda one: float(one.state not in ("down", "gone")),
    )


def _collect_depth(depth: Depth) -> Iterator[Metric]:
    yield families.gauges(
        "queue_entries", "Queued messages, once for each next hop.", "state", depth.entries
    )
    yield families.gauge(
        "queue_oldest_age_seconds", "Age of the oldest queued message.", depth.oldest_age_s
    )


def _collect_spool(stats: Stats) -> Iterator[Metric]:
    yield families.gauge("spool_messages", "Messages in the spool.", stats.messages)
    yield families.gauge("spool_content_octets", "Octets of queued messages.", stats.content_octets)
    yield families.gauge(
        "spool_disk_octets", "Octets the spool takes of the disk.", stats.disk_octets
    )
    yield families.gauge("spool_free_octets", "Octets free on the spool's disk.", stats.free_octets)
    yield families.gauge("spool_free_inodes", "Inodes free on the spool's disk.", stats.free_inodes)
    yield families.gauge("spool_segments", "Segment files.", stats.segments)
    yield families.gauge(
        "spool_corrupt", "Damaged pieces set aside for a person to see.", stats.corrupt
    )
    yield families.counter("spool_commits", "Batches made durable.", stats.commits)
    yield families.counter("spool_operations", "Operations made durable.", stats.operations)
    yield families.gauge("spool_failed", "1 when the disk broke a promise.", float(stats.is_failed))


def _collect_certificates(ends: Mapping[tuple[str, str], float]) -> Metric:
    family = GaugeMetricFamily(
        "protege_mta_certificate_expires_at",
        "When a certificate that we show expires, POSIX seconds.",
        labels=("name", "algorithm"),
    )
    for labels, at in ends.items():
        family.add_metric(labels, at)
    return family


def _collect_relay(relay: RelayFigures) -> Iterator[Metric]:
    yield families.gauge(
        "relay_identities", "Keys that a session is to be had for.", relay.identities
    )
    yield families.gauge("relay_sessions", "Sessions with the relay server.", relay.sessions)
    yield families.counter(
        "relay_logins", "Sessions that the relay server let begin.", relay.logins
    )
    yield families.counters(
        "relay_losses", "Ends of sessions.", ("reason",), families.keyed(relay.losses)
    )
    yield families.counters(
        "relay_attestations",
        "Messages by what came of the relay's word about them.",
        ("result",),
        families.keyed(relay.attestations),
    )
