"""The queue's commands: what they ask the service for, and what they show."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from .console import Ran, Service, control, run, service

ID = "01hzzzzzzzzzzzzzzzzzzzzzzz"
NOW = time.time()

ROW: dict[str, Any] = {
    "id": ID,
    "state": "deferred",
    "arrived_at": NOW - 7300,
    "size_octets": 4096,
    "sender": "a@local.test",
    "source": "smtp",
    "identity": "",
    "peer_address": "192.0.2.7",
    "subject": "caf\u00e9 \x1b[31m",
    "header_message_id": "<1@local.test>",
    "recipients": [
        {"address": "done@b.test", "state": "ended"},
        {
            "address": "c@b.test",
            "state": "deferred",
            "attempts": 2,
            "next_attempt_at": NOW + 1000,
            "cause": "451 4.3.0 later",
        },
    ],
}
BOUNCE = ROW | {
    "id": "01hzzzzzzzzzzzzzzzzzzzzzz0",
    "state": "held",
    "sender": "",
    "recipients": [
        {
            "address": "d@d.test",
            "state": "held",
            "attempts": 0,
            "next_attempt_at": None,
            "cause": "",
        }
    ],
}


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "c.toml"
        self.config.write_text('run_dir = "run"\n')

    def ask(
        self, answers: dict[str, list[Any]], *arguments: str, is_terminal: bool = False
    ) -> tuple[Ran, Service]:
        with service(self.folder / "run/control.sock", control(answers)) as heard:
            ran = run(*arguments, "--config", str(self.config), is_terminal=is_terminal)
        return ran, heard

    def test_list(self) -> None:
        """Plain text, aligned, where no terminal is."""
        answer = [{"row": ROW}, {"row": BOUNCE}, {"done": {"count": 2}}]
        ran, heard = self.ask({"queue.list": answer}, "queue", "list")
        self.assertEqual(heard.heard, [{"command": "queue.list", "arguments": {}}])
        self.assertEqual(
            ran.out.splitlines(),
            [
                "ID                          AGE   SIZE  STATE     NEXT       SENDER"
                "        RECIPIENTS              CAUSE",
                "01hzzzzzzzzzzzzzzzzzzzzzzz  2 h  4 KiB  deferred  in 16 min  a@local.test"
                "  done@b.test and 1 more  451 4.3.0 later",
                "01hzzzzzzzzzzzzzzzzzzzzzz0  2 h  4 KiB  held      -          <>"
                "            d@d.test",
            ],
        )
        self.assertEqual((ran.code, ran.err), (0, ""))

    def test_list_of_what_waits_for_an_agent(self) -> None:
        """Whom it waits for is said, and no time, since nobody knows that."""
        waiting = {
            "address": "anna@agents.test",
            "state": "scheduled",
            "attempts": 0,
            "next_attempt_at": None,
            "cause": "451 4.4.2 lost",
            "absence": "the agent is not connected",
        }
        row = ROW | {"state": "scheduled", "recipients": [waiting]}
        ran, _ = self.ask({"queue.list": [{"row": row}, {"done": {}}]}, "queue", "list")
        self.assertEqual(
            ran.out.splitlines()[1],
            "01hzzzzzzzzzzzzzzzzzzzzzzz  2 h  4 KiB  scheduled  -     a@local.test"
            "  anna@agents.test  the agent is not connected",
        )

    def test_list_on_a_terminal(self) -> None:
        """Colours and a count; what came by mail cannot steer the terminal."""
        row = ROW | {"sender": "\x1b]0;title\x07@local.test"}
        ran, _ = self.ask(
            {"queue.list": [{"row": row}, {"done": {}}]}, "queue", "list", is_terminal=True
        )
        self.assertIn("\x1b[", ran.out)
        self.assertNotIn("\x1b]0;", ran.out)
        self.assertIn("\\x1b]0;title\\x07@local.test", ran.out)
        self.assertIn("1 message\n", ran.out)

    def test_list_asks_for_less(self) -> None:
        _, heard = self.ask(
            {"queue.list": [{"done": {}}]},
            *("queue", "list", "--domain", "b.test", "--state", "held", "--limit", "5"),
        )
        self.assertEqual(
            heard.heard[0]["arguments"], {"domain": "b.test", "state": "held", "limit": 5}
        )

    def test_list_as_json(self) -> None:
        """One array; empty for an empty queue."""
        answer = [{"row": ROW}, {"row": BOUNCE}, {"done": {}}]
        ran, _ = self.ask({"queue.list": answer}, "queue", "list", "--json")
        self.assertEqual(ran.json(), [ROW, BOUNCE])
        ran, _ = self.ask({"queue.list": [{"done": {}}]}, "queue", "list", "--json")
        self.assertEqual(ran.json(), [])

    def test_show(self) -> None:
        answers = {"queue.show": [{"row": ROW}, {"done": {}}]}
        ran, heard = self.ask(answers, "queue", "show", ID)
        self.assertEqual(heard.heard[0]["arguments"], {"id": ID})
        self.assertIn("sender:     a@local.test\nsource:     smtp 192.0.2.7\n", ran.out)
        self.assertIn("subject:    caf\u00e9 \\x1b[31m\n", ran.out)
        self.assertIn("c@b.test     deferred         2  ", ran.out)
        ran, _ = self.ask(answers, "queue", "show", ID, "--json")
        self.assertEqual(ran.json(), ROW)

    def test_cat(self) -> None:
        """The very octets, whatever they are."""
        pieces = [b"Subject: x\r\n\r\n", b"\xff\x00\x1b"]
        rows = [{"row": {"octets_b64": base64.b64encode(each).decode()}} for each in pieces]
        ran, _ = self.ask({"queue.cat": [*rows, {"done": {}}]}, "queue", "cat", ID)
        self.assertEqual(ran.octets, b"Subject: x\r\n\r\n\xff\x00\x1b")

    def test_ids(self) -> None:
        ran, heard = self.ask({"queue.hold": [{"done": {"count": 2}}]}, "queue", "hold", ID, "x")
        self.assertEqual(heard.heard, [{"command": "queue.hold", "arguments": {"ids": [ID, "x"]}}])
        self.assertEqual(ran.out, "2 messages held\n")

    def test_under_way(self) -> None:
        """What is being delivered just now is not called held, nor removed."""
        answer = {"queue.remove": [{"done": {"count": 0, "later": 1}}]}
        ran, _ = self.ask(answer, "queue", "remove", ID)
        self.assertEqual(
            ran.out,
            "0 messages removed\n1 being delivered just now: what that leaves will be removed\n",
        )

    def test_domain(self) -> None:
        ran, heard = self.ask(
            {"queue.retry": [{"done": {"count": 1}}]},
            *("queue", "retry", "--domain", "b.test", "--json"),
        )
        self.assertEqual(heard.heard[0]["arguments"], {"domain": "b.test"})
        self.assertEqual(ran.json(), {"count": 1})

    def test_many_are_not_removed_unasked(self) -> None:
        """Nothing is asked of the service before somebody is sure."""
        for command in ("remove", "bounce"):
            ran, heard = self.ask({}, "queue", command, "--all")
            self.assertEqual((ran.code, heard.heard), (64, []))
            self.assertEqual(ran.err, f"protege-mta: will not {command} all mail without --yes\n")
        ran, heard = self.ask(
            {"queue.remove": [{"done": {"count": 3}}]}, "queue", "remove", "--all", "--yes"
        )
        self.assertEqual(heard.heard[0]["arguments"], {"all": True})
        self.assertEqual(ran.out, "3 messages removed\n")

    def test_which_ones(self) -> None:
        """Ids, a domain or all, and never two of them."""
        for arguments in ([], [ID, "--all"], ["--all", "--domain", "x.test"]):
            ran, heard = self.ask({}, "queue", "release", *arguments)
            self.assertEqual((ran.code, heard.heard), (64, []))
            self.assertIn("give ids, or --domain, or --all", ran.err)

    def test_errors(self) -> None:
        """The service's own words on stderr, and an exit status for each kind."""
        for kind, code in {"not-found": 66, "usage": 64, "unavailable": 75, "internal": 70}.items():
            ran, _ = self.ask(
                {"queue.show": [{"error": "no such message", "kind": kind}]}, "queue", "show", ID
            )
            self.assertEqual((ran.code, ran.out), (code, ""))
            self.assertEqual(ran.err, "protege-mta: no such message\n")

    def test_service_dies(self) -> None:
        ran, _ = self.ask({"queue.list": [{"row": ROW}]}, "queue", "show", ID)
        self.assertEqual(ran.code, 75)
        self.assertIn("the service went away", ran.err)

    def test_explain(self) -> None:
        standing = {
            "recipients": ["c@b.test"],
            "route": "mx",
            "next_hop": "b.test",
            "site": "mx:mx.b.test",
            "state": "deferred",
            "attempts": 2,
            "next_attempt_at": NOW + 1000,
            "why": "waits for its turn",
        }
        row = ROW | {"standing": [standing]}
        answers = {"explain": [{"row": row}, {"done": {}}]}
        ran, _ = self.ask(answers, "explain", ID)
        self.assertEqual(
            ran.out.splitlines()[:4],
            [
                f"{ID} from a@local.test came 2 h ago, by smtp.",
                "done@b.test: done with; the event log has its fate.",
                "c@b.test: failed 2 times, the last time with: 451 4.3.0 later",
                "c@b.test by mx to b.test: waits for its turn.",
            ],
        )
        self.assertRegex(ran.out.splitlines()[4], r"^Next attempt: .*Z \(in 16 min\)\.$")
        ran, _ = self.ask(answers, "explain", ID, "--json")
        self.assertEqual(ran.json(), row)

    def test_status(self) -> None:
        facts = {
            "version": "0.1.0",
            "queue": {"held": 1},
            "ports": [25, 8026],
            "load": 0.5,
            "x": "",
        }
        answers = {"status": [{"row": facts}, {"done": {}}]}
        ran, _ = self.ask(answers, "status")
        self.assertEqual(
            ran.out,
            "version:    0.1.0\nqueue.held: 1\nports:      25, 8026\nload:       0.500\nx:          none\n",
        )
        ran, _ = self.ask(answers, "status", "--json")
        self.assertEqual(ran.json(), {"is_running": True, **facts})

    def test_status_of_nothing(self) -> None:
        ran = run("status", "--config", str(self.config))
        self.assertEqual((ran.code, ran.out), (69, "The service is not running.\n"))
        ran = run("status", "--json", "--config", str(self.config))
        self.assertEqual((ran.code, json.loads(ran.out)), (69, {"is_running": False}))

    def test_reader_goes_away(self) -> None:
        """``queue list | head`` ends without a word."""
        reader, writer = os.pipe()
        os.close(reader)
        program = "import sys; from protege_mta.cli import main; sys.exit(main(['--help']))"
        ran = subprocess.run(
            [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False
        )
        os.close(writer)
        self.assertEqual((ran.returncode, ran.stderr), (1, b""))
