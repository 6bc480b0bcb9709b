"""The benchmark's arithmetic, tables and counters; nothing is measured here."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import click
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from bench import publish, relay
from bench.destinations import Plan, address, zone
from bench.figures import (
    Latency,
    Spread,
    counted,
    latency,
    matched,
    percentile,
    ratios,
    spread,
    status_octets,
)
from bench.load import Cell
from bench.profile import Time
from bench.report import Sheet, show
from bench.tls import Shake, is_as_meant
from bench.tls_client import CONNECT, HANDSHAKE, Load, Report, Work, is_whole, steps


class ProfileTests(SynchronousTestCase):
    def test_time_of_one_message(self) -> None:
        """What has come since a first look, over so many messages."""
        since = Time(30.0, 6.0, 12, 5).plus(Time(10.0, 2.0, 4, 1), -1.0)
        self.assertEqual(since, Time(20.0, 4.0, 8.0, 4.0))
        self.assertEqual(Time().plus(since, 1 / 4), Time(5.0, 1.0, 2.0, 1.0))


class FigureTests(SynchronousTestCase):
    def test_spread(self) -> None:
        """The middle and both ends; one measurement is all three."""
        self.assertEqual(spread([30.0, 10.0, 20.0, 100.0]), Spread(25.0, 10.0, 100.0))
        self.assertEqual(Spread(512.4, 480, 530).text(), "512 (480-530)")
        self.assertEqual(Spread(7.84, 7.1, 8.0).text(1), "7.8 (7.1-8.0)")
        self.assertEqual(Spread(3.0, 3.0, 3.0).text(), "3")
        self.assertRaises(ValueError, spread, [])

    def test_ratios_are_taken_turn_by_turn(self) -> None:
        """A machine that gets slower by half in the second turn changes no ratio."""
        self.assertEqual(ratios([4000.0, 2000.0], [500.0, 250.0]), Spread(8.0, 8.0, 8.0))
        self.assertRaises(ValueError, ratios, [1.0], [1.0, 2.0])

    def test_percentiles_are_values_that_were_measured(self) -> None:
        values = [float(n) for n in range(100, 0, -1)]
        self.assertEqual(percentile(values, 0.5), 50)
        self.assertEqual(percentile(values, 0.99), 99)
        self.assertEqual(percentile(values, 1.0), 100)
        self.assertEqual(percentile([7.0], 0.01), 7)
        self.assertRaises(ValueError, percentile, [], 0.5)

    def test_latency(self) -> None:
        self.assertEqual(
            latency([0.5, 0.125, 0.25, 1.0]), Latency(4, 250.0, 1000.0, 1000.0, 1000.0)
        )

    def test_matched(self) -> None:
        """Only what arrived is timed."""
        self.assertEqual(matched({"a": 1.0, "b": 2.0}, {"b": 2.5, "c": 9.0}), [0.5])


class CounterTests(SynchronousTestCase):
    def test_sink(self) -> None:
        """The last whole line of smtp-sink's counters counts, not one that is cut."""
        said = b"sess=3 quit=1 mesg=7\rsess=3 quit=2 mesg=12\rsess=3 quit=2 mesg=1"
        self.assertEqual(counted(said), 12)
        self.assertIsNone(counted(b"sess=3 quit=1 mesg=7"))
        self.assertIsNone(counted(b""))

    def test_memory(self) -> None:
        """The kernel's kB are 1,024 octets."""
        text = "Rss:                 100 kB\nPss:                  40 kB\nPss_Anon: 3 kB\n"
        self.assertEqual(status_octets(text, "Pss"), 40960)
        self.assertEqual(status_octets(text, "Swap"), 0)


class SheetTests(SynchronousTestCase):
    sheet = Sheet(
        "Rates",
        ("load", "server", "relay/s", "times"),
        [("20 x 4 KB", "ours", "4000 (3900-4100)", "8.0"), ("", "Postfix", "500", "")],
        keys=2,
    )

    def shown(self, width: int) -> str:
        out = io.StringIO()
        show(Console(file=out, width=width, color_system=None), self.sheet)
        return out.getvalue()

    def test_wide(self) -> None:
        """A table, a line a row, with nothing cut."""
        self.assertIn("│ 20 x 4 KB │ ours    │ 4000 (3900-4100) │   8.0 │", self.shown(80))

    def test_narrow(self) -> None:
        """Where the table does not fit, rows are blocks with their whole names."""
        self.assertEqual(
            self.shown(40),
            "Rates\n"
            "20 x 4 KB, ours\n"
            "  relay/s  4000 (3900-4100)\n"
            "  times    8.0\n"
            "20 x 4 KB, Postfix\n"
            "  relay/s  500\n",
        )


class PlanTests(SynchronousTestCase):
    def test_cells(self) -> None:
        """Every load once, and no fewer messages than sessions."""
        plan = relay.Plan(messages=200, sessions=(1, 100), sizes=(4096, 65536))
        self.assertEqual(len(set(plan.cells)), 8)
        self.assertEqual(plan.messages_of(Cell(100, 4096, True)), 200)
        self.assertEqual(plan.messages_of(Cell(100, 65536, True)), 100)
        self.assertEqual(plan.messages_of(Cell(1, 4096, False)), 50)
        self.assertEqual(str(Cell(1, 4096, False)), "1 session, 4 KB, one a connection")

    def test_ill_destinations(self) -> None:
        """The ill come first, and the healthy are the same in both loads."""
        plan = Plan(destinations=5, refusing=1, silent=1, slow=1)
        self.assertEqual(plan.kinds(True), ["refusing", "silent", "slow", "good", "good"])
        self.assertEqual(plan.kinds(False), ["good"] * 5)

    def test_zone(self) -> None:
        """Each destination has an MX host with an address of its own."""
        self.assertIn("d1.test. MX 10 mx.d1.test.\nmx.d1.test. A 127.1.0.2\n", zone(2))
        self.assertEqual(len({address(number) for number in range(1000)}), 1000)


class TlsClientTests(SynchronousTestCase):
    """What the load client says; tests/integration has it speak."""

    def said(self, load: Load) -> list[bytes]:
        """The verbs of a session that does all of it alone, and what stands for other acts."""
        acts = {CONNECT: b"connect", HANDSHAKE: b"handshake"}
        return [acts.get(one) or one[:4] for one, _ in steps(load, Work(load.count))]

    def test_many_messages_a_connection(self) -> None:
        message = [b"MAIL", b"RCPT", b"DATA", b"From"]
        secured = [b"connect", b"EHLO", b"STAR", b"handshake", b"EHLO"]
        load = Load(25, sessions=1, count=2, size_octets=4096, is_reusing=True)
        self.assertEqual(self.said(load), [*secured, *message, *message, b"QUIT"])

    def test_one_message_a_connection(self) -> None:
        once = [b"connect", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"From", b"QUIT"]
        load = Load(25, sessions=1, count=2, size_octets=4096, version="")
        self.assertEqual(self.said(load), once * 2)

    def test_handshakes_only(self) -> None:
        once = [b"connect", b"EHLO", b"STAR", b"handshake", b"EHLO", b"QUIT"]
        self.assertEqual(self.said(Load(25, sessions=1, count=3)), once * 3)

    def test_the_work_is_done_once_however_many_sessions_there_are(self) -> None:
        load, work = Load(25, sessions=3, count=10, size_octets=100), Work(10)
        for session in [steps(load, work) for _ in range(3)]:
            list(session)
        self.assertEqual(work.done, 10)

    def test_whole_replies(self) -> None:
        for whole in (b"250 ok\r\n", b"250-one\r\n250 two\r\n", b"250\r\n"):
            self.assertTrue(is_whole(whole), whole)
        for part in (b"", b"250 ok", b"250 ok\r", b"250-one\r\n", b"250-one\r\n250 tw"):
            self.assertFalse(is_whole(part), part)

    def test_handshakes_are_of_the_kind_that_is_measured(self) -> None:
        full, resumed = (Shake("P-256", "1.3", is_resumed) for is_resumed in (False, True))
        report = Report(100, 1.0, 0.1, handshakes=100, resumed=80, ciphers=[])
        self.assertTrue(is_as_meant(report, resumed, 100))
        self.assertFalse(is_as_meant(report, full, 100))
        self.assertTrue(is_as_meant(attrs.evolve(report, resumed=0), full, 100))
        self.assertFalse(is_as_meant(attrs.evolve(report, resumed=79), resumed, 100))
        self.assertFalse(is_as_meant(attrs.evolve(report, handshakes=99, resumed=0), full, 100))


class PublishTests(SynchronousTestCase):
    def test_summary(self) -> None:
        """Single turns are left out, and figures have four digits."""
        kept = {"cells": [{"relayed_per_s": {"median": 4038.4567}, "runs": [1, 2]}], "n": 123456}
        self.assertEqual(
            publish.summary(kept), {"cells": [{"relayed_per_s": {"median": 4038.0}}], "n": 123456}
        )

    def test_plot(self) -> None:
        """A PNG and an SVG; without matplotlib, what to install."""
        rate = {"median": 500.0, "least": 480.0, "most": 530.0}
        load = {"group": "plain", "sessions": 20, "size_octets": 4096, "is_reusing": True}
        cells = [
            {**load, "server": name, "relayed_per_s": rate, "times": {"median": 1.0}}
            for name in ("protege-mta", "Postfix")
        ]
        with TemporaryDirectory() as folder:
            if find_spec("matplotlib") is None:
                fault = self.assertRaises(
                    click.ClickException, publish.plot, cells, Path(folder) / "relay"
                )
                self.assertIn("pip install", fault.message)
                return
            drawn = publish.plot(cells, Path(folder) / "relay")
            starts = [path.read_bytes()[:5] for path in drawn]
        self.assertEqual(starts, [b"\x89PNG\r", b"<?xml"])
