"""Lookups of checks: in line, each answered, none that deepens the stack."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import Answer, Found
from protege_mta.policy.authentication.names import Lane
from protege_mta.testing.zones import ZoneResolver

ZONE = "a.test. 60 IN TXT one\nb.test. 60 IN TXT two\n"


class LaneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.resolver = ZoneResolver(ZONE)
        self.resolver.is_held = True
        self.lane = Lane(self.resolver, 2)

    def look_up(self, count: int, name: str = "a.test") -> list[Deferred[Answer]]:
        return [self.lane.lookup((name, "TXT")) for _ in range(count)]

    def test_in_line(self) -> None:
        waiting = self.look_up(3)
        self.assertEqual(len(self.resolver.asked), 2)
        self.resolver.release()
        self.assertEqual(len(self.resolver.asked), 3)
        self.resolver.release()
        for one in waiting:
            self.assertEqual(self.successResultOf(one), Found(("one",)))

    def test_thousands_that_are_answered_at_once(self) -> None:
        waiting = self.look_up(5000)
        self.resolver.is_held = False
        self.resolver.release()
        for one in waiting:
            self.assertEqual(self.successResultOf(one), Found(("one",)))

    def test_one_leads_to_another(self) -> None:
        """Who hears an answer may ask again."""

        async def again() -> int:
            for _ in range(5000):
                await self.lane.lookup(("b.test", "TXT"))
            return 5000

        work = Deferred.fromCoroutine(again())
        self.resolver.is_held = False
        self.resolver.release()
        self.assertEqual(self.successResultOf(work), 5000)

    def test_cancelled(self) -> None:
        """Whether it is under way or in line; its place is another's."""
        first, second, third, fourth = self.look_up(4)
        third.cancel()
        self.failureResultOf(third, CancelledError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(len(self.resolver.asked), 3)
        self.resolver.release()
        self.resolver.release()
        for one in (second, fourth):
            self.assertEqual(self.successResultOf(one), Found(("one",)))
