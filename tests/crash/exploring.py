"""Cuts the power everywhere in a recorded run, and restarts on all that this can leave."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import attrs

from protege_mta.model.ports import Position
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.medium import Step, Tree, crashes

from .recording import Found, Recording, Violation, find, restarted
from .scenarios import Life, Workshop

EXHAUSTIVE_STEPS: Final = 64
"""Up to so many operations every combination is tried."""


@attrs.define
class Explored:
    """:ivar runs: that were explored, and :ivar operations: that they did on the disk.
    :ivar crashes: that were tried.
    :ivar trees: how many different ones they left, each recovered from, more than once.
    :ivar violations: what is wrong, in words.
    """

    runs: int = 0
    operations: int = 0
    crashes: int = 0
    trees: int = 0
    violations: list[str] = attrs.field(factory=list)

    def add(self, other: Explored) -> None:
        self.runs += other.runs
        self.operations += other.operations
        self.crashes += other.crashes
        self.trees += other.trees
        self.violations += other.violations

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.operations} operations, {self.crashes} crashes, "
            f"{self.trees} different disks, {len(self.violations)} violations"
        )


@attrs.frozen
class Survivor:
    """A disk after a crash, from which a restart has recovered.

    :ivar cursor: the journal's.
    """

    tree: Tree
    cursor: Position
    found: Found


def explore(
    run: Recording,
    *,
    samples: int | None = None,
    seed: int = 0,
    first: int = 0,
    is_hasty: bool = False,
) -> tuple[Explored, list[Survivor]]:
    """Crash it everywhere.

    :param samples: None for every combination, of 64 operations at most; else so many a step.
    :param first: how many operations have been done before the first crash.
    :param is_hasty: whether one violation is enough.
    """
    steps = run.disk.steps
    if samples is None and len(steps) > EXHAUSTIVE_STEPS:
        raise ValueError(f"{len(steps)} operations are too many to try everything")
    explored = Explored(1, len(steps))
    survivors: list[Survivor] = []
    known: dict[tuple[bytes, Position], Found | str] = {}
    for after, tree in crashes(
        run.disk.before, steps, samples=samples, seed=seed, matters=_matters
    ):
        if after < first:
            continue
        explored.crashes += 1
        cursor = run.cursor(after)
        key = tree.digest(), cursor
        found = known.get(key)
        if found is None:
            try:
                found = restarted(tree, cursor, type(run.disk), run.kind)
            except (Violation, OSError) as error:
                found = str(error) or repr(error)
            else:
                survivors.append(Survivor(tree, cursor, found))
            known[key] = found
        fault = found if isinstance(found, str) else run.fault(after, found)
        if fault:
            explored.violations.append(f"after step {after} of {len(steps)}: {fault}")
            if is_hasty:
                break
    explored.trees = len(known)
    return explored, survivors


def explore_on(
    run: Recording,
    survivors: list[Survivor],
    life: Life,
    count: int,
    *,
    seed: int = 0,
    is_hasty: bool = False,
) -> Explored:
    """Go on from ``count`` of the survivors, and crash that, too, recovery included."""
    explored = Explored()
    for one in random.Random(seed).sample(survivors, min(count, len(survivors))):
        try:
            again = run.after(one.found, type(run.disk)(one.tree), one.cursor)
            life(again)
        except (Violation, OSError) as error:
            explored.violations.append(f"work after a crash: {error}")
            continue
        explored.add(explore(again, is_hasty=is_hasty)[0])
        if is_hasty and explored.violations:
            break
    return explored


class Killed(BaseException):
    """The process has met its end."""


class MortalFiles(CrashFiles):
    """A disk that survives the process: what this has done stays, certain or not.

    :ivar most: how many operations the process lives to do.
    """

    most = 1_000_000

    def _step(self, step: Step) -> None:
        if len(self.steps) >= self.most:
            raise Killed
        super()._step(step)

    def bury(self) -> None:
        """Another process may come."""
        self._open.clear()
        self._locks.clear()
        self.most = 1_000_000


def explore_killed(life: Life) -> Explored:
    """Kill the process before each operation, start another one on what the kernel has of the disk,
    and cut the power once that is up: nothing may be lost then that it has shown.
    """
    explored = Explored()
    steps = len(Workshop(MortalFiles).live(life).disk.steps)
    born = len(Workshop(MortalFiles).ready(life).disk.steps)
    for most in range(born, steps):
        run = Workshop(MortalFiles).ready(life)
        disk = run.disk
        if not isinstance(disk, MortalFiles):
            raise TypeError("this disk survives nobody")
        disk.most = most
        try:
            life(run)
        except (Killed, Violation):
            disk.bury()
        cursor = run.cursor(len(disk.steps))
        spool, found = find(MortalFiles(disk.tree()), cursor, run.kind)
        spool.close()
        fault = run.fault(len(disk.steps), found)
        if fault:
            explored.violations.append(f"killed after step {most} of {steps}: {fault}")
        again = run.after(found, disk, cursor)
        first = len(disk.steps)
        again.append(30)
        explored.add(explore(again, samples=0, first=first)[0])
    return explored


def _matters(path: Path) -> bool:
    """Nobody reads what is in the lock."""
    return path.name != "lock"
