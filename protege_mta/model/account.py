"""Submission accounts: who may send, as whom, how much (RFC 6409; RFC 5802 for SCRAM)."""

from __future__ import annotations

import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections.abc import Callable
from typing import Final

import attrs
from attrs import validators

NAME_CHARACTERS: Final = 128

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}\Z")

_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def account_name(text: str) -> str | None:
    """A name as it is kept and compared, in lower case; None for what cannot be one.

    Letters, digits and ``._@+-`` only: an address is a good name, and no two names look alike.
    """
    name = text.lower()
    return name if _NAME.match(name) else None


def password_text(text: str) -> str | None:
    """A password as it is compared, so that each way to type it is the same password.

    By SASLprep (RFC 4013), which SCRAM clients go by (RFC 5802, 2.2), and not by its successor
    (RFC 8265), which tells compatibility characters apart.  Those unknown to it are let through.

    :return: None for what cannot be a password: nothing, control characters, halves of characters,
        a mixture of writing directions that SASLprep refuses.
    """
    if text.isascii():
        return text if text and text.isprintable() else None
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    # The edition of Unicode that the RFC names, and that the tables are of.
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    is_prohibited = any(table(each) for each in prepared for table in _PROHIBITED)
    return None if not prepared or is_prohibited or _is_mixed(prepared) else prepared


def _is_mixed(text: str) -> bool:
    """Whether writing directions are mixed as RFC 3454, 6, does not allow."""
    if not any(map(stringprep.in_table_d1, text)):
        return False
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not ends or any(map(stringprep.in_table_d2, text))


@attrs.frozen
class ScramVerifier:
    """What a server keeps for SCRAM-SHA-256; the password cannot be had from it (RFC 5802, 3).

    :ivar iterations: of PBKDF2.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)


def scram_verifier(password: str, salt: bytes, iterations: int) -> ScramVerifier:
    """What to keep of a password for SCRAM-SHA-256 (RFC 5802, 3; RFC 7677).

    Takes a thread's time by design: a millisecond or two for 4096 iterations.

    :param password: as :func:`password_text` gives it.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramVerifier(
        salt,
        iterations,
        hashlib.sha256(client_key).digest(),
        hmac.digest(salted, b"Server Key", "sha256"),
    )


@attrs.frozen(kw_only=True)
class AccountLimits:
    """How much an account may send; 0 means no limit of its own.

    :ivar recipients: of one message.
    """

    recipients: int = attrs.field(default=0, validator=validators.ge(0))
    messages_per_hour: int = attrs.field(default=0, validator=validators.ge(0))
    messages_per_day: int = attrs.field(default=0, validator=validators.ge(0))
    recipients_per_hour: int = attrs.field(default=0, validator=validators.ge(0))
    recipients_per_day: int = attrs.field(default=0, validator=validators.ge(0))


@attrs.frozen(kw_only=True)
class Account:
    """One submission account.

    :ivar name: as :func:`account_name` gives it.
    :ivar password_hash: argon2id, in the PHC string format.
    :ivar scram: None where the account was made without.
    :ivar cram_secret: the password itself, which CRAM-MD5 cannot do without (RFC 2195); None, as it
        is unless asked for, where CRAM-MD5 is not for this account.
    :ivar allowed_from: lower-case addresses, and domains written ``example.org``, ``.example.org``
        for its subdomains too; empty for no restriction.  They hold for the reverse-path and for
        every address of From and Sender.
    :ivar allowed_to: likewise for recipients; empty for all.
    :ivar denied_to: recipients refused whatever ``allowed_to`` says.
    :ivar revision: grows with every change.
    """

    name: str
    password_hash: str = attrs.field(repr=False)
    scram: ScramVerifier | None = attrs.field(default=None, repr=False)
    cram_secret: str | None = attrs.field(default=None, repr=False)
    allowed_from: tuple[str, ...] = ()
    allowed_to: tuple[str, ...] = ()
    denied_to: tuple[str, ...] = ()
    tenant: str = ""
    limits: AccountLimits = attrs.field(factory=AccountLimits)
    created_at: float = 0.0
    revision: int = 0
