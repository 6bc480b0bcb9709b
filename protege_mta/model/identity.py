"""Agents' identities: Ed25519 keys in the text that is also the local-part of an address.

The text is base 32 (RFC 4648, 6) of the 32 octets of the public key (RFC 8032), lower case, without
padding: 52 characters.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, NewType

import attrs

Identity = NewType("Identity", str)
"""A key's text, in its one canonical spelling."""

_SHAPE: Final = re.compile(r"[a-z2-7]{51}[aq]\Z")  # the last character has but one bit of the key

_P: Final = 2**255 - 19  # Ed25519's field (RFC 8032, 5.1)
_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SIGN: Final = 2**255


def identity_of(public_key: bytes) -> Identity:
    """:param public_key: 32 octets."""
    if len(public_key) != 32:
        raise ValueError(f"an Ed25519 public key has 32 octets, not {len(public_key)}")
    return Identity(base64.b32encode(public_key).decode("ascii").rstrip("=").lower())


_NOBODYS: Final = frozenset(
    identity_of((sign | y).to_bytes(32, "little"))
    for sign in (0, _SIGN)
    for y in (0, 1, _P - 1, _ORDER_8, _P - _ORDER_8, *range(_P, _SIGN))
)
"""Keys of a small order, for which anybody can sign, and keys whose number is written with more than
it needs, a second name for others: OpenSSL takes both."""


def parse_identity(text: str) -> Identity | None:
    """Accept a key in either case, with white space around it.

    Of the 16 spellings that other decoders take for one key, only the one that :func:`identity_of`
    makes: else one key would be many agents.  Of keys only those that one agent alone can hold.
    """
    lower = text.strip().lower()
    return Identity(lower) if _SHAPE.match(lower) and lower not in _NOBODYS else None


def public_key_of(identity: Identity) -> bytes:
    """The 32 octets of the key."""
    return base64.b32decode(identity.upper() + "====")


def persona_id(identity: Identity) -> str:
    """What a Protege project calls the folder of the agent's persona: 16 hexadecimal digits."""
    return hashlib.sha256(identity.encode("ascii")).hexdigest()[:16]


@attrs.frozen
class Agent:
    """One of a relay server's agents, as its operator has listed it.

    :ivar aliases: further mailboxes of it, in lower case: local-parts, which stand for that mailbox
        at every tunnel domain of ours, and whole addresses, their domains as A-labels.
    :ivar send_per_hour: messages that it may send in an hour, 0 for any number; None for what
        holds for all.
    :ivar is_revoked: it may not log in, whoever else may.
    """

    identity: Identity
    aliases: tuple[str, ...] = ()
    send_per_hour: int | None = None
    tenant: str = ""
    is_revoked: bool = False
