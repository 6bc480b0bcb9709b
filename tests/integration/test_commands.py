"""The commands against a real service, while it runs and while it does not.

sendmail --submit.sock--> protege-mta run --smarthost--> nobody listens there
queue, explain, status --control.sock--> the same, or the spool itself
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..unit.console import Ran, run

PROGRAM = "import sys; from protege_mta.cli import main; sys.exit(main(sys.argv[1:]))"
WAIT_S = 60


class CommandsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        ports = [f"--{name}-port=0" for name in ("smtp", "submission", "submissions", "http")]
        self.ran("init", str(self.folder), "--address", "127.0.0.1", *ports)
        self.config = self.folder / "protege-mta.toml"
        smarthost = 'smarthost = { host = "127.0.0.1", port = 1, tls = "none" }'
        text = self.config.read_text().replace('route = "mx"', f'route = "smarthost"\n{smarthost}')
        # trial's own temporary folders are longer than a socket's address may be.
        run_dir = tempfile.mkdtemp(prefix="protege-mta-")
        self.addCleanup(shutil.rmtree, run_dir)
        self.config.write_text(text.replace("state_dir =", f'run_dir = "{run_dir}"\nstate_dir ='))

    def ran(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> Ran:
        done = run(*arguments, stdin=stdin)
        self.assertEqual(done.code, code, done.err)
        return done

    def ask(self, *arguments: str, code: int = 0) -> Any:
        done = self.ran(*arguments, "--json", "--config", str(self.config), code=code)
        return done.json() if done.out else done.err

    def start(self) -> subprocess.Popen[str]:
        service = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "run", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("ab"),
            text=True,
        )
        self.addCleanup(self.stop, service)
        assert service.stdout is not None
        for line in service.stdout:
            if line.startswith("events:"):  # everything listens by then
                return service
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, service: subprocess.Popen[str]) -> None:
        if service.poll() is None:
            service.send_signal(signal.SIGTERM)
        service.wait(WAIT_S)
        assert service.stdout is not None
        service.stdout.close()

    def send(self, subject: str) -> str:
        text = f"Subject: {subject}\n\nHello.\n".encode()
        options = ("-v", "-f", "agent@local.test", "--config", str(self.config))
        done = self.ran("sendmail", *options, "x@far.test", stdin=text)
        return done.out.split()[-1]

    def states(self) -> dict[str, str]:
        return {row["subject"]: row["state"] for row in self.ask("queue", "list")}

    def test_with_and_without_a_service(self) -> None:
        self.assertEqual(self.ask("status", code=69), {"is_running": False})
        service = self.start()
        self.assertTrue(self.ask("status")["is_running"])
        first, second, third = (self.send(word) for word in ("first", "second", "third"))
        self.assertEqual(self.ask("queue", "hold", first), {"count": 1})
        self.assertEqual(self.states()["first"], "held")
        self.assertEqual(self.ask("explain", first)["standing"][0]["state"], "held")
        self.stop(service)

        # The same commands, on the spool itself.
        self.assertEqual(self.ask("status", code=69), {"is_running": False})
        self.assertEqual(self.states().keys(), {"first", "second", "third"})
        shown = self.ask("queue", "show", second)
        self.assertEqual((shown["id"], shown["sender"]), (second, "agent@local.test"))
        octets = self.ran("queue", "cat", second, "--config", str(self.config)).octets
        self.assertTrue(octets.endswith(b"\r\n\r\nHello.\r\n"), octets)
        why = self.ask("explain", second)["standing"][0]["why"]
        self.assertEqual(why, "the service is not running")
        self.assertEqual(self.ask("queue", "hold", "--domain", "far.test"), {"count": 2})
        self.assertEqual(self.ask("queue", "release", first), {"count": 1})
        self.assertEqual(self.ask("queue", "remove", second), {"count": 1})
        self.assertIn("no message", self.ask("queue", "show", second, code=66))
        self.assertEqual(self.ask("queue", "bounce", third), {"count": 1})

        # What was done without the service is what it finds.
        service = self.start()
        self.assertNotIn("second", self.states())
        self.assertNotIn("third", self.states())
        self.assertNotEqual(self.states()["first"], "held")
        self.assertEqual(self.ask("queue", "remove", first), {"count": 1})
        self.stop(service)
        events = (self.folder / "state/events.jsonl").read_text().splitlines()
        fates = {
            event["message_id"]: event["event"]
            for event in map(json.loads, events)
            if event["event"] in ("removed", "bounced")
        }
        self.assertEqual(fates, {first: "removed", second: "removed", third: "bounced"})

    def test_spool_of_another_user(self) -> None:
        """Nobody leaves files there that the service could not read."""
        if os.geteuid() != 0:
            raise SkipTest("needs root, to be another user than the spool's")
        self.stop(self.start())
        nobody = pwd.getpwnam("nobody")
        for path in [self.folder / "state", *(self.folder / "state").rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        text = self.ask("queue", "list", code=77)
        self.assertIn(f"belongs to user {nobody.pw_uid}", text)
