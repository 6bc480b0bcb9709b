"""Attempts over a network in memory: hosts in their order, their faults, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.outcome import (
    Contact,
    Delivered,
    Outcome,
    PermanentFailure,
    Scope,
    TransientFailure,
)
from protege_mta.model.ports import Attempt, HopAbilities, Prepared
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.attempts import CONTENT, OctetContent, make_attempt
from protege_mta.testing.hosts import HANG_UP, SILENCE, HostNet, Script
from protege_mta.transport.client_settings import ClientSettings
from protege_mta.transport.relay import SmtpTransport
from protege_mta.wire.sasl_client import Credentials

A, B, C = "192.0.2.1", "192.0.2.2", "2001:db8::3"
ONE = ("mx1.b.test", [A])
TWO = ("mx2.b.test", [B])
TAKEN = Reply(250, "2.0.0", ("taken",))
ENVELOPE = ["MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"]
ORDINARY = ["CONNECT", "EHLO me.test", "MAIL FROM:<a@a.test> SIZE=29", *ENVELOPE[1:]]


class TransportTestCase(SynchronousTestCase):
    """A transport on a network in memory, with a script at each of three addresses."""

    cut = 0

    def setUp(self) -> None:
        self.net = HostNet(self.cut)
        self.tally = Tally()
        self.prohibited: set[tuple[str, int]] = set()
        self.transport = self.make()

    def make(self, **settings: Any) -> SmtpTransport:
        settings.setdefault("tls", "none")
        transport = SmtpTransport(
            self.net,
            ClientSettings("me.test", **settings),
            clock=self.net,
            tally=self.tally,
            is_prohibited=lambda address, port: (address, port) in self.prohibited,
        )
        self.transport = transport
        return transport

    def serve(
        self, address: str = A, /, script: Script | None = None, **answers: bytes | list[bytes]
    ) -> Script:
        """``DOT`` stands for the end of data."""
        table: Mapping[str, bytes | list[bytes]] = {
            {"DOT": "."}.get(verb, verb): answer for verb, answer in answers.items()
        }
        return self.net.serve(address, script or Script(answers=table))

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        done = self.transport.deliver(attempt)
        self.net.settle()
        return done

    def outcomes(self, attempt: Attempt) -> dict[int, Outcome]:
        pairs = self.successResultOf(self.deliver(attempt))
        outcomes = dict(pairs)
        self.assertEqual(len(outcomes), len(pairs), "an outcome each")
        self.assertEqual(sorted(outcomes), sorted(attempt.recipients))
        return outcomes

    def outcome(self, attempt: Attempt) -> Outcome:
        return self.outcomes(attempt)[0]


class DeliveryTests(TransportTestCase):
    def test_ordinary(self) -> None:
        script = self.serve()
        self.assertEqual(
            self.outcome(make_attempt(ONE)), Delivered(Contact("mx1.b.test", A), TAKEN)
        )
        self.assertEqual(script.commands, ORDINARY)
        self.assertEqual(script.contents, [CONTENT])

    def test_three_writes(self) -> None:
        """EHLO, the envelope, the content with its dot: nothing else is sent."""
        self.serve()
        self.outcome(make_attempt(ONE))
        self.assertEqual(len(self.net.ends[0].writes), 3)

    def test_dots_are_stuffed_and_the_last_line_ended(self) -> None:
        script = self.serve()
        self.outcome(make_attempt(ONE, content=b".a\r\n..b\r\nc"))
        self.assertEqual(script.contents, [b"..a\r\n...b\r\nc\r\n"])

    def test_empty_content(self) -> None:
        script = self.serve()
        self.assertIsInstance(self.outcome(make_attempt(ONE, content=b"")), Delivered)
        self.assertEqual(script.contents, [b""])

    def test_prepared(self) -> None:
        """The hook's octets go in place of what they stand in for."""
        cases = (
            (Prepared(head=b"DKIM: x\r\n"), b"DKIM: x\r\n" + CONTENT),
            (
                Prepared(head=b"Subject: bye\r\n", skip_octets=16),
                b"Subject: bye\r\n" + CONTENT[16:],
            ),
            (Prepared(head=b"A: b\r\n", body=b"\r\nother\r\n"), b"A: b\r\n\r\nother\r\n"),
        )
        script = self.serve()
        for prepared, content in cases:
            self.outcome(make_attempt(ONE, prepare=lambda _, p=prepared: p))
            self.assertEqual(script.contents[-1:], [content])
            self.assertIn(f"MAIL FROM:<a@a.test> SIZE={len(content)}", script.commands)

    def test_prepare_hears_of_the_hop(self) -> None:
        heard: list[HopAbilities] = []

        def prepare(abilities: HopAbilities) -> Prepared:
            heard.append(abilities)
            return Prepared(is_eight_bit=abilities.has_8bitmime)

        script = self.serve()
        self.outcome(make_attempt(ONE, prepare=prepare))
        self.serve(EHLO=b"502 no\r\n")
        self.make()
        self.outcome(make_attempt(ONE, prepare=prepare))
        self.assertEqual(heard, [HopAbilities(True, False), HopAbilities(False, False)])
        self.assertIn("MAIL FROM:<a@a.test> SIZE=29 BODY=8BITMIME", script.commands)

    def test_prepare_once_for_hosts_alike(self) -> None:
        calls: list[HopAbilities] = []

        def prepare(abilities: HopAbilities) -> Prepared:
            calls.append(abilities)
            return Prepared()

        self.serve(A, MAIL=b"421 4.3.2 closing\r\n" + HANG_UP)
        self.serve(B)
        self.assertIsInstance(self.outcome(make_attempt(ONE, TWO, prepare=prepare)), Delivered)
        self.assertEqual(len(calls), 1)

    def test_prepare_refuses(self) -> None:
        """The connection is as good as new."""
        no = Reply(550, "5.6.3", ("conversion required but not supported",))
        script = self.serve()
        outcome = self.outcome(make_attempt(ONE, prepare=lambda _: no))
        self.assertEqual(outcome, PermanentFailure(Scope.MESSAGE, no, Contact("mx1.b.test", A)))
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(script.commands, ORDINARY)

    def test_prepare_takes_its_time(self) -> None:
        ready: Deferred[Prepared | Reply] = Deferred()
        script = self.serve()
        done = self.deliver(make_attempt(ONE, prepare=lambda _: ready))
        self.assertEqual(script.commands, ["CONNECT", "EHLO me.test"])
        ready.callback(Prepared())
        self.net.settle()
        self.assertIsInstance(self.successResultOf(done)[0][1], Delivered)

    def test_host_lost_while_preparing(self) -> None:
        """The next one is tried with what has been prepared."""
        ready: Deferred[Prepared | Reply] = Deferred()
        script = self.serve(A)
        self.serve(B)
        done = self.deliver(make_attempt(ONE, TWO, prepare=lambda _: ready))
        script.hosts[0].say(HANG_UP)
        self.net.settle()
        ready.callback(Prepared())
        self.net.settle()
        [(_, outcome)] = self.successResultOf(done)
        self.assertEqual(outcome, Delivered(Contact("mx2.b.test", B), TAKEN))

    def test_prepare_fails(self) -> None:
        """Our fault, so the message waits; the cause is logged."""

        def broken(abilities: HopAbilities) -> Prepared:
            raise ValueError("no key")

        def late(abilities: HopAbilities) -> Deferred[Prepared | Reply]:
            failed: Deferred[Prepared | Reply] = Deferred()
            failed.errback(ValueError("no key"))
            return failed

        self.serve()
        for prepare in (broken, late):
            outcome = self.outcome(make_attempt(ONE, prepare=prepare))
            self.assertEqual(
                outcome,
                TransientFailure(Scope.MESSAGE, TABLE["local-error"], Contact("mx1.b.test", A)),
            )
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_envelope_that_cannot_be_said(self) -> None:
        self.serve()
        outcome = self.outcome(make_attempt(ONE, recipients=["b@b.test>\r\nDATA"]))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual(outcome.cause, TABLE["local-error"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_recipients_answered_differently(self) -> None:
        self.serve(
            script=Script(
                by_argument={
                    "RCPT TO:<c@b.test>": b"450 4.2.0 later\r\n",
                    "RCPT TO:<d@b.test>": b"550 5.1.1 no\r\n",
                }
            )
        )
        contact = Contact("mx1.b.test", A)
        self.assertEqual(
            self.outcomes(make_attempt(ONE, recipients=["b@b.test", "c@b.test", "d@b.test"])),
            {
                0: Delivered(contact, TAKEN),
                1: TransientFailure(Scope.RECIPIENT, Reply(450, "4.2.0", ("later",)), contact),
                2: PermanentFailure(Scope.RECIPIENT, Reply(550, "5.1.1", ("no",)), contact),
            },
        )

    def test_too_many_recipients(self) -> None:
        """The rest follows at once, on the same connection."""
        answers = [b"250 ok\r\n", b"250 ok\r\n", b"452 4.5.3 too many\r\n", b"250 ok\r\n"]
        script = self.serve(RCPT=answers)
        outcomes = self.outcomes(make_attempt(ONE, recipients=["b@b.test", "c@b.test", "d@b.test"]))
        self.assertEqual({type(outcome) for outcome in outcomes.values()}, {Delivered})
        self.assertEqual(
            script.commands[-3:], ["MAIL FROM:<a@a.test> SIZE=29", "RCPT TO:<d@b.test>", "DATA"]
        )
        self.assertEqual(script.commands.count("CONNECT"), 1)
        self.assertEqual(script.contents, [CONTENT, CONTENT])

    def test_without_pipelining(self) -> None:
        script = self.serve(EHLO=b"250-host.test\r\n250 SIZE\r\n")
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(script.commands, ORDINARY)
        self.assertEqual(len(self.net.ends[0].writes), 5)

    def test_octets_one_at_a_time(self) -> None:
        self.net = HostNet(cut=1)
        self.make()
        script = self.serve()
        for _ in range(2):
            self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(script.contents, [CONTENT, CONTENT])

    def test_replies_are_counted(self) -> None:
        self.serve(RCPT=[b"250 ok\r\n", b"550 no\r\n"])
        self.outcomes(make_attempt(ONE, recipients=["b@b.test", "c@b.test"]))
        self.assertEqual(self.tally.replies_out, [0, 0, 5, 1, 0, 1])
        self.assertEqual((self.tally.connections_out, self.tally.connections_out_open), (1, 1))


class BigContentTests(TransportTestCase):
    SIZE = 1_000_000

    def setUp(self) -> None:
        super().setUp()
        line = b".line of thirty-two octets here\r\n"
        self.content = (line * (self.SIZE // len(line) + 1))[: self.SIZE]
        self.stuffed = (self.content + b"\r\n").replace(b"\r\n.", b"\r\n..")

    def test_block_by_block(self) -> None:
        """Never more than one block is read ahead of what the channel takes."""
        script = self.serve()
        attempt = make_attempt(ONE, content=self.content, prepare=lambda _: Prepared(b"A: b\r\n"))
        self.assertIsInstance(self.outcome(attempt), Delivered)
        self.assertEqual(script.contents, [b"A: b\r\n" + b"." + self.stuffed])
        self.assertLess(max(map(len, self.net.ends[0].writes)), 70_000)
        assert isinstance(attempt.content, OctetContent)
        self.assertEqual(attempt.content.reads[:2], [(0, 65536), (65536, 65536)])

    def test_recoded_body(self) -> None:
        script = self.serve()
        attempt = make_attempt(ONE, prepare=lambda _: Prepared(b"A: b\r\n\r\n", body=self.content))
        self.assertIsInstance(self.outcome(attempt), Delivered)
        self.assertEqual(script.contents, [b"A: b\r\n\r\n." + self.stuffed])

    def test_slow_reader(self) -> None:
        """Nothing is read while the channel takes nothing."""
        self.serve()
        attempt = make_attempt(ONE, content=self.content)
        done = self.transport.deliver(attempt)
        assert isinstance(attempt.content, OctetContent)
        while not attempt.content.reads:
            self.net.step()
        self.net.advance(10)
        self.assertLessEqual(len(attempt.content.reads), 2)
        self.net.settle()
        self.assertIsInstance(self.successResultOf(done)[0][1], Delivered)

    def test_cut_content_is_never_ended(self) -> None:
        """A message shorter than it should be must not look whole to anybody."""
        for size in (self.SIZE, 1000):
            script = self.serve()
            self.make()
            attempt = make_attempt(ONE, content=self.content[:size])
            assert isinstance(attempt.content, OctetContent)
            attempt.content.octets = self.content[: size // 2]
            outcome = self.outcome(attempt)
            self.assertEqual(
                outcome,
                TransientFailure(Scope.MESSAGE, TABLE["local-error"], Contact("mx1.b.test", A)),
            )
            self.assertEqual(script.contents, [])
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            self.assertEqual(self.tally.connections_out_open, 0)

    def test_refused_in_the_middle(self) -> None:
        script = self.serve()
        done = self.transport.deliver(make_attempt(ONE, content=self.content))
        while not (script.commands and script.commands[-1] == "DATA"):
            self.net.step()
        for _ in range(3):
            self.net.step()
        script.hosts[0].say(b"552 5.3.4 enough\r\n")
        self.net.settle()
        self.assertEqual(
            self.successResultOf(done),
            [
                (
                    0,
                    PermanentFailure(
                        Scope.MESSAGE, Reply(552, "5.3.4", ("enough",)), Contact("mx1.b.test", A)
                    ),
                )
            ],
        )
        self.assertEqual(script.contents, [])

    def test_lost_in_the_middle(self) -> None:
        """Nothing was promised, so the next host gets it."""
        script = self.serve(A, DATA=b"354 go\r\n" + HANG_UP)
        other = self.serve(B)
        self.assertIsInstance(self.outcome(make_attempt(ONE, TWO, content=self.content)), Delivered)
        self.assertEqual((script.contents, len(other.contents)), ([], 1))


class HostOrderTests(TransportTestCase):
    def test_all_addresses_of_all_hosts(self) -> None:
        """In the order given, until one takes it."""
        self.serve(C)
        outcome = self.outcome(make_attempt(("mx1.b.test", [A, B]), ("mx2.b.test", [C])))
        self.assertEqual(outcome, Delivered(Contact("mx2.b.test", C), TAKEN))
        self.assertEqual([call.address for call in self.net.dialled], [A, B, C])
        self.assertEqual(self.tally.connections_out_failed, 2)

    def test_nobody_answers(self) -> None:
        self.assertEqual(
            self.outcome(make_attempt(ONE, TWO)),
            TransientFailure(
                Scope.SITE,
                Reply(451, "4.4.1", (f"no answer from {B}: ConnectionRefusedError",)),
                Contact("mx2.b.test", B),
            ),
        )

    def test_connecting_takes_too_long(self) -> None:
        self.net.silent.add(A)
        self.serve(B)
        done = self.deliver(make_attempt(ONE, TWO))
        self.net.advance(29)
        self.net.settle()
        self.assertNoResult(done)
        self.net.advance(1)
        self.net.settle()
        self.assertIsInstance(self.successResultOf(done)[0][1], Delivered)

    def test_hosts_that_refuse(self) -> None:
        """Whatever a host says before MAIL, and 421 or a cut until the content is taken."""
        for answers in (
            {"CONNECT": b"554 5.3.2 no service\r\n"},
            {"CONNECT": b"421 4.3.2 later\r\n"},
            {"CONNECT": b"450 4.3.2 later\r\n"},
            {"CONNECT": HANG_UP},
            {"CONNECT": b"SSH-2.0-OpenSSH\r\n"},
            {"CONNECT": b"220 a\r\n220 b\r\n"},
            {"EHLO": b"421 4.3.2 later\r\n" + HANG_UP},
            {"EHLO": HANG_UP},
            {"EHLO": b"250 a\r\n250 b\r\n"},
            {"EHLO": b"502 what?\r\n", "HELO": b"502 what?\r\n"},
            {"MAIL": b"421 4.3.2 later\r\n"},
            {"MAIL": HANG_UP},
            {"RCPT": b"421 4.3.2 later\r\n"},
            {"RCPT": HANG_UP},
            {"RCPT": b"2x0 ok\r\n"},
            {"DATA": b"421 4.3.2 later\r\n"},
            {"DATA": HANG_UP},
            {"DATA": b"354 go\r\n250 taken already\r\n"},
            {"DATA": b"354 go\r\n25"},
            {"DOT": b"421 4.3.2 later\r\n"},
        ):
            self.make()
            self.serve(
                A, script=Script(answers={{"DOT": "."}.get(k, k): v for k, v in answers.items()})
            )
            self.serve(B)
            outcome = self.outcome(make_attempt(ONE, TWO))
            self.assertEqual(outcome, Delivered(Contact("mx2.b.test", B), TAKEN), answers)

    def test_cut_after_the_final_dot(self) -> None:
        """Ambiguous: no other host gets it now, and it is tried again later."""
        for answer in (HANG_UP, b"25" + HANG_UP, b"nonsense\r\n"):
            self.make()
            self.serve(A, DOT=answer)
            other = self.serve(B)
            outcome = self.outcome(make_attempt(ONE, TWO))
            assert isinstance(outcome, TransientFailure)
            self.assertIs(outcome.scope, Scope.HOST)
            self.assertEqual(outcome.contact, Contact("mx1.b.test", A))
            self.assertEqual(other.contents, [])

    def test_answers_that_are_for_the_message(self) -> None:
        """No other host is asked to judge again."""
        for command in ("MAIL", "RCPT", "DATA", "."):
            for answer in (b"450 4.2.0 later\r\n", b"550 5.7.1 no\r\n"):
                self.make()
                self.serve(A, script=Script(answers={command: answer}))
                other = self.serve(B)
                outcome = self.outcome(make_attempt(ONE, TWO))
                scope = {"MAIL": Scope.SENDER, "RCPT": Scope.RECIPIENT}.get(command, Scope.MESSAGE)
                assert not isinstance(outcome, Delivered)
                self.assertIs(outcome.scope, scope)
                self.assertEqual(outcome.cause.code, int(answer[:3]))
                self.assertEqual(other.commands, [])

    def test_every_host_refuses(self) -> None:
        """The last one's words are the cause."""
        self.serve(A, CONNECT=b"421 4.3.2 busy\r\n")
        self.serve(B, CONNECT=b"554 5.3.2 not you\r\n")
        self.assertEqual(
            self.outcome(make_attempt(ONE, TWO)),
            TransientFailure(
                Scope.SITE, Reply(554, "5.3.2", ("not you",)), Contact("mx2.b.test", B)
            ),
        )

    def test_every_host_closes_in_the_transaction(self) -> None:
        self.serve(A, MAIL=b"421 4.7.0 slow down\r\n" + HANG_UP)
        self.assertEqual(
            self.outcome(make_attempt(ONE)),
            TransientFailure(
                Scope.HOST, Reply(421, "4.7.0", ("slow down",)), Contact("mx1.b.test", A)
            ),
        )

    def test_outcomes_of_a_host_that_closes(self) -> None:
        """Who was refused stays refused; the others go to the next host."""
        self.serve(A, RCPT=[b"550 5.1.1 no\r\n", b"421 4.3.2 closing\r\n" + HANG_UP])
        other = self.serve(B)
        outcomes = self.outcomes(make_attempt(ONE, TWO, recipients=["b@b.test", "c@b.test"]))
        self.assertIsInstance(outcomes[0], PermanentFailure)
        self.assertEqual(outcomes[1], Delivered(Contact("mx2.b.test", B), TAKEN))
        self.assertNotIn("RCPT TO:<b@b.test>", other.commands)

    def test_prohibited(self) -> None:
        """Not connected to; the rest of the hosts are."""
        self.prohibited = {(A, 25)}
        self.serve(A)
        self.serve(B)
        outcome = self.outcome(make_attempt(ONE, TWO))
        self.assertEqual(outcome, Delivered(Contact("mx2.b.test", B), TAKEN))
        self.assertEqual([call.address for call in self.net.dialled], [B])

    def test_all_prohibited(self) -> None:
        self.prohibited = {(A, 25), (B, 25)}
        self.assertEqual(
            self.outcome(make_attempt(ONE, TWO)),
            PermanentFailure(
                Scope.SITE, Reply(550, "5.4.4", (f"address is prohibited: {A}, {B}",))
            ),
        )

    def test_prohibited_by_our_own_configuration(self) -> None:
        """A smarthost that is ourselves is a mistake that somebody mends, and mail waits."""
        self.prohibited = {(A, 25)}
        self.assertEqual(
            self.outcome(make_attempt(ONE, kind="smarthost")),
            TransientFailure(Scope.SITE, Reply(451, "4.4.4", (f"address is prohibited: {A}",))),
        )

    def test_some_prohibited_and_the_rest_dead(self) -> None:
        self.prohibited = {(A, 25)}
        outcome = self.outcome(make_attempt(ONE, TWO))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause.enhanced), (Scope.SITE, "4.4.1"))

    def test_no_address(self) -> None:
        for attempt in (make_attempt(), make_attempt(("mx1.b.test", []))):
            outcome = self.outcome(attempt)
            assert isinstance(outcome, TransientFailure)
            self.assertEqual((outcome.scope, outcome.cause.enhanced), (Scope.SITE, "4.4.4"))

    def test_nonsense_for_an_address(self) -> None:
        self.serve(B)
        outcome = self.outcome(make_attempt(("mx1.b.test", ["nowhere"]), TWO))
        self.assertIsInstance(outcome, Delivered)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_source_addresses(self) -> None:
        """In turn, by family; a family without one is not tried."""
        self.make(source_addresses=("192.0.2.10", "192.0.2.11"), idle_s=0)
        self.serve(A)
        self.serve(C)
        for _ in range(3):
            self.outcome(make_attempt(("mx0.b.test", [C]), ONE))
        self.assertEqual(
            [(call.address, call.bind) for call in self.net.dialled],
            [(A, ("192.0.2.10", 0)), (A, ("192.0.2.11", 0)), (A, ("192.0.2.10", 0))],
        )

    def test_port_of_the_host(self) -> None:
        self.net.serve(A, Script(), 2525)
        self.assertIsInstance(self.outcome(make_attempt(ONE, port=2525)), Delivered)


class TimeLimitTests(TransportTestCase):
    def test_each_stage(self) -> None:
        """RFC 5321, 4.5.3.2: patience, and then the next host or another day."""
        for command, patience_s, where in (
            ("CONNECT", 300, "the greeting"),
            ("EHLO", 300, "the reply to EHLO"),
            ("MAIL", 300, "the reply to MAIL"),
            ("RCPT", 300, "the reply to RCPT"),
            ("DATA", 120, "the reply to DATA"),
            (".", 600, "the reply to the final dot"),
        ):
            self.make()
            answers = {command: SILENCE, "QUIT": SILENCE}
            self.serve(script=Script(answers={"EHLO": b"250 host.test\r\n"} | answers))
            done = self.deliver(make_attempt(ONE))
            self.net.advance(patience_s - 1)
            self.assertNoResult(done)
            self.net.pump([1, 1])
            [(_, outcome)] = self.successResultOf(done)
            assert isinstance(outcome, TransientFailure)
            self.assertEqual(str(outcome.cause), f"451 4.4.2 timed out while waiting for {where}")
            self.net.pump([1] * 7)
            self.net.settle()
            self.assertEqual(self.tally.connections_out_open, 0)

    def test_trickle(self) -> None:
        """Octets that complete no reply buy no time."""
        script = self.serve(CONNECT=SILENCE)
        done = self.deliver(make_attempt(ONE))
        for _ in range(10):
            self.net.advance(31)
            if script.hosts[0].is_connected:
                script.hosts[0].say(b"220-wait\r\n")
            self.net.settle()
        self.assertIsInstance(self.successResultOf(done)[0][1], TransientFailure)

    def test_block(self) -> None:
        """A peer that stops reading in the middle of the content."""
        self.serve()
        done = self.transport.deliver(make_attempt(ONE, content=b"x" * 1_000_000))
        while not self.net.ends or self.net.ends[0].producer is None:
            self.net.step()
        self.net.advance(179)
        self.assertNoResult(done)
        self.net.pump([1, 1])
        [(_, outcome)] = self.successResultOf(done)
        assert isinstance(outcome, TransientFailure)
        self.assertIn("waiting for the content to be taken", outcome.cause.text)
        self.net.pump([1] * 6)
        self.assertTrue(self.net.ends[0].is_aborted)


class AuthTests(TransportTestCase):
    EHLO = b"250-host.test\r\n250 AUTH PLAIN\r\n"

    def test_to_this_machine(self) -> None:
        self.make(credentials=Credentials("me", "secret"))
        script = self.net.serve(
            "127.0.0.1", Script(answers={"EHLO": self.EHLO, "AUTH": b"235 2.7.0 hello\r\n"})
        )
        attempt = make_attempt(("localhost", ["127.0.0.1"]), kind="smarthost")
        self.assertIsInstance(self.outcome(attempt), Delivered)
        self.assertEqual(script.commands[2], "AUTH PLAIN AG1lAHNlY3JldA==")

    def test_wrong_password(self) -> None:
        """A fault of the configuration: mail waits, and somebody is told."""
        self.make(credentials=Credentials("me", "secret"))
        self.net.serve(
            "127.0.0.1", Script(answers={"EHLO": self.EHLO, "AUTH": b"535 5.7.8 wrong\r\n"})
        )
        with capturedLogs() as events:
            outcome = self.outcome(make_attempt(("localhost", ["127.0.0.1"]), kind="smarthost"))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause.code), (Scope.SITE, 535))
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual([event["cause"] for event in warnings], ["535 5.7.8 wrong"])

    def test_never_in_clear_over_the_network(self) -> None:
        self.make(credentials=Credentials("me", "secret"))
        script = self.serve(EHLO=self.EHLO)
        self.assertIsInstance(self.outcome(make_attempt(ONE, kind="smarthost")), TransientFailure)
        self.assertEqual(script.commands, ["CONNECT", "EHLO me.test", "QUIT"])


class TlsPolicyTests(TransportTestCase):
    """Policy only; handshakes are in ``tests.integration.test_client_tls``."""

    OFFER = b"250-host.test\r\n250 STARTTLS\r\n"

    def test_asked_for_where_it_is_offered(self) -> None:
        self.make(tls="opportunistic")
        script = self.serve(EHLO=self.OFFER, STARTTLS=b"220 go\r\n")
        self.deliver(make_attempt(ONE))
        self.assertEqual(script.commands, ["CONNECT", "EHLO me.test", "STARTTLS"])
        self.assertEqual(len(self.net.ends[0].tls), 1)

    def test_not_asked_for(self) -> None:
        script = self.serve(EHLO=self.OFFER)
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertNotIn("STARTTLS", script.commands)

    def test_clear_text_behind_the_220(self) -> None:
        """CVE-2011-0411: what was injected is not obeyed, and the host is left."""
        for injected in (b"250 ok\r\n", b"250-host", b"\x16\x03"):
            self.make(tls="opportunistic")
            self.serve(A, EHLO=self.OFFER, STARTTLS=b"220 go\r\n" + injected)
            self.serve(B)
            self.assertEqual(
                self.outcome(make_attempt(ONE, TWO)), Delivered(Contact("mx2.b.test", B), TAKEN)
            )
            self.assertEqual(self.net.ends[-2].tls, [])

    def test_handshake_fails(self) -> None:
        """Opportunistic: the same host again, in clear."""
        self.make(tls="opportunistic")
        script = self.serve(EHLO=self.OFFER, STARTTLS=b"220 go\r\n" + HANG_UP)
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(
            script.commands,
            ["CONNECT", "EHLO me.test", "STARTTLS", "CONNECT", "EHLO me.test", *ENVELOPE],
        )
        self.assertEqual(self.tally.tls_failures_out, 1)

    def test_handshake_fails_where_tls_is_required(self) -> None:
        self.make(tls="starttls", is_verifying=False)
        script = self.serve(EHLO=self.OFFER, STARTTLS=b"220 go\r\n" + HANG_UP)
        outcome = self.outcome(make_attempt(ONE))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause.enhanced), (Scope.SITE, "4.7.5"))
        self.assertEqual(script.commands, ["CONNECT", "EHLO me.test", "STARTTLS"])

    def test_required_and_not_offered(self) -> None:
        self.make(tls="starttls", is_verifying=False)
        script = self.serve()
        self.assertIsInstance(self.outcome(make_attempt(ONE)), TransientFailure)
        self.assertEqual(script.commands, ["CONNECT", "EHLO me.test", "QUIT"])

    def test_implicit(self) -> None:
        """The handshake begins before a word is said."""
        self.make(tls="implicit", is_verifying=False)
        self.serve(CONNECT=SILENCE)
        self.deliver(make_attempt(ONE))
        self.assertEqual(len(self.net.ends[0].tls), 1)

    def test_handshake_without_end(self) -> None:
        self.make(tls="implicit", is_verifying=False)
        self.serve(CONNECT=SILENCE)
        done = self.deliver(make_attempt(ONE))
        self.net.advance(59)
        self.assertNoResult(done)
        self.net.pump([1, 1])
        [(_, outcome)] = self.successResultOf(done)
        assert isinstance(outcome, TransientFailure)
        self.assertIn("timed out while waiting for the TLS handshake", outcome.cause.text)

    def test_bad_file_of_authorities(self) -> None:
        """A fault of the configuration never bounces mail."""
        self.make(tls="starttls", ca_file="/nonexistent/ca.pem")
        self.serve()
        outcome = self.outcome(make_attempt(ONE))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual(outcome.cause, TABLE["local-error"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class RequireTlsTests(TransportTestCase):
    """Mail that requires TLS (RFC 8689, 4.2.1), as far as it comes without a handshake."""

    OFFER = b"250-host.test\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n"
    CLEAR = b"250-host.test\r\n250 REQUIRETLS\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.make(tls="opportunistic")

    def strict(self, *hosts: tuple[str, list[str]], **options: Any) -> Attempt:
        options.setdefault("is_authentic", True)
        return make_attempt(*hosts, requires_tls=True, **options)

    def refused(self, attempt: Attempt, why: str, contact: Contact | None = None) -> None:
        reply = Reply(550, "5.7.30", (f"REQUIRETLS support required: {why}",))
        failure = PermanentFailure(Scope.MESSAGE, reply, contact)
        self.assertEqual(self.outcome(attempt), failure)

    def test_nobody_is_called_where_it_cannot_be(self) -> None:
        self.serve(EHLO=self.OFFER)
        no_proof = "DNS does not prove which hosts are the domain's"
        self.refused(self.strict(ONE, is_authentic=False), no_proof)
        self.make(tls="none")
        no_tls = "the next hop is spoken to without TLS"
        self.refused(self.strict(ONE, kind="smarthost"), no_tls)
        self.assertEqual(self.net.dialled, [])

    def test_a_host_without_tls(self) -> None:
        """The others are asked; nothing of the message is said to any."""
        scripts = [self.serve(A, EHLO=self.CLEAR), self.serve(B, EHLO=b"502 what?\r\n")]
        contact = Contact("mx2.b.test", B)
        self.refused(self.strict(ONE, TWO), "TLS is not offered", contact)
        said = [line for script in scripts for line in script.commands]
        self.assertEqual([line for line in said if line.startswith("MAIL")], [])

    def test_a_host_that_refuses_tls(self) -> None:
        self.serve(EHLO=self.OFFER, STARTTLS=b"502 5.5.1 no\r\n")
        contact = Contact("mx1.b.test", A)
        self.refused(self.strict(ONE), "STARTTLS is refused", contact)

    def test_what_may_be_better_later(self) -> None:
        """It is tried again, and other mail of the site does not wait for it."""
        for verb, answer in (
            ("STARTTLS", b"454 4.7.0 later\r\n"),
            ("STARTTLS", b"220 go\r\n" + HANG_UP),
            ("CONNECT", b"421 4.3.2 later\r\n"),
        ):
            self.make(tls="opportunistic")
            script = self.serve(A, script=Script(answers={"EHLO": self.OFFER, verb: answer}))
            self.serve(B)
            outcome = self.outcome(self.strict(ONE, TWO))
            assert isinstance(outcome, TransientFailure)
            self.assertEqual(outcome.scope, Scope.MESSAGE)
            self.assertEqual(script.commands.count("CONNECT"), 1)

    def test_a_host_that_is_not_there(self) -> None:
        """It may be the one that can; nobody knows before it answers."""
        self.serve(B)
        outcome = self.outcome(self.strict(ONE, TWO))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual(outcome.scope, Scope.SITE)

    def test_what_is_open_is_not_good_enough(self) -> None:
        """A connection that carried other mail is passed by, and stays for more of that."""
        script = self.serve(EHLO=[self.CLEAR, b"250 host.test\r\n"])
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.refused(self.strict(ONE), "TLS is not offered", Contact("mx1.b.test", A))
        self.assertEqual(script.commands.count("CONNECT"), 2)
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(script.commands.count("CONNECT"), 2)

    def test_a_name_that_no_certificate_bears(self) -> None:
        """Our trouble with it is not the site's."""
        self.serve(EHLO=self.OFFER)
        outcome = self.outcome(self.strict(("mx_1.b.test", [A])))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause), (Scope.MESSAGE, TABLE["local-error"]))
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_a_local_mail_server(self) -> None:
        """The way ends there; but not on another machine, where the last part of it is in clear."""
        self.make(protocol="lmtp", tls="none")
        self.net.serve("/run/lmtp", Script(is_lmtp=True), 0)
        socket = self.strict(("unix:/run/lmtp", ["unix:/run/lmtp"]), kind="lmtp")
        self.assertIsInstance(self.outcome(socket), Delivered)
        for address in ("127.0.0.1", "::1"):
            self.make(protocol="lmtp", tls="none")
            script = self.serve(address, script=Script(is_lmtp=True))
            attempt = self.strict(("localhost", [address]), kind="lmtp", is_authentic=False)
            self.assertIsInstance(self.outcome(attempt), Delivered)
            self.assertIn("MAIL FROM:<a@a.test>", script.commands)
        afar = self.strict(("lmtp.test", ["127.0.0.1", A]), kind="lmtp")
        self.refused(afar, "LMTP to another machine goes in clear")


class LmtpTests(TransportTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(protocol="lmtp")

    def test_over_a_socket(self) -> None:
        script = self.net.serve(
            "/run/lmtp",
            Script(is_lmtp=True, answers={".": [b"250 2.0.0 taken\r\n", b"452 4.2.2 full\r\n"]}),
            0,
        )
        attempt = make_attempt(
            ("unix:/run/lmtp", ["unix:/run/lmtp"]),
            kind="lmtp",
            recipients=["b@b.test", "c@b.test"],
        )
        contact = Contact("unix:/run/lmtp")
        self.assertEqual(
            self.outcomes(attempt),
            {
                0: Delivered(contact, TAKEN, is_final=True),
                1: TransientFailure(Scope.RECIPIENT, Reply(452, "4.2.2", ("full",)), contact),
            },
        )
        self.assertEqual(script.commands[:2], ["CONNECT", "LHLO me.test"])

    def test_over_tcp(self) -> None:
        self.serve(script=Script(is_lmtp=True))
        self.assertIsInstance(self.outcome(make_attempt(ONE, kind="lmtp")), Delivered)

    def test_socket_is_not_there(self) -> None:
        attempt = make_attempt(("unix:/run/lmtp", ["unix:/run/lmtp"]), kind="lmtp")
        outcome = self.outcome(attempt)
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause.enhanced), (Scope.SITE, "4.4.1"))
