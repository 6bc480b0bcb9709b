"""What a broken disk makes of the spool's segments."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from protege_mta.model.batch import Batch, End, Update
from protege_mta.model.envelope import Message
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Content, Damaged, Recovered
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.record import MAGIC
from protege_mta.testing.contracts import DEFERRED, append
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool

from .target import Target

_T = TypeVar("_T")

EDIT_OCTETS: Final = 6
"""Of an edit's head: which segment and what to do, where (3), how much, how many octets follow."""


def _open(disk: CrashFiles) -> tuple[DiskSpool, list[Recovered]]:
    spool = disk_spool(disk, segment_octets=8192, cache_octets=0)
    spool.acquire()
    return spool, list(spool.recover())


def _filled() -> tuple[CrashFiles, dict[QueueId, tuple[Message, bytes]]]:
    """Several segments with twelve messages, a third of them ended."""
    disk = CrashFiles()
    spool, _ = _open(disk)
    known = {}
    for number in range(12):
        content = b"%d" % number * 500
        one = append(content, recipients=2)
        known[one.message.id] = (one.message, content)
        spool.commit(Batch((one,), (b"%d\n" % number,)))
        spool.commit(Batch((Update(one.message.id, (1,), DEFERRED),)))
        if number % 3 == 0:
            spool.commit(Batch((End(one.message.id, (0, 1), "delivered"),)))
    return disk.crashed(10**6, "kept"), known


DISK, KNOWN = _filled()
PATHS: Final = [path for path in DISK.paths() if MAGIC in DISK.content(path)]
LINES: Final = {b"%d\n" % number for number in range(12)}


def segments(data: bytes) -> None:
    """Edits of the files, one after the other: octets changed, cut, put in, doubled, moved."""
    files = {path: bytearray(DISK.content(path)) for path in PATHS}
    _edit(files, data)
    recovered, disk, corrupt = _recovered(files)
    for found in recovered:
        expected, _ = KNOWN[found.message.id]
        assert found.message == expected, "a message that never was"
    again, found_again = _open(disk)
    assert [one.message.id for one in found_again if one.message.id in KNOWN] == [
        one.message.id for one in recovered if one.message.id not in corrupt
    ], "a second recovery finds something else"
    again.close()


def _edit(files: dict[Path, bytearray], data: bytes) -> None:
    at = 0
    while at + EDIT_OCTETS <= len(data):
        what, where, much, count = data[at], data[at + 1 : at + 4], data[at + 4], data[at + 5]
        octets = files[PATHS[what % len(PATHS)]]
        place = int.from_bytes(where, "big") % (len(octets) + 1)
        given = data[at + EDIT_OCTETS : at + EDIT_OCTETS + count]
        at += EDIT_OCTETS + count
        match what // 16 % 6:
            case 0:
                octets[place : place + count] = given
            case 1:
                octets[place:place] = given
            case 2:
                del octets[place : place + much * 8]
            case 3:
                octets[place:place] = octets[place : place + much * 16]
            case 4:
                other = files[PATHS[(what + 1) % len(PATHS)]]
                octets[place:place] = other[place : place + much * 16]
            case _:
                del octets[place:]


def _recovered(files: dict[Path, bytearray]) -> tuple[list[Recovered], CrashFiles, set[QueueId]]:
    """Start on what is left, read all of it, take one more message, stop.  Also: what was found
    damaged then."""
    disk = DISK.crashed(0, "kept")
    for path, octets in files.items():
        disk.replaced(path, bytes(octets))
    spool, recovered = _open(disk)
    told = [line for lines, _ in spool.recover_events((0, 0)) for line in lines]
    assert set(told) <= LINES, "an event that never was"
    for found in recovered:
        _read(spool, found)
    _result(spool.commit(Batch((append(),))))
    _result(spool.close())
    return recovered, disk, set(spool.corrupt_ids())


def _read(spool: DiskSpool, found: Recovered) -> None:
    try:
        content: Content = _result(spool.open(found.message.id))
    except Damaged:
        return
    octets = content.read()
    content.close()
    assert octets == KNOWN[found.message.id][1], "content that never was"


def _result(answer: Deferred[_T]) -> _T:
    results: list[_T] = []
    failures: list[Failure] = []
    answer.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


SEEDS: Final = [
    b"",
    b"\x00\x00\x01\x00\x00\x04abcd",
    b"\x12\x00\x04\x00\x00\x08" + MAGIC + b"\1\0\0\0",
    b"\x20\x00\x02\x00\x10\x00\x31\x00\x03\x00\x20\x00",
    b"\x40\x00\x00\x40\x80\x00",
    b"\x52\x00\x05\x00\x00\x00",
]
WORDS: Final = (MAGIC, b"\0" * 8, b"\xff" * 4, b"\x93", b"\xc0", b"\xa0", b"\xcf")
SEGMENTS: Final = Target("spool_segments", segments, SEEDS, WORDS)
