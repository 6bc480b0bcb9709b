"""The logins of one client, by themselves: what each line is answered, and how often it may fail."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.ports import LoggedIn, PasswordProof, Peer, Proof
from protege_mta.model.reply import TABLE, Reply
from protege_mta.wire.login import Login, mechanisms
from protege_mta.wire.settings import ServerSettings

from .test_wire_server import FakeShell

PLUS = "SCRAM-SHA-256-PLUS"
PASSWORD = b"AHVzZXIAcGVuY2ls"  # user, pencil


class Judge(FakeShell):
    """:ivar verdict: what a proof comes to; None for later.
    :ivar bindings: types of channel binding there are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.verdict: LoggedIn | Reply | None = TABLE["logged-in"]
        self.bindings: set[str] = set()
        self.proofs: list[Proof] = []

    def channel_binding(self, kind: str) -> bytes | None:
        return b"x" if kind in self.bindings else None

    def ask_login(self, proof: Proof) -> LoggedIn | Reply | None:  # type: ignore[override]
        self.proofs.append(proof)
        return self.verdict


class LoginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shell = Judge()
        self.peer = Peer("192.0.2.1", 1025, "mx", "s1")
        settings = ServerSettings("mx.test", mechanisms=("PLAIN", "LOGIN"), failed_logins=2)
        self.login = Login(self.shell, settings, self.peer)

    def begin(self, mechanism: str, initial: bytes | None) -> bytes | Reply | None:
        return self.login.begin(mechanism, initial, ("PLAIN", "LOGIN"))

    def test_a_right_proof_makes_the_client_known(self) -> None:
        self.assertEqual(self.begin("PLAIN", PASSWORD), TABLE["logged-in"])
        self.assertEqual(self.shell.proofs, [PasswordProof("user", "pencil")])
        self.assertEqual(self.peer.identity, "user")

    def test_a_key_makes_its_owner_known(self) -> None:
        self.shell.verdict = LoggedIn("ann")
        self.assertEqual(self.begin("PLAIN", PASSWORD), TABLE["logged-in"])
        self.assertEqual(self.peer.identity, "ann")

    def test_challenges_come_as_they_are_written(self) -> None:
        self.assertEqual(self.begin("LOGIN", None), b"334 VXNlcm5hbWU6\r\n")
        self.assertEqual(self.login.respond(b"dXNlcg=="), b"334 UGFzc3dvcmQ6\r\n")
        self.assertEqual(self.login.respond(b"cGVuY2ls"), TABLE["logged-in"])

    def test_nobody_is_known_before_a_late_judgement(self) -> None:
        self.shell.verdict = None
        self.assertIsNone(self.begin("PLAIN", PASSWORD))
        self.assertEqual(self.peer.identity, "")
        self.assertEqual(self.login.judged(TABLE["logged-in"]), TABLE["logged-in"])
        self.assertEqual(self.peer.identity, "user")

    def test_exchanges_that_fail_are_counted_for_whatever_reason(self) -> None:
        self.shell.verdict = TABLE["login-failed"]
        self.assertEqual(self.begin("PLAIN", PASSWORD), TABLE["login-failed"])
        self.assertFalse(self.login.is_spent)
        self.begin("PLAIN", None)
        self.assertEqual(self.login.respond(b"*"), TABLE["login-cancelled"])
        self.assertTrue(self.login.is_spent)
        self.assertEqual(self.peer.identity, "")

    def test_what_belongs_to_no_exchange_is_a_broken_promise(self) -> None:
        self.assertRaises(RuntimeError, self.login.respond, b"dXNlcg==")
        self.begin("PLAIN", PASSWORD)
        self.assertRaises(RuntimeError, self.login.judged, TABLE["logged-in"])


class MechanismTests(SynchronousTestCase):
    def offered(self, *, is_submission: bool, is_encrypted: bool, bindings: set[str]) -> list[str]:
        shell = Judge()
        shell.bindings = bindings
        settings = ServerSettings(
            "mx.test", mechanisms=(PLUS, "PLAIN"), is_submission=is_submission
        )
        return list(mechanisms(settings, shell, is_encrypted=is_encrypted))

    def test_submission_offers_none_in_clear(self) -> None:
        bound = {"tls-exporter"}
        self.assertEqual(self.offered(is_submission=True, is_encrypted=False, bindings=bound), [])
        self.assertEqual(
            self.offered(is_submission=True, is_encrypted=True, bindings=bound), [PLUS, "PLAIN"]
        )

    def test_plus_is_offered_where_the_channel_has_a_unique_binding(self) -> None:
        for bindings, offered in (
            (set[str](), ["PLAIN"]),
            ({"tls-server-end-point"}, ["PLAIN"]),
            ({"tls-unique"}, [PLUS, "PLAIN"]),
        ):
            self.assertEqual(
                self.offered(is_submission=False, is_encrypted=True, bindings=bindings), offered
            )
