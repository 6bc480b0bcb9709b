"""By which names messages were handed in: kept, found again, forgotten in the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.envelope import Message, Origin
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import Known, Recovered, Request, Requests, StateFailed
from protege_mta.state.database import NAME
from protege_mta.state.requests import LOOK_S, RESTORE_STEP, STEP, StoredRequests
from protege_mta.testing.requests import MemoryRequests
from protege_mta.testing.requests_contract import ID, NAMED, OTHER_ID, RequestsContract, named
from protege_mta.testing.states import HeldDatabase

KEPT_S = 1000.0


class MemoryRequestsTests(RequestsContract, SynchronousTestCase):
    def new_requests(self) -> Requests:
        return MemoryRequests()

    def remember(self, request: Request, message: Message, then: Callable[[], None]) -> None:
        self.successResultOf(request.remember(message, then))


class StoredTestCase(SynchronousTestCase):
    """:ivar queued: what is on the schedule."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queued: set[QueueId] = set()
        self.database = HeldDatabase(Path(self.mktemp()).absolute(), self.clock.seconds)
        self.database.open()
        self.addCleanup(self.database.close)
        super().setUp()

    def stored(self) -> StoredRequests:
        """Once more the same, as after a restart."""
        requests = StoredRequests(
            self.database,
            clock=self.clock,
            now=self.clock.seconds,
            is_queued=self.queued.__contains__,
            kept_s=KEPT_S,
        )
        requests.start()
        self.addCleanup(requests.stop)
        return requests


class StoredContractTests(RequestsContract, StoredTestCase):
    def new_requests(self) -> Requests:
        return self.stored()

    def remember(self, request: Request, message: Message, then: Callable[[], None]) -> None:
        self.successResultOf(request.remember(message, then))


class StoredRequestsTests(StoredTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.requests = self.stored()
        self.told: list[str] = []

    def begin(self, origin: Origin = NAMED) -> Request:
        request = self.requests.begin(origin)
        assert not isinstance(request, Known | None), request
        request.settle()
        return request

    def keep(self, origin: Origin = NAMED, id: QueueId = ID) -> Deferred[None]:
        return self.begin(origin).remember(named(origin, id), lambda: self.told.append(id))

    def pass_by(self, seconds: float) -> None:
        self.clock.pump([LOOK_S] * round(seconds / LOOK_S))

    def test_nothing_is_told_before_it_is_durable(self) -> None:
        self.database.is_holding = True
        keeping = self.keep()
        self.assertNoResult(keeping)
        self.assertEqual(self.told, [])
        self.assertIsNone(self.requests.begin(NAMED))
        self.database.turn()
        self.successResultOf(keeping)
        self.assertEqual(self.told, [ID])

    def test_known_after_a_restart(self) -> None:
        self.successResultOf(self.keep())
        self.assertEqual(self.stored().begin(NAMED), Known(ID, "{}"))

    def test_forgotten(self) -> None:
        """Once it is old enough, and not before."""
        self.keep()
        self.pass_by(KEPT_S)
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))
        self.pass_by(2 * LOOK_S)
        self.successResultOf(self.keep(id=OTHER_ID))
        self.assertEqual(self.requests.begin(NAMED), Known(OTHER_ID, "{}"))

    def test_kept_while_it_is_queued(self) -> None:
        """However long that is."""
        self.queued.add(ID)
        self.keep()
        self.pass_by(3.5 * KEPT_S)
        self.queued.clear()
        self.pass_by(KEPT_S / 4)
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))
        self.pass_by(KEPT_S)
        self.begin()

    def test_many_are_forgotten_in_steps(self) -> None:
        """None of which takes long, and nothing new waits for all of them."""
        count = 2 * STEP + 1
        origins = [attrs.evolve(NAMED, request_id=str(n)) for n in range(count)]
        list(self.requests.restore(iter([Recovered(named(one), ()) for one in origins])))
        self.clock.advance(KEPT_S)
        self.database.is_holding = True
        self.pass_by(LOOK_S)
        for left in (count - STEP, count - 2 * STEP, 0):
            self.assertEqual(len(self.database.waiting), 1)
            self.database.turn()
            self.assertEqual(self.rows(), left)
        self.assertEqual(self.database.waiting, [])

    def rows(self) -> int:
        with self.database.snapshot() as connection:
            [(count,)] = connection.execute("SELECT count(*) FROM request")
        return int(count)

    # --- start -----------------------------------------------------------------------------------

    def test_restored(self) -> None:
        """What lies in the spool is known, before whoever started us hears of it."""
        origins = [attrs.evolve(NAMED, request_id=str(n)) for n in range(RESTORE_STEP + 5)]
        found = [
            *(Recovered(named(one), ()) for one in origins),
            Recovered(named(Origin("smtp")), ()),
        ]
        passed = []
        for one in self.requests.restore(iter(found)):
            if one.message.origin.request_id:
                self.assertEqual(self.requests.begin(one.message.origin), Known(ID, "{}"))
            passed.append(one)
        self.assertEqual(passed, found)
        self.assertEqual(self.rows(), len(origins))

    def test_what_was_first_stays(self) -> None:
        """An older row is not changed by what is found under its name."""
        self.keep()
        list(self.requests.restore(iter([Recovered(named(id=OTHER_ID), ())])))
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))

    def test_no_start_without_memory(self) -> None:
        self.database.is_failed = True
        with self.assertRaises(StateFailed):
            list(self.requests.restore(iter([Recovered(named(), ())])))

    def test_no_names_no_writing(self) -> None:
        self.database.is_failed = True
        found = Recovered(named(Origin("smtp")), ())
        self.assertEqual(list(self.requests.restore(iter([found]))), [found])

    # --- trouble ---------------------------------------------------------------------------------

    def test_not_written(self) -> None:
        """What is in the spool already waits until it can be remembered; nothing new is begun."""
        self.database.is_failed = True
        request = self.begin()
        keeping = request.remember(named(), lambda: self.told.append(ID))
        self.failureResultOf(keeping, StateFailed)
        request.release()
        self.assertIsNone(self.requests.begin(NAMED))
        other = attrs.evolve(NAMED, request_id="other")
        self.assertRaises(StateFailed, self.requests.begin, other)
        self.pass_by(3 * LOOK_S)
        self.assertEqual(self.told, [])
        self.database.is_failed = False
        self.pass_by(LOOK_S)
        self.assertEqual(self.told, [ID])
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))
        self.begin(other)

    def test_not_readable(self) -> None:
        """Nobody knows whether it is known."""
        for path in self.database._folder.glob(f"{NAME}*"):
            path.unlink()
        self.assertRaises(StateFailed, self.requests.begin, NAMED)

    def test_forgetting_fails(self) -> None:
        """Is tried again."""
        self.keep()
        self.database.is_failed = True
        self.pass_by(KEPT_S + 3 * LOOK_S)
        self.assertEqual(self.requests.begin(NAMED), Known(ID, "{}"))
        self.database.is_failed = False
        self.pass_by(LOOK_S)
        self.begin()
