"""The account that the kill tests rest upon finds what it is there to find."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from .account import Account, Stall, settle
from .load import Sent

ID = "01m7yh4yrbwc09aedtfk000001"
DSN = "01m7yh4yrbwc09aedtfk000002"
SENDER = "k@back.test"


def event(name: str, recipient: str, id: str = f"{ID}.0.0", **others: object) -> dict[str, Any]:
    return {
        "event": name,
        "id": id,
        "message_id": id.partition(".")[0],
        "recipient": recipient,
        "sender": SENDER,
        "source": "smtp",
        **others,
    }


def taken(at: float, *, is_cut: bool = False, **others: object) -> dict[str, Any]:
    line = {
        "at": at,
        "sender": SENDER,
        "recipients": ["to@far.test"],
        "key": "k",
        "digest": "d",
        "before": "Received: from client.test\r\n",
        "message_ids": ["<k@client.test>"],
        "is_cut": is_cut,
    }
    return {**line, **others}


DELIVERY = taken(100.0)
BOUNCE = taken(101.0, sender="", recipients=[SENDER], message_ids=[f"<{DSN}@mx.local.test>"])
EVENTS = [
    event("received", "to@far.test"),
    event("received", "no-body@far.test", f"{ID}.1.0"),
    event("delivered", "to@far.test", f"{ID}.0.1"),
    event("bounced", "no-body@far.test", f"{ID}.1.1", dsn=DSN),
    event("received", SENDER, f"{DSN}.0.0", source="internal", sender=""),
    event("delivered", SENDER, f"{DSN}.0.1", source="internal", sender=""),
]


class AccountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sent = {"k": Sent(SENDER, ("to@far.test", "no-body@far.test"), "d", is_promised=True)}

    def account(
        self,
        *lines: dict[str, Any],
        events: list[dict[str, Any]] = EVENTS,
        kills: tuple[float, ...] = (),
        stalls: tuple[Stall, ...] = (),
    ) -> Account:
        return settle(self.sent, lines, events, kills, stalls)

    def finds(self, text: str, account: Account) -> None:
        self.assertTrue(any(text in fault for fault in account.faults), account.faults)

    def test_nothing_wrong(self) -> None:
        account = self.account(DELIVERY, BOUNCE)
        self.assertEqual(account.faults, [])
        self.assertEqual((account.promised, account.deliveries, account.bounces), (1, 2, 1))

    def test_loss(self) -> None:
        """In the sink, in the log, or of the bounce."""
        self.finds("k never reached to@far.test", self.account(BOUNCE))
        self.finds("the sink got", self.account(DELIVERY))
        without = [one for one in EVENTS if one["event"] != "delivered"]
        self.finds("0 fates of to@far.test", self.account(DELIVERY, BOUNCE, events=without))

    def test_alteration(self) -> None:
        self.finds("was altered", self.account(taken(100.0, digest="e"), BOUNCE))
        self.finds("above it", self.account(taken(100.0, before="x"), BOUNCE))

    def test_invention(self) -> None:
        self.finds("never sent", self.account(DELIVERY, BOUNCE, taken(100.0, key="x")))
        stray = taken(100.0, recipients=["x@far.test"])
        self.finds("was delivered to x@far.test", self.account(DELIVERY, BOUNCE, stray))

    def test_duplicates(self) -> None:
        """Only where a cut or a kill came between."""
        again = taken(105.0)
        self.finds("with nothing in between", self.account(DELIVERY, BOUNCE, again))
        late = self.account(DELIVERY, BOUNCE, again, kills=(103.0,))
        self.finds("with nothing in between", late)
        killed = self.account(DELIVERY, BOUNCE, again, kills=(100.02,))
        self.assertEqual((killed.faults, killed.kill_duplicates), ([], 1))
        cut = self.account(taken(100.0, is_cut=True), BOUNCE, again)
        self.assertEqual((cut.faults, cut.cut_duplicates), ([], 1))

    def test_a_sink_that_stood_still(self) -> None:
        """What it had just taken it could not say, so that a kill in the meantime is a reason; one
        long after is none."""
        again = taken(112.0)
        stalls = ((100.1, 110.0),)
        killed = self.account(DELIVERY, BOUNCE, again, kills=(105.0,), stalls=stalls)
        self.assertEqual((killed.faults, killed.kill_duplicates), ([], 1))
        for kills, others in (
            ((), stalls),
            ((111.5,), stalls),
            ((105.0,), ((101.0, 110.0),)),
            ((105.0,), ((90.0, 99.0),)),
        ):
            account = self.account(DELIVERY, BOUNCE, again, kills=kills, stalls=others)
            self.finds("with nothing in between", account)

    def test_two_fates(self) -> None:
        twice = [*EVENTS, event("expired", "to@far.test", f"{ID}.0.2")]
        self.finds("2 fates of to@far.test", self.account(DELIVERY, BOUNCE, events=twice))
        self.finds("2 events have the id", self.account(DELIVERY, BOUNCE, events=EVENTS * 2))
