"""What is kept of passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import argon2
import attrs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import Account
from protege_mta.policy.password import (
    ITERATIONS,
    NOBODYS_HASH,
    hashed,
    is_outdated,
    made_up_verifier,
    matches,
    renewed,
    scram_verifier,
    with_password,
)


def octets(count: int) -> bytes:
    return bytes(range(count))


OLD: Final = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class HashTests(SynchronousTestCase):
    def test_argon2id(self) -> None:
        """The parameters are in the hash, and the salt is what chance gave."""
        made = hashed("correct horse", octets)
        self.assertEqual(
            made.split("$")[:5],
            ["", "argon2id", "v=19", "m=19456,t=2,p=1", "AAECAwQFBgcICQoLDA0ODw"],
        )
        self.assertTrue(matches(made, "correct horse"))
        self.assertFalse(matches(made, "correct house"))

    def test_nobody(self) -> None:
        """The stand-in for accounts that are not there costs what a real one costs."""
        parameters = argon2.extract_parameters(NOBODYS_HASH)
        self.assertEqual(parameters, argon2.extract_parameters(hashed("x", octets)))
        self.assertFalse(matches(NOBODYS_HASH, "x"))

    def test_broken_hash(self) -> None:
        """Is not a wrong password."""
        self.assertRaises(argon2.exceptions.InvalidHashError, matches, "nonsense", "x")

    def test_outdated(self) -> None:
        account = with_password(Account(name="a", password_hash=""), "secret", octets)
        self.assertFalse(is_outdated(account))
        assert account.scram is not None
        for old in (
            attrs.evolve(account, password_hash=OLD.hash("secret")),
            attrs.evolve(account, scram=attrs.evolve(account.scram, iterations=4096)),
        ):
            self.assertTrue(is_outdated(old))
            fresh = renewed(old, "secret", octets)
            self.assertFalse(is_outdated(fresh))
            self.assertEqual(fresh, account)

    def test_renewed_account_logs_in_by_what_it_did(self) -> None:
        """What an account was made without is not added."""
        account = Account(name="a", password_hash=OLD.hash("secret"))
        fresh = renewed(account, "secret", octets)
        self.assertEqual((fresh.scram, fresh.cram_secret), (None, None))
        with_cram = attrs.evolve(account, cram_secret="old secret")
        self.assertEqual(with_password(with_cram, "secret", octets).cram_secret, "secret")

    def test_secrets_are_not_shown(self) -> None:
        account = with_password(
            Account(name="a", password_hash="", cram_secret=""), "correct horse", octets
        )
        for text in ("horse", "argon2", "stored"):
            self.assertNotIn(text, repr(account))


class ScramTests(SynchronousTestCase):
    def test_rfc_7677_example(self) -> None:
        """The exchange of RFC 7677, 3."""
        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        verifier = scram_verifier("pencil", lambda count: salt, 4096)
        nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        message = (
            f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
            f"c=biws,r={nonce}"
        ).encode()
        signature = hmac.digest(verifier.stored_key, message, "sha256")
        proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        self.assertEqual(hashlib.sha256(client_key).digest(), verifier.stored_key)
        self.assertEqual(
            base64.b64encode(hmac.digest(verifier.server_key, message, "sha256")),
            b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        )

    def test_made_up(self) -> None:
        """The same each time, another for each name and key, and like a real one in every way."""
        made = made_up_verifier(b"k" * 32, "nobody")
        self.assertEqual(made, made_up_verifier(b"k" * 32, "nobody"))
        self.assertNotEqual(made.salt, made_up_verifier(b"k" * 32, "nobodi").salt)
        self.assertNotEqual(made.salt, made_up_verifier(b"l" * 32, "nobody").salt)
        real = scram_verifier("pencil", octets)
        self.assertEqual((len(made.salt), made.iterations), (len(real.salt), ITERATIONS))
        self.assertEqual(real.iterations, ITERATIONS)
        self.assertEqual(len(made.stored_key), 32)
        made_up_verifier(b"k", "\ud800")  # a name that nobody can have
