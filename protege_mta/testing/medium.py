"""What a disk holds for certain, what it may hold, and everything that a loss of power can leave.

An operation counts for certain once a sync that covers it has returned: :func:`fdatasync` and
:func:`fsync` cover a file's octets and its size, and only the sync of a folder covers the names in
it.  This is the least that POSIX promises.  Of what is not covered, each operation is kept, dropped
or torn, whatever became of the ones before and after it: so everything that a file system may do is
among the outcomes, be it one that keeps the order (ext4's journal) or one that does not.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

SECTOR_OCTETS: Final = 512

Outcome = tuple["Step", ...]
"""What an operation comes to: the operations that take its place."""


@attrs.frozen
class Step:
    """One operation.

    :ivar inode: the file, or 0.
    :ivar path: the name or folder, for operations that have one.
    :ivar to: the new name of what is renamed.
    :ivar offset: where a write goes; the new size of what is truncated or allocated.
    """

    name: Literal[
        "create",
        "write",
        "truncate",
        "allocate",
        "sync",
        "unlink",
        "rename",
        "make-folder",
        "sync-folder",
    ]
    inode: int = 0
    path: Path = Path()
    offset: int = 0
    octets: bytes = b""
    to: Path = Path()

    def outcomes(self) -> tuple[Outcome, ...]:
        """All that may become of it where no sync covers it: kept first, dropped second."""
        whole: tuple[Outcome, ...] = ((self,), ())
        if self.name == "write":
            return (*whole, *self._torn())
        if self.name == "allocate":
            return (*whole, (attrs.evolve(self, offset=self.offset // 2),))
        if self.name == "rename":
            # The new name is there, and the old one is still there, too.
            return (*whole, (attrs.evolve(self, name="create", path=self.to),))
        return whole

    def _torn(self) -> Iterator[Outcome]:
        """A beginning, an end, both without the middle, or the size alone, with zeros in it."""
        end = self.offset + len(self.octets)
        cuts = [
            at for at in range(self.offset, end) if at % SECTOR_OCTETS == 0 and at > self.offset
        ]
        # Within a sector, too: not every medium writes one at once.
        middle = cuts[len(cuts) // 2] if cuts else self.offset + len(self.octets) // 2
        yield (self._part(self.offset, middle),)
        yield (self._part(middle, end),)
        if len(cuts) > 1:
            yield (self._part(self.offset, cuts[0]), self._part(cuts[-1], end))
        yield (attrs.evolve(self, name="allocate", offset=end, octets=b""),)

    def scattered(self, rng: random.Random) -> Outcome:
        """Of a write, each sector as chance would have it; of others, one of the outcomes."""
        if self.name != "write":
            return rng.choice(self.outcomes())
        end = self.offset + len(self.octets)
        starts = [
            self.offset,
            *(at for at in range(self.offset + 1, end) if not at % SECTOR_OCTETS),
        ]
        sectors = zip(starts, [*starts[1:], end], strict=True)
        return tuple([self._part(*it) for it in sectors if rng.random() < 0.5])

    def _part(self, start: int, end: int) -> Step:
        octets = self.octets[start - self.offset : end - self.offset]
        return attrs.evolve(self, offset=start, octets=octets)


@attrs.frozen
class Tree:
    """What somebody finds on a disk: folders, and files with their octets."""

    folders: frozenset[Path]
    files: Mapping[Path, bytes]

    def digest(self) -> bytes:
        """The same for equal trees, and for no others."""
        found = hashlib.blake2b(digest_size=16)
        for folder in sorted(self.folders):
            found.update(b"%b\0" % bytes(folder))
        for path, octets in sorted(self.files.items()):
            found.update(b"%b\0%d\0" % (bytes(path), len(octets)))
            found.update(octets)
        return found.digest()


@attrs.define(eq=False)
class _File:
    """:ivar unsynced: what has been done to it since its last sync."""

    now: bytearray = attrs.field(factory=bytearray)
    synced: bytes = b""
    unsynced: list[Step] = attrs.field(factory=list)


@attrs.frozen
class _Names:
    """What the folders hold."""

    folders: frozenset[Path]
    files: frozenset[tuple[Path, int]]


class Medium:
    """A disk on which nothing is certain before it is synced.

    :ivar names: of the files there are now, and their inodes.
    :ivar folders: that there are now.
    """

    def __init__(self, tree: Tree) -> None:
        """:param tree: what is on it, for certain."""
        self.names: dict[Path, int] = {}
        self.folders = set(tree.folders)
        self._files: dict[int, _File] = {}
        for inode, (path, octets) in enumerate(tree.files.items(), 1):
            self.names[path] = inode
            self._files[inode] = _File(bytearray(octets), octets)
        self._synced_names = dict(self.names)
        self._synced_folders = set(self.folders)
        self._unsynced: list[Step] = []  # of names

    def do(self, step: Step) -> None:
        """Do one operation."""
        if step.name == "sync-folder":
            self._sync(step.path)
        elif step.path.name:
            if step.name == "create":
                self._files[step.inode] = _File()
            _enter(self.names, self.folders, step)
            self._unsynced.append(step)
        elif step.name == "sync":
            self.settle(step.inode)
        else:
            file = self._files[step.inode]
            _change(file.now, step)
            file.unsynced.append(step)

    def octets(self, inode: int) -> bytearray:
        return self._files[inode].now

    def settle(self, inode: int) -> None:
        """A file's octets are certain, whoever says so."""
        file = self._files[inode]
        if file.unsynced or len(file.synced) != len(file.now) or file.synced != file.now:
            file.synced = bytes(file.now)
        file.unsynced.clear()

    def _sync(self, folder: Path) -> None:
        mine = [step for step in self._unsynced if step.path.parent == folder]
        self._unsynced = [step for step in self._unsynced if step.path.parent != folder]
        for step in mine:
            _enter(self._synced_names, self._synced_folders, step)

    # --- the loss of power -----------------------------------------------------------------------

    def kept(self) -> Tree:
        """Everything reached the disk."""
        octets = {inode: bytes(self._files[inode].now) for inode in self.names.values()}
        return _tree(_Names(frozenset(self.folders), frozenset(self.names.items())), octets)

    def dropped(self) -> Tree:
        """Only what is certain is there."""
        names = self._synced_names
        octets = {inode: self._files[inode].synced for inode in names.values()}
        return _tree(_Names(frozenset(self._synced_folders), frozenset(names.items())), octets)

    def torn(self, rng: random.Random) -> Tree:
        """Each operation that is not certain, and each sector of it, as chance would have it."""
        names = self._names([step.scattered(rng) for step in self._unsynced])
        octets = {
            inode: _changed(file, [step.scattered(rng) for step in file.unsynced])
            for inode, file in self._files.items()
        }
        return _tree(names, octets)

    def every(self, matters: Callable[[Path], bool], most: int) -> tuple[int, Iterator[Tree]]:
        """Every tree that a loss of power can leave, some of them more than once.

        :param matters: whether a file's octets do; those of others are kept.
        :param most: the greatest number of combinations that is tried.
        :return: the number of combinations, and the trees that they make.
        :raise OverflowError: there are more.
        """
        choices = [step.outcomes() for step in self._unsynced]
        reachable = {*self.names.values(), *self._synced_names.values()}
        reachable |= {step.inode for step in self._unsynced if step.name == "create"}
        still = {inode for path, inode in self.names.items() if not matters(path)}
        of_file: dict[int, Sequence[Sequence[Outcome]]] = {
            inode: [step.outcomes() for step in file.unsynced]
            for inode, file in self._files.items()
            if inode in reachable and inode not in still and file.unsynced
        }
        count = math.prod(map(len, choices))
        for outcomes in of_file.values():
            count *= math.prod(map(len, outcomes))
        if count > most:
            raise OverflowError(f"{count} combinations are more than {most}")

        def trees() -> Iterator[Tree]:
            # What comes out the same is tried once.
            names = {self._names(chosen): None for chosen in itertools.product(*choices)}
            variants = [
                list({_changed(self._files[i], it): None for it in itertools.product(*outcomes)})
                for i, outcomes in of_file.items()
            ]
            certain = {inode: bytes(self._files[inode].now) for inode in reachable}
            for chosen in itertools.product(*variants):
                octets = certain | dict(zip(of_file, chosen, strict=True))
                for one in names:
                    yield _tree(one, octets)

        return count, trees()

    def _names(self, outcomes: Sequence[Outcome]) -> _Names:
        names, folders = dict(self._synced_names), set(self._synced_folders)
        for outcome in outcomes:
            for step in outcome:
                _enter(names, folders, step)
        # What lies in a folder that is not there is not there either.
        there = frozenset(it for it in folders if folders.issuperset(it.parents))
        return _Names(there, frozenset(it for it in names.items() if it[0].parent in there))


def _tree(names: _Names, octets: Mapping[int, bytes]) -> Tree:
    return Tree(names.folders, {path: octets[inode] for path, inode in names.files})


def _changed(file: _File, outcomes: Sequence[Outcome]) -> bytes:
    octets = bytearray(file.synced)
    for outcome in outcomes:
        for step in outcome:
            _change(octets, step)
    return bytes(octets)


def _change(octets: bytearray, step: Step) -> None:
    if step.name == "truncate":
        del octets[step.offset :]
    end = step.offset + len(step.octets)
    octets.extend(bytes(max(0, end - len(octets))))
    octets[step.offset : end] = step.octets


def _enter(names: dict[Path, int], folders: set[Path], step: Step) -> None:
    if step.name == "create":
        names[step.path] = step.inode
    elif step.name == "make-folder":
        folders.add(step.path)
    else:
        names.pop(step.path, None)
        if step.name == "rename":
            names[step.to] = step.inode


def crashes(
    before: Tree,
    steps: Sequence[Step],
    *,
    samples: int | None = None,
    seed: int = 0,
    matters: Callable[[Path], bool] = lambda path: True,
    most: int = 1_000_000,
) -> Iterator[tuple[int, Tree]]:
    """Cut the power before the first of ``steps`` and behind each.

    :param before: what was on the disk.
    :param samples: where it is None, every combination of outcomes; else all kept, all dropped,
        and so many that ``seed`` chooses.
    :return: for each crash, how many steps had been done, and what is left.  Crashes that leave
        the same are told once for each step at least.
    """
    medium, rng = Medium(before), random.Random(seed)
    for after in range(len(steps) + 1):
        if after:
            medium.do(steps[after - 1])
        if samples is None:
            for tree in medium.every(matters, most)[1]:
                yield after, tree
            continue
        yield after, medium.kept()
        yield after, medium.dropped()
        for _ in range(samples):
            yield after, medium.torn(rng)
