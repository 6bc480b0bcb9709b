"""Who sends, over HTTP or by submission: the holder of an API key, or of a submission account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed

from ..model.account import Account, account_name
from ..model.apikey import IDENTITY_PREFIX, ApiKey, fingerprint
from ..model.caller import Caller, Scope
from ..model.ports import Accounts, LoggedIn, PasswordProof, Peer, Proof, StateFailed
from ..model.reply import TABLE, Reply
from .clients import network_of
from .guessing import Recent

KEY_USER: Final = "apikey"
"""What a program may say for a user name that has to be filled in, with a key for its password."""

_NOBODYS: Final = b"\0" * 32
_ACCOUNT_SCOPES: Final[frozenset[Scope]] = frozenset({"send"})


class Keys(Protocol):
    """The API keys, as they are now."""

    def find(self, digest: bytes) -> ApiKey | None:
        """The valid key that has a secret of that fingerprint.  :raise StateFailed:"""

    def get(self, name: str) -> ApiKey | None:
        """The valid key of that name.  :raise StateFailed:"""

    def used(self, name: str) -> None:
        """A key opened something just now."""


class Logins(Protocol):
    """Checks passwords as AUTH does, and tells of what it refuses."""

    def login(self, peer: Peer, proof: Proof) -> LoggedIn | Reply | Deferred[Reply]: ...


def key_holder(keys: Keys, proof: PasswordProof) -> str | None:
    """The identity of the key that a password is a secret of, where the name is :data:`KEY_USER` or
    the key's own, with or without what stands before it; None for any other.

    :raise StateFailed:
    """
    digest = fingerprint(proof.password)
    key = None if digest is None else keys.find(digest)
    if key is None or proof.name.lower() not in (KEY_USER, key.name, key.identity):
        return None
    keys.used(key.name)
    return key.identity


class KnownCallers:
    """:class:`~..model.ports.Callers` over keys and accounts."""

    def __init__(self, keys: Keys, accounts: Accounts, logins: Logins) -> None:
        self._keys = keys
        self._accounts = accounts
        self._logins = logins

    def bearer(self, secret: str) -> Caller | None:
        """As :meth:`~..model.ports.Callers.bearer`."""
        key = self._keys.find(fingerprint(secret) or _NOBODYS)
        if key is None:
            return None
        self._keys.used(key.name)
        return key.caller()

    def basic(self, name: str, password: str, peer: Peer) -> Deferred[Caller | Reply]:
        """As :meth:`~..model.ports.Callers.basic`."""
        name = account_name(name) or name
        answer = self._logins.login(peer, PasswordProof(name, password))
        if isinstance(answer, LoggedIn):
            name, answer = answer.identity, TABLE["logged-in"]
        answered = succeed(answer) if isinstance(answer, Reply) else answer
        return answered.addCallback(self._logged_in, name)

    def _logged_in(self, reply: Reply, name: str) -> Caller | Reply:
        if reply.code >= 300:
            return reply
        try:
            found = self.of(name)
        except StateFailed:
            return TABLE["login-later"]
        return found or TABLE["login-failed"]  # it was there a moment ago

    def of(self, identity: str) -> Caller | None:
        """Whoever has logged in as that, as they are now; None where they are gone.

        :raise StateFailed:
        """
        if identity.startswith(IDENTITY_PREFIX):
            key = self._keys.get(identity.removeprefix(IDENTITY_PREFIX))
            return None if key is None else key.caller()
        account = self._accounts.get(identity)
        return None if account is None else caller_of(account)


def caller_of(account: Account) -> Caller:
    """Who comes with an account's password."""
    return Caller(
        identity=account.name,
        scopes=_ACCOUNT_SCOPES,
        allowed_from=account.allowed_from,
        allowed_to=account.allowed_to,
        denied_to=account.denied_to,
        tenant=account.tenant,
        limits=account.limits,
    )


FREE: Final = 10
LONGEST_S: Final = 300.0
QUIET_S: Final = 600.0


@attrs.define
class _Tries:
    count: int
    last_at: float
    until: float


class Tries:
    """Wrong keys by where they come from: after :data:`FREE` of them a client is told to wait, each
    time twice as long, up to :data:`LONGEST_S`.

    That keeps logs and journal small, and the secrets safe they are anyhow: a right key is let in
    at any time, so that nobody keeps others out who come from the same address.

    :param now: seconds that never jump.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tries: Recent[str, _Tries] = Recent()

    def __len__(self) -> int:
        return len(self._tries)

    def wait_s(self, address: str) -> float:
        """How long whoever tries from there is to wait; 0 for not at all."""
        tries = self._tries.get(network_of(address))
        return 0.0 if tries is None else max(0.0, tries.until - self._now())

    def failed(self, address: str) -> None:
        """One more wrong key, which did not have to wait."""
        now, network = self._now(), network_of(address)
        tries = self._tries.get(network)
        if tries is None or now - max(tries.last_at, tries.until) > QUIET_S:
            tries = _Tries(0, now, now)
        tries.count += 1
        tries.last_at = now
        if tries.count >= FREE:
            tries.until = now + min(2.0 ** min(tries.count - FREE, 32), LONGEST_S)
        self._tries.put(network, tries)
