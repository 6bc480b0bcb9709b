"""Connections that wait for their next message."""

from __future__ import annotations

from protege_mta.model.outcome import Delivered, Scope, TransientFailure
from protege_mta.testing.attempts import make_attempt
from protege_mta.testing.hosts import HANG_UP, SILENCE, Script

from .test_client_transport import ONE, ORDINARY, TWO, A, B, TransportTestCase


class ReuseTests(TransportTestCase):
    def test_next_message_on_the_same_connection(self) -> None:
        """No RSET after a transaction that ended cleanly."""
        script = self.serve()
        for _ in range(2):
            self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(script.commands, ORDINARY + ORDINARY[2:])

    def test_used_last_used_first(self) -> None:
        script = self.serve()
        first, second = (self.transport.deliver(make_attempt(ONE)) for _ in range(2))
        self.net.settle()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.transport.pool.idle, 2)
        for _ in range(3):
            self.outcome(make_attempt(ONE))
        self.assertEqual(script.commands.count("CONNECT"), 2)
        self.assertEqual([len(end.writes) for end in self.net.ends], [3, 9])

    def test_other_site(self) -> None:
        self.serve(A)
        self.serve(B)
        for hosts in (ONE, TWO):
            self.outcome(make_attempt(hosts))
        self.assertEqual([call.address for call in self.net.dialled], [A, B])

    def test_from_within_the_result(self) -> None:
        """A caller that goes on at once finds the connection free."""
        script = self.serve()
        again = []
        done = self.transport.deliver(make_attempt(ONE))
        done.addCallback(lambda _: again.append(self.transport.deliver(make_attempt(ONE))))
        self.net.settle()
        self.assertIsInstance(self.successResultOf(again[0])[0][1], Delivered)
        self.assertEqual(script.commands.count("CONNECT"), 1)

    def test_reset_after_an_unclean_end(self) -> None:
        script = self.serve(
            RCPT=[b"550 5.1.1 no\r\n", b"250 ok\r\n"], DATA=[b"554 no\r\n", b"354 go\r\n"]
        )
        self.outcome(make_attempt(ONE))
        self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
        self.assertEqual(script.commands[5:7], ["RSET", "MAIL FROM:<a@a.test> SIZE=29"])
        self.outcome(make_attempt(ONE))
        self.assertEqual(script.commands.count("RSET"), 1)

    def test_idle_too_long(self) -> None:
        script = self.serve()
        self.outcome(make_attempt(ONE))
        self.net.pump([1] * 9)
        self.net.settle()
        self.assertNotIn("QUIT", script.commands)
        self.net.pump([1, 1])
        self.net.settle()
        self.assertEqual(script.commands[-1], "QUIT")
        self.assertEqual(self.tally.connections_out_open, 0)
        self.net.advance(1)
        self.assertEqual(self.net.getDelayedCalls(), [])

    def test_quit_unanswered(self) -> None:
        """A server that neither answers nor hangs up is not waited for long."""
        self.serve(QUIT=SILENCE)
        self.outcome(make_attempt(ONE))
        self.net.pump([1] * 11)
        self.assertEqual(self.tally.connections_out_open, 1)
        self.net.pump([1] * 6)
        self.net.settle()
        self.assertEqual(self.tally.connections_out_open, 0)

    def test_idle_connection_dies(self) -> None:
        """It is forgotten at once, whether it says why or not."""
        for words in (HANG_UP, b"421 4.4.2 idle\r\n" + HANG_UP, b"250 what?\r\n", b"\xff"):
            script = self.serve()
            self.make()
            self.outcome(make_attempt(ONE))
            script.hosts[-1].say(words)
            self.net.settle()
            self.assertEqual(self.transport.pool.idle, 0)
            self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
            self.assertEqual(script.commands.count("CONNECT"), 2)

    def test_dead_before_the_first_reply(self) -> None:
        """A connection that died unnoticed costs its message nothing."""
        for answer in (HANG_UP, b"421 4.4.2 idle\r\n" + HANG_UP, b"421 4.4.2 idle\r\n"):
            self.make()
            script = self.serve(MAIL=[b"250 ok\r\n", answer, b"250 ok\r\n"])
            self.outcome(make_attempt(ONE))
            self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
            self.assertEqual(script.commands.count("CONNECT"), 2)

    def test_dead_before_the_first_reply_again(self) -> None:
        """What the fresh connection comes to is the host's own."""
        self.serve(MAIL=[b"250 ok\r\n", HANG_UP])
        self.outcome(make_attempt(ONE))
        outcome = self.outcome(make_attempt(ONE))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause.enhanced), (Scope.HOST, "4.4.2"))

    def test_most_messages_a_connection(self) -> None:
        script = self.serve()
        self.make(messages=2)
        for _ in range(3):
            self.outcome(make_attempt(ONE))
        self.assertEqual(
            [line for line in script.commands if line in ("CONNECT", "QUIT")],
            ["CONNECT", "QUIT", "CONNECT"],
        )

    def test_words_behind_the_last_reply(self) -> None:
        """The message is delivered; the connection is not trusted with another."""
        for words in (b"250 2.0.0 taken\r\n250 more\r\n", b"250 2.0.0 taken\r\n25"):
            self.make()
            self.serve(DOT=words)
            self.assertIsInstance(self.outcome(make_attempt(ONE)), Delivered)
            self.assertEqual(self.transport.pool.idle, 0)


class CloseTests(TransportTestCase):
    def test_nothing_open(self) -> None:
        self.assertIsNone(self.successResultOf(self.transport.close()))

    def test_idle_ones_hear_quit(self) -> None:
        script = self.serve()
        self.outcome(make_attempt(ONE))
        closed = self.transport.close()
        self.assertNoResult(closed)
        self.net.settle()
        self.successResultOf(closed)
        self.assertEqual(script.commands[-1], "QUIT")
        self.assertEqual(self.net.getDelayedCalls(), [])

    def test_those_at_work_end_their_message(self) -> None:
        script = self.serve(DOT=SILENCE)
        done = self.deliver(make_attempt(ONE))
        closed = self.transport.close()
        self.net.settle()
        self.assertNoResult(closed)
        script.hosts[0].say(b"250 2.0.0 taken\r\n")
        self.net.settle()
        self.assertIsInstance(self.successResultOf(done)[0][1], Delivered)
        self.successResultOf(closed)
        self.assertEqual(script.commands[-1], "QUIT")

    def test_those_that_connect_end_their_message(self) -> None:
        self.net.serve(A, Script())
        done = self.transport.deliver(make_attempt(ONE))
        closed = self.transport.close()
        self.assertNoResult(closed)
        self.net.settle()
        self.assertIsInstance(self.successResultOf(done)[0][1], Delivered)
        self.successResultOf(closed)

    def test_nothing_new(self) -> None:
        script = self.serve()
        self.successResultOf(self.transport.close())
        outcome = self.outcome(make_attempt(ONE))
        assert isinstance(outcome, TransientFailure)
        self.assertEqual((outcome.scope, outcome.cause.enhanced), (Scope.MESSAGE, "4.3.2"))
        self.assertEqual(script.commands, [])
