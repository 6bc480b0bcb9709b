"""``suppression import`` of a long list: how long it takes, what a person sees, and what is left of
it when it dies.

a file of 100,000 lines  -->  protege-mta suppression import  -->  state.sqlite
"""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta import cli

LINES: Final = 100_000
LONGEST_S: Final = 60.0
"""It takes some three seconds where nothing else runs."""

ROOT: Final = Path(cli.__file__).parents[2]
PROGRAM: Final = "from protege_mta.cli import main; main()"


class ImportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "c.toml").write_text('state_dir = "state"\n')
        self.file = self.folder / "list.csv"
        lines = (f"r{number}@d{number % 97}.test,complaint" for number in range(LINES))
        self.file.write_text("\n".join(["address,reason", *lines]))

    def command(self) -> list[str]:
        arguments = ["suppression", "import", str(self.file), "--csv"]
        config = ["--config", str(self.folder / "c.toml")]
        return [sys.executable, "-c", PROGRAM, *arguments, *config]

    def count(self) -> int:
        path = self.folder / "state" / "state.sqlite"
        if not path.exists():
            return 0
        connection = sqlite3.connect(path)
        try:
            [(count,)] = connection.execute("SELECT count(*) FROM suppression")
        except sqlite3.OperationalError:  # it is being made
            return 0
        finally:
            connection.close()
        return int(count)

    def test_quick(self) -> None:
        began = time.monotonic()
        done = subprocess.run(self.command(), cwd=ROOT, capture_output=True, timeout=600)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(done.stdout, b"added 100000, left out 0\n")
        self.assertEqual(self.count(), LINES)
        self.assertLess(time.monotonic() - began, LONGEST_S)

    def test_killed_and_done_again(self) -> None:
        """What was added is there; the same again adds the rest."""
        process = subprocess.Popen(self.command(), cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LONGEST_S
        while not self.count() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertTrue(0 < self.count() <= LINES)
        self.assertEqual(self.count() % 5000, 0)
        subprocess.run(self.command(), cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=600)
        self.assertEqual(self.count(), LINES)

    def test_a_bar_where_a_person_waits(self) -> None:
        """And nothing of it is left behind the line that says how it went."""
        person, terminal = pty.openpty()
        process = subprocess.Popen(
            self.command(),
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        seen = b""
        try:
            while octets := os.read(person, 65536):
                seen += octets
        except OSError:  # EIO: the other end is closed
            pass
        finally:
            os.close(person)
        self.assertEqual(process.wait(), 0)
        self.assertIn(b"importing", seen)
        self.assertIn(b"%", seen)
        self.assertTrue(seen.endswith(b"added 100000, left out 0\r\n"), seen[-200:])
