"""Cut the power behind every single step that the spool takes on the disk, and look what is left.

A run of appends, updates, ends, big files and rotations is recorded.  For each prefix of its steps,
and for each thing that a crash may do to what was not synced, recovery has to find the state after
some prefix of the batches: at least all that were acknowledged (a lazy one may be missing until the
next sync), at most all that were begun, no batch by half, every content as it was, and every event
that the journal has not synced.
"""

from __future__ import annotations

import random
from typing import Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, BigFile, End, Operation, Update
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.ports import Content, Position, Spool
from protege_mta.model.status import RecipientStatus
from protege_mta.testing.contracts import DUE, Lines, message
from protege_mta.testing.crashfs import Crash, CrashFiles
from protege_mta.testing.spools import disk_spool

State = dict[QueueId, tuple[RecipientStatus | None, ...]]

SEGMENT: Final = 4096
BIG: Final = 900
CRASHES: Final[tuple[tuple[Crash, int], ...]] = (
    ("kept", 0),
    ("dropped", 0),
    ("torn", 1),
    ("torn", 2),
)


@attrs.define(eq=False)
class Recording:
    """A run, and what was true when.

    :ivar states: after so many batches; ``states[0]`` is empty.
    :ivar begun_at: for each batch, after how many steps it was committed.
    :ivar durable_at: likewise when it was acknowledged as durable; None for lazy ones.
    :ivar lines: the events of the first so many batches, all together.
    :ivar cursors: the journal's synced position after so many steps, and the lines before it.
    """

    disk: CrashFiles
    contents: dict[QueueId, bytes] = attrs.field(factory=dict)
    states: list[State] = attrs.field(factory=lambda: [{}])
    begun_at: list[int] = attrs.field(factory=list)
    durable_at: list[int | None] = attrs.field(factory=list)
    lines: list[list[bytes]] = attrs.field(factory=lambda: [[]])
    cursors: list[tuple[int, Position, int]] = attrs.field(factory=lambda: [(0, (0, 0), 0)])

    def commit(self, spool: Spool, batch: Batch) -> None:
        self.begun_at.append(len(self.disk.steps))
        answer = spool.commit(batch)
        if not answer.called:
            raise AssertionError("the batch is not durable")
        answer.addErrback(lambda failure: failure.raiseException())
        self.durable_at.append(None if batch.is_lazy else len(self.disk.steps))
        state = dict(self.states[-1])
        for operation in batch.operations:
            _apply(state, operation)
        self.states.append(state)
        self.lines.append(self.lines[-1] + list(batch.events))


def _apply(state: State, operation: Operation) -> None:
    if isinstance(operation, Append):
        state[operation.message.id] = (operation.status,) * len(
            operation.message.envelope.recipients
        )
        return
    before = state.get(operation.id)
    if before is None:
        return
    status = operation.status if isinstance(operation, Update) else None
    after = tuple(
        status if at in operation.recipients and was is not None else was
        for at, was in enumerate(before)
    )
    if any(after):
        state[operation.id] = after
    else:
        del state[operation.id]


def record(
    disk: CrashFiles, batches: int, seed: int, before: tuple[State, list[bytes]] = ({}, [])
) -> Recording:
    """A run of so many batches, the same for each seed, on a disk that holds the
    states and events of ``before``."""
    rng, journal, found = random.Random(seed), Lines(), Recording(disk)
    found.states, found.lines = [before[0]], [before[1]]
    ids = IdSource(lambda: 1000.0 + len(found.states), lambda octets: bytes([seed] * octets))
    journal.is_synced = False
    spool = disk_spool(disk, journal, segment_octets=SEGMENT, big_octets=BIG, cache_octets=0)
    spool.acquire()
    list(spool.recover())
    for number in range(batches):
        live = list(found.states[-1])
        event = (b"%d\n" % number,)
        chance = rng.random()
        if chance < 0.35 or not live:
            content = rng.randbytes(rng.choice((30, 200, 600, 1500)))
            incoming = spool.receive()
            incoming.write(content)
            sealed: list[tuple[bytes, ...] | BigFile] = []
            incoming.sealed().addCallback(sealed.append)
            one = message(content, rng.choice((1, 1, 3)), ids())
            found.contents[one.id] = content
            operations: tuple[Operation, ...] = (Append(one, sealed[0], DUE),)
            if live and rng.random() < 0.2:
                operations += (End(live[0], tuple(range(3)), "bounced"),)
            found.commit(spool, Batch(operations, event))
        elif chance < 0.6:
            status = RecipientStatus("deferred", number, 2000.0 + number, number, False, "421 no")
            id = rng.choice(live)
            at = (rng.randrange(len(found.states[-1][id])),)
            found.commit(spool, Batch((Update(id, at, status),), event))
        else:
            # The oldest ones stay for long, as deferred messages do.
            id = rng.choice(live[3:] or live)
            count = len(found.states[-1][id])
            recipients = (rng.randrange(count),) if rng.random() < 0.3 else tuple(range(count))
            is_lazy = rng.random() < 0.5
            found.commit(spool, Batch((End(id, recipients, "delivered"),), event, is_lazy))
        if rng.random() < 0.2 and journal.told:
            journal.cursor = journal.told[-1][1]
            found.cursors.append(
                (len(disk.steps), journal.cursor, len(before[1]) + len(journal.lines))
            )
    spool.close()
    return found


def look(disk: CrashFiles, cursor: Position) -> tuple[State, dict[QueueId, bytes], list[bytes]]:
    """What a restart finds: states, contents, and events after ``cursor``."""
    journal = Lines()
    journal.cursor = cursor
    spool = disk_spool(disk, journal, segment_octets=SEGMENT, big_octets=BIG, cache_octets=0)
    spool.acquire()
    state = {found.message.id: found.statuses for found in spool.recover()}
    lines = [line for some, _ in spool.recover_events(cursor) for line in some]
    contents: dict[QueueId, bytes] = {}
    for id in state:
        opened: list[Content] = []
        spool.open(id).addCallbacks(opened.append, lambda failure: failure.raiseException())
        contents[id] = opened[0].read()
        opened[0].close()
    stats = spool.stats()
    if stats.corrupt:
        raise AssertionError("a crash was taken for damage")
    spool.close()
    return state, contents, lines


class CrashTests(SynchronousTestCase):
    """Every crash there can be."""

    def check(self, run: Recording, after: int, crash: Crash, seed: int) -> CrashFiles:
        disk = run.disk.crashed(after, crash, seed)
        _, cursor, told = [it for it in run.cursors if it[0] <= after][-1]
        state, contents, lines = look(disk, cursor)
        least = max(
            [n + 1 for n, at in enumerate(run.durable_at) if at is not None and at <= after],
            default=0,
        )
        most = sum(at < after for at in run.begun_at)
        fitting = [
            n
            for n in range(least, most + 1)
            if run.states[n] == state and run.lines[n][told:] == lines
        ]
        self.assertTrue(
            fitting,
            f"after step {after} ({crash}, {seed}): not the state after {least} to {most} batches",
        )
        for id, content in contents.items():
            self.assertEqual(content, run.contents[id])
        return disk

    def test_every_crash(self) -> None:
        """Nothing acknowledged is lost, nothing ended comes back, nothing else appears."""
        run = record(CrashFiles(), 90, seed=1)
        self.assertGreater(sum(step.name == "unlink" for step in run.disk.steps), 5)
        for after in range(len(run.disk.steps) + 1):
            for crash, seed in CRASHES:
                self.check(run, after, crash, seed * 1000 + after)

    def test_crashes_in_recovery(self) -> None:
        """Recovery that is killed, too, and started again finds the same."""
        run = record(CrashFiles(), 60, seed=2)
        for after in range(5, len(run.disk.steps), 17):
            disk = run.disk.crashed(after, "torn", after)
            expected = look(disk, (0, 0))
            for step in range(len(disk.steps)):
                self.assertEqual(look(disk.crashed(step, "torn", step), (0, 0)), expected)

    def test_work_goes_on(self) -> None:
        """What a restart finds can be worked on, crash after crash."""
        run = record(CrashFiles(), 40, seed=3)
        for after in range(0, len(run.disk.steps), 29):
            disk = self.check(run, after, "torn", after).crashed(10**6, "kept")
            state, contents, lines = look(disk, (0, 0))
            again = record(disk.crashed(10**6, "kept"), 30, seed=4, before=(state, lines))
            again.contents |= contents
            for step in range(0, len(again.disk.steps), 7):
                self.check(again, step, "torn", step)

    def test_a_forgotten_sync_is_caught(self) -> None:
        """This test would notice a spool that does not sync."""

        class Forgetful(CrashFiles):
            def sync_data(self, fd: int) -> None:
                """Forget."""

        run = record(Forgetful(), 30, seed=1)
        with self.assertRaises(AssertionError):
            for after in range(len(run.disk.steps) + 1):
                self.check(run, after, "dropped", 0)

    def test_a_forgotten_folder_is_caught(self) -> None:
        """Nor would a segment whose name was not synced go by."""

        class Forgetful(CrashFiles):
            def sync_folder(self, path: object) -> None:
                """Forget."""

        run = record(Forgetful(), 30, seed=1)
        with self.assertRaises((AssertionError, OSError)):
            for after in range(len(run.disk.steps) + 1):
                self.check(run, after, "dropped", 0)
