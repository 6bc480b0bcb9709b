"""Cancel, retry, hold and release: in each state, at once with an attempt, and over a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred, fail

from protege_mta.http.timeline import ACTIONS, Action
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import Outcome
from protege_mta.model.ports import SpoolFailed
from protege_mta.testing.transports import TAKEN

from .api import ApiCase, HeldBack, key
from .test_schedule_dispatch import GREYLISTED, UNKNOWN

Attempt = Deferred[Sequence[tuple[int, Outcome]]]

DONE: Final = (200, True, False)
NO_NEED: Final = (200, False, False)
LATER: Final = (202, False, True)
ENDED: Final = (409, "already-ended", "")
DAMAGED: Final = (409, "damaged", "")
NOBODY: Final = (404, "no-such-message", "")

TABLE: Final[Mapping[str, tuple[object, object, object, object]]] = {
    # cancel, retry, hold, release
    "scheduled": (DONE, DONE, DONE, NO_NEED),
    "deferred": (DONE, DONE, DONE, NO_NEED),
    "active": (LATER, NO_NEED, LATER, NO_NEED),
    "held": (DONE, (409, "held", ""), NO_NEED, DONE),
    "delivered": (ENDED, ENDED, ENDED, ENDED),
    "bounced": (ENDED, ENDED, ENDED, ENDED),
    "cancelled": (NO_NEED, ENDED, ENDED, ENDED),
    "damaged": (DONE, DAMAGED, DAMAGED, DAMAGED),
    "unknown": (NOBODY, NOBODY, NOBODY, NOBODY),
}

GONE: Final = "not-found"

COMMANDS: Final[Mapping[str, tuple[object, object, object, object]]] = {
    "scheduled": ({"count": 1}, {"count": 1}, {"count": 1}, {"count": 0}),
    "deferred": ({"count": 1}, {"count": 1}, {"count": 1}, {"count": 0}),
    "active": ({"count": 0, "later": 1}, {"count": 0}, {"count": 0, "later": 1}, {"count": 0}),
    "held": ({"count": 1}, {"count": 0}, {"count": 0}, {"count": 1}),
    "delivered": (GONE, GONE, GONE, GONE),
    "bounced": (GONE, GONE, GONE, GONE),
    "cancelled": (GONE, GONE, GONE, GONE),
    "damaged": ({"count": 1}, {"count": 0}, {"count": 0}, {"count": 0}),
    "unknown": (GONE, GONE, GONE, GONE),
}

AFTER: Final[Mapping[tuple[str, Action], str]] = {
    ("scheduled", "cancel"): "removed",
    ("scheduled", "retry"): "delivered",
    ("scheduled", "hold"): "held",
    ("scheduled", "release"): "scheduled",
    ("deferred", "cancel"): "removed",
    ("deferred", "retry"): "delivered",
    ("deferred", "hold"): "held",
    ("deferred", "release"): "deferred",
    ("active", "cancel"): "active",
    ("active", "retry"): "active",
    ("active", "hold"): "active",
    ("active", "release"): "active",
    ("held", "cancel"): "removed",
    ("held", "retry"): "held",
    ("held", "hold"): "held",
    ("held", "release"): "delivered",
}
"""What a recipient's status is then."""


class ActionsCase(ApiCase):
    def attempt(self) -> Attempt:
        """The next attempt, which ends when the test says so."""
        at_work: Attempt = Deferred()
        self.transport.script.append(at_work)
        return at_work

    def in_state(self, state: str) -> str:
        """A message that stands so."""
        match state:
            case "scheduled":
                return self.posted(send_at=self.in_s(1000))
            case "deferred":
                self.transport.script.append({0: GREYLISTED})
                return self.posted()
            case "active":
                self.attempt()
                return self.posted()
            case "held":
                id = self.posted(send_at=self.in_s(1000))
                self.assertEqual(self.do(id, "hold")[0], 200)
                self.turn(2000)  # past its release
                return id
            case "delivered":
                return self.posted()
            case "bounced":
                self.transport.script.append({0: UNKNOWN})
                return self.posted()
            case "cancelled":
                id = self.posted(send_at=self.in_s(1000))
                self.assertEqual(self.do(id, "cancel")[0], 200)
                return id
            case "damaged":
                id = self.posted(send_at=self.in_s(1000))
                self.spool.damage(QueueId(id))
                self.turn(2000)  # it is found when it is due
                return id
        return "0" * 26

    def said(self, id: str, action: str) -> object:
        status, told = self.do(id, action)
        if status >= 400:
            return self.problem((status, told))
        self.assertEqual(told["id"], id)
        return status, told["changed"], told["under_way"]

    def names(self, id: str) -> list[str]:
        return [event for event, _ in self.events(QueueId(id))]


class TableTests(ActionsCase):
    def test_by_the_api(self) -> None:
        """Each action tells the truth about each state, and what it says is so afterwards."""
        for state, row in TABLE.items():
            for action, wanted in zip(ACTIONS, row, strict=True):
                with self.subTest(state=state, action=action):
                    id = self.in_state(state)
                    self.assertEqual(self.said(id, action), wanted)
                    if (state, action) in AFTER:
                        self.assertEqual(self.statuses(id), [AFTER[state, action]])
        self.flushLoggedErrors()

    def test_by_command(self) -> None:
        commands = ("remove", "retry", "hold", "release")
        for state, row in COMMANDS.items():
            for command, action, wanted in zip(commands, ACTIONS, row, strict=True):
                with self.subTest(state=state, command=command):
                    id = self.in_state(state)
                    self.assertEqual(self.command(command, id), wanted)
                    if (state, action) in AFTER:
                        self.assertEqual(self.statuses(id), [AFTER[state, action]])
        self.flushLoggedErrors()

    def test_a_command_is_done_once_the_log_tells_of_it(self) -> None:
        for command in ("hold", "retry", "bounce", "remove"):
            with self.subTest(command=command):
                told: Deferred[None] = Deferred()
                done = self.ordered(command, self.in_state("deferred"), told=told)
                self.assertNoResult(done)
                told.callback(None)
                self.assertEqual(self.successResultOf(done), {"count": 1})

    def test_again(self) -> None:
        """Whoever lost the answer may ask again."""
        for state, action, second in (
            ("deferred", "cancel", NO_NEED),
            ("deferred", "hold", NO_NEED),
            ("held", "release", ENDED),  # it has been delivered since
            ("active", "cancel", LATER),
            ("active", "hold", LATER),
        ):
            with self.subTest(state=state, action=action):
                id = self.in_state(state)
                self.said(id, action)
                self.assertEqual(self.said(id, action), second)

    def test_over_a_restart(self) -> None:
        """What was done is still done."""
        for state, action, wanted in (
            ("deferred", "cancel", "removed"),
            ("scheduled", "cancel", "removed"),
            ("deferred", "hold", "held"),
            ("scheduled", "hold", "held"),
        ):
            with self.subTest(state=state, action=action):
                id = self.in_state(state)
                self.assertEqual(self.said(id, action), DONE)
                self.restart()
                self.turn(50_000)
                self.assertEqual(self.statuses(id), [wanted])

    def test_released_before_a_restart(self) -> None:
        id = self.in_state("held")
        self.attempt()
        self.assertEqual(self.said(id, "release"), DONE)
        self.restart()
        self.turn(1000)
        self.assertEqual(self.statuses(id), ["delivered"])

    def test_a_disk_that_refuses(self) -> None:
        id = self.in_state("deferred")
        self.patch(self.spool, "commit", lambda batch: fail(SpoolFailed("broken")))
        self.assertEqual(self.said(id, "hold"), (503, "unavailable", ""))

    def test_no_such_action(self) -> None:
        self.assertEqual(self.do(self.posted(), "explode")[0], 404)


class RaceTests(ActionsCase):
    """An attempt is under way."""

    def setUp(self) -> None:
        super().setUp()
        self.at_work = self.attempt()
        self.sent_id = self.posted()

    def why(self) -> str:
        [one] = self.timeline(self.sent_id)["recipients"]
        return str(one["why"])

    def test_cancelled_and_delivered(self) -> None:
        self.assertEqual(self.said(self.sent_id, "cancel"), LATER)
        self.assertTrue(self.why().endswith("; what remains will be removed"))
        self.at_work.callback([(0, TAKEN)])
        self.assertEqual(self.names(self.sent_id), ["received", "delivered"])
        self.assertEqual(self.said(self.sent_id, "cancel"), ENDED)

    def test_cancelled_and_deferred(self) -> None:
        self.said(self.sent_id, "cancel")
        self.at_work.callback([(0, GREYLISTED)])
        self.assertEqual(self.names(self.sent_id), ["received", "removed"])
        self.assertEqual(self.said(self.sent_id, "cancel"), NO_NEED)

    def test_cancelled_and_refused(self) -> None:
        """Refused for good, its sender is told as ever."""
        self.said(self.sent_id, "cancel")
        self.at_work.callback([(0, UNKNOWN)])
        self.assertEqual(self.names(self.sent_id), ["received", "bounced"])

    def test_held(self) -> None:
        self.assertEqual(self.said(self.sent_id, "hold"), LATER)
        self.at_work.callback([(0, GREYLISTED)])
        self.turn(1000)
        self.assertEqual(self.statuses(self.sent_id), ["held"])
        self.assertEqual(self.said(self.sent_id, "release"), DONE)
        self.assertEqual(
            self.names(self.sent_id), ["received", "deferred", "held", "released", "delivered"]
        )

    def test_held_and_let_go(self) -> None:
        """A release takes back that it was to be held."""
        self.said(self.sent_id, "hold")
        self.assertEqual(self.said(self.sent_id, "release"), DONE)
        self.at_work.callback([(0, GREYLISTED)])
        self.turn(400)
        self.assertEqual(self.names(self.sent_id), ["received", "deferred", "delivered"])

    def test_cancelled_for_good(self) -> None:
        """Whoever was told that it will be removed is not made a liar of."""
        self.said(self.sent_id, "hold")
        self.assertEqual(self.said(self.sent_id, "cancel"), LATER)
        self.assertEqual(self.said(self.sent_id, "hold"), (409, "being-cancelled", ""))
        self.assertEqual(self.said(self.sent_id, "release"), NO_NEED)
        self.at_work.callback([(0, GREYLISTED)])
        self.assertEqual(self.names(self.sent_id), ["received", "removed"])

    def test_dies_before_the_attempt_is_over(self) -> None:
        """Then it is as if it had not been said, as the answer says."""
        self.said(self.sent_id, "cancel")
        self.restart()
        self.turn(1000)
        self.assertEqual(self.statuses(self.sent_id), ["delivered"])

    def test_some_delivered(self) -> None:
        at_work = self.attempt()
        id = self.posted(to=["b@b.test", "c@b.test"])
        self.said(id, "cancel")
        at_work.callback([(0, TAKEN), (1, GREYLISTED)])
        self.assertEqual(self.statuses(id), ["delivered", "removed"])
        self.assertEqual(self.said(id, "cancel"), ENDED)

    def test_some_wait_elsewhere(self) -> None:
        """What is not being tried goes at once, and what is goes after it."""
        self.transport.script.append({0: GREYLISTED})
        at_work = self.attempt()
        id = self.posted(to=["b@b.test", "c@c.test"])
        self.assertEqual(self.said(id, "cancel"), (202, True, True))
        at_work.callback([(1, GREYLISTED)])
        self.assertEqual(self.statuses(id), ["removed", "removed"])


class WrittenDownTests(ActionsCase):
    """An attempt is over, and its outcome is on its way to the disk."""

    def setUp(self) -> None:
        super().setUp()
        at_work = self.attempt()
        self.sent_id = self.posted()
        self.commit = self.spool.commit
        self.held_back = HeldBack(self.spool.commit)
        self.at_work = at_work

    def fails_meanwhile(self, *actions: str) -> list[object]:
        self.patch(self.spool, "commit", self.held_back)
        self.at_work.callback([(0, GREYLISTED)])
        said = [self.said(self.sent_id, action) for action in actions]
        self.held_back.tell()
        self.spool.commit = self.commit  # type: ignore[method-assign]
        self.turn(400)
        return said

    def test_cancelled(self) -> None:
        self.assertEqual(self.fails_meanwhile("cancel"), [LATER])
        self.assertEqual(self.names(self.sent_id), ["received", "deferred", "removed"])
        self.assertEqual(self.statuses(self.sent_id), ["removed"])
        self.assertEqual(self.spool.ids(), [])

    def test_held(self) -> None:
        self.assertEqual(self.fails_meanwhile("hold"), [LATER])
        self.assertEqual(self.names(self.sent_id), ["received", "deferred", "held"])
        self.restart()
        self.turn(1000)
        self.assertEqual(self.statuses(self.sent_id), ["held"])

    def test_held_and_let_go(self) -> None:
        self.assertEqual(self.fails_meanwhile("hold", "release"), [LATER, DONE])
        self.assertEqual(self.names(self.sent_id), ["received", "deferred", "delivered"])

    def test_let_go(self) -> None:
        """The record says that it is held by then."""
        self.said(self.sent_id, "hold")
        self.assertEqual(self.fails_meanwhile("release"), [DONE])
        self.assertEqual(
            self.names(self.sent_id), ["received", "deferred", "held", "released", "delivered"]
        )

    def test_transitions_are_counted(self) -> None:
        self.said(self.sent_id, "hold")
        self.fails_meanwhile("release")
        numbers = [int(one["id"].rpartition(".")[2]) for one in self.told]
        self.assertEqual(numbers, [0, 1, 2, 3, 4])


class TroubleTests(ActionsCase):
    """An attempt that comes to nothing for a trouble of ours obeys as well."""

    def test_cancelled_while_it_is_read(self) -> None:
        opening: Deferred[object] = Deferred()
        self.patch(self.spool, "at_hand", lambda id: None)
        self.patch(self.spool, "open", lambda id: opening)
        id = self.posted()
        self.assertEqual(self.said(id, "cancel"), LATER)
        opening.errback(OSError("no descriptor is left"))
        self.assertEqual(self.names(id), ["received", "removed"])
        self.assertEqual(self.statuses(id), ["removed"])
        self.flushLoggedErrors(OSError)

    def test_held_while_no_fate_can_be_recorded(self) -> None:
        at_work = self.attempt()
        id = self.posted()
        self.said(id, "hold")
        commit = self.spool.commit
        failing: list[Deferred[None]] = [fail(SpoolFailed("for once"))]
        self.patch(self.spool, "commit", lambda batch: failing.pop() if failing else commit(batch))
        at_work.callback([(0, UNKNOWN)])
        self.assertEqual(self.names(id), ["received", "held"])
        self.assertEqual(self.statuses(id), ["held"])
        self.flushLoggedErrors(SpoolFailed)


class HandsTests(ActionsCase):
    """Several people at once."""

    def test_one_after_the_other(self) -> None:
        """Who holds a message that is just being released has it held, and is told so."""
        id = self.in_state("held")
        commit, held_back = self.spool.commit, HeldBack(self.spool.commit)
        self.patch(self.spool, "commit", held_back)
        self.attempt()
        wires = [
            self.asking("POST", f"/v1/message/{id}/{action}")
            for action in ("release", "release", "hold")
        ]
        self.assertEqual([wire.value() for wire in wires], [b"", b"", b""])
        self.spool.commit = commit  # type: ignore[method-assign]
        held_back.tell()
        answers = [self.answered(wire) for wire in wires]
        self.assertEqual(
            [(status, told["changed"], told["under_way"]) for status, told in answers],
            [DONE, NO_NEED, LATER],
        )
        self.assertEqual(self.names(id)[-2:], ["held", "released"])

    def test_cancelled_twice_at_once(self) -> None:
        id = self.in_state("deferred")
        commit, held_back = self.spool.commit, HeldBack(self.spool.commit)
        self.patch(self.spool, "commit", held_back)
        wires = [self.asking("POST", f"/v1/message/{id}/cancel") for _ in range(3)]
        self.spool.commit = commit  # type: ignore[method-assign]
        held_back.tell()
        self.clock.advance(1)
        self.assertEqual(sorted(self.answered(wire)[1]["changed"] for wire in wires), [0, 0, 1])
        self.assertEqual(self.names(id).count("removed"), 1)


class WhoseTests(ActionsCase):
    def test_not_with_another_tenants_key(self) -> None:
        """Nobody learns more than that there is no such message, and nothing becomes of it."""
        self.caller = key("app", tenant="t")
        id = self.in_state("scheduled")
        for caller in (
            key("app", "send", tenant="u"),
            key("app", "send"),
            key("other", "send", tenant="t"),
            key("app", "send", "read", tenant="u"),
        ):
            self.caller = caller
            for action in ACTIONS:
                self.assertEqual(self.said(id, action), NOBODY)
        self.caller = key("reader", "read", tenant="t")
        for action in ACTIONS:
            self.assertEqual(self.said(id, action), (403, "not-your-message", ""))
        self.assertEqual(self.names(id), ["received", "scheduled"])

    def test_approval(self) -> None:
        """Whatever else is tried, what waits for a person is released by another, with admin."""
        self.sending.hold = "approval: a test wants it"
        self.caller = key("bot", "send", "admin")
        id = self.posted()
        for action, wanted in (
            ("retry", (409, "held", "")),
            ("hold", NO_NEED),
            ("release", (403, "approval-required", "")),
        ):
            self.assertEqual(self.said(id, action), wanted)
        self.caller = key("person", "send")
        self.assertEqual(self.said(id, "release"), NOBODY)
        self.caller = key("person", "admin")
        self.assertEqual(self.said(id, "release"), DONE)
        self.assertEqual(self.statuses(id), ["delivered"])
