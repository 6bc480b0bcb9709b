"""A run of the spool on a recorded disk, and what was promised when.

A :class:`Recording` keeps, for each batch, the state that it leads to, how many operations on the
disk had been done when it was handed in and when it was acknowledged, and what its content was.
:meth:`Recording.fault` judges what a restart finds by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from protege_mta.model.batch import Append, Batch, BigFile, End, Operation, Update, with_head
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.outcome import Fate
from protege_mta.model.ports import Content, Position
from protege_mta.model.status import RecipientStatus
from protege_mta.spool import line as lines
from protege_mta.spool.disk import DiskSpool
from protege_mta.spool.files import Files
from protege_mta.spool.ring_line import Worker
from protege_mta.spool.writer import Job
from protege_mta.testing.contracts import DUE, Lines, message
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.medium import Tree
from protege_mta.testing.spools import disk_spool

State = dict[QueueId, tuple[RecipientStatus | None, ...]]

SEGMENT: Final = 4096
BIG: Final = 900
FOLDER: Final = Path("/var/mta/spool")
SHARD: Final = FOLDER / "0"

make: Final = partial(
    disk_spool, folder=FOLDER, segment_octets=SEGMENT, big_octets=BIG, cache_octets=0
)


@attrs.frozen
class Found:
    """What a restart finds.

    :ivar lines: the events after the journal's cursor.
    """

    state: State
    contents: dict[QueueId, bytes]
    lines: list[bytes]


class Violation(AssertionError):
    """The spool broke its word."""


@attrs.define(eq=False)
class Held:
    """Threads that work when they are told to: so batches gather in line, and big files are
    written between them.

    :ivar is_holding: whether they wait; else everything is done at once.
    :ivar ring: the disk, where the kernel has a ring that writes what is but a group.
    """

    is_holding: bool = False
    ring: CrashFiles | None = None
    _worker: Worker | None = None
    _jobs: deque[Job] = attrs.field(factory=deque)
    _works: deque[tuple[Callable[[], Any], Deferred[Any]]] = attrs.field(factory=deque)
    _is_turning: bool = False

    def line(
        self, worker: lines.Worker, lazy_s: float, in_reactor: Callable[..., object]
    ) -> lines.Line:
        self._worker = cast(Worker, worker)
        return self

    def put(self, job: Job, *, is_lazy: bool = False) -> None:
        self._jobs.append(job)
        if not is_lazy and not self.is_holding:
            self.turn()

    def close(self) -> None:
        """There is no thread to let go of."""

    def turn(self, most: int = 1_000_000) -> None:
        """The writer's thread does what is in line, as after 50 ms, or after a batch in a hurry.

        :param most: how many jobs there are in line when it looks, and comes to do before others
            come in.
        """
        if self._is_turning or self._worker is None:
            return
        self._is_turning = True
        while self._jobs and most:
            taken = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
            most -= len(taken)
            self._work(self._worker, taken)
        self._is_turning = False

    def _work(self, worker: Worker, jobs: Sequence[Job]) -> None:
        group = None if self.ring is None else worker.begin(jobs)
        if self.ring is None or group is None:
            worker.turn(jobs)
        else:
            self.ring.write_through(group.opened.fd, group.pieces, group.start)
            worker.end(group)()

    def in_thread(self, work: Callable[[], Any], /) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._works.append((work, done))
        if not self.is_holding:
            self.work()
        return done

    def work(self, most: int = 1_000_000) -> None:
        """Other threads do so many pieces of work."""
        while self._works and most:
            work, done = self._works.popleft()
            most -= 1
            try:
                result = work()
            except Exception:
                done.errback(Failure())
            else:
                done.callback(result)

    def release(self) -> None:
        """Everything is done, and from now on at once."""
        self.is_holding = False
        self.work()
        self.turn()


@attrs.define(eq=False)
class Recording:
    """:ivar disk: where it runs.
    :ivar has_ring: whether the kernel writes groups (:mod:`protege_mta.spool.ring_line`).
    :ivar states: after so many batches; ``states[0]`` is what was there before.
    :ivar lines: the events of the first so many batches, all together.
    :ivar begun_at: for each batch, after how many steps it was committed.
    :ivar durable_at: likewise when it was known to be durable; None for lazy ones that no later
        answer covers.
    :ivar cursors: the journal's synced position after so many steps, and the lines before it.
    """

    disk: CrashFiles
    kind: type[DiskSpool] = DiskSpool
    has_ring: bool = False
    states: list[State] = attrs.field(factory=lambda: [{}])
    lines: list[list[bytes]] = attrs.field(factory=lambda: [[]])
    contents: dict[QueueId, bytes] = attrs.field(factory=dict)
    begun_at: list[int] = attrs.field(factory=list)
    durable_at: list[int | None] = attrs.field(factory=list)
    cursors: list[tuple[int, Position, int]] = attrs.field(factory=lambda: [(0, (0, 0), 0)])
    held: Held = attrs.field(factory=Held)
    journal: Lines = attrs.field(factory=Lines)
    seed: int = 1
    ids: IdSource = attrs.field(init=False)
    spool: DiskSpool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal.is_synced = False
        self.ids = IdSource(
            lambda: 1000.0 + len(self.states), lambda octets: bytes([self.seed] * octets)
        )
        self.start()

    def after(self, found: Found, disk: CrashFiles, cursor: Position) -> Recording:
        """The life after this one, on what is left of it.

        :param found: what a restart finds there.  :param cursor: the journal's.
        """
        journal = Lines()
        journal.cursor = cursor
        return Recording(
            disk,
            self.kind,
            self.has_ring,
            states=[found.state],
            lines=[found.lines],
            contents=dict(self.contents),
            cursors=[(0, cursor, 0)],
            journal=journal,
            seed=self.seed + 1,
        )

    # --- what may be done ------------------------------------------------------------------------

    def start(self) -> None:
        """The service starts."""
        self.held = Held(ring=self.disk if self.has_ring else None)
        self.spool = make(
            self.disk,
            self.journal,
            kind=self.kind,
            now=lambda: 1000.0 + 2 * len(self.states),
            line=self.held.line,
            in_thread=self.held.in_thread,
        )
        self.spool.acquire()
        list(self.spool.recover())

    def close(self) -> None:
        """The service stops: what is in line is synced."""
        self.held.release()
        self.spool.close()
        self._all_durable()

    def _all_durable(self) -> None:
        now = len(self.disk.steps)
        self.durable_at = [now if at is None else at for at in self.durable_at]

    def idle(self) -> None:
        """50 ms pass, after which lazy batches are to be durable."""
        self.held.turn()
        self._all_durable()

    def restart(self) -> None:
        self.close()
        self.start()

    def append(
        self,
        content: int | bytes,
        recipients: int = 1,
        *,
        arrived: tuple[bytes, ...] | BigFile | None = None,
        ends: Iterable[QueueId] = (),
        event_octets: int = 0,
    ) -> QueueId:
        """A message, in one batch with the ends of others.

        :param content: its octets, or how many.
        :param arrived: what they came to, where they have come in already.
        :param event_octets: how long its event is at least.
        """
        operation = self._append(content, recipients, arrived)
        endings = [End(other, tuple(range(9)), "bounced") for other in ends]
        self.commit([operation, *endings], event_octets=event_octets)
        return operation.message.id

    def append_all(self, *contents: int) -> list[QueueId]:
        """Messages of so many octets, in one batch."""
        operations = [self._append(octets, 1, None) for octets in contents]
        self.commit(operations)
        return [one.message.id for one in operations]

    def _append(
        self, content: int | bytes, recipients: int, arrived: tuple[bytes, ...] | BigFile | None
    ) -> Append:
        id = self.ids()
        if isinstance(content, int):
            content = (id.encode("ascii") * (content // 26 + 1))[:content]
        self.contents[id] = content
        if arrived is None:
            head, rest = content[:20], content[20:]
            incoming = self.spool.receive()
            incoming.write(rest)
            sealing = incoming.sealed()
            self.held.work()
            arrived = with_head(sealed(sealing), head)
        return Append(message(content, recipients, id), arrived, DUE)

    def update(self, id: QueueId, recipients: tuple[int, ...] = (0,)) -> None:
        number = len(self.states)
        status = RecipientStatus("deferred", number, 2000.0 + number, number, False, "421 no")
        self.commit([Update(id, recipients, status)])

    def end(
        self, *ids: QueueId, recipients: tuple[int, ...] = (0, 1, 2), is_lazy: bool = False
    ) -> None:
        fate: Fate = "delivered" if is_lazy else "removed"
        self.commit([End(id, recipients, fate) for id in ids], is_lazy=is_lazy)

    def commit(
        self, operations: Sequence[Operation], *, is_lazy: bool = False, event_octets: int = 0
    ) -> None:
        number = len(self.begun_at)
        event = b"%d %d".ljust(event_octets, b".") % (self.seed, number) + b"\n"
        self.begun_at.append(len(self.disk.steps))
        self.durable_at.append(None)
        state = dict(self.states[-1])
        for operation in operations:
            _apply(state, operation)
        self.states.append(state)
        self.lines.append([*self.lines[-1], event])

        def durable(_: object) -> None:
            if not is_lazy:
                self.durable_at[number] = len(self.disk.steps)

        answer = self.spool.commit(Batch(tuple(operations), (event,), is_lazy))
        answer.addCallbacks(durable, _raise)
        if not self.held.is_holding and not answer.called:
            raise Violation("no answer has come")

    def sync_journal(self) -> None:
        """The journal has synced all that it was told, and says so."""
        if self.journal.told:
            self.journal.cursor = self.journal.told[-1][1]
            count = len(self.lines[0]) + len(self.journal.lines)
            self.cursors.append((len(self.disk.steps), self.journal.cursor, count))

    # --- what must be true -----------------------------------------------------------------------

    def cursor(self, after: int) -> Position:
        """The journal's position after so many steps."""
        return self._cursor(after)[0]

    def _cursor(self, after: int) -> tuple[Position, int]:
        return next((at, told) for step, at, told in reversed(self.cursors) if step <= after)

    def fault(self, after: int, found: Found) -> str:
        """What is wrong about what was found after so many steps; empty if nothing is."""
        durable = [n + 1 for n, at in enumerate(self.durable_at) if at is not None and at <= after]
        least, most = max(durable, default=0), sum(at < after for at in self.begun_at)
        told = self._cursor(after)[1]
        if not any(
            self.states[n] == found.state and self.lines[n][told:] == found.lines
            for n in range(least, most + 1)
        ):
            return f"neither the state nor the events after {least} to {most} batches"
        altered = [id for id, it in found.contents.items() if it != self.contents[id]]
        return f"altered: {altered}" if altered else ""


def _apply(state: State, operation: Operation) -> None:
    if isinstance(operation, Append):
        count = len(operation.message.envelope.recipients)
        state[operation.message.id] = (operation.status,) * count
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


def _raise(failure: Failure) -> None:
    failure.raiseException()


def sealed(answer: Deferred[Any]) -> Any:
    """What a Deferred has, which must have fired.  :raise Violation: it has not."""
    results: list[Any] = []
    answer.addCallbacks(results.append, _raise)
    if not results:
        answer.addErrback(lambda failure: None)
        raise Violation("no answer has come, or a failure")
    return results[0]


def find(files: Files, cursor: Position, kind: type[DiskSpool]) -> tuple[DiskSpool, Found]:
    """Start on a disk and look at everything.

    :param cursor: the journal's.
    :raise Violation: a crash was taken for damage, or something cannot be read, or is too much.
    """
    journal = Lines()
    journal.cursor, journal.is_synced = cursor, False
    spool = make(files, journal, kind=kind)
    spool.acquire()
    state = {found.message.id: found.statuses for found in spool.recover()}
    lines = [line for some, _ in spool.recover_events(cursor) for line in some]
    if spool.stats().corrupt:
        raise Violation("a crash was taken for damage")
    contents: dict[QueueId, bytes] = {}
    for id in state:
        content: Content = sealed(spool.open(id))
        contents[id] = content.read()
        content.close()
    bigs = sum(len(octets) > BIG for octets in contents.values())
    if len(files.names(SHARD / "big")) != bigs:
        raise Violation("a big file that nobody needs stays")
    if any(name.endswith(".spare") for name in files.names(SHARD)):
        raise Violation("a spare that nobody knows of stays")
    return spool, Found(state, contents, lines)


def restarted(
    tree: Tree, cursor: Position, disk_kind: type[CrashFiles], kind: type[DiskSpool]
) -> Found:
    """What a restart finds on what a crash has left, and that the next one finds the same, and
    that the spool goes on.

    :raise Violation:  :raise OSError: it does not start.
    """
    disk = disk_kind(tree)
    spool, found = find(disk, cursor, kind)
    spool.close()
    disk = disk_kind(disk.tree())
    spool, second = find(disk, cursor, kind)
    if second != found:
        raise Violation("the next restart finds something else")
    one = message(b"more", 1, QueueId("0" * 25 + "1"))
    sealed(spool.commit(Batch((Append(one, (b"more",), DUE),), (b"more\n",))))
    spool.close()
    spool, third = find(disk_kind(disk.tree()), cursor, kind)
    spool.close()
    state, contents = {one.id: (DUE,)} | found.state, {one.id: b"more"} | found.contents
    if third != Found(state, contents, [*found.lines, b"more\n"]):
        raise Violation("what is committed after a crash is not there after another restart")
    return found
