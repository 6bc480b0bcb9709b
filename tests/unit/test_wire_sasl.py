"""SASL mechanisms as a server: what they ask, what they make of answers, what they never take."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import ScramVerifier
from protege_mta.model.ports import PasswordProof, Proof, ResponseProof, ScramProof
from protege_mta.model.reply import TABLE, Reply
from protege_mta.testing.doors import scram_verifier
from protege_mta.wire.sasl import MECHANISMS, Exchange, Terms, challenge_line

from .test_wire_server import FakeShell

FAILED: Final = TABLE["login-failed"]
MALFORMED: Final = TABLE["login-malformed"]

# RFC 7677, 3.
NONCE: Final = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_NONCE: Final = b"rOprNGfwEbeRWgbNEkqO"
SALT: Final = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SERVER_FIRST: Final = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL: Final = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL: Final = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
VERIFIER: Final = scram_verifier("pencil")


class House(FakeShell):
    """:ivar bindings: of the channel, by type."""

    def __init__(self) -> None:
        super().__init__()
        self.nonces = NONCE
        self.verifier: ScramVerifier | None = VERIFIER
        self.bindings: dict[str, bytes] = {}
        self.names: list[str] = []

    def nonce(self) -> str:
        return self.nonces

    def scram(self, name: str) -> ScramVerifier | None:
        self.names.append(name)
        return self.verifier

    def channel_binding(self, kind: str) -> bytes | None:
        return self.bindings.get(kind)


def through(exchange: Exchange, lines: list[bytes]) -> tuple[list[bytes], Proof | Reply]:
    """All challenges, and the end, at a door that lets everybody in who is not known to be wrong:
    the proof of who was let in, else the refusal.

    :param lines: the client's; those that are said are taken away.
    """
    challenges: list[bytes] = []
    proof: Proof | None = None
    step = exchange.begin()
    while True:
        if isinstance(step, bytes):
            challenges.append(step)
            step = exchange.respond(lines.pop(0))
        elif isinstance(step, Reply):
            return challenges, proof if proof and step == TABLE["logged-in"] else step
        else:
            proof = step
            last = None if step == ScramProof(step.name, False) else exchange.accepted()
            if last is None:
                return challenges, proof
            step = last


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.terms = Terms("postoffice.reston.mci.net", self.house)

    def talk(
        self, mechanism: str, *responses: bytes, initial: bool = True
    ) -> tuple[list[bytes], Proof | Reply]:
        """All challenges, and the end."""
        lines = list(map(base64.b64encode, responses))
        exchange = Exchange(mechanism, (lines.pop(0) or b"=") if initial else None, self.terms)
        found = through(exchange, lines)
        self.assertEqual(lines, [], "the client had more to say")
        return found

    def end(self, mechanism: str, *responses: bytes, initial: bool = True) -> Proof | Reply:
        return self.talk(mechanism, *responses, initial=initial)[1]


class PlainTests(Case):
    def test_the_examples_of_the_rfc(self) -> None:
        """RFC 4616, 4; in the second one somebody acts for somebody else, which nobody may."""
        self.assertEqual(
            self.end("PLAIN", b"\0tim\0tanstaaftanstaaf"), PasswordProof("tim", "tanstaaftanstaaf")
        )
        self.assertEqual(self.end("PLAIN", b"Ursel\0Kurt\0xipj3plmq"), FAILED)

    def test_without_an_initial_response_the_challenge_is_empty(self) -> None:
        said = self.talk("PLAIN", b"\0tim\0x", initial=False)
        self.assertEqual(said, ([b""], PasswordProof("tim", "x")))

    def test_one_may_act_for_oneself(self) -> None:
        self.assertEqual(self.end("PLAIN", b"TIM\0tim\0x"), PasswordProof("tim", "x"))

    def test_a_name_is_in_lower_case_and_no_name_stays_what_it_is(self) -> None:
        for said, name in (
            (b"Tim@Example.ORG", "tim@example.org"),
            (b"Two Words", "Two Words"),
            (b"", ""),
            ("Jörg".encode(), "Jörg"),
        ):
            self.assertEqual(self.end("PLAIN", b"\0%b\0x" % said), PasswordProof(name, "x"))

    def test_a_password_is_handed_on_as_it_came(self) -> None:
        """Who checks it prepares it, once, and gives what cannot be one the time of any other."""
        for password in ("", "a\tb", "I\u00adX\u2163", "a\u0085"):
            wanted = PasswordProof("tim", password)
            self.assertEqual(self.end("PLAIN", b"\0tim\0" + password.encode()), wanted)
            self.assertEqual(self.end("LOGIN", b"tim", password.encode()), wanted)

    def test_another_form_is_malformed(self) -> None:
        for octets in (
            b"",
            b"tim",
            b"\0tim",
            b"\0tim\0x\0",
            b"\0\0\0\0",
            b"\0tim\0\xff",
            b"\0\xc3\0x",
        ):
            self.assertEqual(self.end("PLAIN", octets), MALFORMED, octets)


class LoginTests(Case):
    def test_both_ways_to_begin(self) -> None:
        proof = PasswordProof("tim", "x")
        self.assertEqual(
            self.talk("LOGIN", b"tim", b"x", initial=False), ([b"Username:", b"Password:"], proof)
        )
        self.assertEqual(self.talk("LOGIN", b"tim", b"x"), ([b"Password:"], proof))

    def test_no_utf8_is_malformed(self) -> None:
        self.assertEqual(self.end("LOGIN", b"\xff", b"x"), MALFORMED)
        self.assertEqual(self.end("LOGIN", b"tim", b"\xff"), MALFORMED)


class CramTests(Case):
    def test_the_example_of_the_rfc(self) -> None:
        """RFC 2195, 2."""
        self.house.nonces = "1896.697170952"
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        digest = "b913a602c7eda7a495b4e6e7334d3890"
        self.assertEqual(
            self.talk("CRAM-MD5", b"tim " + digest.encode(), initial=False),
            ([challenge], ResponseProof("tim", challenge, digest)),
        )
        self.assertEqual(hmac.new(b"tanstaaftanstaaf", challenge, "md5").hexdigest(), digest)

    def test_the_server_speaks_first(self) -> None:
        self.assertEqual(self.end("CRAM-MD5", b"tim"), TABLE["server-speaks-first"])
        self.assertEqual(self.end("CRAM-MD5", b""), TABLE["server-speaks-first"])

    def test_a_name_may_hold_a_space(self) -> None:
        proof = self.end("CRAM-MD5", b"a b " + b"0" * 32, initial=False)
        assert isinstance(proof, ResponseProof)
        self.assertEqual(proof.name, "a b")

    def test_another_form_is_malformed(self) -> None:
        for octets in (b"", b"tim", b"tim " + b"0" * 31, b"tim " + b"g" * 32, b" " + b"0" * 32):
            self.assertEqual(self.end("CRAM-MD5", octets, initial=False), MALFORMED, octets)
        octets = b"\xff " + b"0" * 32
        self.assertEqual(self.end("CRAM-MD5", octets, initial=False), MALFORMED)


class ScramCase(Case):
    """A client of our own, so that every part can be bent."""

    mechanism = "SCRAM-SHA-256"

    def setUp(self) -> None:
        super().setUp()
        self.header = b"n,,"
        self.data = b""
        self.name = b"user"

    def scram(self, password: str = "pencil", **bent: bytes) -> tuple[list[bytes], Proof | Reply]:
        """Talk as a client that knows ``password``; ``bent`` replaces parts of its messages."""
        bare = bent.get("bare", b"n=%b,r=%b" % (self.name, CLIENT_NONCE))
        nonce = bent.get("nonce", CLIENT_NONCE + NONCE.encode())
        channel = base64.b64encode(bent.get("channel", self.header + self.data))
        unproved = b"c=%b,r=%b" % (channel, nonce) + bent.get("extension", b"")
        said = b",".join((bare, SERVER_FIRST, unproved))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, 4096)
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        final = unproved + b",p=" + bent.get("proof", base64.b64encode(proof))
        exchange = Exchange(self.mechanism, base64.b64encode(self.header + bare), self.terms)
        return through(exchange, [base64.b64encode(final), base64.b64encode(bent.get("last", b""))])


class ScramTests(ScramCase):
    def test_the_example_of_the_rfc(self) -> None:
        """RFC 7677, 3; what SASL says with success goes before it in SMTP."""
        said = self.talk("SCRAM-SHA-256", b"n,,n=user,r=" + CLIENT_NONCE, CLIENT_FINAL, b"")
        self.assertEqual(said, ([SERVER_FIRST, SERVER_FINAL], ScramProof("user", True)))

    def test_without_an_initial_response_the_challenge_is_empty(self) -> None:
        first = b"n,,n=user,r=" + CLIENT_NONCE
        challenges, end = self.talk("SCRAM-SHA-256", first, CLIENT_FINAL, b"", initial=False)
        self.assertEqual(challenges[0], b"")
        self.assertEqual(end, ScramProof("user", True))

    def test_a_client_that_knows_the_password(self) -> None:
        self.assertEqual(self.scram(), ([SERVER_FIRST, SERVER_FINAL], ScramProof("user", True)))

    def test_a_wrong_password_gets_no_signature_of_ours(self) -> None:
        self.assertEqual(self.scram("pencils"), ([SERVER_FIRST], ScramProof("user", False)))

    def test_another_exchange_or_channel_is_a_failed_proof(self) -> None:
        wrong: tuple[dict[str, bytes], ...] = (
            {"nonce": CLIENT_NONCE},
            {"nonce": CLIENT_NONCE + NONCE.encode() + b"x"},
            {"channel": b"y,,"},
            {"channel": b"n,,x"},
            {"proof": base64.b64encode(bytes(32))},
            {"proof": base64.b64encode(bytes(31))},
            {"proof": base64.b64encode(bytes(33))},
        )
        for bent in wrong:
            self.assertEqual(
                self.scram("pencil", **bent), ([SERVER_FIRST], ScramProof("user", False)), bent
            )

    def test_who_does_not_hear_our_signature_out_is_not_let_in(self) -> None:
        self.assertEqual(self.scram(last=b"x"), ([SERVER_FIRST, SERVER_FINAL], MALFORMED))

    def test_optional_extensions_are_signed_and_passed_over(self) -> None:
        _, end = self.scram(bare=b"n=user,r=%b,x=y=z" % CLIENT_NONCE, extension=b",z=1,Z=2")
        self.assertEqual(end, ScramProof("user", True))

    def test_names(self) -> None:
        """Comma and equals sign are written ``=2C`` and ``=3D`` (RFC 5802, 5.1)."""
        for said, name in (
            (b"User@Example.org", "user@example.org"),
            (b"a=2Cb=3D2C", "a,b=2C"),
            ("Jörg".encode(), "Jörg"),
        ):
            self.name = said
            self.assertEqual(self.scram()[1], ScramProof(name, True))
            self.assertEqual(self.house.names[-1], name)

    def test_nobody_acts_for_somebody_else(self) -> None:
        self.header = b"n,a=User,"
        self.assertEqual(self.scram()[1], ScramProof("user", True))
        self.header = b"n,a=other,"
        self.assertEqual(self.scram(), ([], FAILED))

    def test_the_downgrade_is_seen(self) -> None:
        """``y``: the client could bind the channel, and thinks that we cannot (RFC 5802, 6)."""
        self.header = b"y,,"
        self.assertEqual(self.scram()[1], ScramProof("user", True))
        self.terms = attrs.evolve(self.terms, is_plus_offered=True)
        self.assertEqual(self.scram(), ([], FAILED))
        self.header = b"n,,"
        self.assertEqual(self.scram()[1], ScramProof("user", True))

    def test_no_binding_without_plus(self) -> None:
        self.house.bindings["tls-unique"] = b"secret"
        self.header, self.data = b"p=tls-unique,,", b"secret"
        self.assertEqual(self.scram(), ([], FAILED))

    def test_another_form_is_malformed(self) -> None:
        for first in (
            b"",
            b"n,,",
            b"n,,n=user",
            b"n,,n=,r=x",
            b"n,,n=user,r=",
            b"n,,n=user,r=a b",
            b"n,,m=x,n=user,r=x",
            b"n,,n=us=er,r=x",
            b"n,,n=us\0er,r=x",
            b"n,,n=\xff,r=x",
            b"n,,n=user,r=x,",
            b"n,,n=user,r=x,y",
            b"n,n=user,r=x",
            b"n,x,n=user,r=x",
            b"n,a=,n=user,r=x",
            b"n,a=\xff,n=user,r=x",
            b"p=,,n=user,r=x",
            b"p=a b,,n=user,r=x",
            b"q,,n=user,r=x",
            b"n,,n=user,r=x\n",
        ):
            self.assertEqual(self.end("SCRAM-SHA-256", first), MALFORMED, first)
        for final in (
            b"",
            CLIENT_FINAL[:-1],
            CLIENT_FINAL + b",x=y",
            CLIENT_FINAL.replace(b"c=", b"b="),
            CLIENT_FINAL.replace(b"biws", b"biw"),
            CLIENT_FINAL.replace(b"biws", b""),
            CLIENT_FINAL.split(b",p=")[0],
        ):
            end = self.end("SCRAM-SHA-256", b"n,,n=user,r=" + CLIENT_NONCE, final)
            self.assertEqual(end, MALFORMED, final)
        self.assertEqual(self.house.names, ["user"] * 7)

    def test_what_cannot_be_told_now_is_our_fault(self) -> None:
        self.house.verifier = None
        self.assertEqual(self.scram(), ([], TABLE["login-later"]))


class ScramPlusTests(ScramCase):
    """Bound to a channel (RFC 5929; RFC 9266)."""

    mechanism = "SCRAM-SHA-256-PLUS"

    def setUp(self) -> None:
        super().setUp()
        self.terms = attrs.evolve(self.terms, is_plus_offered=True)
        self.house.bindings = {"tls-exporter": b"\0" * 32, "tls-server-end-point": b"cert"}
        self.header, self.data = b"p=tls-exporter,,", b"\0" * 32

    def test_a_client_on_this_channel(self) -> None:
        for kind, data in self.house.bindings.items():
            self.header, self.data = b"p=%b,," % kind.encode(), data
            challenges, end = self.scram()
            self.assertEqual((len(challenges), end), (2, ScramProof("user", True)))

    def test_another_channel_is_a_failed_proof(self) -> None:
        """Somebody between has two channels, with data of their own."""
        self.data = b"\1" * 32
        self.assertEqual(self.scram(), ([SERVER_FIRST], ScramProof("user", False)))

    def test_who_asks_for_it_has_to_bind(self) -> None:
        for self.header in (b"n,,", b"y,,"):
            self.data = b""
            self.assertEqual(self.scram(), ([], FAILED))

    def test_nothing_but_what_the_channel_has(self) -> None:
        for self.header in (b"p=tls-unique,,", b"p=tls-foo,,"):
            self.assertEqual(self.scram(), ([], FAILED))
        self.assertEqual(self.house.names, [])


class ExchangeTests(Case):
    def test_base64_is_what_encoding_gives(self) -> None:
        """RFC 4648, 4, to the letter, in the command and in lines of their own."""
        good = base64.b64encode(b"\0tim\0xy")
        self.assertEqual(good, b"AHRpbQB4eQ==")
        for line in (
            b"AHRpbQB4eQ",
            b"AHRpbQB4eQ=",
            b"AHRpbQB4eQ===",
            b"AHRpbQB4eR==",
            b"AHRpbQ B4eQ==",
            b" AHRpbQB4eQ==",
            b"AHRpbQB4eQ== ",
            b"AHRpbQB4eQ==\r",
            b"AHRpbQB4eQ==AHRpbQB4eQ==",
            b"AHRpbQB4_-==",
            b"=",
            b"**",
            b"\xff\xff\xff\xff",
        ):
            exchange = Exchange("PLAIN", None, self.terms)
            self.assertEqual(exchange.begin(), b"")
            self.assertEqual(exchange.respond(line), MALFORMED, line)
            if line != b"=":
                self.assertEqual(Exchange("PLAIN", line, self.terms).begin(), MALFORMED, line)

    def test_a_challenge_on_the_wire(self) -> None:
        self.assertEqual(challenge_line(b"Username:"), b"334 VXNlcm5hbWU6\r\n")
        self.assertEqual(challenge_line(b""), b"334 \r\n")

    def test_no_mechanism_shows_a_secret(self) -> None:
        """What is printed, in a log of ours or in a traceback, says nothing worth knowing."""
        proofs: tuple[Proof, ...] = (
            PasswordProof("tim", "tanstaaf"),
            ResponseProof("tim", b"<1@x>", "tanstaaf"),
        )
        for proof in proofs:
            self.assertNotIn("tanstaaf", repr(proof))
        for key in (VERIFIER.stored_key, VERIFIER.server_key):
            self.assertNotIn(repr(key), repr(VERIFIER))
        for name in MECHANISMS:
            exchange = Exchange(name, None, self.terms)
            exchange.begin()
            self.assertNotIn("tanstaaf", repr(exchange))
            self.assertFalse(hasattr(exchange, "__dict__"))
