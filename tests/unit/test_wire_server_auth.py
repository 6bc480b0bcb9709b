"""AUTH in the server's machine: where it is offered, how it ends, and how often it may fail."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import ScramVerifier
from protege_mta.model.outcome import TlsFacts
from protege_mta.model.ports import Peer, Proof, ScramProof
from protege_mta.model.reply import TABLE, Reply
from protege_mta.model.tally import Tally
from protege_mta.testing.doors import scram_verifier
from protege_mta.testing.smtp_dialog import reply_codes
from protege_mta.wire.server import ServerMachine
from protege_mta.wire.settings import ServerSettings

from .test_wire_server import FakeShell

EHLO = b"EHLO c.example\r\n"
PLAIN = b"AUTH PLAIN AHVzZXIAcGVuY2ls\r\n"  # user, pencil
PLUS_FIRST = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")


class House(FakeShell):
    """:ivar verdict: what a proof comes to.
    :ivar bindings: types of channel binding there are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.verdict = TABLE["logged-in"]
        self.bindings: set[str] = set()
        self.proofs: list[Proof] = []

    def nonce(self) -> str:
        return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

    def scram(self, name: str) -> ScramVerifier | None:
        return scram_verifier("pencil")

    def channel_binding(self, kind: str) -> bytes | None:
        return b"x" if kind in self.bindings else None

    def ask_login(self, proof: Proof) -> Reply | None:
        self.proofs.append(proof)
        return self._ask("login", self.verdict)


class Case(SynchronousTestCase):
    is_submission = False

    def setUp(self) -> None:
        self.shell = House()
        self.peer = Peer("192.0.2.1", 1025, "mx", "s1")
        settings = ServerSettings(
            "mx.test", mechanisms=PLUS_FIRST, is_submission=self.is_submission, bad_commands=50
        )
        self.tally = Tally()
        self.machine = ServerMachine(self.shell, settings, self.peer, self.tally, has_tls=True)
        self.shell.machine = self.machine

    def hear(self, octets: bytes) -> bytes:
        self.machine.feed(octets)
        self.machine.run()
        said = b"".join(self.machine.out)
        self.machine.out.clear()
        return said

    def say(self, octets: bytes) -> list[int]:
        return reply_codes(self.hear(octets))

    def encrypt(self) -> None:
        self.say(EHLO + b"STARTTLS\r\n")
        self.machine.encrypted(TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384"))


class OfferTests(Case):
    def test_in_the_order_of_the_settings(self) -> None:
        self.shell.bindings = {"tls-unique"}
        self.assertIn(
            b"\r\n250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n", self.hear(EHLO)
        )

    def test_plus_is_offered_and_taken_where_the_channel_can_be_bound(self) -> None:
        for bindings in (set(), {"tls-server-end-point"}):
            self.shell.bindings = bindings
            self.assertIn(b"\r\n250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n", self.hear(EHLO))
            self.assertEqual(self.say(b"AUTH SCRAM-SHA-256-PLUS\r\n"), [504])
        self.shell.bindings = {"tls-exporter"}
        self.assertEqual(self.say(b"AUTH SCRAM-SHA-256-PLUS\r\n*\r\n"), [334, 501])

    def test_a_downgrade_between_us_is_seen(self) -> None:
        """The client could bind the channel (``y``), and did not hear that we can."""
        first = b"AUTH SCRAM-SHA-256 eSwsbj11c2VyLHI9eA==\r\n"  # y,,n=user,r=x
        self.assertEqual(self.say(EHLO + first + b"*\r\n"), [250, 334, 501])
        self.shell.bindings = {"tls-exporter"}
        self.assertEqual(self.say(first), [535])

    def test_nonsense_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            ServerSettings("mx.test", mechanisms=("PLAIN", "GSSAPI"))


class SubmissionTests(Case):
    is_submission = True

    def test_nothing_in_clear(self) -> None:
        self.assertNotIn(b"AUTH", self.hear(EHLO))
        self.assertEqual(
            self.say(PLAIN + b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n"), [538, 530, 250, 530]
        )
        self.assertEqual(self.shell.asked, [])

    def test_who_is_not_to_log_in_in_clear_is_not_to_say_helo_either(self) -> None:
        self.assertEqual(self.say(b"HELO c.example\r\nMAIL FROM:<>\r\n"), [250, 530])

    def test_everything_under_tls(self) -> None:
        self.encrypt()
        self.assertEqual(self.say(PLAIN + b"MAIL FROM:<>\r\n"), [503, 503])
        self.assertIn(b"AUTH", self.hear(EHLO))
        self.assertEqual(self.say(PLAIN + b"MAIL FROM:<>\r\n"), [235, 250])
        self.assertEqual(self.peer.identity, "user")

    def test_without_a_login_under_tls_the_door_decides(self) -> None:
        self.encrypt()
        self.assertEqual(self.say(EHLO + b"MAIL FROM:<>\r\n"), [250, 250])

    def test_shutting_down_a_client_in_clear(self) -> None:
        self.say(EHLO)
        self.machine.shut_down()
        self.assertEqual(self.say(b""), [421])


class LoginTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.say(EHLO)

    def test_who_it_is_is_known_until_tls_begins_anew(self) -> None:
        self.assertEqual(
            self.say(PLAIN + EHLO + b"RSET\r\nHELO c.example\r\n"), [235, 250, 250, 250]
        )
        self.assertEqual(self.peer.identity, "user")
        self.encrypt()
        self.assertEqual(self.peer.identity, "")

    def test_any_refusal_leaves_nobody(self) -> None:
        for self.shell.verdict in (
            TABLE["login-failed"],
            TABLE["weak-mechanism"],
            TABLE["login-later"],
        ):
            self.assertEqual(self.hear(PLAIN), self.shell.verdict.octets())
            self.assertEqual(self.peer.identity, "")

    def test_a_right_proof_learns_nothing_at_a_locked_door(self) -> None:
        """SCRAM's server signature, which would tell that the guess was right, stays inside."""
        first = b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n"
        final = (
            b"Yz1iaXdzLHI9ck9wck5HZndFYmVSV2diTkVrcU8laHZZRHBXVWEyUmFUQ0FmdXhGSWxqKWhObEYkazAs"
            b"cD1kSHpiWmFwV0lrNGpVaE4rVXRlOXl0YWc5empmTUhnc3FtbWl6N0FuZFZRPQ==\r\n"
        )
        self.say(EHLO)
        self.shell.verdict = TABLE["login-locked"]
        self.assertEqual(self.say(first), [334])
        self.assertEqual(self.say(final), [454])
        self.shell.verdict = TABLE["logged-in"]
        self.assertEqual(self.say(first), [334])
        self.assertEqual(self.say(final), [334])
        self.assertEqual(self.peer.identity, "")  # not before the client has seen our signature
        self.assertEqual(self.say(b"\r\n"), [235])
        self.assertEqual(self.peer.identity, "user")
        self.assertEqual(self.shell.proofs, [ScramProof("user", True)] * 2)

    def test_a_later_answer_is_waited_for(self) -> None:
        self.shell.later = {"login"}
        self.assertEqual(self.say(PLAIN + b"MAIL FROM:<>\r\nNOOP\r\n"), [])
        self.assertEqual(self.peer.identity, "")
        self.machine.answer(TABLE["logged-in"])
        self.assertEqual(self.peer.identity, "user")
        self.assertEqual(self.say(b""), [235, 250, 250])
        self.assertEqual(self.shell.asked, ["login", "sender"])

    def test_three_failures_of_whatever_kind_and_no_more(self) -> None:
        self.shell.verdict = TABLE["login-failed"]
        failures = {
            PLAIN: [535],
            b"AUTH PLAIN\r\n*\r\n": [334, 501],
            b"AUTH PLAIN ***\r\n": [501],
            b"AUTH LOGIN\r\n" + b"x" * 20_000 + b"\r\n": [334, 500],
            b"AUTH LOGIN\r\n\r\n\r\n": [334, 334, 535],
            b"AUTH SCRAM-SHA-256 biws\r\n": [501],
        }
        for octets, codes in failures.items():
            self.setUp()
            self.shell.verdict = TABLE["login-failed"]
            self.assertEqual(self.say(octets * 3), codes * 3)
            self.shell.verdict = TABLE["logged-in"]
            asked = len(self.shell.proofs)
            self.assertEqual(self.hear(PLAIN + PLAIN), TABLE["too-many-errors"].octets())
            self.assertEqual((len(self.shell.proofs), self.peer.identity), (asked, ""))

    def test_neither_tls_nor_ehlo_wipes_the_slate(self) -> None:
        self.shell.verdict = TABLE["login-failed"]
        self.say(PLAIN + PLAIN + EHLO + PLAIN)
        self.encrypt()
        self.assertEqual(self.say(EHLO + PLAIN), [250, 421])

    def test_each_line_is_a_step_forward(self) -> None:
        for octets in (b"AUTH LOGIN\r\n", b"dXNlcg==\r\n", b"x\r\n"):
            before = self.machine.progress
            self.say(octets[:-2])
            self.assertEqual(self.machine.progress, before)
            self.say(octets[-2:])
            self.assertEqual(self.machine.progress, before + 1)

    def test_an_exchange_may_end_before_we_shut_down(self) -> None:
        self.say(b"AUTH LOGIN\r\n")
        self.machine.shut_down()
        self.assertEqual(self.say(b"dXNlcg==\r\n"), [334])
        self.assertEqual(self.say(b"cGVuY2ls\r\n"), [235, 421])

    def test_challenges_are_counted_as_replies(self) -> None:
        self.say(b"AUTH LOGIN\r\ndXNlcg==\r\ncGVuY2ls\r\n")
        self.assertEqual(self.tally.replies_in, [0, 0, 2, 2, 0, 0])

    def test_nothing_is_held_by_an_exchange_that_was_left_open(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        self.say(b"AUTH LOGIN\r\n")
        self.machine.end()
        gone = weakref.ref(self.shell)
        del self.shell, self.machine
        self.assertIsNone(gone())
