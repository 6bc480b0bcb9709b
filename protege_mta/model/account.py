"""Submission accounts: who may send, as whom, how much (RFC 6409; RFC 5802 for SCRAM)."""

from __future__ import annotations

import re
import stringprep
import unicodedata
from collections.abc import Callable
from typing import Final, NamedTuple

import attrs
from attrs import validators

NAME_CHARACTERS: Final = 128
PASSWORD_CHARACTERS: Final = 1024

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}\Z")


def account_name(text: str) -> str | None:
    """A name as it is kept and compared, in lower case; None for what cannot be one.

    Letters, digits and ``._@+-`` only: an address is a good name, and no two names look alike.
    """
    name = text.lower()
    return name if text.isascii() and _NAME.match(name) else None


_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_a1,  # unassigned, which a stored string may not hold
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepared_password(text: str) -> str | None:
    """A password as it is hashed and compared, however it was typed: SASLprep (RFC 4013), as
    RFC 5802, 2.2, and RFC 4616, 2, want it.

    :return: None for what cannot be a password: nothing, more than :data:`PASSWORD_CHARACTERS`,
        control characters (NUL among them), and characters that Unicode 3.2 does not know, which
        clients would not send alike.
    """
    if len(text) > PASSWORD_CHARACTERS:
        return None
    if text.isascii():
        return text if text and text.isprintable() else None
    spaced = (" " if stringprep.in_table_c12(each) else each for each in text)
    mapped = "".join(each for each in spaced if not stringprep.in_table_b1(each))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not 0 < len(prepared) <= PASSWORD_CHARACTERS:
        return None
    if any(is_prohibited(c) for c in prepared for is_prohibited in _PROHIBITED):
        return None
    if any(map(stringprep.in_table_d1, prepared)):  # written from right to left: RFC 3454, 6
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, prepared)):
            return None
    return prepared


@attrs.frozen
class ScramVerifier:
    """What a server keeps for SCRAM-SHA-256; the password cannot be had from it (RFC 5802, 3).

    :ivar iterations: of PBKDF2.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = attrs.field(repr=False)
    server_key: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class AccountLimits:
    """How much an account may send; 0 means no limit of its own.

    :ivar connections: at a time, of those that have sent something.
    :ivar recipients: of one message.
    """

    connections: int = attrs.field(default=0, validator=validators.ge(0))
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
        for those of its subdomains; empty for no restriction.  They hold for the reverse-path and for
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


class Usage(NamedTuple):
    """What an account has sent in one of its windows.

    :ivar window_start: POSIX seconds.
    """

    name: str
    window_start: int
    window_s: int
    messages: int
    recipients: int
