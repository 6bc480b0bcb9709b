"""Where due entries wait: stepping out from anywhere, and turns."""

from __future__ import annotations

import math

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.hop import NextHop
from protege_mta.model.ids import QueueId
from protege_mta.schedule.entry import Entry
from protege_mta.schedule.sitequeue import SiteQueue, Slots
from protege_mta.schedule.wheel import Alarm, Wheel, drop
from protege_mta.schedule.window import Window, WindowSettings
from protege_mta.testing.workers import site


def entry(name: str, tenant: str = "") -> Entry:
    return Entry(QueueId(name), NextHop("mx", "a.test"), (0,), 0.0, 0.0, 1000.0, tenant=tenant)


def drained(queue: SiteQueue) -> list[str]:
    found = []
    while (one := queue.pop()) is not None:
        found.append(str(one.id))
    return found


class SiteQueueTests(SynchronousTestCase):
    """The lanes of a site."""

    def setUp(self) -> None:
        self.queue = SiteQueue(site("mx.test"), Window.opened(WindowSettings()), Slots(1))

    def step_out(self, one: Entry) -> None:
        assert one.place is not None
        assert not isinstance(one.place, SiteQueue)
        one.place.remove(one)

    def test_stepping_out_from_anywhere(self) -> None:
        """The others keep their order, whether the first, a middle one or the last leaves."""
        for leaving, left in (
            ("a", ["b", "c", "d"]),
            ("b", ["a", "c", "d"]),
            ("c", ["a", "b", "d"]),
            ("d", ["a", "b", "c"]),
        ):
            entries = {name: entry(name) for name in "abcd"}
            for one in entries.values():
                self.queue.push(one)
            self.step_out(entries[leaving])
            self.assertEqual(self.queue.waiting, 3)
            self.assertEqual(drained(self.queue), left)
            self.assertEqual(self.queue.waiting, 0)

    def test_a_tenant_that_stepped_out_loses_no_turn_of_others(self) -> None:
        gone, other = entry("a1", "a"), entry("b1", "b")
        self.queue.push(gone)
        self.queue.push(other)
        self.step_out(gone)
        self.assertEqual(drained(self.queue), ["b1"])
        self.queue.push(gone)
        self.assertEqual(drained(self.queue), ["a1"])

    def test_a_tenant_that_comes_back_has_one_turn(self) -> None:
        """Stepping out and in again does not make two turns of one."""
        first = entry("a1", "a")
        self.queue.push(first)
        self.step_out(first)
        for one in (first, entry("a2", "a"), entry("b1", "b"), entry("b2", "b")):
            self.queue.push(one)
        self.assertEqual(drained(self.queue), ["a1", "b1", "a2", "b2"])


class WheelTests(SynchronousTestCase):
    """Times rounded up."""

    def test_never_early(self) -> None:
        wheel = Wheel()
        wheel.put("soon", 10.1, 0.0)
        wheel.put("sooner", 10.0, 0.0)
        wheel.put("far", 5001.0, 0.0)
        self.assertEqual(wheel.next_at(), 10.0)
        self.assertEqual((wheel.pop(10.2), wheel.pop(10.2)), ("sooner", None))
        self.assertEqual((wheel.next_at(), wheel.pop(10.25)), (10.25, "soon"))
        self.assertEqual((wheel.next_at(), wheel.pop(5004.0)), (5004.0, "far"))
        self.assertEqual(wheel.next_at(), math.inf)

    def test_dropped_items_are_not_woken(self) -> None:
        wheel = Wheel()
        drop("gone", wheel.put("gone", 10.0, 0.0))
        wheel.put("there", 20.0, 0.0)
        self.assertEqual((wheel.next_at(), wheel.pop(30.0)), (20.0, "there"))


class AlarmTests(SynchronousTestCase):
    """Times of day, and timers that go by a clock of their own."""

    def setUp(self) -> None:
        self.timers = Clock()
        self.now = 1_790_000_000.0
        self.rung: list[object] = []
        self.alarm = Alarm(self.timers, lambda: self.now, self.ring)

    def ring(self) -> None:
        while (one := self.alarm.pop(self.now)) is not None:
            self.rung.append(one)
        self.alarm.rest()

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.timers.advance(seconds)

    def test_it_rings_for_what_is_next_and_then_for_the_rest(self) -> None:
        self.alarm.set("second", self.now + 20)
        self.alarm.set("first", self.now + 10)
        self.passes(10)
        self.assertEqual(self.rung, ["first"])
        self.passes(10)
        self.assertEqual(self.rung, ["first", "second"])
        self.assertEqual(self.timers.getDelayedCalls(), [])

    def test_what_is_due_waits_for_no_timer_from_before_the_clock_was_set(self) -> None:
        for by_s in (3600.0, -3600.0):
            self.rung.clear()
            self.alarm.set("later", self.now + 20)
            self.now += by_s
            self.alarm.set("now", self.now)
            self.passes(0.25)
            self.assertIn("now", self.rung, by_s)

    def test_a_clock_that_was_set_is_noticed(self) -> None:
        self.alarm.set("an hour", self.now + 3600)
        self.now += 3600
        self.passes(30)
        self.assertEqual(self.rung, ["an hour"])
