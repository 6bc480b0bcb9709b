"""From a recipient at a tunnel domain to an agent's session."""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.hop import NextHop, Site
from protege_mta.model.identity import identity_of
from protege_mta.model.outcome import PermanentFailure, Scope
from protege_mta.model.reply import TABLE
from protege_mta.routing.agents import AWAY, AgentRouter
from protege_mta.routing.site import Locator
from protege_mta.routing.table import NOBODY, RoutingTable
from protege_mta.testing.sessions import FakeAgents, FakeSession, FakeSessions

ANNA: Final = identity_of(b"\1" * 32)
BERT: Final = identity_of(bytes([7]) * 32)


class TableTests(SynchronousTestCase):
    """Agents' domains are looked at by their local-parts, all others by the domain alone."""

    def setUp(self) -> None:
        self.agents = FakeAgents(
            {f"{ANNA}@agents.test": ANNA, "anna@agents.test": ANNA, f"{BERT}@agents.test": BERT}
        )
        self.table = RoutingTable(
            {"agents.test": "tunnel", "local.test": "maildir"}, NextHop("mx", ""), self.agents
        )

    def hop(self, address: str) -> NextHop:
        return self.table.hop(Address(address))

    def test_each_agent_is_a_hop(self) -> None:
        """By its key or its alias, in any case."""
        for address, identity in [
            (f"{ANNA}@agents.test", ANNA),
            (f"{ANNA}@Agents.test".upper(), ANNA),
            ("anna@agents.test", ANNA),
            (f"{BERT}@agents.test", BERT),
        ]:
            self.assertEqual(self.hop(address), NextHop("agent", identity))
        self.assertIs(self.hop("anna@agents.test"), self.hop(f"{ANNA}@agents.test"))

    def test_nobody(self) -> None:
        self.assertEqual(self.hop("x@agents.test"), NOBODY)
        self.assertEqual(
            RoutingTable({"a.test": "tunnel"}, NOBODY).hop(Address("x@a.test")), NOBODY
        )

    def test_an_agent_that_comes_to_be_known(self) -> None:
        """Nothing is remembered of addresses."""
        self.hop("new@agents.test")
        self.agents.mailboxes["new@agents.test"] = BERT
        self.assertEqual(self.hop("new@agents.test"), NextHop("agent", BERT))

    def test_postmaster(self) -> None:
        """Has a Maildir, unless an agent is called so."""
        self.assertEqual(self.hop("PostMaster@Agents.test"), NextHop("maildir", "agents.test"))
        self.agents.mailboxes["postmaster@agents.test"] = ANNA
        self.assertEqual(self.hop("postmaster@agents.test"), NextHop("agent", ANNA))

    def test_others_are_not_asked_for(self) -> None:
        self.agents.mailboxes["x@local.test"] = ANNA
        self.assertEqual(self.hop("x@local.test"), NextHop("maildir", "local.test"))
        self.assertEqual(self.hop("x@else.test"), NextHop("mx", "else.test"))


class RouterTests(SynchronousTestCase):
    def test_there_away_or_nobody(self) -> None:
        agents, sessions = FakeAgents(known={ANNA}), FakeSessions()
        locate = Locator({"agent": AgentRouter(agents, sessions)})
        hop = NextHop("agent", ANNA)
        self.assertIs(self.successResultOf(locate(hop)), AWAY)
        sessions.there[ANNA] = FakeSession(ANNA)
        self.assertEqual(self.successResultOf(locate(hop)), Site(f"agent:{ANNA}", "agent"))
        # One that may log in, and whose mail we would not keep, is there all the same.
        agents.known.clear()
        self.assertIsInstance(self.successResultOf(locate(hop)), Site)
        sessions.there.clear()
        gone = PermanentFailure(Scope.SITE, TABLE["no-such-user"])
        self.assertEqual(self.successResultOf(locate(hop)), gone)
        self.assertEqual(self.successResultOf(locate(NOBODY)), gone)
