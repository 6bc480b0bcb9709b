"""Mail that comes in held, and mail that never leaves, from the door to its fates."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.address import Address
from protege_mta.model.envelope import Message, Origin
from protege_mta.model.hop import HopKind, NextHop, Site
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import PermanentFailure, TransientFailure
from protege_mta.model.ports import Recovered, Transport
from protege_mta.model.sandbox import play_of
from protege_mta.schedule.desk import Chosen, Desk
from protege_mta.transport.sandbox import SandboxTransport

from .test_schedule_dispatch import FlowCase

WHY: Final = "approval: a test wants it"
HELD: Final = Origin("http", "key:bot", hold=WHY)
SANDBOXED: Final = Origin("http", "key:bot", is_sandbox=True)


class HoldTests(FlowCase):
    def found(self, id: QueueId) -> Recovered:
        return self.successResultOf(self.spool.statuses(id))

    def attempts(self) -> int:
        return len(self.transport.attempts)

    def test_comes_in_held(self) -> None:
        """With the reason in the event, and in the batch that brings it in."""
        id = self.send("b@b.test", "c@c.test", origin=HELD)
        self.turn(3000)
        self.assertEqual(self.attempts(), 0)
        told = [one for one in self.told if one["message_id"] == id]
        self.assertEqual(
            [(one["event"], one["id"], one.get("reason")) for one in told],
            [
                ("received", f"{id}.0.0", None),
                ("received", f"{id}.1.0", None),
                ("held", f"{id}.0.1", WHY),
                ("held", f"{id}.1.1", WHY),
            ],
        )
        row = self.desk.row(self.found(id))
        self.assertEqual((row["state"], row["recipients"][0]["cause"]), ("held", WHY))
        alone = Desk(self.spool, self.ledger, self.clock.seconds, None)
        for here in (self.desk, alone):
            parts = here.standing(self.found(id))
            self.assertEqual({one["why"] for one in parts}, {f"held until it is released: {WHY}"})

    def test_stays_held_over_a_restart(self) -> None:
        id = self.send("b@b.test", origin=HELD)
        self.restart()
        self.turn(3000)
        self.assertEqual(self.attempts(), 0)
        self.assertEqual(self.found(id).message.origin.hold, WHY)

    def test_released(self) -> None:
        id = self.send("b@b.test", origin=HELD)
        self.turn(100)
        self.assertTrue(self.successResultOf(self.desk.release(self.found(id))))
        self.turn(1)
        self.assertEqual(self.attempts(), 1)
        self.assertEqual(
            [event for event, _ in self.events(id)], ["received", "held", "released", "delivered"]
        )

    def test_released_and_restarted(self) -> None:
        """What was released once is not held again."""
        id = self.send("b@b.test", origin=HELD)
        self.successResultOf(self.desk.release(self.found(id)))
        self.restart()
        self.turn(3000)
        self.assertEqual(self.events(id)[-1][0], "delivered")

    def test_a_release_takes_the_reason_away(self) -> None:
        id = self.send("b@b.test", origin=HELD, hold_s=10_000)
        self.successResultOf(self.desk.release(self.found(id)))
        [status] = self.found(id).statuses
        assert status is not None
        self.assertEqual((status.state, status.cause), ("scheduled", ""))

    def test_with_a_release_that_its_sender_chose(self) -> None:
        id = self.send("b@b.test", origin=HELD, hold_s=1000)
        self.turn(2000)
        self.assertEqual(
            [(one["event"], one["id"]) for one in self.told],
            [("received", f"{id}.0.0"), ("scheduled", f"{id}.0.1"), ("held", f"{id}.0.2")],
        )
        self.successResultOf(self.desk.release(self.found(id)))
        self.turn(1)
        self.assertEqual(self.attempts(), 1)

    def test_nobody_releases_it(self) -> None:
        """Its sender is told what it waited for."""
        id = self.send("b@b.test", origin=HELD)
        self.turn(90_000)
        expired = [one for one in self.told if one["event"] == "expired"]
        self.assertEqual([one["message_id"] for one in expired], [id])
        self.assertEqual(
            expired[0]["reply"]["text"],
            f"nobody has released the message in time; it was held for {WHY}",
        )

    def test_found_by_its_state(self) -> None:
        id = self.send("b@b.test", origin=HELD)
        ids = [self.successResultOf(one) for one in self.desk.chosen(Chosen(state="held"))]
        self.assertEqual([one.message.id for one in ids if one is not None], [id])


class SandboxTests(FlowCase):
    def transports(self) -> dict[HopKind, Transport]:
        return {"mx": self.transport, "sandbox": SandboxTransport()}

    def hop(self, address: Address, message: Message) -> NextHop:
        return (
            NextHop("sandbox", "") if message.origin.is_sandbox else super().hop(address, message)
        )

    def locate(self, hop: NextHop) -> Deferred[Site | TransientFailure | PermanentFailure]:
        return (
            succeed(Site("sandbox:", "sandbox")) if hop.kind == "sandbox" else super().locate(hop)
        )

    def fates(self, id: QueueId) -> list[str]:
        return [event for event, _ in self.events(id)]

    def test_delivered(self) -> None:
        id = self.send("b@b.test", origin=SANDBOXED)
        self.assertEqual(self.fates(id), ["received", "delivered"])
        self.assertEqual({one["sandbox"] for one in self.told}, {True})
        self.assertEqual(self.transport.attempts, [])

    def test_bounced(self) -> None:
        """The bounce does not leave either."""
        id = self.send("bounced@b.test", origin=SANDBOXED)
        self.assertEqual(self.fates(id), ["received", "bounced"])
        [bounced] = [one for one in self.told if one["event"] == "bounced"]
        self.assertEqual(bounced["reply"]["enhanced"], "5.1.1")
        dsn = bounced["dsn"]
        self.assertEqual(self.fates(dsn), ["received", "delivered"])
        self.assertEqual(self.transport.attempts, [])

    def test_deferred(self) -> None:
        """Twice, with short waits, and then delivered; over a restart too."""
        id = self.send("deferred@b.test", origin=SANDBOXED)
        self.assertEqual(self.fates(id), ["received", "deferred"])
        for call in self.clock.getDelayedCalls():  # of the process that dies
            call.cancel()
        self.restart()
        for _ in range(5):
            self.turn(1)
        self.assertEqual(self.fates(id), ["received", "deferred", "deferred", "delivered"])

    def test_complained(self) -> None:
        id = self.send("complained@b.test", origin=SANDBOXED)
        self.assertEqual(
            [(one["event"], one["id"]) for one in self.told],
            [("received", f"{id}.0.0"), ("delivered", f"{id}.0.1"), ("feedback", f"{id}.0.{id}")],
        )
        self.assertEqual(self.told[-1]["feedback_type"], "abuse")

    def test_each_recipient_has_its_own(self) -> None:
        id = self.send("bounced@b.test", "b@b.test", "complained@b.test", origin=SANDBOXED)
        self.assertEqual(
            sorted(self.fates(id)[3:]), ["bounced", "delivered", "delivered", "feedback"]
        )

    def test_others_may_be_called_so(self) -> None:
        """Magic is a sandbox's alone."""
        id = self.send("complained@b.test")
        self.assertEqual(self.fates(id), ["received", "delivered"])
        self.assertEqual(len(self.transport.attempts), 1)

    def test_it_is_durable(self) -> None:
        id = self.send("deferred@b.test", origin=SANDBOXED)
        self.restart()
        self.assertTrue(self.successResultOf(self.spool.statuses(id)).message.origin.is_sandbox)


class PlayTests(SynchronousTestCase):
    def test_by_local_part_or_domain(self) -> None:
        for text, play in (
            ("bounced@b.test", "bounced"),
            ("BOUNCED+7@b.test", "bounced"),
            ("anybody@deferred.b.test", "deferred"),
            ("delivered@bounced.test", "delivered"),
            ("complained@b.test", "complained"),
            ("bounced.not@b.test", "delivered"),
            ("b@b.test", "delivered"),
        ):
            self.assertEqual(play_of(Address(text)), play, text)
