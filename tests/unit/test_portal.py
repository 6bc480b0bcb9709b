"""``POST /api/send``: how many requests there may be, and what the same one is told again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec
from twisted.internet.defer import Deferred

from protege_mta.http import portal
from protege_mta.model.ids import QueueId
from protege_mta.model.outcome import Outcome
from protege_mta.observe.events import EventLines
from protege_mta.testing.transports import TAKEN

from .api import ApiCase, key
from .test_http_listener import CLOSED, Wire
from .test_schedule_dispatch import GREYLISTED, UNKNOWN

SENT: Final = (200, {"ok": True})
FAILED: Final = (502, {"ok": False, "error": "delivery failed"})


class PortalCase(ApiCase):
    """A portal's client.  :ivar places: that its address has left."""

    def build(self) -> None:
        super().build()
        self.places = 60
        events = self.ledger._events
        assert isinstance(events, EventLines)
        events.settled = lambda message, fate, *_: self.mailroom.settled(message, fate)
        portal.add(
            self.app,
            self.messages,
            portal.Portal(
                default_from=lambda: None,
                is_configured=lambda: True,
                look=lambda id: self.log.look(id),
                place_s=self.place_s,
                clock=self.clock,
            ),
        )

    def place_s(self, address: str, identity: str) -> float:
        self.places -= 1
        return 0.0 if self.places >= 0 else 600.0


class PlaceTests(PortalCase):
    """How many requests there may be, and whose messages they make."""

    def sent(self, name: str, text: str = "x") -> int:
        """The status of a request of that Idempotency-Key."""
        body = msgspec.json.encode({"from_email": "a@a.test", "to": "b@b.test", "text": text})
        named = f"Idempotency-Key: {name}\r\n"
        return self.asked("/api/send?wait=0", "POST", body, named)[0]

    def test_a_replay_takes_no_place(self) -> None:
        """It sends nothing; nor does a request that is refused for its key."""
        self.places = 1
        self.assertEqual([self.sent("one") for _ in range(3)], [200, 200, 200])
        self.assertEqual(self.sent("one", "another"), 409)
        self.assertEqual((self.places, len(self.listed())), (0, 1))

    def test_a_request_without_a_place_may_come_again(self) -> None:
        """Its key stands for nothing yet; and who has no place left is answered as at first."""
        self.places = 1
        self.assertEqual([self.sent("one"), self.sent("two"), self.sent("one")], [200, 429, 200])
        self.places = 1
        self.assertEqual(self.sent("two"), 200)
        self.assertEqual(len(self.listed()), 2)

    def test_whose_it_is(self) -> None:
        """What comes this way is its key's tenant's, as by any other."""
        self.caller = key("portal", tenant="t")
        body = msgspec.json.encode({"from_email": "a@a.test", "to": "b@b.test", "text": "x"})
        self.assertEqual(self.asked("/api/send?wait=0", "POST", body)[0], 200)
        self.assertEqual({one["tenant"] for one in self.told}, {"t"})
        [id] = self.listed()
        self.caller = key("reader", "read", tenant="t")
        self.assertEqual(self.listed(), [id])
        self.caller = key("reader", "read", tenant="u")
        self.assertEqual(self.listed(), [])


class AgainTests(PortalCase):
    """The same request again is answered by what has become of its message."""

    def begun(self, path: str = "/api/send", to: str = "b@b.test") -> Wire:
        body = msgspec.json.encode({"from_email": "a@a.test", "to": to, "text": "x"})
        return self.asking("POST", path, body, "Idempotency-Key: one\r\n")

    def said(self, wire: Wire, *, is_again: bool = True) -> tuple[int, object]:
        """An answer, and that it says whether it is to a request that came before."""
        status, headers, body = self.parse(wire.value())
        self.assertEqual(headers.get("Idempotent-Replayed"), "true" if is_again else None)
        return status, json.loads(body)

    def first(self, to: str = "b@b.test") -> tuple[int, object]:
        return self.said(self.begun(to=to), is_again=False)

    def again(self, to: str = "b@b.test") -> tuple[int, object]:
        """What is said at once, whether the client would wait or not."""
        told = [self.said(self.begun(path, to)) for path in ("/api/send", "/api/send?wait=0")]
        self.assertEqual(told[0], told[1])
        return told[0]

    def under_way(self) -> Deferred[Sequence[tuple[int, Outcome]]]:
        """The next attempt ends when this is called back."""
        attempt: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.transport.script.append(attempt)
        return attempt

    def test_delivered(self) -> None:
        self.assertEqual((self.first(), self.again()), (SENT, SENT))
        self.assertEqual(len(self.transport.attempts), 1)

    def test_failed(self) -> None:
        """It is not sent again, and nobody is told that it was."""
        self.transport.script.append({0: UNKNOWN})
        self.assertEqual(self.first(), FAILED)
        attempts = len(self.transport.attempts)  # one of them of the report to its sender
        self.assertEqual(self.again(), FAILED)
        self.assertEqual((len(self.transport.attempts), len(self.listed())), (attempts, 1))

    def test_who_would_not_wait_is_told_what_is_known(self) -> None:
        self.transport.script.append({0: UNKNOWN})
        self.assertEqual(self.said(self.begun("/api/send?wait=0"), is_again=False), SENT)
        self.assertEqual(self.again(), FAILED)

    def test_failed_later(self) -> None:
        """What was true at first need not stay so."""
        self.transport.script += [{0: GREYLISTED}, {0: UNKNOWN}]
        self.assertEqual((self.first(), self.again()), (SENT, SENT))
        self.turn(400)
        self.assertEqual(self.again(), FAILED)

    def test_a_later_attempt_is_not_waited_for(self) -> None:
        self.transport.script.append({0: GREYLISTED})
        self.under_way()
        self.first()
        self.turn(400)
        self.assertEqual(len(self.transport.attempts), 2)
        self.assertEqual(self.again(), SENT)

    def test_both_wait_for_the_first_attempt(self) -> None:
        for outcome, wanted in ((TAKEN, SENT), (UNKNOWN, FAILED)):
            self.mailroom._requests.known.clear()  # type: ignore[attr-defined]
            attempt = self.under_way()
            first, second = self.begun(), self.begun()
            self.clock.pump([0.1] * 20)
            self.assertEqual((first.value(), second.value()), (b"", b""))
            self.assertEqual(self.said(self.begun("/api/send?wait=0")), SENT)
            attempt.callback([(0, outcome)])
            self.clock.advance(portal.LOOK_S)
            self.assertEqual(self.said(first, is_again=False), wanted)
            self.assertEqual(self.said(second), wanted)

    def test_nobody_waits_for_ever(self) -> None:
        """A client gives up after 30 s; what is in the queue by then is kept."""
        self.under_way()
        first = self.begun()
        self.turn(10)
        second = self.begun()
        self.turn(15)
        self.assertEqual(self.said(first, is_again=False), SENT)
        self.assertEqual(second.value(), b"")
        self.turn(11)
        self.assertEqual(self.said(second), SENT)

    def test_a_client_that_goes_is_forgotten(self) -> None:
        self.under_way()
        self.begun()
        timers = len(self.clock.getDelayedCalls())
        second = self.begun()
        self.clock.advance(1)
        second.protocol.connectionLost(CLOSED)
        self.assertEqual(len(self.clock.getDelayedCalls()), timers)
        self.assertEqual(second.value(), b"")

    def test_each_recipient_counts(self) -> None:
        """One that has failed is enough; that one has it is not."""
        to = "b@b.test, c@c.test"
        self.transport.script.append({0: TAKEN})
        attempt = self.under_way()
        self.begun(to=to)
        second = self.begun(to=to)
        self.clock.advance(1)
        self.assertEqual(second.value(), b"")
        attempt.callback([(1, UNKNOWN)])
        self.clock.advance(portal.LOOK_S)
        self.assertEqual(self.said(second), FAILED)
        self.assertEqual(self.again(to), FAILED)

    def test_failed_while_another_is_under_way(self) -> None:
        to = "b@b.test, c@c.test"
        self.transport.script.append({0: UNKNOWN})
        self.under_way()
        self.begun(to=to)
        self.assertEqual(self.again(to), FAILED)

    def test_what_a_person_makes_of_it(self) -> None:
        """Who has it removed has it reach nobody; what is held waits, and nobody waits for that."""
        self.transport.script.append({0: GREYLISTED})
        self.first()
        [id] = self.listed()
        self.assertEqual(self.command("hold", id), {"count": 1})
        self.assertEqual(self.again(), SENT)
        self.assertEqual(self.command("remove", id), {"count": 1})
        self.assertEqual(self.again(), FAILED)

    def test_removed_before_the_first_attempt_ends(self) -> None:
        """Who waits for it is told the same as who asks later."""
        attempt = self.under_way()
        first = self.begun()
        [id] = self.listed()
        self.assertEqual(self.do(id, "cancel")[0], 202)
        attempt.callback([(0, GREYLISTED)])
        self.assertEqual((self.said(first, is_again=False), self.again()), (FAILED, FAILED))

    def test_damaged(self) -> None:
        self.transport.script.append({0: GREYLISTED})
        self.first()
        [id] = self.listed()
        self.spool.damage(QueueId(id))
        self.assertEqual(self.again(), FAILED)

    def test_the_queue_has_forgotten_it_and_the_log_does_not_know(self) -> None:
        """Its fate is known a moment later, be it all of it or a part of it that has left."""
        waiting = self.lags()
        for to in ("b@b.test", "b@b.test, c@c.test"):
            self.mailroom._requests.known.clear()  # type: ignore[attr-defined]
            self.transport.script.append({0: TAKEN})
            if "c@c.test" in to:
                self.transport.script.append({1: GREYLISTED})
            self.first(to)
            at_once, patient = (self.begun(path, to) for path in ("/api/send?wait=0", "/api/send"))
            self.assertEqual((at_once.value(), patient.value()), (b"", b""))
            self.clock.pump([0.1] * 50)
            status, told = self.said(at_once, is_again=False)
            self.assertEqual(status, 503, told)
            self.assertEqual(patient.value(), b"")
            for batch in waiting:
                self.lines += batch.events
            self.clock.pump([0.1] * 10)
            self.assertEqual(self.said(patient), SENT)
            self.assertEqual(self.again(to), SENT)
            waiting.clear()

    def test_nobody_knows_any_more(self) -> None:
        """The name of a request may outlive what is known of its message."""
        self.first()
        self.journal.oldest = len(self.lines)
        for path in ("/api/send", "/api/send?wait=0"):
            status, told = self.said(self.begun(path), is_again=False)
            self.assertEqual(status, 409, told)
        self.assertEqual(len(self.transport.attempts), 1)

    def test_the_log_is_behind(self) -> None:
        """Nobody is told what is not known; what the queue knows is."""
        self.transport.script += [{0: GREYLISTED}, {0: UNKNOWN}]
        self.first()
        self.journal.refuses = True
        self.assertEqual(self.again(), SENT)
        self.turn(400)
        status, told = self.said(self.begun(), is_again=False)
        self.assertEqual(status, 503, told)
        self.journal.refuses = False
        self.assertEqual(self.again(), FAILED)
