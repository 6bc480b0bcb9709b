"""The tutorial, typed in word for word: its ``sh run`` blocks, with free ports in place of its own.

the tutorial's commands ---> protege-mta (first)  ---> Maildirs of localhost.test
         |                        ^      |
         |                        |      +--- DNS ---> NSD, which knows no name at all
         +-----> protege-mta (second, made by init)
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.nameserver import NameServer
from protege_mta.testing.peers import free_port
from tests.e2e.service import PATH, PROGRAM, Service, needs, until

TUTORIAL: Final = Path(__file__).parents[2] / "docs/tutorial.md"

NOTHING: Final = (
    ". 60 IN SOA ns.invalid. nobody.invalid. 1 3600 600 86400 60\n. IN NS ns.invalid.\n"
)

FIRST: Final = """\
state_dir = "protege-mta-data"

[[listener]]
kind = "smtp"
port = {smtp}

[[listener]]
kind = "submission"
port = {submission}

[[listener]]
kind = "http"
port = {http}

[domains."localhost.test"]
deliver = "maildir"
maildir = "protege-mta-data/mail/{{domain}}/{{local_part}}"
recipients = ["*"]

[policy]
authenticate = false

[dns]
nameservers = ["{dns}"]
"""
"""The embedded default, but for its ports and name server."""


class TutorialTests(SynchronousTestCase):
    def setUp(self) -> None:
        needs("curl")
        server = NameServer(NOTHING, ".")
        self.addCleanup(server.stop)
        ports = {
            name: free_port() for name in ("2525", "2587", "8026", "2526", "8027", "2588", "2466")
        }
        self.text = TUTORIAL.read_text("utf-8")
        for written, free in ports.items():
            self.text = self.text.replace(written, str(free))
        dns = f"{server.address}:{server.port}"
        top = FIRST.format(
            smtp=ports["2525"], submission=ports["2587"], http=ports["8026"], dns=dns
        )
        self.first = Service(top=top)
        self.addCleanup(self.first.close)
        self.second = Service()
        self.addCleanup(self.second.close)
        self.second.config = self.first.folder / "second" / "protege-mta.toml"

    def run_block(self, script: str, exports: str) -> str:
        """What a block prints; it must succeed.  One that only looks may have to look again: on a
        busy machine delivery takes longer than going on to the next block."""
        ended = self.run_once(script, exports)
        if script.startswith("cat ") and ended.returncode:
            ended = until(lambda: self.looked_again(script, exports), script)
        self.assertEqual(ended.returncode, 0, f"{script}\n{ended.stdout}\n{self.first.log_tail()}")
        return ended.stdout

    def looked_again(self, script: str, exports: str) -> subprocess.CompletedProcess[str] | None:
        ended = self.run_once(script, exports)
        return None if ended.returncode else ended

    def run_once(self, script: str, exports: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", "-ec", exports + script],
            cwd=self.first.folder,
            env={**os.environ, "PATH": f"{PROGRAM.parent}:{PATH}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def configure_second(self) -> None:
        """Replace a table in its configuration, as the tutorial says."""
        [table] = re.findall(r"```toml\n(\[outbound\].*?)```", self.text, re.DOTALL)
        written = self.second.config.read_text("utf-8")
        changed = re.sub(r"\[outbound\].*?(?=\n\[dkim)", table, written, flags=re.DOTALL)
        self.assertNotEqual(changed, written)
        self.second.config.write_text(changed, "utf-8")

    def test_every_block_shows_what_the_tutorial_says(self) -> None:
        said: list[str] = []
        exports = ""
        self.first.start()
        for script in re.findall(r"```sh run\n(.*?)```", self.text, re.DOTALL):
            if "retry" in script:
                self.first.start()
            said.append(self.run_block(script, exports))
            exports += "".join(re.findall(r"(?m)^export .*\n", script))
            if "init second" in script:
                self.configure_second()
                self.first.terminate()
                self.second.start()
        (
            sent,
            read,
            empty,
            told,
            added,
            logged_in,
            mine,
            failed,
            report,
            why,
            figures,
            made,
            deferred,
            retried,
        ) = said
        self.assertEqual((sent, logged_in, failed), ("", "", ""))
        self.assertIn("agent", added)
        self.assertIn("with ESMTPSA id", mine)
        self.assertIn("\nMessage-ID: <", mine)
        self.assertIn("Subject: First\n\nHello.\n", read)
        self.assertEqual(len(empty.splitlines()), 1)
        self.assertIn('{"event":"delivered"', told)
        self.assertIn("Status: 5.1.2\n", report)
        self.assertIn('{"event":"bounced"', why)
        self.assertIn('protege_mta_events_total{event="bounced",route=""} 1.0', figures)
        self.assertIn('{"ok":true}', figures)
        self.assertTrue(made.endswith(": ok\n"), made)
        self.assertRegex(
            deferred, r"deferred +in \d+ min +you@second.test .* 451 4\.4\.1 no answer"
        )
        self.assertTrue(retried.startswith("1 message to be tried now\n"), retried)
        self.assertNotIn("deferred", retried)
        self.assertEqual(retried.count("DKIM-Signature: "), 2)
        self.assertIn("Subject: Second\n", retried)
