"""Cuts the power everywhere in a recorded run, and restarts on all that this can leave."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import attrs

from protege_mta.model.ports import Position
from protege_mta.testing.medium import Tree, crashes

from .recording import Found, Recording, Violation, restarted
from .scenarios import Life

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
    run: Recording, *, samples: int | None = None, seed: int = 0, is_hasty: bool = False
) -> tuple[Explored, list[Survivor]]:
    """Crash it everywhere.

    :param samples: None for every combination, of 64 operations at most; else so many a step.
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
            again = run.after(one.found, one.tree, one.cursor)
            life(again)
        except (Violation, OSError) as error:
            explored.violations.append(f"work after a crash: {error}")
            continue
        explored.add(explore(again, is_hasty=is_hasty)[0])
        if is_hasty and explored.violations:
            break
    return explored


def _matters(path: Path) -> bool:
    """Nobody reads what is in the lock."""
    return path.name != "lock"
