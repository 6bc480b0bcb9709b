"""How often, and how many at a time, strangers may knock at a relay server."""

from __future__ import annotations

from typing import cast

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.policy.buckets import Buckets
from protege_mta.policy.clients import network_of
from protege_mta.tunnel.connection import Connection, Stage
from protege_mta.tunnel.doorstep import Doorstep


class BucketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.buckets = Buckets(lambda: self.now, 3, most=4)

    def take(self, count: int, address: str = "192.0.2.1") -> list[bool]:
        return [self.buckets.take(address) for _ in range(count)]

    def test_full_at_first_and_filled_in_a_minute(self) -> None:
        self.assertEqual(self.take(4), [True, True, True, False])
        self.now += 19
        self.assertEqual(self.take(1), [False])
        self.now += 1
        self.assertEqual(self.take(2), [True, False])
        self.now += 3600
        self.assertEqual(self.take(4), [True, True, True, False])

    def test_refusals_cost_nothing(self) -> None:
        self.take(100)
        self.now += 20
        self.assertEqual(self.take(1), [True])

    def test_each_client_has_its_own(self) -> None:
        """A client is an IPv4 address, or a /64."""
        self.take(3)
        self.assertEqual(self.take(1, "192.0.2.2"), [True])
        self.assertEqual(self.take(1, "::ffff:192.0.2.1"), [False])
        self.assertEqual(self.take(3, "2001:db8::1"), [True] * 3)
        self.assertEqual(self.take(1, "2001:db8::ffff"), [False])
        self.assertEqual(self.take(1, "2001:db8:0:1::1"), [True])

    def test_bounded(self) -> None:
        """The one that has not come for longest is forgotten."""
        self.take(3)
        for number in range(2, 5):
            self.take(1, f"192.0.2.{number}")
        self.assertEqual(self.take(1), [False])  # it has come again
        self.take(1, "192.0.2.9")
        self.assertEqual(len(self.buckets), 4)
        self.assertEqual(self.take(1), [False])
        self.assertEqual(self.take(3, "192.0.2.2"), [True] * 3)

    def test_no_limit(self) -> None:
        self.buckets.per_minute = 0
        self.assertEqual(self.take(100), [True] * 100)
        self.assertEqual(len(self.buckets), 0)

    def test_clock_that_jumps_back(self) -> None:
        self.take(3)
        self.now -= 500
        self.assertEqual(self.take(1), [False])


@attrs.define(eq=False)
class Waiting:
    stage: Stage = Stage.OPENING


class DoorstepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.doorstep = Doorstep(network_of, most=4, per_client=2)
        self.waiting: list[Waiting] = []

    def knock(self, address: str = "192.0.2.1") -> bool:
        if not self.doorstep.has_room(address):
            return False
        self.waiting.append(Waiting())
        self.doorstep.add(address, cast(Connection, self.waiting[-1]))
        return True

    def test_few_of_one_client(self) -> None:
        self.assertEqual([self.knock() for _ in range(3)], [True, True, False])
        self.assertTrue(self.knock("192.0.2.2"))
        self.waiting[0].stage = Stage.OPEN
        self.assertEqual([self.knock() for _ in range(2)], [True, False])
        self.waiting[1].stage = Stage.CLOSED
        self.assertEqual([self.knock() for _ in range(2)], [True, False])

    def test_few_of_all(self) -> None:
        """Those that have gone in, or away, make room, whosever they are."""
        came = [self.knock(f"192.0.2.{number}") for number in range(6)]
        self.assertEqual(came, [True] * 4 + [False] * 2)
        self.waiting[2].stage = Stage.OPEN
        self.assertEqual([self.knock(f"198.51.100.{number}") for number in range(2)], [True, False])

    def test_many_who_go_in(self) -> None:
        for number in range(1000):
            self.assertTrue(self.knock(f"10.0.{number % 7}.{number % 250}"))
            self.waiting[-1].stage = Stage.OPEN
