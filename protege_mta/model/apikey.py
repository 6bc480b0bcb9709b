"""API keys: how a secret looks, and what is kept of a key.

A secret is ``pmta_``, 52 characters for 256 random bits, and 7 for their checksum (base32 in lower
case): the prefix lets scanners for leaked secrets find it, the checksum tells a mistyped one from a
wrong one.  With so much chance in it a plain SHA-256 is all that has to be kept, and all that is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final
from zlib import crc32

import attrs

from .account import AccountLimits
from .caller import AgentPolicy, Caller, Scope

PREFIX: Final = "pmta_"
SECRET_OCTETS: Final = 32
IDENTITY_PREFIX: Final = "key:"
"""What stands before a key's name wherever accounts' names stand too; none of those has a colon."""

_CHECKSUM_CHARACTERS: Final = 7
_SHAPE: Final = re.compile(r"pmta_[a-z2-7]{59}\Z")


def secret_text(octets: bytes) -> str:
    """A secret as its holder has it.

    :param octets: :data:`SECRET_OCTETS` of them, from a secure source.
    """
    text = PREFIX + _base32(octets)
    return text + _checksum(text)


def fingerprint(secret: str) -> bytes | None:
    """What is kept of a secret; None for what is none, be it but for one character."""
    if not _SHAPE.match(secret):
        return None
    text, checksum = secret[:-_CHECKSUM_CHARACTERS], secret[-_CHECKSUM_CHARACTERS:]
    if not hmac.compare_digest(checksum, _checksum(text)):
        return None
    return hashlib.sha256(secret.encode("ascii")).digest()


def _base32(octets: bytes) -> str:
    return base64.b32encode(octets).decode("ascii").rstrip("=").lower()


def _checksum(text: str) -> str:
    return _base32(crc32(text.encode("ascii")).to_bytes(4, "big"))


@attrs.frozen(kw_only=True)
class KeySecret:
    """One of the secrets that a key may have at a time.

    :ivar digest: as :func:`fingerprint` gives it.
    :ivar expires_at: POSIX seconds; None for never.
    """

    digest: bytes = attrs.field(repr=False)
    created_at: float
    expires_at: float | None = None

    @property
    def id(self) -> str:
        """What tells it from others where people look; nothing can be had from it."""
        return hashlib.sha256(b"id" + self.digest).hexdigest()[:12]


@attrs.frozen(kw_only=True)
class ApiKey:
    """One API key.  What is not told here is as :class:`~.caller.Caller` has it.

    :ivar name: as :func:`~.account.account_name` gives it.
    :ivar secrets: the newest last.
    :ivar expires_at: POSIX seconds; None for never.
    """

    name: str
    secrets: tuple[KeySecret, ...]
    scopes: frozenset[Scope] = frozenset({"send"})
    allowed_from: tuple[str, ...] = ()
    allowed_to: tuple[str, ...] = ()
    denied_to: tuple[str, ...] = ()
    tenant: str = ""
    limits: AccountLimits = attrs.field(factory=AccountLimits)
    policy: AgentPolicy = attrs.field(factory=AgentPolicy)
    is_sandbox: bool = False
    waits: bool = True
    created_at: float = 0.0
    expires_at: float | None = None

    @property
    def identity(self) -> str:
        """What its mail, its limits and its events are known by."""
        return IDENTITY_PREFIX + self.name

    def caller(self) -> Caller:
        """Who comes with one of its secrets."""
        return Caller(
            identity=self.identity,
            scopes=self.scopes,
            allowed_from=self.allowed_from,
            allowed_to=self.allowed_to,
            denied_to=self.denied_to,
            tenant=self.tenant,
            limits=self.limits,
            policy=self.policy,
            is_sandbox=self.is_sandbox,
            waits=self.waits,
        )

    def is_valid(self, secret: KeySecret, now: float) -> bool:
        """Whether one of its secrets opens anything at that time, POSIX seconds."""
        ends = (self.expires_at, secret.expires_at)
        return all(end is None or now < end for end in ends)

    def rotated(self, fresh: KeySecret, *, overlap_s: float) -> ApiKey:
        """With a further secret.  The ones before it end so much later, or when they would have."""
        until = fresh.created_at + overlap_s
        kept = [
            attrs.evolve(
                one, expires_at=until if one.expires_at is None else min(one.expires_at, until)
            )
            for one in self.secrets
            if overlap_s > 0 and (one.expires_at is None or one.expires_at > fresh.created_at)
        ]
        return attrs.evolve(self, secrets=(*kept, fresh))
