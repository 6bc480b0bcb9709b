"""What is kept of a password, and how one is checked against it.

**argon2id** with 19 MiB, two passes, one lane: the setting that OWASP's Password Storage Cheat
Sheet names first.  RFC 9106, 4, would rather have 64 MiB, three passes and four lanes, for machines
that do little else; here any stranger can have a hash computed, two are at work at a time, and what
one costs is what a flood of guesses costs: four times the memory and the processor would be spent
for them in the main.  How many guesses there are at all is :mod:`.guessing`'s to limit.

**SCRAM-SHA-256** keeps PBKDF2 of 50,000 rounds.  RFC 7677, 4, asks for 4,096 at least, and for a
tenth of a second where the client can bear it; clients with Cyrus SASL take 65,536 at most.  Against
who has stolen the file it is the weaker of the two, which the protocol does not let us mend.

Passwords come here as :func:`~..model.account.prepared_password` gives them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

import attrs
from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

from ..model.account import Account, ScramVerifier

ITERATIONS: Final = 50_000
SALT_OCTETS: Final = 16

_HASHER: Final = PasswordHasher(
    time_cost=2, memory_cost=19_456, parallelism=1, hash_len=32, type=Type.ID
)

NOBODYS_HASH: Final = f"$argon2id$v=19$m=19456,t=2,p=1${'A' * 22}${'A' * 43}"
"""No password is known to give this; to check one against it takes as long as against any other."""

RandomOctets = Callable[[int], bytes]


def hashed(password: str, random_octets: RandomOctets) -> str:
    """An argon2id hash in the PHC string format.  Takes some 30 ms of a processor."""
    return _HASHER.hash(password, salt=random_octets(SALT_OCTETS))


def matches(password_hash: str, password: str) -> bool:
    """Takes as long as :func:`hashed`, and lets go of the interpreter.

    :raise argon2.exceptions.InvalidHashError, VerificationError: the hash is none.
    """
    try:
        return _HASHER.verify(password_hash, password)
    except VerifyMismatchError:
        return False


def scram_verifier(
    password: str, random_octets: RandomOctets, iterations: int = ITERATIONS
) -> ScramVerifier:
    """What SCRAM-SHA-256 checks a client by (RFC 5802, 3)."""
    salt = random_octets(SALT_OCTETS)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramVerifier(
        salt,
        iterations,
        stored_key=hashlib.sha256(client_key).digest(),
        server_key=hmac.digest(salted, b"Server Key", "sha256"),
    )


def made_up_verifier(key: bytes, name: str) -> ScramVerifier:
    """A verifier for a name that has none, the same each time; no password leads to it.

    :param key: secret, for else anybody could tell it from a real one.
    """

    def octets(what: str) -> bytes:
        text = f"{what}:{name}".encode("utf-8", "replace")
        return hmac.digest(key, text, "sha256")

    return ScramVerifier(
        octets("salt")[:SALT_OCTETS], ITERATIONS, octets("stored key"), octets("server key")
    )


def with_password(account: Account, password: str, random_octets: RandomOctets) -> Account:
    """The account with another password; with a ``cram_secret`` where it had one."""
    return attrs.evolve(
        account,
        password_hash=hashed(password, random_octets),
        scram=scram_verifier(password, random_octets),
        cram_secret=None if account.cram_secret is None else password,
    )


def is_outdated(account: Account) -> bool:
    """Whether its hashes were made with other parameters than those above."""
    scram = account.scram
    return _HASHER.check_needs_rehash(account.password_hash) or (
        scram is not None and scram.iterations != ITERATIONS
    )


def renewed(account: Account, password: str, random_octets: RandomOctets) -> Account:
    """The account with fresh hashes of the password that it has."""
    fresh = with_password(account, password, random_octets)
    return fresh if account.scram is not None else attrs.evolve(fresh, scram=None)
