"""A gateway's sessions: kept up, given up, and told apart."""

from __future__ import annotations

import random

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.identity import Identity, identity_of
from protege_mta.model.ports import Session
from protege_mta.model.reply import TABLE
from protege_mta.testing.sessions import FakeSession
from protege_mta.tunnel.client import Lines, LineStatus
from protege_mta.tunnel.passports import Passport, Passports
from protege_mta.tunnel.socket_client import Watcher

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in range(1, 4)]
PASSPORTS = [
    Passport(identity_of(key.public_key().public_bytes_raw()), name, key)
    for key, name in zip(KEYS, ("ann", "ben", "cat"), strict=True)
]
ANN, BEN, CAT = PASSPORTS


class Unhurried(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


@attrs.define(eq=False)
class FakeCall:
    """:ivar is_slow: whether hanging up takes until the test says so."""

    passport: Passport
    watcher: Watcher
    is_stopped: bool = False
    is_slow: bool = False

    def stop(self) -> None:
        self.is_stopped = True
        if not self.is_slow:
            self.watcher.lost(1000, "client_stopped")


class LinesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.calls: list[FakeCall] = []
        self.changed: list[Identity] = []
        self.lines = Lines(
            receive=lambda session, stream: TABLE["no-such-user"],
            changed=self.changed.append,
            clock=self.clock,
            now=self.clock.seconds,
            rng=Unhurried(),
        )
        self.lines.dial = self.dial

    def dial(self, passport: Passport, watcher: Watcher) -> FakeCall:
        call = FakeCall(passport, watcher)
        self.calls.append(call)
        return call

    def use(self, *passports: Passport) -> bool:
        return self.lines.use(Passports({one.identity: one for one in passports}))

    def log_in(self, call: FakeCall | None = None) -> FakeSession:
        call = call or self.calls[-1]
        session = FakeSession(call.passport.identity)
        self.lines.opened(session)
        call.watcher.connected(session)
        return session

    def lose(self, code: int, reason: str = "", call: FakeCall | None = None) -> None:
        (call or self.calls[-1]).watcher.lost(code, reason)

    def status(self) -> LineStatus:
        return self.lines.status()[0]


class KeepingUpTests(LinesCase):
    def test_every_key_has_a_session(self) -> None:
        self.use(ANN, BEN)
        self.clock.advance(0)
        self.clock.advance(0.06)
        self.assertEqual([call.passport.name for call in self.calls], ["ann", "ben"])
        self.assertIsNone(self.lines.to(ANN.identity))
        session = self.log_in(self.calls[0])
        self.assertIs(self.lines.to(ANN.identity), session)
        self.assertIsNone(self.lines.to(BEN.identity))
        self.assertEqual(self.changed, [ANN.identity])

    def test_a_lost_session_is_had_again_ever_later(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        self.log_in()
        self.clock.advance(100)
        for wait_s in (0.25, 0.5, 1.0, 2.0):
            count = len(self.calls)
            self.lose(1006, "connection was closed uncleanly")
            self.assertIsNone(self.lines.to(ANN.identity))
            self.clock.advance(wait_s - 0.01)
            self.assertEqual(len(self.calls), count)
            self.clock.pump([0.01, 0, 0.06])
            self.assertEqual(len(self.calls), count + 1)
        self.log_in()
        self.assertEqual(self.changed, [ANN.identity] * 3)

    def test_a_dialler_that_raises_is_tried_again(self) -> None:
        working, self.lines.dial = self.lines.dial, lambda passport, watcher: 1 / 0  # type: ignore[return-value, assignment]
        self.use(ANN)
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.lines.dial = working
        self.clock.pump([0.25, 0, 0.06])
        self.assertEqual(len(self.calls), 1)

    def test_a_call_that_fails_before_it_has_begun(self) -> None:
        working = self.lines.dial

        def refused(passport: Passport, watcher: Watcher) -> FakeCall:
            watcher.lost(1006, "refused")
            return FakeCall(passport, watcher)

        self.lines.dial = refused
        self.use(ANN)
        self.clock.advance(0)
        self.assertEqual(self.status().state, "waiting")
        self.lines.dial = working
        self.clock.pump([0.25, 0, 0.06])
        self.assertEqual(self.status().state, "calling")

    def test_status(self) -> None:
        self.use(ANN)
        self.assertEqual(self.status().next_at, 1000.0)
        self.clock.advance(0)
        self.assertEqual(self.status().state, "calling")
        self.log_in()
        self.assertEqual(
            self.status(),
            LineStatus(ANN.identity, "ann", "connected", 1000.0, True, "192.0.2.1", None, ""),
        )
        self.clock.advance(60)
        self.lose(1001, "going away")
        self.assertEqual(
            self.status(),
            LineStatus(
                ANN.identity, "ann", "waiting", None, False, "", 1060.25, "going away (1001)"
            ),
        )


class QuarrelTests(LinesCase):
    def test_another_gateway_with_the_key_is_told_and_given_way_to(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        self.log_in()
        self.clock.advance(500)
        with capturedLogs() as logged:
            self.lose(4400, "replaced_by_new_session")
        self.assertIn("another gateway runs with the key of {name}", logged[0]["log_format"])
        self.clock.advance(29.9)
        self.assertEqual(len(self.calls), 1)
        self.clock.pump([0.1, 0.1])
        self.assertEqual(len(self.calls), 2)

    def test_once_the_other_has_gone_we_are_there_again(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        self.log_in()
        self.lose(4400, "replaced_by_new_session")
        self.clock.pump([30.0, 0.1])
        session = self.log_in()
        self.assertIs(self.lines.to(ANN.identity), session)

    def test_two_of_our_gateways_do_not_flap(self) -> None:
        """Logins of both together in an hour, against thousands where each comes back at once."""
        logins = 0
        for _ in range(2):
            self.setUp()
            self.use(ANN)
            self.clock.advance(0)
            end = self.clock.seconds() + 3600
            while self.clock.seconds() < end:
                if self.lines.status()[0].state == "calling":
                    logins += 1
                    self.log_in()
                    self.lose(4400, "replaced_by_new_session")
                self.clock.advance(1.0)
        self.assertLessEqual(logins, 20)

    def test_a_refused_key_is_told_loudly_once_and_tried_seldom(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        with capturedLogs() as logged:
            for wait_s in (15.0, 30.0, 60.0):
                self.lose(4401, "identity_not_allowed")
                self.clock.pump([wait_s, 0.1])
        self.assertEqual(len(self.calls), 4)
        self.assertEqual([each["log_level"].name for each in logged], ["error"])
        self.assertIn("has to list the identity", formatEvent(logged[0]))

    def test_a_login_that_is_refused_is_told_with_its_reason(self) -> None:
        """Which is no matter of who is listed."""
        self.use(ANN)
        self.clock.advance(0)
        with capturedLogs() as logged:
            self.lose(4401, "invalid_signature")
            self.clock.pump([15.0, 0.1])
        self.assertEqual(len(self.calls), 2)
        self.assertEqual(
            formatEvent(logged[0]),
            f"the relay refuses the login of ann ({ANN.identity}): invalid_signature (4401); trying "
            "again in 15 s",
        )

    def test_a_login_that_came_too_late_is_made_again_soon(self) -> None:
        """The relay has nothing against us: its clock may have been set meanwhile."""
        self.use(ANN)
        self.clock.advance(0)
        with capturedLogs() as logged:
            self.lose(4401, "challenge_expired")
            self.clock.pump([0.25, 0, 0.06])
        self.assertEqual(len(self.calls), 2)
        self.assertIn("challenge_expired (4401); trying again in 0.2 s", formatEvent(logged[0]))
        self.assertNotIn("list", formatEvent(logged[0]))
        self.assertEqual(self.lines.losses.by_reason["lost"], 1)

    def test_a_limit_of_the_relay_holds_for_all_keys(self) -> None:
        self.use(ANN, BEN)
        self.clock.pump([0, 0.06])
        self.lose(4401, "rate_limited", self.calls[0])
        self.lose(1006, "", self.calls[1])
        self.clock.advance(59.9)
        self.assertEqual(len(self.calls), 2)
        self.clock.pump([0.2, 7.0])
        self.assertEqual(len(self.calls), 4)

    def test_counts(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        self.log_in()
        self.lose(4400)
        self.assertEqual(self.lines.losses.logins, 1)
        self.assertEqual(self.lines.losses.by_reason["replaced"], 1)


class ComingAndGoingTests(LinesCase):
    def test_a_key_that_goes_takes_its_session_along_and_no_other(self) -> None:
        self.assertTrue(self.use(ANN, BEN))
        self.clock.pump([0, 0.06])
        self.log_in(self.calls[0])
        ben = self.log_in(self.calls[1])
        self.assertFalse(self.use(ANN, BEN))
        self.assertTrue(self.use(BEN, CAT))
        self.assertTrue(self.calls[0].is_stopped)
        self.assertFalse(self.calls[1].is_stopped)
        self.clock.advance(0.2)
        self.assertEqual(self.calls[2].passport, CAT)
        self.assertIs(self.lines.to(BEN.identity), ben)
        self.assertIsNone(self.lines.to(ANN.identity))
        self.clock.advance(1000)
        self.assertEqual(len(self.calls), 3)

    def test_a_login_that_ends_after_its_key_has_gone_is_hung_up(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        self.calls[0].is_slow = True
        self.use()
        session = self.log_in()
        self.assertEqual(session.closed_with, (1000, "client_stopped"))
        self.assertEqual(self.changed, [])

    def test_another_relay_means_new_sessions(self) -> None:
        self.use(ANN)
        self.clock.advance(0)
        self.log_in()
        self.calls[0].is_slow = True
        self.lines.renew()
        self.clock.advance(0.1)
        self.assertEqual(len(self.calls), 2)
        new = self.log_in()
        self.assertIs(self.lines.to(ANN.identity), new)
        self.lose(1000, "client_stopped", self.calls[0])
        self.assertIs(self.lines.to(ANN.identity), new)

    def test_stop_hangs_up_and_waits_for_it(self) -> None:
        self.use(ANN, BEN)
        self.clock.advance(0)
        call = self.calls[0]
        call.is_slow = True
        self.log_in(call)
        stopping = self.lines.stop()
        self.assertNoResult(stopping)
        call.watcher.lost(1000, "")
        self.successResultOf(stopping)
        self.assertFalse(self.use(CAT))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.lines.to(ANN.identity), None)

    def test_streams_go_to_the_house(self) -> None:
        session: Session = FakeSession(ANN.identity)
        self.assertEqual(self.lines.receive(session, None), TABLE["no-such-user"])  # type: ignore[arg-type]
