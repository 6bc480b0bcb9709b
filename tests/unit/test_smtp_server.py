"""The server's shell: questions, back-pressure, hang-ups, time-outs, shutting down."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import PasswordProof, Proof
from protege_mta.model.reply import TABLE, Reply
from protege_mta.testing.doors import FakeDoor, FakeIntake
from protege_mta.testing.smtp_dialog import Client, reply_codes
from protege_mta.transport.sweep import Sweep
from protege_mta.wire.settings import ServerSettings

TRANSACTION = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def raising(*arguments: object) -> Any:
    raise RuntimeError("the policy is broken")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = FakeDoor()
        self.client = Client(self.door)

    def hang_up(self, client: Client | None = None) -> None:
        (client or self.client).connection.connectionLost()

    @property
    def is_reading(self) -> bool:
        return bool(self.client.transport.producerState == "producing")


class GreetingTests(Case):
    def test_the_door_knows_who_is_there_from_greeting_to_hang_up(self) -> None:
        self.assertEqual(self.client.hear(), b"220 mx.test ESMTP ready\r\n")
        (peer,) = self.door.peers
        self.assertEqual(
            (peer.address, peer.port, peer.listener, peer.session_id, peer.helo, peer.is_esmtp),
            ("192.0.2.1", 1025, "mx", "s1", "", False),
        )
        self.client.say(b"EHLO c.example\r\n")
        self.assertEqual((peer.helo, peer.is_esmtp), ("c.example", True))
        self.client.say(b"HELO [192.0.2.1]\r\n")
        self.assertEqual((peer.helo, peer.is_esmtp), ("[192.0.2.1]", False))
        self.hang_up()
        self.assertEqual(self.door.peers, [])

    def test_a_refused_connection_hears_why_and_is_closed(self) -> None:
        self.door.on_opened = lambda peer: TABLE["too-many-connections"]
        client = Client(self.door)
        self.assertEqual(client.hear(), TABLE["too-many-connections"].octets())
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(client.say(b"EHLO x\r\n"), b"")
        self.hang_up(client)
        self.assertEqual(client.factory.tally.connections_refused, 1)
        self.assertEqual(client.factory.tally.connections_in_open, 0)

    def test_a_door_that_breaks_lets_nobody_in_and_says_so(self) -> None:
        self.door.on_opened = raising
        client = Client(self.door)
        self.assertEqual(client.hear(), TABLE["internal-error"].octets())
        self.hang_up(client)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_one_that_is_gone_does_not_wait_for_the_garbage_collector(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        self.client.say(TRANSACTION + b"DATA\r\n.\r\nQUIT\r\n")
        self.hang_up()
        gone = weakref.ref(self.client.connection)
        del self.client
        self.assertIsNone(gone())

    def test_what_is_said_is_counted_by_its_first_digit(self) -> None:
        self.client.say(TRANSACTION + b"DATA\r\n.\r\nFOO\r\n")
        tally = self.client.factory.tally
        self.assertEqual(tally.replies_in, [0, 0, 5, 1, 0, 1])
        self.assertEqual((tally.connections_in, tally.connections_in_open), (1, 1))


class QuestionTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.client.say(b"EHLO c.example\r\n")

    def test_a_group_is_answered_in_one_write(self) -> None:
        self.client.transport.writes.clear()
        self.client.say(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        self.assertEqual(
            self.client.transport.writes,
            [b"250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 end with <CRLF>.<CRLF>\r\n"],
        )

    def test_a_slow_answer_holds_what_is_behind_it_in_order(self) -> None:
        answer: Deferred[Reply] = Deferred()
        self.door.on_sender = lambda mail: answer
        said = self.client.codes(b"NOOP\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        self.assertEqual(said, [250])
        answer.callback(TABLE["sender-ok"])
        self.assertEqual(self.client.hear(), b"250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n")

    def test_one_read_is_kept_while_a_question_is_open_and_no_more(self) -> None:
        answer: Deferred[Reply] = Deferred()
        self.door.on_sender = lambda mail: answer
        self.client.say(b"MAIL FROM:<a@b.example>\r\n")
        self.assertTrue(self.is_reading)
        self.client.say(b"NOOP\r\n")
        self.assertFalse(self.is_reading)
        answer.callback(TABLE["sender-ok"])
        self.assertTrue(self.is_reading)
        self.assertEqual(self.client.hear(), b"250 2.1.0 sender ok\r\n250 2.0.0 ok\r\n")

    def test_a_deferred_that_has_fired_is_as_good_as_an_answer(self) -> None:
        self.door.on_sender = lambda mail: succeed(TABLE["rate-limited"])
        said = self.client.codes(b"MAIL FROM:<a@b.example>\r\nNOOP\r\n")
        self.assertEqual(said, [450, 250])

    def test_a_hang_up_cancels_the_question(self) -> None:
        cancelled: list[Deferred[Reply]] = []
        answer: Deferred[Reply] = Deferred(cancelled.append)
        self.door.on_recipient = lambda recipient: answer
        self.client.say(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        self.hang_up()
        self.assertEqual(cancelled, [answer])
        self.assertEqual(self.door.intakes, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_thousands_of_quick_answers_do_not_deepen_the_stack(self) -> None:
        self.door.on_recipient = lambda recipient: succeed(TABLE["no-such-user"])
        group = b"MAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<c@d.example>\r\n" * 5000
        self.assertEqual(self.client.codes(group), [250] + [550] * 5000)

    def test_a_broken_policy_makes_the_client_come_back(self) -> None:
        self.door.on_sender = raising
        self.assertEqual(self.client.say(b"MAIL FROM:<>\r\n"), TABLE["local-error"].octets())
        self.door.on_sender = lambda mail: fail(RuntimeError("later"))
        self.assertEqual(self.client.say(b"MAIL FROM:<>\r\n"), TABLE["local-error"].octets())
        self.door.on_sender = lambda mail: TABLE["sender-ok"]
        self.door.on_receive = raising
        codes = self.client.codes(b"MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nNOOP\r\n")
        self.assertEqual(codes, [250, 250, 451, 250])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_a_421_from_the_door_closes_the_channel(self) -> None:
        self.door.on_sender = lambda mail: TABLE["too-many-connections"]
        self.assertEqual(self.client.codes(b"MAIL FROM:<>\r\nNOOP\r\n"), [421])
        self.assertTrue(self.client.transport.disconnecting)

    def test_an_answer_that_is_none_breaks_the_session_and_not_the_server(self) -> None:
        bad: Any = lambda mail: None  # noqa: E731
        self.door.on_sender = bad
        self.assertEqual(self.client.codes(b"MAIL FROM:<>\r\n"), [421])
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_nor_does_a_deferred_of_none(self) -> None:
        answer: Deferred[Any] = Deferred()
        for bad in (succeed(None), answer):
            client = Client(self.door)
            client.say(b"EHLO c.example\r\n")
            self.door.on_sender = lambda mail, bad=bad: bad  # type: ignore[misc]
            client.connection.dataReceived(b"MAIL FROM:<>\r\n")
            if bad is answer:
                answer.callback(None)
            self.assertEqual(reply_codes(client.hear()), [421])
            self.assertTrue(client.transport.disconnecting)
            self.assertEqual(len(self.flushLoggedErrors()), 1)


class LoginTests(Case):
    PLAIN = b"AUTH PLAIN AHVzZXIAcGVuY2ls\r\n"  # user, pencil

    def setUp(self) -> None:
        super().setUp()
        self.settings = ServerSettings("mx.test", mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN"))
        self.greeted()

    def greeted(self) -> None:
        self.client = Client(self.door, self.settings)
        self.client.say(b"EHLO c.example\r\n")

    @property
    def identity(self) -> str:
        return self.door.peers[-1].identity

    def test_the_door_sees_who_it_is_from_then_on(self) -> None:
        self.assertEqual(self.client.codes(self.PLAIN), [235])
        self.assertEqual(self.door.proofs, [PasswordProof("user", "pencil")])
        self.assertEqual(self.identity, "user")

    def test_a_login_is_answered_when_the_door_has_made_up_its_mind(self) -> None:
        answer: Deferred[Reply] = Deferred()
        self.door.on_login = lambda proof: answer
        self.assertEqual(self.client.say(self.PLAIN + b"NOOP\r\n"), b"")
        self.assertEqual(self.identity, "")
        answer.callback(TABLE["logged-in"])
        self.assertEqual(reply_codes(self.client.hear()), [235, 250])
        self.assertEqual(self.identity, "user")

    def test_a_broken_door_lets_nobody_in_and_is_not_the_clients_fault(self) -> None:
        for self.door.on_login in (raising, lambda proof: fail(RuntimeError("later"))):
            self.assertEqual(self.client.say(self.PLAIN), TABLE["login-later"].octets())
            self.assertEqual(self.identity, "")
        answer: Deferred[Reply] = Deferred()
        self.door.on_login = lambda proof: answer
        self.client.say(self.PLAIN)
        answer.errback(RuntimeError("later"))
        self.assertEqual(self.client.hear(), TABLE["login-later"].octets())
        self.assertEqual(self.identity, "")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_nor_does_one_that_has_nothing_to_check_by(self) -> None:
        with mock.patch.object(self.door, "scram", raising):
            said = self.client.say(b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==\r\n")
        self.assertEqual(said, TABLE["login-later"].octets())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_nor_one_that_answers_with_nothing(self) -> None:
        bad: Any = lambda proof: None  # noqa: E731
        self.door.on_login = bad
        self.assertEqual(self.client.codes(self.PLAIN), [421])
        self.assertEqual(self.identity, "")
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_a_hang_up_cancels_the_question(self) -> None:
        cancelled: list[Deferred[Reply]] = []
        answer: Deferred[Reply] = Deferred(cancelled.append)
        self.door.on_login = lambda proof: answer
        self.client.say(self.PLAIN)
        self.hang_up()
        self.assertEqual(cancelled, [answer])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_falls_silent_in_an_exchange_is_sent_away(self) -> None:
        self.client.say(b"AUTH LOGIN\r\n")
        self.client.clock.pump([5.0] * 62)
        self.assertEqual(self.client.hear(), TABLE["idle-too-long"].octets())

    def test_an_open_exchange_does_not_wait_for_the_garbage_collector(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        self.client.say(b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==\r\n")
        self.client.transport.unregisterProducer()  # the fake's own hold on it
        self.hang_up()
        gone = weakref.ref(self.client.connection)
        del self.client
        self.assertIsNone(gone())

    def test_no_secret_is_logged_whatever_breaks(self) -> None:
        """Neither a password nor what could be turned into one, whole or in Base64."""
        records: list[LogEvent] = []
        observer = cast(ILogObserver, records.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        answers: list[Callable[[Proof], Any]] = [
            raising,
            lambda proof: fail(RuntimeError(f"{proof!r}")),
            lambda proof: None,
            lambda proof: TABLE["login-failed"],
            lambda proof: TABLE["logged-in"],
        ]
        for self.door.on_login in answers:
            for octets in (self.PLAIN, b"AUTH LOGIN dXNlcg==\r\ncGVuY2ls\r\ncGVuY2ls\r\n"):
                self.greeted()
                self.client.say(octets)
                self.assertNotIn("pencil", repr(self.door.peers[-1]))
        self.assertGreaterEqual(len(records), 6)
        for event in records:
            text = eventAsText(event, includeTraceback=True) + repr(event)
            for secret in ("pencil", "cGVuY2ls", "AHVzZXIAcGVuY2ls"):
                self.assertNotIn(secret, text)
        self.flushLoggedErrors()


class ContentTests(Case):
    def in_data(self) -> FakeIntake:
        self.client.say(TRANSACTION + b"DATA\r\n")
        return self.door.intakes[-1]

    def test_the_envelope_is_complete(self) -> None:
        self.client.say(
            b"EHLO c.example\r\nMAIL FROM:<a@b.example> RET=HDRS ENVID=x BODY=8BITMIME\r\n"
            b"RCPT TO:<c@d.example>\r\nRCPT TO:<x@refused.example>\r\nRCPT TO:<Postmaster>\r\n"
            b"DATA\r\n"
        )
        envelope = self.door.intakes[0].envelope
        self.assertEqual(
            (envelope.sender, envelope.ret, envelope.envid, envelope.body),
            ("a@b.example", "HDRS", "x", "8BITMIME"),
        )
        self.assertEqual(
            [recipient.address for recipient in envelope.recipients],
            ["c@d.example", "postmaster@mx.test"],
        )

    def test_the_final_reply_is_the_intakes_and_comes_when_it_comes(self) -> None:
        intake = self.in_data()
        intake.fate = Deferred()
        self.assertEqual(self.client.say(b"x\r\n.\r\nNOOP\r\n"), b"")
        intake.fate.callback(Reply(250, "2.0.0", ("queued as 1",)))
        self.assertEqual(self.client.hear(), b"250 2.0.0 queued as 1\r\n250 2.0.0 ok\r\n")

    def test_a_complete_message_goes_its_way_though_the_client_hangs_up(self) -> None:
        intake = self.in_data()
        cancelled: list[Deferred[Reply]] = []
        intake.fate = Deferred(cancelled.append)
        self.client.say(b"x\r\n.\r\n")
        self.hang_up()
        self.assertEqual((intake.ended, cancelled), ("finished", []))
        intake.fate.callback(TABLE["ok"])
        self.assertEqual(self.client.hear(), b"")

    def test_half_a_message_is_dropped_when_the_client_hangs_up(self) -> None:
        intake = self.in_data()
        self.client.say(b"x\r\n")
        self.hang_up()
        self.assertEqual(intake.ended, "aborted")

    def test_half_a_message_is_dropped_by_rset_ehlo_and_quit(self) -> None:
        for verb in (b"RSET", b"EHLO c.example", b"QUIT"):
            client = Client(self.door)
            client.say(TRANSACTION + b"BDAT 3\r\na\r\n" + verb + b"\r\n")
            self.assertEqual(self.door.intakes[-1].ended, "aborted", verb)

    def test_an_intake_that_wants_a_pause_gets_one(self) -> None:
        intake = self.in_data()
        pause: Deferred[None] = Deferred()
        intake.pauses.append(pause)
        self.client.say(b"one\r\n.")
        self.client.say(b".two\r\n.\r\n")
        self.assertEqual((intake.content, self.is_reading), (b"one", False))
        pause.callback(None)
        self.assertEqual((intake.content, self.is_reading), (b"one\r\n.two\r\n", True))
        self.assertEqual(self.client.hear(), b"250 2.0.0 ok\r\n")

    def test_an_intake_that_breaks_is_a_local_error_at_the_end(self) -> None:
        intake = self.in_data()
        intake.pauses.append(fail(RuntimeError("no")))
        self.assertEqual(self.client.codes(b"one\r\ntwo\r\n"), [])
        self.assertEqual(intake.ended, "aborted")
        self.assertEqual(self.client.codes(b"three\r\n.\r\nNOOP\r\n"), [451, 250])
        intake = self.in_data()
        intake.ended = "broken"  # its next write raises
        self.assertEqual(self.client.codes(b"one\r\n.\r\n"), [451])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_a_message_that_cannot_be_finished_is_a_local_error(self) -> None:
        self.in_data().fate = fail(RuntimeError("no"))
        self.assertEqual(self.client.codes(b".\r\nNOOP\r\n"), [451, 250])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_refusal_of_chunks_is_told_behind_the_chunk(self) -> None:
        self.door.on_receive = lambda envelope: TABLE["spool-full"]
        self.client.say(TRANSACTION)
        self.assertEqual(self.client.codes(b"BDAT 6\r\nQUI"), [])
        self.assertEqual(
            self.client.codes(b"T\r\nBDAT 0 LAST\r\nMAIL FROM:<>\r\n"), [452, 503, 250]
        )

    def test_a_message_taken_wipes_the_slate_of_bad_commands(self) -> None:
        client = Client(self.door, ServerSettings("mx.test", bad_commands=2))
        client.say(TRANSACTION + b"FOO\r\nFOO\r\n")
        self.assertEqual(
            client.codes(b"DATA\r\n.\r\nFOO\r\nFOO\r\nFOO\r\n"), [354, 250, 500, 500, 421]
        )

    def test_refused_recipients_are_no_bad_commands(self) -> None:
        client = Client(self.door, ServerSettings("mx.test", bad_commands=2))
        client.say(TRANSACTION)
        group = b"RCPT TO:<x@refused.example>\r\nRCPT TO:<x@@y>\r\n" * 50
        self.assertEqual(client.codes(group), [550, 501] * 50)


class SlowReaderTests(Case):
    def test_a_client_that_does_not_read_is_not_read_from(self) -> None:
        self.client.hear()
        self.client.connection.pauseProducing()
        self.assertEqual(self.client.say(b"NOOP\r\n"), b"")
        self.assertFalse(self.is_reading)
        self.client.connection.resumeProducing()
        self.assertEqual((self.client.hear(), self.is_reading), (b"250 2.0.0 ok\r\n", True))

    def test_what_it_has_sent_already_waits(self) -> None:
        """However many commands come with one read, the replies that nobody takes are few."""
        transport = self.client.transport
        write = transport.write

        def taken_by_nobody(octets: bytes) -> None:
            write(octets)
            self.client.connection.pauseProducing()

        self.client.hear()
        with mock.patch.object(transport, "write", taken_by_nobody):
            unread = self.client.say(b"NOOP\r\n" * 5000)
        self.assertEqual(unread.count(b"\n"), 100)
        self.client.connection.resumeProducing()
        self.assertEqual(self.client.hear().count(b"\n"), 4900)

    def test_and_is_cut_off_in_the_end(self) -> None:
        self.client.connection.pauseProducing()
        self.client.clock.pump([5.0] * 62)
        self.assertTrue(self.client.transport.is_aborted)


class TimeOutTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.client.hear()

    def pass_s(self, seconds: float) -> None:
        self.client.clock.pump([5.0] * int(seconds / 5))

    def test_an_idle_client_gets_421_after_five_minutes(self) -> None:
        self.pass_s(300)
        self.assertEqual(self.client.hear(), b"")
        self.pass_s(10)
        self.assertEqual(self.client.hear(), TABLE["idle-too-long"].octets())
        self.assertTrue(self.client.transport.disconnecting)

    def test_dribbling_octets_of_one_line_wins_no_time(self) -> None:
        for _ in range(30):
            self.pass_s(10)
            self.client.say(b"N")
        self.pass_s(10)
        self.assertEqual(self.client.hear(), TABLE["idle-too-long"].octets())

    def test_whole_commands_win_time(self) -> None:
        for _ in range(5):
            self.pass_s(290)
            self.assertEqual(self.client.codes(b"NOOP\r\n"), [250])

    def test_content_must_come_by_blocks(self) -> None:
        self.client.say(TRANSACTION + b"DATA\r\n")
        for _ in range(3):
            self.pass_s(290)
            self.client.say(b"x" * 78 + b"\r\n" + b"y" * 8200)
        for _ in range(30):
            self.pass_s(10)
            self.client.say(b"z")
        self.pass_s(10)
        self.assertEqual(self.client.hear(), TABLE["idle-too-long"].octets())
        self.assertEqual(self.door.intakes[0].ended, "aborted")

    def test_our_own_slowness_is_no_time_out_of_the_client(self) -> None:
        answer: Deferred[Reply] = Deferred()
        self.door.on_sender = lambda mail: answer
        self.client.say(b"EHLO c.example\r\nMAIL FROM:<>\r\n")
        self.pass_s(3000)
        answer.callback(TABLE["sender-ok"])
        self.assertEqual(self.client.hear(), b"250 2.1.0 sender ok\r\n")
        self.pass_s(300)
        self.assertEqual(self.client.hear(), b"")
        self.pass_s(10)
        self.assertEqual(self.client.hear(), TABLE["idle-too-long"].octets())

    def test_a_channel_that_does_not_close_is_cut(self) -> None:
        self.client.say(b"QUIT\r\n")
        self.pass_s(30)
        self.assertFalse(self.client.transport.is_aborted)
        self.pass_s(10)
        self.assertTrue(self.client.transport.is_aborted)


class DrainTests(Case):
    def drain(self) -> Deferred[None]:
        return self.client.factory.drain()

    def test_with_nobody_there_it_is_done_at_once(self) -> None:
        self.hang_up()
        self.successResultOf(self.drain())

    def test_the_idle_are_sent_away_at_once(self) -> None:
        self.client.hear()
        drained = self.drain()
        self.assertEqual(self.client.hear(), TABLE["shutting-down"].octets())
        self.assertNoResult(drained)
        self.hang_up()
        self.successResultOf(drained)

    def test_a_transaction_may_end(self) -> None:
        self.client.say(TRANSACTION)
        self.drain()
        self.assertEqual(self.client.codes(b"RCPT TO:<e@d.example>\r\nDATA\r\n"), [250, 354])
        self.assertEqual(self.client.codes(b".\r\nMAIL FROM:<>\r\n"), [250, 421])
        self.assertEqual(len(self.door.messages), 1)
        self.assertTrue(self.client.transport.disconnecting)

    def test_a_message_being_stored_gets_its_reply(self) -> None:
        self.client.say(TRANSACTION + b"DATA\r\n")
        fate: Deferred[Reply] = Deferred()
        self.door.intakes[0].fate = fate
        self.client.say(b".\r\n")
        self.drain()
        self.assertEqual(self.client.hear(), b"")
        fate.callback(TABLE["ok"])
        self.assertEqual(
            self.client.hear(), b"".join(TABLE[n].octets() for n in ("ok", "shutting-down"))
        )

    def test_rset_ends_a_transaction_too(self) -> None:
        self.client.say(TRANSACTION)
        self.drain()
        self.assertEqual(self.client.codes(b"RSET\r\n"), [250, 421])

    def test_who_comes_later_is_sent_away(self) -> None:
        self.drain()
        late = Client(factory=self.client.factory)
        self.assertEqual(late.hear(), TABLE["shutting-down"].octets())
        self.assertTrue(late.transport.disconnecting)

    def test_abort_cuts_what_is_left(self) -> None:
        self.client.say(TRANSACTION)
        self.client.factory.abort()
        self.assertTrue(self.client.transport.is_aborted)


class SettingsTests(Case):
    def test_new_settings_are_for_new_connections(self) -> None:
        self.client.hear()
        self.client.factory.settings = ServerSettings("new.test")
        self.assertEqual(self.client.say(b"HELO c\r\n"), b"250 mx.test\r\n")
        self.assertEqual(
            Client(factory=self.client.factory).hear(), b"220 new.test ESMTP ready\r\n"
        )

    def test_nonsense_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            ServerSettings("mx.test", message_octets=0)


class Sleeper:
    def __init__(self, deadline: float, then: Callable[[], None]) -> None:
        self.deadline = deadline
        self.expired = then


class SweepTests(SynchronousTestCase):
    def test_a_deadline_is_never_early(self) -> None:
        clock = Clock()
        sweep = Sweep(clock, period_s=5.0)
        ends: list[float] = []
        clock.advance(3.0)
        sleeper = Sleeper(0.0, lambda: ends.append(clock.seconds()))
        sweep.add(sleeper)
        clock.pump([4.9])
        sleeper.deadline = sweep.after(10.0)
        clock.pump([1.0] * 20)
        self.assertEqual(ends[0], 18.9)

    def test_no_timer_runs_for_nobody(self) -> None:
        clock = Clock()
        sweep = Sweep(clock)
        sleeper = Sleeper(1e9, lambda: None)
        self.assertEqual(clock.getDelayedCalls(), [])
        sweep.add(sleeper)
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        sweep.remove(sleeper)
        clock.advance(5.0)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_closing_leaves_no_timer_once_all_are_gone(self) -> None:
        clock = Clock()
        sweep = Sweep(clock)
        sleeper = Sleeper(1e9, lambda: None)
        sweep.add(sleeper)
        sweep.close()
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        sweep.remove(sleeper)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_one_that_breaks_does_not_hide_the_others(self) -> None:
        clock = Clock()
        sweep = Sweep(clock)
        seen: list[int] = []
        for _ in range(3):
            sweep.add(Sleeper(0.0, raising))
            sweep.add(Sleeper(0.0, lambda: seen.append(1)))
        clock.advance(5.0)
        self.assertEqual(seen, [1, 1, 1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)
