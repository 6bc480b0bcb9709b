"""The resolver that reads zone text."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from protege_mta.model.ports import Found, TryAgain
from protege_mta.testing.resolver_contract import ORIGIN, ZONE, ResolverContract
from protege_mta.testing.zones import ZoneResolver


class ZoneResolverTests(ResolverContract, TestCase):
    """It answers as a real server and our resolver do."""

    def setUp(self) -> None:
        self.resolver = ZoneResolver(ZONE, ORIGIN)

    async def test_broken_name(self) -> None:
        resolver = ZoneResolver(ZONE, ORIGIN, broken=["implicit.test"])
        self.assertEqual(await resolver.lookup("implicit.test", "A"), TryAgain("SERVFAIL"))
        self.assertEqual(resolver.asked, [("implicit.test", "A")])

    def test_answers_can_be_held(self) -> None:
        resolver = ZoneResolver(ZONE, ORIGIN)
        resolver.is_held = True
        waiting = resolver.lookup("implicit.test", "A")
        self.assertNoResult(waiting)
        resolver.release()
        self.assertEqual(self.successResultOf(waiting), Found(("127.0.0.13",)))
