"""A short life in which messages with names are handed in, on a recorded disk, and what a restart
makes of each crash in it.

Two things are durable at times of their own: the spool's disk, whose operations are recorded, and
the database, of which what was committed is there (SQLite answers for that).  So a
:class:`Moment` says what the database held, and what had been promised, after how many operations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from protege_mta.model.address import Address
from protege_mta.model.batch import Batch, End
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.reply import Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.schedule.intake import Acceptance, Arriving
from protege_mta.state.requests import StoredRequests
from protege_mta.testing.contracts import Lines
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.medium import Tree
from protege_mta.testing.states import HeldDatabase

from .recording import BIG, Held, make

NAMES: Final = ("one", "two", "three", "four")
ENVELOPE: Final = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))
Row = tuple[Any, ...]


@attrs.frozen
class Moment:
    """:ivar after: so many operations on the disk.
    :ivar rows: what the database holds.
    :ivar scheduled: name and id of all that has been on the schedule.
    :ivar promised: likewise of all that was answered 250.
    """

    after: int
    rows: tuple[Row, ...]
    scheduled: frozenset[tuple[str, QueueId]]
    promised: frozenset[tuple[str, str]]


class Life:
    """One process: spool, database, and the way in.

    :param database: open.
    :ivar moments: what was true when.
    """

    def __init__(self, disk: CrashFiles, database: HeldDatabase, seed: int) -> None:
        self.disk = disk
        self.database = database
        self.held = Held()
        self.spool = make(disk, Lines(), line=self.held.line, in_thread=self.held.in_thread)
        self.moments: list[Moment] = []
        self.waiting: dict[QueueId, str] = {}
        self.scheduled: set[tuple[str, QueueId]] = set()
        self.promised: set[tuple[str, str]] = set()
        self._count = seed << 40
        self._intakes: list[tuple[str, Arriving]] = []
        self.requests = StoredRequests(
            database,
            clock=Clock(),
            now=lambda: 1000.0,
            is_queued=self.waiting.__contains__,
            kept_s=1e9,
        )
        self.acceptance = Acceptance(
            self.spool,
            EventLines(lambda: 1000.0, lambda line: None, Counts()),
            requests=self.requests,
            now=lambda: 1000.0,
            new_id=IdSource(lambda: 1000.0, self._counted),
            first_s=lambda: 300.0,
            accepted=lambda message, status: self._accepted(message),
            took=lambda seconds: None,
        )
        self.spool.acquire()
        for found in self.requests.restore(self.spool.recover()):
            self._accepted(found.message)

    def _counted(self, wanted: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(wanted, "big")

    def _accepted(self, message: Message) -> None:
        self.scheduled.add((message.origin.request_id, message.id))
        self.waiting[message.id] = message.origin.request_id
        self.mark()

    def rows(self) -> tuple[Row, ...]:
        with self.database.snapshot() as connection:
            return tuple(connection.execute("SELECT * FROM request"))

    def mark(self) -> None:
        """Remember what is true now."""
        self.moments.append(
            Moment(
                len(self.disk.steps),
                self.rows(),
                frozenset(self.scheduled),
                frozenset(self.promised),
            )
        )

    # --- what happens ---

    def begin(self, name: str) -> Arriving | None:
        begun = self.acceptance.begin(
            ENVELOPE, Origin("tunnel", "agent", request_id=name), lambda id, at: b"X: y\r\n"
        )
        if isinstance(begun, Reply):
            self._answered(begun, name)
            return None
        return begun

    def finish(self, name: str, intake: Arriving, octets: int) -> Deferred[None]:
        intake.write(b"x" * octets)
        return intake.finish().addCallback(self._answered, name)

    def _answered(self, reply: Reply, name: str) -> None:
        if reply.code == 250:
            self.promised.add((name, reply.lines[0].rpartition(" ")[2]))
        self.mark()

    def hand_in(self, name: str) -> None:
        """All at once."""
        intake = self.begin(name)
        if intake is not None:
            self.finish(name, intake, 50)

    def live(self, rng: random.Random, actions: int) -> None:
        """By chance: everything holds until its turn comes."""
        self.held.is_holding = self.database.is_holding = True
        for _ in range(actions):
            match rng.randrange(8):
                case 0 | 1:
                    name = rng.choice(NAMES)
                    intake = self.begin(name)
                    if intake is not None:
                        self._intakes.append((name, intake))
                case 2 | 3 if self._intakes:
                    name, intake = self._intakes.pop(rng.randrange(len(self._intakes)))
                    self.finish(name, intake, rng.choice((50, 50, BIG + 50)))
                case 4:
                    self.held.work()
                    self.held.turn()
                case 5:
                    self.database.turn()
                case 6 if self.waiting:
                    id = rng.choice(sorted(self.waiting))
                    del self.waiting[id]
                    self.spool.commit(Batch((End(id, (0,), "delivered"),)))
                case 7 if self._intakes:
                    self._intakes.pop()[1].abort()
            self.mark()


class Restarts:
    """Restarts after crashes, with one database that is filled anew for each."""

    def __init__(self, folder: Path) -> None:
        self._database = HeldDatabase(folder)
        self._database.open()
        self._known: set[tuple[bytes, Moment]] = set()

    def close(self) -> None:
        self._database.close()

    @property
    def count(self) -> int:
        """How many different ones there were."""
        return len(self._known)

    def faults(self, tree: Tree, moment: Moment) -> Iterator[str]:
        """Everybody hands everything in again until it is acknowledged; what is wrong then?"""
        if (tree.digest(), moment) in self._known:
            return
        self._known.add((tree.digest(), moment))

        def fill(connection: Any) -> None:
            connection.execute("DELETE FROM request")
            connection.executemany("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", moment.rows)

        self._database.write_now(fill)
        life = Life(CrashFiles(tree), self._database, seed=2)
        for name in NAMES:
            life.hand_in(name)
        life.spool.close()
        scheduled = moment.scheduled | life.scheduled
        promised = moment.promised | life.promised
        for name in NAMES:
            ids = {id for one, id in scheduled if one == name}
            if len(ids) != 1 or {id for one, id in promised if one == name} != ids:
                yield f"{name}: {sorted(scheduled)}, promised {sorted(promised)}"


def at(moments: list[Moment], after: int) -> list[Moment]:
    """What may have been true after so many operations."""
    earlier = [one for one in moments if one.after < after]
    return [*earlier[-1:], *(one for one in moments if one.after == after)]
