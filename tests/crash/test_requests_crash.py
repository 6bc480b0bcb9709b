"""A message that has a name is there once, whenever the power is cut or the process killed, if its
sender hands it in until it has been acknowledged."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from shutil import rmtree
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.medium import crashes
from protege_mta.testing.states import HeldDatabase

from .requesting import Life, Restarts, at

ROOT: Final = Path(__file__).parents[2]
MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A disk that syncs at once."""

SEEDS: Final = int(os.environ.get("CRASH_SEEDS", "6"))
FIRST: Final = int(os.environ.get("CRASH_FIRST_SEED", "1"))
SAMPLES: Final = 4
ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "50"))
SEED: Final = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


class PowerCutTests(SynchronousTestCase):
    timeout = 3600

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="requests-", dir=MEMORY))
        self.addCleanup(rmtree, self.folder)

    def test_every_step(self) -> None:
        """Of the spool on its disk, with all that the database may hold by then."""
        restarts, crashed, faults = Restarts(self.folder / "restarts"), 0, []
        self.addCleanup(restarts.close)
        for seed in range(FIRST, FIRST + SEEDS):
            database = HeldDatabase(self.folder / str(seed))
            database.open()
            disk = CrashFiles()
            life = Life(disk, database, seed=1)
            life.mark()
            life.live(random.Random(seed), 60)
            database.close()
            for after, tree in crashes(disk.before, disk.steps, samples=SAMPLES, seed=seed):
                for moment in at(life.moments, after):
                    crashed += 1
                    faults += [
                        f"seed {seed}, step {after}: {one}" for one in restarts.faults(tree, moment)
                    ]
        sys.stdout.write(f"\n{crashed} crashes, {restarts.count} different restarts\n")
        self.assertEqual(faults[:5], [])
        self.assertGreater(restarts.count, 100)


class KillTests(SynchronousTestCase):
    timeout = 600

    def test_killed_between_any_two_steps(self) -> None:
        """A real process with a real disk: many lives, each with a sudden end."""
        folder = Path(tempfile.mkdtemp(prefix="handing-in-"))
        self.addCleanup(rmtree, folder)
        subprocess.run(
            [sys.executable, "-m", "tests.crash.handing_in", folder, str(SEED), str(ROUNDS)],
            cwd=ROOT,
            check=True,
            timeout=self.timeout,
        )
        lines = [json.loads(line) for line in (folder / "log").read_bytes().splitlines()]
        ids: dict[str, dict[str, set[str]]] = {}
        for one in lines:
            ids.setdefault(one["name"], {}).setdefault(one["what"], set()).add(one["id"])
        told = Counter(one["what"] for one in lines)
        sys.stdout.write(f"\nseed {SEED}: {len(ids)} names, {dict(told)}\n")
        self.assertGreater(len(ids), ROUNDS)
        for name, found in ids.items():
            [id] = found["acknowledged"]
            self.assertEqual(found["scheduled"], {id}, name)
            self.assertEqual(found["delivered"], {id}, name)
