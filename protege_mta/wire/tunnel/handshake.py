"""How an agent proves its key to a relay: both sides, for one connection each.

Challenges are kept by the connection that asked for them, and only it can answer them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ...model.identity import Identity, parse_identity, public_key_of
from ...model.value import value
from .bodies import lenient_base64
from .messages import (
    RELIABLE_VERSION,
    AuthError,
    AuthOk,
    Challenge,
    ChallengeRequest,
    ChallengeResponse,
    Role,
    Terms,
    format_message,
    parse,
)

CHALLENGES: Final = 4
"""A connection that asks for more forgets the oldest."""

TEXT_CHARACTERS: Final = 1024
"""An agent signs no longer challenge."""

REFUSED: Final = 4401
"""The close code of every refusal but ``rate_limited``."""

TOO_OFTEN: Final = 4408
"""The close code of ``rate_limited``, and of an agent that waits no longer."""


@value
class Say:
    """Send a text message, and wait for the next."""

    text: bytes


@value
class Refuse:
    """Send the text, and close.  :ivar code: the reason of the close, too."""

    code: str
    close: int = REFUSED

    @property
    def text(self) -> bytes:
        return format_message(AuthError(self.code))


@value
class Proven:
    """The agent holds its key; whether it may come is for others to say.

    :ivar terms: what the agent takes; None where the session is not to be reliable.
    """

    identity: Identity
    role: Role
    terms: Terms | None


@value
class Admitted:
    """The relay let us in.  :ivar ok: what it said."""

    ok: AuthOk


@value
class Failed:
    """The relay did not.  :ivar code: its; it will close."""

    code: str


@attrs.define
class _Open:
    """A challenge that was given.

    :ivar ends: when it expires, in seconds of the clock that nobody sets.
    :ivar role: of the request.
    """

    identity: Identity
    text: str
    ends: float
    role: Role | None
    is_used: bool = False


class RelayHandshake:
    """The relay's side.

    :param now: POSIX seconds, which are told and nothing goes by.
    :param new_id: gives a fresh UUID, version 4.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        challenge_s: float,
        now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._terms = terms
        self._challenge_s = challenge_s
        self._now = now
        self._new_id = new_id
        self._open: dict[str, _Open] = {}

    def received(self, octets: bytes, seconds: float) -> Say | Refuse | Proven:
        """Act on a message.  :param seconds: of a clock that nobody sets."""
        match parse(octets):
            case ChallengeRequest(public_key, role):
                return self._challenge(public_key, role, seconds)
            case ChallengeResponse() as response:
                return self._check(response, seconds)
            case _:
                return Refuse("invalid_message")

    def admit(self, proven: Proven, replaced: str | None) -> bytes:
        """The text that begins the session.

        :param replaced: the id of the session that had to go for it.
        """
        return format_message(
            AuthOk(
                proven.identity,
                proven.role,
                replaced,
                (RELIABLE_VERSION,),
                self._terms if proven.terms else None,
                self._terms,
            )
        )

    def _challenge(self, public_key: str, role: Role | None, seconds: float) -> Say | Refuse:
        identity = parse_identity(public_key)
        if identity is None:
            return Refuse("invalid_public_key")
        challenge_id = self._new_id()
        text = f"relay-auth:{challenge_id}:{self._new_id()}"
        while len(self._open) >= CHALLENGES:
            del self._open[next(iter(self._open))]
        self._open[challenge_id] = _Open(identity, text, seconds + self._challenge_s, role)
        expires_at = self._now() + self._challenge_s
        return Say(
            format_message(Challenge(identity, challenge_id, text, expires_at, (RELIABLE_VERSION,)))
        )

    def _check(self, response: ChallengeResponse, seconds: float) -> Refuse | Proven:
        challenge = self._open.get(response.challenge_id)
        if challenge is None:
            return Refuse("challenge_not_found")
        if parse_identity(response.public_key) != challenge.identity:
            return Refuse("challenge_mismatch")
        if challenge.is_used:
            return Refuse("challenge_already_used")
        challenge.is_used = True
        if challenge.ends <= seconds:
            return Refuse("challenge_expired")
        signature = lenient_base64(response.signature)
        if not signature:
            return Refuse("invalid_signature_encoding")
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key_of(challenge.identity))
            key.verify(signature, challenge.text.encode("utf-8"))
        except (InvalidSignature, ValueError):  # the latter for what is no point of the curve
            return Refuse("invalid_signature")
        role = response.role or challenge.role or "inbound"
        return Proven(challenge.identity, role, response.reliable)


class AgentHandshake:
    """The agent's side.

    :param sign: Ed25519 with the agent's key.
    """

    def __init__(
        self, identity: Identity, sign: Callable[[bytes], bytes], terms: Terms, role: Role
    ) -> None:
        self._identity = identity
        self._sign = sign
        self._terms = terms
        self._role = role
        self._is_answered = False

    def begin(self) -> bytes:
        """The text to send once the connection is open."""
        return format_message(ChallengeRequest(self._identity, self._role))

    def received(self, octets: bytes) -> Say | Admitted | Failed | None:
        """Act on a message; None where there is nothing to do."""
        match parse(octets):
            case Challenge() as challenge if not self._is_answered:
                return self._answer(challenge)
            case AuthOk() as ok if self._is_answered:
                if ok.public_key != self._identity:
                    return Failed("another key was let in")
                return Admitted(ok)
            case AuthError(code):
                return Failed(code)
            case _:
                return None

    def _answer(self, challenge: Challenge) -> Say | Failed:
        if not 0 < len(challenge.text) <= TEXT_CHARACTERS:
            return Failed("no challenge that is fit to be signed")
        self._is_answered = True
        signature = self._sign(challenge.text.encode("utf-8"))
        is_reliable = RELIABLE_VERSION in challenge.versions
        return Say(
            format_message(
                ChallengeResponse(
                    self._identity,
                    challenge.challenge_id,
                    base64.b64encode(signature).decode("ascii"),
                    self._role,
                    self._terms if is_reliable else None,
                )
            )
        )
