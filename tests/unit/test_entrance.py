"""Which way in a message takes that is not to be kept, but has to wait or never leaves."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.model import Settings
from protege_mta.entrance import Entrance
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Origin, Recipient
from protege_mta.model.ports import Peer
from protege_mta.model.reply import TABLE
from protege_mta.policy.relaying import Relaying, Way

PEER = Peer("192.0.2.7", 40000, "submission", "s-1", identity="key:k")
ENVELOPE = Envelope(Address("a@a.test"), (Recipient(Address("agent@agents.test")),))


class Ways:
    """:ivar way_is: of every message."""

    way_is: Way = "through"

    def way(self, envelope: Envelope) -> Way:
        return self.way_is


class Opened:
    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self, *arguments: object) -> str:
        return self.name


class WayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ways = Ways()
        self.entrance = Entrance(Settings())
        self.entrance.relaying = cast(Relaying, self.ways)
        self.entrance.acceptance = cast(Any, Opened("queue"))
        self.entrance.pass_through = cast(Any, Opened("through"))

    def opened(self, **origin: Any) -> object:
        return self.entrance.smtp(PEER, ENVELOPE, Origin("submission", "key:k", **origin))

    def test_straight_through(self) -> None:
        self.assertEqual(self.opened(), "through")

    def test_what_has_to_wait_cannot_be_passed_through(self) -> None:
        self.assertEqual(self.opened(hold="approval: all"), TABLE["cannot-wait"])
        self.ways.way_is = "queue"
        self.assertEqual(self.opened(hold="approval: all"), "queue")

    def test_the_sandbox_leads_to_no_agent(self) -> None:
        for way in ("through", "both", "queue"):
            self.ways.way_is = way
            self.assertEqual(self.opened(is_sandbox=True), "queue")
            self.assertEqual(self.opened(is_sandbox=True, hold="approval: all"), "queue")
