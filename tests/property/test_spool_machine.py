"""A spool does what a dictionary would, through restarts, crashes and rotations."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.batch import Append, Batch, End, Operation, Update, with_head
from protege_mta.model.envelope import Message
from protege_mta.model.ids import QueueId
from protege_mta.model.status import RecipientStatus
from protege_mta.testing.contracts import DUE, Lines, append
from protege_mta.testing.crashfs import CrashFiles
from protege_mta.testing.spools import disk_spool

STATUSES = st.builds(
    RecipientStatus,
    state=st.sampled_from(["scheduled", "deferred", "held"]),
    attempts=st.integers(0, 300),
    due_at=st.floats(0, 4e9),
    transitions=st.integers(1, 70_000),
    is_warned=st.booleans(),
    cause=st.text(max_size=40),
)
RECIPIENTS = st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True).map(tuple)
CONTENTS = st.one_of(st.binary(max_size=60), st.binary(min_size=900, max_size=1500))


def result(answer: Deferred[Any]) -> Any:
    got: list[Any] = []
    answer.addCallbacks(got.append, lambda failure: failure.raiseException())
    return got[0]


class SpoolMachine(RuleBasedStateMachine):
    """:ivar model: each message's content and statuses.  :ivar messages: what else there is of it."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = CrashFiles()
        self.journal = Lines()
        self.model: dict[QueueId, tuple[bytes, list[RecipientStatus | None]]] = {}
        self.messages: dict[QueueId, Message] = {}
        self.start()

    def start(self) -> None:
        self.spool = disk_spool(
            self.disk, self.journal, segment_octets=4096, big_octets=1000, cache_octets=2000
        )
        self.spool.acquire()
        found = list(self.spool.recover())
        assert {it.message.id: list(it.statuses) for it in found} == {
            id: statuses for id, (_, statuses) in self.model.items()
        }
        assert all(it.message == self.messages[it.message.id] for it in found)
        assert self.spool.stats().corrupt == 0

    def commit(self, *operations: Operation, is_lazy: bool = False) -> None:
        result(self.spool.commit(Batch(operations, (b"{}\n",), is_lazy)))

    def choose(self, data: st.DataObject) -> QueueId:
        return data.draw(st.sampled_from(sorted(self.model)))

    @rule(
        content=CONTENTS,
        head=st.binary(max_size=20),
        recipients=st.integers(1, 5),
        hold_until=st.just(0.0) | st.floats(0, 4e9),
        requires_tls=st.booleans(),
    )
    def appended(
        self,
        content: bytes,
        head: bytes,
        recipients: int,
        hold_until: float,
        requires_tls: bool,
    ) -> None:
        incoming = self.spool.receive()
        incoming.write(content)
        held = result(incoming.look())
        assert held.read() == content
        held.close()
        content = head + content
        message = append(content, recipients).message
        envelope = attrs.evolve(
            message.envelope,
            hold_until=hold_until,
            future_release="for;60" if hold_until else "",
            requires_tls=requires_tls,
        )
        message = attrs.evolve(message, envelope=envelope)
        self.commit(Append(message, with_head(result(incoming.sealed()), head), DUE))
        self.model[message.id] = (content, [DUE] * recipients)
        self.messages[message.id] = message

    @precondition(lambda self: self.model)
    @rule(data=st.data(), recipients=RECIPIENTS, status=STATUSES)
    def updated(
        self, data: st.DataObject, recipients: tuple[int, ...], status: RecipientStatus
    ) -> None:
        id = self.choose(data)
        statuses = self.model[id][1]
        recipients = tuple(at for at in recipients if at < len(statuses))
        self.commit(Update(id, recipients, status))
        for at in recipients:
            if statuses[at] is not None:
                statuses[at] = status

    @precondition(lambda self: self.model)
    @rule(data=st.data(), recipients=RECIPIENTS, is_lazy=st.booleans())
    def ended(self, data: st.DataObject, recipients: tuple[int, ...], is_lazy: bool) -> None:
        id = self.choose(data)
        statuses = self.model[id][1]
        recipients = tuple(at for at in recipients if at < len(statuses))
        self.commit(End(id, recipients, "delivered"), is_lazy=is_lazy)
        for at in recipients:
            statuses[at] = None
        if not any(statuses):
            del self.model[id]

    @rule(count=st.integers(3, 12))
    def passed_through(self, count: int) -> None:
        """Traffic that fills segments, so that they are reclaimed."""
        for _ in range(count):
            one = append(b"x" * 700)
            self.commit(one)
            self.commit(End(one.message.id, (0,), "delivered"))

    @rule()
    def restarted(self) -> None:
        result(self.spool.close())
        self.start()

    @rule(seed=st.integers(0, 1000))
    def crashed(self, seed: int) -> None:
        """Power is lost between two batches, the last of which was durable."""
        self.commit(End(QueueId("0" * 26), (0,), "removed"))
        self.disk = self.disk.crashed(len(self.disk.steps), "torn", seed)
        self.start()

    @invariant()
    def same_messages(self) -> None:
        assert list(self.spool.ids()) == list(self.model)

    @rule()
    def read(self) -> None:
        for id, (content, statuses) in self.model.items():
            opened = result(self.spool.open(id))
            assert opened.read() == content
            opened.close()
            assert list(result(self.spool.statuses(id)).statuses) == statuses

    def teardown(self) -> None:
        live = self.spool.stats().content_octets
        taken = sum(len(self.disk.content(path)) for path in self.disk.paths() if path.suffix != "")
        assert taken < 2 * live + 40 * 4096


class SpoolMachineTests(SynchronousTestCase):
    def test_machine(self) -> None:
        run_state_machine_as_test(
            SpoolMachine,
            settings=settings(
                max_examples=50,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
