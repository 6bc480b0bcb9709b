"""Messages with names of their senders', handed in again and again through crashes, a database that
fails, and time: each name has one message as long as it is remembered.

The model is a dictionary from names to the message that a name means.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.batch import Batch, End
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import IdSource, QueueId
from protege_mta.model.reply import TABLE, Reply
from protege_mta.observe.events import EventLines
from protege_mta.observe.metrics import Counts
from protege_mta.schedule.intake import Acceptance, Arriving
from protege_mta.spool.memory import MemorySpool
from protege_mta.state.requests import LOOK_S, StoredRequests
from protege_mta.testing.states import HeldDatabase

NAMES: Final = ("one", "two", "three")
KEPT_S: Final = 1000.0
MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A disk that syncs at once."""
ENVELOPE: Final = Envelope(Address("a@a.test"), (Recipient(Address("b@b.test")),))


class HeldSpool(MemorySpool):
    """A spool whose disk works when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Batch, Deferred[None]]] = []

    def commit(self, batch: Batch) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.waiting.append((batch, done))
        return done

    def turn(self, most: int = 100) -> list[Deferred[None]]:
        """What is durable now, of which nobody has heard yet."""
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        for batch, _ in taken:
            super().commit(batch)
        return [done for _, done in taken]


@attrs.frozen
class Meant:
    """:ivar since: when the message was first on the schedule."""

    id: QueueId
    since: float


class RequestsMachine(RuleBasedStateMachine):
    """:ivar meant: the model.
    :ivar scheduled: which messages are on the schedule, by id.
    :ivar intakes: what comes in just now, by name; those superseded included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="requests-", dir=MEMORY))
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.count = 0
        self.spool = HeldSpool()
        self.meant: dict[str, Meant] = {}

    def teardown(self) -> None:
        """At last everybody hears what became of it."""
        self.mend()
        for name in NAMES:
            if self.hand_in(name).code != 250:
                self.finish_all()
                self.write_down(100)
                self.let_time_pass(LOOK_S)
                assert self.hand_in(name).code == 250
        self.leave()
        shutil.rmtree(self.folder)

    # --- a life ---

    @initialize()
    def start(self) -> None:
        self.scheduled: dict[QueueId, Message] = {}
        self.intakes: list[tuple[str, Arriving]] = []
        self.database = HeldDatabase(self.folder, self.clock.seconds)
        self.database.open()
        self.requests = StoredRequests(
            self.database,
            clock=self.clock,
            now=self.clock.seconds,
            is_queued=lambda id: id in self.scheduled,
            kept_s=KEPT_S,
        )
        self.acceptance = Acceptance(
            self.spool,
            EventLines(self.clock.seconds, lambda line: None, Counts()),
            requests=self.requests,
            now=self.clock.seconds,
            new_id=IdSource(self.clock.seconds, self.counted),
            first_s=lambda: 300.0,
            accepted=lambda message, status: self.on_schedule(message),
            took=lambda seconds: None,
        )
        self.spool.acquire()
        for found in self.requests.restore(self.spool.recover()):
            self.on_schedule(found.message)
        self.requests.start()
        self.database.is_holding = True

    def counted(self, wanted: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(wanted, "big")

    def on_schedule(self, message: Message) -> None:
        name = message.origin.request_id
        before = self.meant.get(name)
        now = self.clock.seconds()
        if before is None or before.id != message.id:
            if before is not None:
                assert before.id not in self.scheduled, f"{name} is there twice"
                assert now - before.since > KEPT_S, f"{name} was forgotten too soon"
            self.meant[name] = Meant(message.id, now)
        assert message.id not in self.scheduled
        self.scheduled[message.id] = message

    def leave(self) -> None:
        self.requests.stop()
        self.database.close()

    @rule(committed=st.integers(0, 3), is_written=st.booleans())
    def crash(self, committed: int, is_written: bool) -> None:
        """What was on its way to the disk may be there, in order, or not."""
        self.spool.turn(committed)
        self.spool.waiting.clear()
        if is_written:
            for change, _ in self.database.waiting:
                if not self.database.is_failed:
                    self.database.write_now(change)
        self.leave()
        self.spool.close()
        self.start()

    # --- what happens ---

    @rule(name=st.sampled_from(NAMES))
    def begin(self, name: str) -> None:
        begun = self.acceptance.begin(
            ENVELOPE, Origin("tunnel", "agent", request_id=name), lambda id, at: b"X: y\r\n"
        )
        if isinstance(begun, Arriving):
            self.intakes.append((name, begun))
        else:
            self.answered(begun, name)

    def answered(self, reply: Reply, name: str) -> None:
        if reply.code == 250:
            assert self.meant[name].id in reply.lines[0], (reply, self.meant)
        elif reply == TABLE["local-error"]:
            assert self.requests._unwritten
        else:
            assert reply in (TABLE["request-busy"], TABLE["spool-failed"]), reply

    @precondition(lambda self: self.intakes)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.finish_one(data.draw(st.integers(0, len(self.intakes) - 1)))

    @precondition(lambda self: self.intakes)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        _, intake = self.intakes.pop(data.draw(st.integers(0, len(self.intakes) - 1)))
        intake.abort()

    def finish_one(self, index: int) -> None:
        name, intake = self.intakes.pop(index)
        intake.write(b"Subject: hi\r\n\r\nthere\r\n")
        intake.finish().addCallback(self.answered, name)

    def finish_all(self) -> None:
        while self.intakes:
            self.finish_one(0)

    @rule(most=st.integers(1, 3))
    def write_down(self, most: int) -> None:
        """The spool's disk, then the database's."""
        for done in self.spool.turn(most):
            done.callback(None)
        if most > 1:
            self.database.turn()

    @rule()
    def fail(self) -> None:
        self.database.is_failed = True

    @rule()
    def mend(self) -> None:
        self.database.is_failed = False
        self.let_time_pass(LOOK_S)

    @precondition(lambda self: self.scheduled)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A message has met its fate."""
        id = data.draw(st.sampled_from(sorted(self.scheduled)))
        ended = self.spool.commit(Batch((End(id, (0,), "delivered"),)))
        ended.addCallback(lambda _: self.scheduled.pop(id, None))

    @rule(seconds=st.sampled_from([LOOK_S, 300.0, 1100.0]))
    def let_time_pass(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK_S)):
            self.clock.advance(LOOK_S)
            self.database.turn()

    @rule(name=st.sampled_from(NAMES))
    def whole(self, name: str) -> None:
        self.hand_in(name)

    def hand_in(self, name: str) -> Reply:
        """Begin, finish, write down."""
        begun = self.acceptance.begin(
            ENVELOPE, Origin("tunnel", "agent", request_id=name), lambda id, at: b"X: y\r\n"
        )
        if isinstance(begun, Reply):
            self.answered(begun, name)
            return begun
        replies: list[Reply] = []
        begun.finish().addCallback(replies.append)
        self.write_down(100)
        [reply] = replies
        self.answered(reply, name)
        return reply


class RequestsMachineTests(SynchronousTestCase):
    def test_each_name_has_one_message(self) -> None:
        run_state_machine_as_test(
            RequestsMachine,
            settings=settings(max_examples=100, stateful_step_count=40, deadline=None),
        )
