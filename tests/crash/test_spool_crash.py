"""Cut the power behind every step that the spool takes on the disk, and look what is left.

``scenarios`` has short lives of a spool; each is recorded on a disk in memory.  For every prefix of
its operations, and for every combination of what a crash can do to those that no sync covers (kept,
dropped, torn, in order or not), recovery has to find the state after some prefix of the batches: at
least all that were acknowledged, at most all that were begun, none by half, every content as it was,
and every event that the journal has not synced; the next recovery finds the same, and the spool goes
on.  Long random lives are sampled.  ``broken`` has spools that must not pass.

``CRASH_SEEDS`` says how many random lives there are (``make crash``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.medium import crashes

from .broken import BROKEN
from .exploring import Explored, explore, explore_killed, explore_on
from .scenarios import NEW, OLD, Workshop, after_a_crash, at_random, reclaiming, recycled

SEEDS: Final = int(os.environ.get("CRASH_SEEDS", "1"))
FIRST: Final = int(os.environ.get("CRASH_FIRST_SEED", "5"))
SURVIVORS: Final = 2 if SEEDS <= 2 else 40
SAMPLES: Final = 1 if SEEDS <= 2 else 8


class CrashTests(SynchronousTestCase):
    """Every crash there can be."""

    timeout = 36_000

    def say(self, what: str, explored: Explored) -> None:
        sys.stdout.write(f"\n{what}: {explored}\n")
        self.assertEqual(explored.violations[:5], [])

    def test_every_crash(self) -> None:
        """Nothing acknowledged is lost, nothing ended comes back, nothing else appears; and all
        that again in what comes after the crash."""
        first, second = Explored(), Explored()
        for life in (*NEW, *OLD):
            run = Workshop().live(life)
            explored, survivors = explore(run)
            first.add(explored)
            second.add(explore_on(run, survivors, after_a_crash, SURVIVORS))
        self.say("every crash", first)
        self.say("every crash in recovery and in the work after it", second)
        self.assertGreater(first.crashes, 3000)

    def test_every_crash_with_a_ring(self) -> None:
        """The same where the kernel writes the groups."""
        explored = Explored()
        for life in (*NEW, *OLD):
            explored.add(explore(Workshop(has_ring=True).live(life))[0])
        self.say("every crash with a ring", explored)
        self.assertGreater(explored.crashes, 3000)

    def test_random_lives(self) -> None:
        """The same of long lives, of whose crashes some are tried."""
        sampled = Explored()
        for seed in range(FIRST, FIRST + SEEDS):
            run = Workshop().live(at_random, seed)
            explored, survivors = explore(run, samples=SAMPLES, seed=seed)
            sampled.add(explored)
            sampled.add(explore_on(run, survivors, after_a_crash, SURVIVORS, seed=seed))
        self.say(f"random lives {FIRST} to {FIRST + SEEDS - 1}", sampled)

    def test_killed_before(self) -> None:
        """What a restart after a kill shows, no loss of power takes back: it may have been nowhere
        but in the kernel's memory."""
        killed = Explored()
        for life in (reclaiming, recycled):
            killed.add(explore_killed(life))
        self.say("killed, and the power cut then", killed)

    def test_what_happens(self) -> None:
        """The lives have in them what they are there for."""
        names = {
            step.path.suffix or step.path.parent.name
            for life in (*NEW, *OLD)
            for step in Workshop().live(life).disk.steps
            if step.name == "create"
        }
        self.assertEqual(names, {".fresh", ".kept", "big", "0"})
        emptied = Workshop().live(OLD[1])
        self.assertGreater(sum(step.name == "unlink" for step in emptied.disk.steps), 5)
        steps = Workshop().live(recycled).disk.steps
        again = [step.inode for step in steps if step.to.suffix == ".fresh"]
        groups = [step.inode for step in steps if step.name == "write" and step.inode in again]
        self.assertEqual([groups.count(inode) for inode in again], [3, 4])

    def test_broken_spools_are_caught(self) -> None:
        """This test would notice a spool that forgets one thing."""
        for broken in BROKEN:
            explored = broken.explored()
            self.assertNotEqual(explored.violations, [], broken.name)
            sys.stdout.write(f"\n{broken.name}: {explored.violations[0]}")
        sys.stdout.write("\n")


class MediumTests(SynchronousTestCase):
    """What a crash can leave, where a person can count it."""

    def setUp(self) -> None:
        self.disk = CrashFiles()

    def left(self) -> set[frozenset[tuple[str, bytes]]]:
        """The files of every disk that a crash now could leave."""
        after = len(self.disk.steps)
        return {
            frozenset((path.name, octets) for path, octets in tree.files.items())
            for at, tree in crashes(self.disk.before, self.disk.steps)
            if at == after
        }

    def test_write(self) -> None:
        """Kept, dropped, torn in the middle, or a size without octets; the name there or not."""
        fd = self.disk.create(Path("/a"))
        self.disk.write(fd, [b"12", b"34"], 0)
        contents = (b"1234", b"", b"12", b"\0\x0034", b"\0\0\0\0")
        self.assertEqual(
            self.left(), {frozenset(), *(frozenset({("a", octets)}) for octets in contents)}
        )
        self.disk.sync_data(fd)
        self.assertEqual(self.left(), {frozenset(), frozenset({("a", b"1234")})})
        self.disk.sync_folder(Path("/"))
        self.assertEqual(self.left(), {frozenset({("a", b"1234")})})

    def test_order(self) -> None:
        """A later write may be there without an earlier one, in another file, too."""
        for name in "ab":
            fd = self.disk.create(Path("/") / name)
            self.disk.sync_folder(Path("/"))
            self.disk.write(fd, [b"1"], 0)
        self.assertIn(frozenset({("a", b""), ("b", b"1")}), self.left())
        self.assertIn(frozenset({("a", b"1"), ("b", b"")}), self.left())

    def test_names(self) -> None:
        """An unlinked file may be back; a renamed one has one name, or the other, or both."""
        self.disk.create(Path("/a"))
        self.disk.sync_folder(Path("/"))
        self.disk.rename(Path("/a"), Path("/b"))
        a, b = ("a", b""), ("b", b"")
        self.assertEqual(self.left(), {frozenset({a}), frozenset({b}), frozenset({a, b})})
        self.disk.sync_folder(Path("/"))
        self.disk.unlink(Path("/b"))
        self.assertEqual(self.left(), {frozenset({b}), frozenset()})

    def test_folders(self) -> None:
        """A folder that is lost takes along what lies in it, synced or not."""
        self.disk.make_folder(Path("/f"))
        self.disk.sync(self.disk.create(Path("/f/a")))
        self.disk.sync_folder(Path("/f"))
        self.assertEqual(self.left(), {frozenset(), frozenset({("a", b"")})})
        self.disk.sync_folder(Path("/"))
        self.assertEqual(self.left(), {frozenset({("a", b"")})})

    def test_sizes(self) -> None:
        """What is cut off may be back; of what is reserved, half may be there."""
        fd = self.disk.create(Path("/a"))
        self.disk.sync_folder(Path("/"))
        self.disk.allocate(fd, 8)
        self.assertEqual(self.left(), {frozenset({("a", bytes(n))}) for n in (0, 4, 8)})
        self.disk.sync(fd)
        self.disk.truncate(fd, 2)
        self.assertEqual(self.left(), {frozenset({("a", bytes(n))}) for n in (2, 8)})

    def test_seeds(self) -> None:
        """A seed's crash is the same each time."""
        run = Workshop().live(at_random)
        one, same = (run.disk.crashed(150, "torn", 1).tree() for _ in range(2))
        self.assertEqual(one, same)
        self.assertNotEqual(one, run.disk.crashed(150, "torn", 3).tree())
