"""The server's machine by itself: octets in, replies out, and what it asks of its shell."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import ScramVerifier
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.outcome import TlsFacts
from protege_mta.model.ports import MailCommand, Peer, Proof
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.smtp_dialog import reply_codes
from protege_mta.wire.lines import has_bare_ends
from protege_mta.wire.server import ServerMachine
from protege_mta.wire.settings import ServerSettings

TRANSACTION = b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"


class FakeShell:
    """Answers at once, or later each question whose name is in ``later``.

    :ivar asked: what was asked, in order.
    :ivar said: the replies written before the machine came to an end.
    :ivar is_heard: whether the client reads them.
    """

    machine: ServerMachine

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.later: set[str] = set()
        self.content = b""
        self.said: list[bytes] = []
        self.is_heard = True

    def _ask(self, question: str, reply: Reply) -> Reply | None:
        self.asked.append(question)
        return None if question in self.later else reply

    def nonce(self) -> str:
        return "1896.697170952"

    def scram(self, name: str) -> ScramVerifier | None:
        return None

    def channel_binding(self, kind: str) -> bytes | None:
        return None

    def ask_login(self, proof: Proof) -> Reply | None:
        return self._ask("login", TABLE["logged-in"])

    def ask_sender(self, mail: MailCommand) -> Reply | None:
        return self._ask("sender", TABLE["sender-ok"])

    def ask_recipient(self, mail: MailCommand, recipient: Recipient) -> Reply | None:
        return self._ask("recipient", TABLE["recipient-ok"])

    def open_intake(self, envelope: Envelope) -> Reply | None:
        self.asked.append("intake")
        return None

    def write(self, octets: bytes) -> bool:
        self.content += octets
        return self._ask("write", TABLE["ok"]) is not None

    def finish(self) -> Reply | None:
        return self._ask("finish", TABLE["ok"])

    def abort(self) -> None:
        self.asked.append("abort")

    def say_now(self) -> bool:
        self.said += self.machine.out
        self.machine.out.clear()
        return self.is_heard

    def start_tls(self) -> None:
        self.asked.append("tls")

    def close(self) -> None:
        self.asked.append("close")


class MachineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shell = FakeShell()
        self.machine = ServerMachine(
            self.shell,
            ServerSettings("mx.test"),
            Peer("192.0.2.1", 1025, "mx", "s1"),
            Tally(),
            has_tls=True,
        )
        self.shell.machine = self.machine

    def say(self, octets: bytes) -> list[int]:
        self.machine.feed(octets)
        return self.run_on()

    def run_on(self) -> list[int]:
        self.machine.run()
        said = b"".join(self.machine.out)
        self.machine.out.clear()
        return reply_codes(said)

    def test_questions_that_are_answered_at_once(self) -> None:
        codes = self.say(TRANSACTION + b"Hi!\r\n.\r\nQUIT\r\n")
        self.assertEqual(codes, [250, 250, 250, 354, 250, 221])
        self.assertEqual(
            self.shell.asked, ["sender", "recipient", "intake", "write", "finish", "close"]
        )
        self.assertEqual(self.shell.content, b"Hi!\r\n")

    def test_a_long_group_is_answered_in_parts(self) -> None:
        self.assertEqual(len(self.say(b"NOOP\r\n" * 250)), 50)
        self.assertEqual(len(self.shell.said), 200)

    def test_nothing_goes_on_before_the_client_reads(self) -> None:
        self.shell.is_heard = False
        self.assertEqual(self.say(b"NOOP\r\n" * 150 + b"HELP\r\n"), [])
        self.assertEqual(len(self.shell.said), 100)
        self.assertEqual(self.run_on(), [250] * 50 + [214])

    def test_nothing_goes_on_before_a_later_answer(self) -> None:
        self.shell.later = {"sender", "recipient", "finish"}
        self.assertEqual(self.say(TRANSACTION + b".\r\nNOOP\r\n"), [250])
        for reply, codes in (
            (TABLE["sender-ok"], [250]),
            (TABLE["recipient-ok"], [250, 354]),
            (TABLE["spool-full"], [452, 250]),
        ):
            self.assertEqual(self.run_on(), [])
            self.machine.answer(reply)
            self.assertEqual(self.run_on(), codes)
        self.assertEqual(self.shell.asked, ["sender", "recipient", "intake", "finish"])

    def test_a_later_refusal_is_a_refusal(self) -> None:
        self.shell.later = {"recipient"}
        self.say(TRANSACTION)
        self.machine.answer(TABLE["no-such-user"])
        self.assertEqual(self.run_on(), [550, 554])

    def test_an_intake_that_can_take_no_more_is_given_no_more(self) -> None:
        self.shell.later = {"write"}
        self.assertEqual(self.say(TRANSACTION + b"Hi!\r\n"), [250, 250, 250, 354])
        self.assertEqual(self.say(b"more\r\n.\r\n"), [])
        # Its CRLF may yet be that of the end.
        self.assertEqual(self.shell.content, b"Hi!")
        self.shell.later.clear()
        self.machine.written()
        self.assertEqual(self.run_on(), [250])
        self.assertEqual(self.shell.content, b"Hi!\r\nmore\r\n")

    def test_an_answer_without_a_question_is_a_broken_promise(self) -> None:
        with self.assertRaises(RuntimeError):
            self.machine.answer(TABLE["ok"])

    def test_rset_drops_the_intake_once(self) -> None:
        self.say(TRANSACTION[:-6] + b"BDAT 2\r\nHiRSET\r\nRSET\r\n")
        self.assertEqual(self.shell.asked, ["sender", "recipient", "intake", "write", "abort"])

    def test_tls_is_the_shells(self) -> None:
        self.assertEqual(self.say(b"EHLO c.example\r\nSTARTTLS\r\n"), [250, 220])
        self.assertEqual(self.shell.asked, ["tls"])
        self.machine.encrypted(TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        self.assertEqual(self.say(b"MAIL FROM:<>\r\nEHLO c.example\r\n"), [503, 250])


class BareEndsTests(SynchronousTestCase):
    def test_every_short_text(self) -> None:
        for size in range(7):
            for letters in itertools.product(b"\r\nx\xff", repeat=size):
                octets = bytes(letters)
                rest = octets.replace(b"\r\n", b"")
                self.assertEqual(has_bare_ends(octets), b"\r" in rest or b"\n" in rest, octets)
