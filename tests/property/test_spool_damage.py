"""Whatever happens to a segment, recovery ends, and nothing comes of it that was not there."""

from __future__ import annotations

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Batch, End, Update
from protege_mta.model.envelope import Message
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Damaged
from protege_mta.model.status import RecipientStatus
from protege_mta.spool import states
from protege_mta.spool.record import content_meta, draft, message_of, read, write
from protege_mta.testing.contracts import DEFERRED, append, message
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool

MEASURE = settings(max_examples=150, deadline=None)


def _filled() -> tuple[CrashFiles, dict[QueueId, tuple[Message, bytes]]]:
    """A segment with twelve messages, half of them ended."""
    disk = CrashFiles()
    spool = disk_spool(disk, segment_octets=16384, cache_octets=0)
    spool.acquire()
    list(spool.recover())
    known = {}
    for number in range(12):
        content = b"%d" % number * 300
        one = append(content, recipients=2)
        known[one.message.id] = (one.message, content)
        spool.commit(Batch((one,), (b"%d\n" % number,)))
        spool.commit(Batch((Update(one.message.id, (1,), DEFERRED),)))
        if number % 2:
            spool.commit(Batch((End(one.message.id, (0, 1), "delivered"),)))
    return disk.crashed(10**6, "kept"), known


DISK, KNOWN = _filled()
PATH = next(path for path in DISK.paths() if b"PM\x1a" in DISK.content(path))
WHOLE = DISK.content(PATH)


class DamageProperties(SynchronousTestCase):
    """One segment, damaged anyhow."""

    def look(self, octets: bytes) -> None:
        disk = DISK.crashed(0, "kept")
        disk.replaced(PATH, octets)
        spool = disk_spool(disk, segment_octets=16384, cache_octets=0)
        spool.acquire()
        for found in spool.recover():
            expected, content = KNOWN[found.message.id]
            self.assertEqual(found.message, expected)
            opened = spool.open(found.message.id)
            if isinstance(getattr(opened.result, "value", None), Damaged):
                self.failureResultOf(opened, Damaged)
            else:
                self.assertEqual(self.successResultOf(opened).read(), content)
        told = [line for lines, _ in spool.recover_events((0, 0)) for line in lines]
        self.assertLessEqual(set(told), {b"%d\n" % number for number in range(12)})
        self.assertIsNone(self.successResultOf(spool.commit(Batch((append(),)))))
        self.successResultOf(spool.close())

    @MEASURE
    @given(cut=st.integers(0, len(WHOLE)))
    def test_truncated(self, cut: int) -> None:
        self.look(WHOLE[:cut])

    @MEASURE
    @given(
        flips=st.lists(
            st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=6
        )
    )
    def test_flipped(self, flips: list[tuple[int, int]]) -> None:
        octets = bytearray(WHOLE)
        for at, mask in flips:
            octets[at] ^= mask
        self.look(bytes(octets))

    @MEASURE
    @given(at=st.integers(0, len(WHOLE)), junk=st.binary(max_size=600))
    @example(at=64, junk=b"\xf5PM\x1a" * 100)
    def test_overwritten(self, at: int, junk: bytes) -> None:
        self.look(WHOLE[:at] + junk + WHOLE[at + len(junk) :])

    @MEASURE
    @given(at=st.integers(0, len(WHOLE)), junk=st.binary(max_size=600))
    def test_inserted(self, at: int, junk: bytes) -> None:
        self.look(WHOLE[:at] + junk + WHOLE[at:])


class RecordProperties(SynchronousTestCase):
    @MEASURE
    @given(octets=st.binary(max_size=300), offset=st.integers(0, 300))
    def test_anything_else_is_no_record(self, octets: bytes, offset: int) -> None:
        self.assertIsNone(read(octets, offset, 0, 1))

    @MEASURE
    @given(
        content=st.binary(max_size=200),
        recipients=st.integers(1, 20),
        epoch=st.integers(0, 2**64 - 1),
        sequence=st.integers(0, 2**64 - 1),
    )
    def test_round_trip(self, content: bytes, recipients: int, epoch: int, sequence: int) -> None:
        """What is written is read, in its own segment only."""
        pieces: list[bytes] = []
        one = append(content, recipients)
        octets = write(draft(one), epoch=epoch, sequence=sequence, to=pieces)
        whole = b"".join(pieces)
        self.assertEqual((len(whole), len(whole) % 8), (octets, 0))
        found = read(b"!" + whole, 1, 640, epoch)
        assert found is not None
        self.assertEqual(message_of(found.id, content_meta(found.meta)), one.message)
        self.assertEqual(
            (found.sequence, found.offset, found.body_octets), (sequence, 640, len(content))
        )
        self.assertIsNone(read(whole, 0, 0, epoch ^ 1))


class StatesProperties(SynchronousTestCase):
    @MEASURE
    @given(
        statuses=st.lists(
            st.one_of(
                st.none(), st.builds(RecipientStatus, attempts=st.integers(0, 3), cause=st.text())
            ),
            min_size=1,
            max_size=8,
        )
    )
    def test_round_trip(self, statuses: list[RecipientStatus | None]) -> None:
        packed = states.pack(statuses)
        if packed is None:
            self.assertEqual(set(statuses), {None})
        else:
            self.assertEqual(states.unpack(packed), tuple(statuses))

    def test_lone_surrogates(self) -> None:
        """A subject or a cause that has no octets loses those characters, and nothing else."""
        one = append()
        bad = attrs.evolve(one, message=attrs.evolve(message(), subject="a\ud800b"))
        meta = content_meta(draft(bad).meta)
        self.assertEqual(message_of(bad.message.id, meta).subject, "a?b")
        packed = states.initial(1, RecipientStatus(cause="a\udfffb"))
        (status,) = states.unpack(packed)
        assert status is not None
        self.assertEqual(status.cause, "a?b")
