"""Work in threads of our own, and its results in the reactor's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.transport.crew import Crew

WAIT_S = 30.0


class CrewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self.crew = Crew(2, self.calls.put, "crew-under-test")
        self.addCleanup(self.crew.stop)

    def turn(self) -> None:
        """The reactor's thread does what it is asked to."""
        self.calls.get(timeout=WAIT_S)()

    def threads(self) -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name.startswith("crew-under-test")]

    def test_work_is_done_elsewhere_and_told_here(self) -> None:
        done = self.crew(threading.get_ident)
        self.assertNoResult(done)
        self.turn()
        self.assertNotEqual(self.successResultOf(done), threading.get_ident())

    def test_what_work_raises_fails_its_deferred_alone(self) -> None:
        broken, whole = self.crew(lambda: 1 // 0), self.crew(lambda: 1)
        while not (broken.called and whole.called):
            self.turn()
        self.failureResultOf(broken, ZeroDivisionError)
        self.assertEqual(self.successResultOf(whole), 1)

    def test_results_that_come_together_are_told_together(self) -> None:
        """The reactor is asked once for all that there are when its turn comes."""
        done = [self.crew(lambda: "done") for _ in range(50)]
        barrier = threading.Barrier(3)
        meeting = [self.crew(lambda: barrier.wait(WAIT_S)) for _ in range(2)]
        barrier.wait(WAIT_S)  # both threads are here: everything before is over
        self.turn()
        self.assertEqual([self.successResultOf(one) for one in done], ["done"] * 50)
        while not all(one.called for one in meeting):
            self.turn()

    def test_no_thread_before_there_is_work(self) -> None:
        self.assertEqual(self.threads(), [])
        self.crew(int)
        self.turn()
        self.assertEqual(len(self.threads()), 2)

    def test_threads_end_when_their_work_is_done(self) -> None:
        done = [self.crew(int) for _ in range(10)]
        threads = self.threads()
        self.crew.stop()
        for thread in threads:
            thread.join(WAIT_S)
        self.assertEqual(self.threads(), [])
        while not all(one.called for one in done):
            self.turn()
