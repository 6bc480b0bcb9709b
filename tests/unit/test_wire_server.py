"""The server's machine by itself: octets in, replies out, and what it asks of its shell."""

from __future__ import annotations

import itertools
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import ScramVerifier
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Notify, Recipient
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
    :ivar envelope: of the last message.
    """

    machine: ServerMachine
    envelope: Envelope

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

    def now(self) -> float:
        return 1_700_000_042.5

    def open_intake(self, envelope: Envelope) -> Reply | None:
        self.asked.append("intake")
        self.envelope = envelope
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


class TermsTests(SynchronousTestCase):
    """A future release (RFC 4865) and REQUIRETLS (RFC 8689): offered, granted, refused."""

    NOW = 1_700_000_042.5  # 2023-11-14T22:14:02.5Z

    def begin(self, *, is_encrypted: bool = True, has_tls: bool = True, **settings: Any) -> bytes:
        """Another client, and what it hears in reply to EHLO."""
        self.shell = FakeShell()
        self.machine = self.shell.machine = ServerMachine(
            self.shell,
            ServerSettings("mx.test", **settings),
            Peer("192.0.2.1", 1025, "mx", "s1"),
            Tally(),
            has_tls=has_tls,
        )
        if is_encrypted:
            self.machine.encrypted(TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        return self.hear(b"EHLO c.example\r\n")

    def hear(self, octets: bytes) -> bytes:
        self.machine.feed(octets)
        self.machine.run()
        said = b"".join(self.machine.out)
        self.machine.out.clear()
        return said

    def mail(self, parameters: str) -> bytes:
        return self.hear(f"MAIL FROM:<a@b.example> {parameters}\r\n".encode())

    def envelope(self) -> Envelope:
        """That of the message whose MAIL was taken last."""
        self.hear(b"RCPT TO:<c@d.example>\r\nDATA\r\n")
        return self.shell.envelope

    def test_what_is_offered_to_whom(self) -> None:
        submission: dict[str, Any] = {"is_submission": True, "future_release_s": 86_400}
        offer = b"FUTURERELEASE 86400 2023-11-15T22:14:00Z\r\n"
        for is_encrypted in (False, True):
            for settings in (submission, {}, {**submission, "is_submission": False}):
                said = self.begin(is_encrypted=is_encrypted, **settings)
                self.assertEqual(offer in said, settings is submission)
                self.assertEqual(b"REQUIRETLS\r\n" in said, is_encrypted)
        self.assertNotIn(b"FUTURE", self.begin(is_submission=True, future_release_s=0))

    def test_an_offer_is_kept_to(self) -> None:
        """What EHLO says is the latest time is not too late."""
        said = self.begin(is_submission=True, future_release_s=999_999_999)
        latest = re.search(rb"FUTURERELEASE 999999999 (\S+)", said)
        assert latest is not None
        self.assertEqual(self.mail(f"HOLDUNTIL={latest[1].decode()}")[:3], b"250")

    def test_a_release_within_bounds(self) -> None:
        for parameter, wait_s in (
            ("HOLDFOR=1", 1.0),
            ("HOLDFOR=86400", 86_400.0),
            ("HOLDUNTIL=2023-11-14T22:14:03Z", 0.5),
            ("HOLDUNTIL=2023-11-16T00:14:02.5+02:00", 86_400.0),
        ):
            self.begin(is_submission=True, future_release_s=86_400)
            self.assertEqual(self.mail(parameter)[:3], b"250", parameter)
            envelope = self.envelope()
            self.assertEqual(envelope.hold_until, self.NOW + wait_s)
            self.assertTrue(envelope.future_release.endswith(parameter.partition("=")[2]))

    def test_a_release_out_of_bounds(self) -> None:
        self.begin(is_submission=True, future_release_s=86_400)
        for parameter, name in (
            ("HOLDFOR=86401", "release-too-late"),
            ("HOLDUNTIL=2023-11-15T22:14:03Z", "release-too-late"),
            ("HOLDUNTIL=9999-12-31T23:59:59Z", "release-too-late"),
            ("HOLDUNTIL=2023-11-14T22:14:02.5Z", "release-passed"),
            ("HOLDUNTIL=0001-01-01T00:00:00Z", "release-passed"),
        ):
            self.assertEqual(self.mail(parameter), TABLE[name].octets(), parameter)
        self.assertEqual(self.shell.asked, [])

    def test_a_release_where_there_is_none(self) -> None:
        nowhere: tuple[dict[str, Any], ...] = (
            {},
            {"is_submission": True},
            {"future_release_s": 60},
        )
        for settings in nowhere:
            self.begin(**settings)
            self.assertEqual(self.mail("HOLDFOR=1"), TABLE["unknown-parameter"].octets())

    def test_requiretls(self) -> None:
        """Of a listener that could be spoken to in TLS, another one, and in TLS."""
        self.begin(is_encrypted=False)
        self.assertEqual(self.mail("REQUIRETLS"), TABLE["requiretls-in-clear"].octets())
        self.begin(is_encrypted=False, has_tls=False)
        self.assertEqual(self.mail("REQUIRETLS"), TABLE["unknown-parameter"].octets())
        self.begin()
        self.assertEqual(self.mail("REQUIRETLS SIZE=5")[:3], b"250")
        self.assertTrue(self.envelope().requires_tls)

    def test_terms_are_one_messages(self) -> None:
        self.begin(is_submission=True, future_release_s=86_400)
        self.mail("REQUIRETLS HOLDFOR=1")
        self.envelope()
        self.hear(b".\r\nMAIL FROM:<a@b.example>\r\n")
        self.assertEqual(
            self.envelope(),
            Envelope(Address("a@b.example"), (Recipient(Address("c@d.example")),)),
        )

    def test_dsn_and_smtputf8_hold_for_submission_too(self) -> None:
        said = self.begin(is_submission=True)
        self.assertTrue({b"250-DSN", b"250-SMTPUTF8"} < set(said.split(b"\r\n")))
        mail = "MAIL FROM:<jörg@b.example> SMTPUTF8 RET=HDRS ENVID=x\r\n"
        self.hear(mail.encode())
        self.hear(b"RCPT TO:<c@d.example> NOTIFY=SUCCESS ORCPT=rfc822;e@d.example\r\nDATA\r\n")
        self.assertEqual(
            self.shell.envelope,
            Envelope(
                Address("jörg@b.example"),
                (Recipient(Address("c@d.example"), Notify.SUCCESS, "rfc822;e@d.example"),),
                is_smtputf8=True,
                ret="HDRS",
                envid="x",
            ),
        )


class BareEndsTests(SynchronousTestCase):
    def test_every_short_text(self) -> None:
        for size in range(7):
            for letters in itertools.product(b"\r\nx\xff", repeat=size):
                octets = bytes(letters)
                rest = octets.replace(b"\r\n", b"")
                self.assertEqual(has_bare_ends(octets), b"\r" in rest or b"\n" in rest, octets)
