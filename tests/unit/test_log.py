"""Tests of log lines."""

from __future__ import annotations

from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.observe.log import LineObserver, observer


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []

    def test_line(self) -> None:
        LineObserver(self.lines.append)(
            {
                "log_time": 1_790_000_000.25,
                "log_level": LogLevel.warn,
                "log_namespace": "protege_mta.x",
                "log_format": "peer {peer}",
                "peer": "192.0.2.1",
            }
        )
        self.assertEqual(
            self.lines, ["2026-09-21T14:13:20.250Z warn protege_mta.x: peer 192.0.2.1\n"]
        )

    def test_nobody_forges_a_line(self) -> None:
        """What a peer said stays in its line and rings no bells."""
        log = Logger("x", observer=LineObserver(self.lines.append, for_journald=True))
        log.info("helo {helo}", helo="a\r\n<2>forged\x1b[2J\x9b\u2028é")
        self.assertEqual(
            self.lines, ["<6>info x: helo a\\x0d\\x0a<2>forged\\x1b[2J\\x9b\\u2028é\n"]
        )

    def test_level(self) -> None:
        log = Logger("x", observer=observer(self.lines.append, "warn"))
        log.info("quiet")
        log.error("loud")
        self.assertEqual(len(self.lines), 1)
        self.assertIn("error x: loud\n", self.lines[0])

    def test_traceback(self) -> None:
        """A traceback is indented below its line, each line with its priority."""
        log = Logger("x", observer=LineObserver(self.lines.append, for_journald=True))
        try:
            raise KeyError("k\x07")
        except KeyError:
            log.failure("it broke")
        first, *trace = self.lines[0].splitlines()
        self.assertEqual(first, "<2>critical x: it broke")
        self.assertTrue(all(line.startswith("<2>    ") for line in trace))
        self.assertIn("KeyError: 'k\\x07'", trace[-1].replace("\\\\", "\\"))

    def test_event_without_anything(self) -> None:
        """Old-style and broken events do not break the log."""
        LineObserver(self.lines.append)({})
        LineObserver(self.lines.append)({"log_format": "{missing}", "log_time": 0.0})
        self.assertEqual(len(self.lines), 2)
