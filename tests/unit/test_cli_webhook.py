"""Tests of ``webhook``: what is shown of one, and what is sent again."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.observe.segments import SegmentReader, Segments
from protege_mta.state.hooks import HookStore

from .console import Ran, run

CONFIG = """
hostname = "mx.test"
state_dir = "state"
[[listener]]
kind = "smtp"
address = "127.0.0.1"
port = 0
[[webhook]]
name = "app"
url = "http://127.0.0.1:1/hook"
secret_file = "secret"
"""
EVENT = b'{"event":"received","id":"m1.0.0"}'


class WebhookTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text(CONFIG)
        (self.folder / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        self.state = self.folder / "state"
        segments = Segments(
            self.state / "journal",
            now=lambda: 1_800_000_000.0,
            failed=self.fail,
            keep_octets=1_000_000,
            keep_s=1e6,
        )
        self.state.mkdir()
        segments.open(0)
        segments.add([EVENT + b"\n"], len(EVENT) + 1)
        segments.write()
        segments.close()
        self.end = SegmentReader(self.state / "journal").end()
        self.store = HookStore(self.state)
        self.addCleanup(self.store.close)
        self.store.begin("app", "")

    def webhook(self, *arguments: str) -> Ran:
        return run("webhook", *arguments, "--config", str(self.config))

    def bury(self) -> None:
        self.store.bury(
            "app", self.end, 0, at=1.5, id="m1.0.0", tries=5, cause="status 400", lines=[EVENT]
        )

    def test_list_and_show(self) -> None:
        self.bury()
        [row] = self.webhook("list", "--json").json()
        self.assertEqual((row["name"], row["dead"], row["cursor"]), ("app", 1, self.end))
        self.assertEqual(self.webhook("show", "app", "--json").json(), row)
        self.assertIn("http://127.0.0.1:1/hook", self.webhook("list").out)
        self.assertIn("never", self.webhook("show", "app").out)

    def test_dead(self) -> None:
        self.bury()
        [letter] = self.webhook("dead", "app", "--json").json()
        self.assertEqual(letter["events"], [{"event": "received", "id": "m1.0.0"}])
        self.assertEqual((letter["tries"], letter["cause"]), (5, "status 400"))
        self.assertIn("status 400", self.webhook("dead", "app").out)

    def test_replay_of_dead_letters(self) -> None:
        self.bury()
        self.assertEqual(
            self.webhook("replay", "app", "--dead", "--json").json(), {"name": "app", "dead": 1}
        )
        self.assertEqual([one.is_wanted for one in self.store.letters("app")], [True])

    def test_replay_from_a_cursor(self) -> None:
        self.assertEqual(self.webhook("replay", "app", "--after", self.end).code, os.EX_OK)
        standing = self.store.standing("app")
        assert standing is not None
        self.assertEqual((standing.cursor, standing.moved), (self.end, 1))
        ran = self.webhook("replay", "app", "--after", "nonsense")
        self.assertEqual(ran.code, os.EX_DATAERR)
        self.assertIn("01800000000000-0000000000", ran.err)

    def test_mistakes(self) -> None:
        self.assertEqual(self.webhook("replay", "app").code, os.EX_USAGE)
        self.assertEqual(self.webhook("replay", "app", "--dead", "--after", "").code, os.EX_USAGE)
        ran = self.webhook("show", "other")
        self.assertEqual(ran.code, os.EX_NOINPUT)
        self.assertIn("There are app.", ran.err)

    def test_before_the_first_start(self) -> None:
        self.config.write_text(CONFIG.replace('"state"', '"elsewhere"'))
        self.assertEqual(self.webhook("list").code, os.EX_NOINPUT)
