"""Spools that lose mail when the power goes, each for one reason, to be found out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final
from unittest import mock

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred

from protege_mta.model.batch import Append, Batch
from protege_mta.model.ids import QueueId
from protege_mta.spool import disk as disk_module
from protege_mta.spool import recovery as recovery_module
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.files import Files
from protege_mta.spool.index import Place
from protege_mta.spool.reclaim import Reclaimer, Seen, _Cleaning
from protege_mta.spool.record import MAGIC, Draft
from protege_mta.spool.scan import Group, SegmentReader
from protege_mta.spool.segment import Segment
from protege_mta.spool.spares import Spares
from protege_mta.spool.states import States
from protege_mta.spool.writer import Group as WrittenGroup
from protege_mta.spool.writer import Item, Log, Maker, Writer
from protege_mta.testing.crashfs import CrashFiles

from .exploring import Explored, explore, explore_on
from .recording import FOLDER, SHARD, Violation
from .scenarios import (
    Life,
    Workshop,
    after_a_crash,
    big_files,
    emptied,
    groups,
    long_events,
    one_message,
    reclaiming,
    recycled,
    several_messages,
    taking_turns,
)

# --- disks whose calls do not do what they say ---------------------------------------------------


class NoDataSync(CrashFiles):
    """Never calls ``fdatasync``."""

    def sync_data(self, fd: int) -> None:
        """Forget."""


class NoFileSync(CrashFiles):
    """Never calls ``fsync`` on a file: records name big files that are not there."""

    def sync(self, fd: int) -> None:
        """Forget."""


class NoFolderSync(CrashFiles):
    """Never syncs a folder."""

    def sync_folder(self, path: Path) -> None:
        """Forget."""


class NoSyncOfBigNames(CrashFiles):
    """Does not sync the folder of big files."""

    def sync_folder(self, path: Path) -> None:
        if path.name != "big":
            super().sync_folder(path)


class NoSyncOfParents(CrashFiles):
    """Does not make sure of the folders that its own folder lies in."""

    def sync_folder(self, path: Path) -> None:
        if path not in FOLDER.parent.parents:
            super().sync_folder(path)


class NoSyncOfRemoval(CrashFiles):
    """Goes on without waiting until a segment's removal is certain."""

    def sync_folder(self, path: Path) -> None:
        if self.steps[-1].name != "unlink":
            super().sync_folder(path)


class NoSyncOfCut(CrashFiles):
    """Cuts off a torn tail, and does not make sure that it stays off."""

    def sync(self, fd: int) -> None:
        if self.steps[-1].name != "truncate":
            super().sync(fd)


class NoSyncOfKept(CrashFiles):
    """Removes segments before what was carried out of them is certain."""

    def sync_data(self, fd: int) -> None:
        inode = self._open[fd]
        kept = {at for path, at in self._medium.names.items() if path.suffix == ".kept"}
        if inode not in kept:
            super().sync_data(fd)


class NoSyncOfRetirement(CrashFiles):
    """Writes to a spare before it is certain that its segment is gone."""

    def sync_folder(self, path: Path) -> None:
        if self.steps[-1].to.suffix != ".spare":
            super().sync_folder(path)


class NoSyncOfRenewal(CrashFiles):
    """Gives a spare the name of a segment before it certainly has the header of it."""

    def sync(self, fd: int) -> None:
        inode = self._open[fd]
        spares = {at for path, at in self._medium.names.items() if path.suffix == ".spare"}
        if inode not in spares:
            super().sync(fd)


class NoSyncOfRenewedName(CrashFiles):
    """Writes to what was a spare before it certainly has the name of a segment."""

    def sync_folder(self, path: Path) -> None:
        if self.steps[-1].path.suffix != ".spare":
            super().sync_folder(path)


class NoZeros(CrashFiles):
    """Leaves an old record behind the header of a segment that was not yet written to."""

    def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        super().write(fd, pieces if offset else pieces[:1], offset)


class SyncsTheLastOne(CrashFiles):
    """Each sync makes certain what was written before the last one only."""

    _pending: int | None = None

    def sync_data(self, fd: int) -> None:
        pending, self._pending = self._pending, fd
        if pending is not None and pending in self._open:
            super().sync_data(pending)


class SyncsBeforeItWrites(CrashFiles):
    """Syncs come before the writes that they are for."""

    def write(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        super().sync_data(fd)
        super().write(fd, pieces, offset)

    def sync_data(self, fd: int) -> None:
        """It has been done."""


class LeavesTheLastRecord(CrashFiles):
    """Writes the record that closes a group once the group has been synced, and syncs no more."""

    def write_through(self, fd: int, pieces: Sequence[bytes], offset: int) -> None:
        group = b"".join(pieces)
        at = group.rindex(MAGIC)
        super().write_through(fd, [group[:at]], offset)
        self.write(fd, [group[at:]], offset + at)


class RenamesBeforeItSyncs(CrashFiles):
    """Big files are written under another name and renamed, and nobody syncs their octets."""

    def create(self, path: Path) -> int:
        return super().create(self._aside(path))

    def sync(self, fd: int) -> None:
        inode = self._open[fd]
        for path, at in list(self._medium.names.items()):
            if at == inode and path.suffix == ".new":
                self.rename(path, path.with_suffix(""))
                return
        super().sync(fd)

    def unlink(self, path: Path) -> None:
        super().unlink(path if path in self._medium.names else self._aside(path))

    @staticmethod
    def _aside(path: Path) -> Path:
        return path.with_suffix(".new") if path.parent == SHARD / "big" else path


# --- spools in the wrong order -------------------------------------------------------------------


class TombstoneFirst(DiskSpool):
    """Makes the ends of a batch certain before its content."""

    def commit(self, batch: Batch) -> Deferred[None]:
        contents = tuple(one for one in batch.operations if isinstance(one, Append))
        others = tuple(one for one in batch.operations if not isinstance(one, Append))
        if not contents or not others:
            return super().commit(batch)
        super().commit(Batch(others))
        return super().commit(Batch(contents, batch.events))


class AnswersAtOnce(DiskSpool):
    """Says that a batch is certain when it is in line."""

    def commit(self, batch: Batch) -> Deferred[None]:
        super().commit(batch).addErrback(lambda failure: None)
        return defer.succeed(None)


class ForgetsTheDead(Reclaimer):
    """Removes the ends of messages whose content is still elsewhere."""

    def _needed(self, it: _Cleaning) -> tuple[list[tuple[Seen, States]], list[Draft]]:
        moves, _ = super()._needed(it)
        return moves, []


class ForgetsCopies(Reclaimer):
    """Removes the ends of messages that met them while they were being copied."""

    def carried(self, places: dict[QueueId, Place], segment: Segment, end: int) -> None:
        live = {id: place for id, place in places.items() if id in self._index}
        super().carried(live, segment, end)


class CopiesTooEarly(Reclaimer):
    """Carries forward what messages were before a batch in line, to behind it."""

    def _needed(self, it: _Cleaning) -> tuple[list[tuple[Seen, States]], list[Draft]]:
        self._in_flight = set
        return super()._needed(it)


class OneEpoch(Maker):
    """Gives each segment the epoch of the one before, so that old records pass for its own."""

    def __init__(
        self,
        files: Files,
        folder: Path,
        *,
        segment_octets: int,
        next_number: int,
        random_octets: Callable[[int], bytes],
        spares: Spares,
    ) -> None:
        super().__init__(
            files,
            folder,
            segment_octets=segment_octets,
            next_number=next_number,
            random_octets=lambda octets: b"1" * octets,
            spares=spares,
        )


def leaves_ends_uncertain(log: Log) -> None:
    """Cuts a segment at its last record, and goes on in the next one before that is certain."""
    opened, log._open = log._open, None
    if opened is not None:
        log._files.truncate(opened.fd, opened.end)
        log._files.close(opened.fd)


def trusts_commit_records(files: Files, folder: Path, group: Group) -> bool:
    """Believes a commit record without looking at what it closes."""
    return group.commit is not None


def trusts_events(files: Files, folder: Path, group: Group) -> bool:
    """Looks at what a commit record closes, and not at the events that it has itself."""
    commit = group.commit
    if commit is None or not group.is_whole:
        return False
    reader = SegmentReader(files, folder, group.segment)
    try:
        return all(reader.body(one) is not None for one in group.records)
    finally:
        reader.close()


def syncs_once_for_all(writer: Writer, run: list[Item]) -> None:
    """Makes a group of each batch, and syncs the last one."""
    for item in run[:-1]:
        with mock.patch.object(writer.files, "write_through", writer.files.write):
            _write(writer, [item])
    _write(writer, run[-1:])


_write: Final = Writer._write


def goes_on_where_it_was(writer: Writer, group: WrittenGroup) -> Callable[[], None]:
    """Writes the next group over the one that the ring has written."""
    tell = _end(writer, group)
    group.opened.end = group.start
    return tell


_end: Final = Writer.end


@attrs.frozen
class Broken:
    """What is wrong with a spool.

    :ivar life: in which it has to be found out.
    :ivar patch: what stands in for what, in which module.
    """

    life: Life
    disk: type[CrashFiles] = CrashFiles
    spool: type[DiskSpool] = DiskSpool
    patch: tuple[object, str, object] | None = None
    has_ring: bool = False

    @property
    def name(self) -> str:
        patched = getattr(self.patch[2], "__name__", "") if self.patch else ""
        return patched or (self.disk if self.disk is not CrashFiles else self.spool).__name__

    def explored(self) -> Explored:
        """That life and the one after it, as long as nothing has been found."""
        with mock.patch.object(*self.patch) if self.patch else nullcontext():
            try:
                run = Workshop(self.disk, self.spool, self.has_ring).live(self.life)
            except Violation as error:  # not even a crash is needed
                return Explored(violations=[str(error)])
            explored, survivors = explore(run, is_hasty=True)
            if not explored.violations:
                explored.add(explore_on(run, survivors, after_a_crash, 40, is_hasty=True))
            return explored


BROKEN: Final = (
    Broken(one_message, NoDataSync),
    Broken(big_files, NoFileSync),
    Broken(one_message, NoFolderSync),
    Broken(one_message, NoSyncOfParents),
    Broken(big_files, NoSyncOfBigNames),
    Broken(emptied, NoSyncOfRemoval),
    Broken(one_message, NoSyncOfCut),
    Broken(reclaiming, NoSyncOfKept),
    Broken(recycled, NoSyncOfRetirement),
    Broken(recycled, NoSyncOfRenewal),
    Broken(recycled, NoSyncOfRenewedName),
    Broken(recycled, NoZeros),
    Broken(one_message, SyncsTheLastOne),
    Broken(one_message, SyncsBeforeItWrites),
    Broken(one_message, LeavesTheLastRecord),
    Broken(big_files, RenamesBeforeItSyncs),
    Broken(several_messages, spool=TombstoneFirst),
    Broken(groups, spool=AnswersAtOnce),
    Broken(emptied, patch=(disk_module, "Reclaimer", ForgetsTheDead)),
    Broken(taking_turns, patch=(disk_module, "Reclaimer", ForgetsCopies)),
    Broken(taking_turns, patch=(disk_module, "Reclaimer", CopiesTooEarly)),
    Broken(recycled, patch=(disk_module, "Maker", OneEpoch)),
    Broken(recycled, patch=(Log, "close", leaves_ends_uncertain)),
    Broken(groups, patch=(Writer, "_write", syncs_once_for_all)),
    Broken(groups, NoDataSync, has_ring=True),
    Broken(groups, patch=(Writer, "end", goes_on_where_it_was), has_ring=True),
    Broken(one_message, patch=(recovery_module, "_is_intact", trusts_commit_records)),
    Broken(long_events, patch=(recovery_module, "_is_intact", trusts_events)),
)
