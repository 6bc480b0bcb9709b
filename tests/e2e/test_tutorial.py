"""The tutorial, typed in word for word: its ``sh run`` blocks, with free ports in place of its own.

the tutorial's commands ---> protege-mta (first)  ---> Maildirs of localhost.test
         |                        ^      |
         |                        |      +--- DNS ---> NSD, which knows no name at all
         +-----> protege-mta (second, made by init)
         |                        ^
         +-----> protege-mta (relay, made by init)  <--- WebSocket --- protege-mta (laptop)
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.nameserver import NameServer
from protege_mta.testing.opendkim import OpenDkim
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
        # Whatever uses the same addresses on this machine: there the ports are the usual ones.
        network = f"127.{random.randrange(1, 255)}.{random.randrange(256)}"
        for number in "23":
            self.text = self.text.replace(f"127.0.0.{number}", f"{network}.{number}")
        self.dns = dns = f"{server.address}:{server.port}"
        top = FIRST.format(
            smtp=ports["2525"], submission=ports["2587"], http=ports["8026"], dns=dns
        )
        self.first = Service(top=top)
        self.addCleanup(self.first.close)
        self.second, self.relay, self.laptop = map(self.made, ("second", "relay", "laptop"))

    def made(self, name: str) -> Service:
        """One that ``init`` makes."""
        service = Service()
        self.addCleanup(service.close)
        service.config = self.first.folder / name / "protege-mta.toml"
        return service

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

    def before(self, script: str) -> None:
        """What the tutorial has its reader do in other terminals before a block."""
        if "retry" in script:
            self.first.start()
        elif "tunnel list" in script and "status" in script:
            with self.relay.config.open("a") as config:
                config.write(f'\n[dns]\nnameservers = ["{self.dns}"]\n')
            self.relay.start()
            self.laptop.start()
            until(lambda: "connected to the relay" in self.laptop.log(), "the session")
        elif "While you were away" in script:
            self.laptop.terminate()

    def after(self, script: str) -> None:
        """Likewise after it."""
        if "init second" in script:
            self.first.terminate()
            self.second.start()
        elif "While you were away" in script:
            self.laptop.start()
            folder = self.laptop.config.parent / "mail/mail.local.test"
            until(lambda: len(list(folder.glob("*/new/*"))) == 2, "what waited")

    def test_every_block_shows_what_the_tutorial_says(self) -> None:
        said: list[str] = []
        exports = ""
        self.first.start()
        for script in re.findall(r"```sh run\n(.*?)```", self.text, re.DOTALL):
            self.before(script)
            said.append(self.run_block(script, exports))
            exports += "".join(re.findall(r"(?m)^export .*\n", script))
            self.after(script)
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
            *of_tunnel,
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
        self.check_tunnel(*of_tunnel)

    def check_tunnel(
        self,
        made: str,
        allowed: str,
        seen: str,
        written: str,
        read: str,
        answered: str,
        answer: str,
        verified: str,
        away: str,
        back: str,
    ) -> None:
        address = (self.laptop.config.parent / "address").read_text().strip()
        key = address.partition("@")[0]
        self.assertIn(f"\nOur address: {address}\n", made)
        self.assertEqual(allowed, f"allowed {key}\n")
        self.assertRegex(seen, rf"(?m)^{key} .* connected +now$")
        self.assertRegex(seen, r"(?m)^tunnel\.sessions: +1$")
        self.assertRegex(seen, r"(?m)^relay\.1\.state: +connected$")
        self.assertEqual((written, answered), ("", ""))
        found = (
            r"(?s)Received: .*Authentication-Results: relay\.local\.test;.*Received: .*Hello\.\n$"
        )
        self.assertRegex(read, found)
        self.assertIn(f"Return-Path: <{address}>\n", answer)
        self.assertEqual(answer.count("DKIM-Signature: "), 2)
        self.assertEqual(verified, "True\nTrue\n")
        self.assertRegex(away, r"(?m) alice@localhost\.test .* the agent is not connected$")
        self.assertRegex(away, rf"(?m)^{key} .* away ")
        self.assertEqual(back.count("Subject: While you were away\n"), 1)
        self.check_signature(answer)

    def check_signature(self, answer: str) -> None:
        """By somebody else's program, too."""
        shown = json.loads(self.relay.cli("dkim", "show", "--json").stdout)
        folder = self.first.folder / "opendkim"
        folder.mkdir()
        verifier = OpenDkim({each["name"]: each["value"] for each in shown}, folder)
        findings = verifier.findings(answer.replace("\n", "\r\n").encode())
        self.assertEqual(findings["rsa"], "pass")
