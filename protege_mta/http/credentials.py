"""Who asks over HTTP, by the header of a request alone (RFC 9110, 11; RFC 6750; RFC 7617).

Whoever has no right key is told so before the body of the request has come: :meth:`Credentials.gate`
is asked as soon as the header is whole.  No secret goes into a log, an event or an answer.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

import attrs
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest

from ..model.caller import Caller, Flaw, Scope
from ..model.networks import Network
from ..model.outcome import TlsFacts
from ..model.ports import About, Callers, Events, Peer, StateFailed
from ..model.reply import TABLE
from .forwarded import is_in

PROTECTED: Final = (b"/v1/", b"/api/")
"""What begins so is for callers, but for what is said to be open."""

BY_NETWORK: Final = (b"/api/inject/",)
"""What begins so may be asked for without credentials from a listener's ``trusted_networks``."""

LISTENER: Final = "http"
"""What stands for the listener's name where a client is a :class:`~..model.ports.Peer`."""

_NO_KEY: Final = Flaw(
    401,
    "unauthorized",
    "this needs an API key, or a submission account",
    hint='send "Authorization: Bearer" with a key; "protege-mta apikey create NAME" makes one',
)
_WRONG_KEY: Final = Flaw(
    401,
    "unauthorized",
    "the API key is not known, or not valid any more",
    hint='"protege-mta apikey list" shows the keys and when they end',
)
_WRONG_PASSWORD: Final = Flaw(401, "unauthorized", "name or password is wrong")
_UNREADABLE: Final = Flaw(
    401,
    "unauthorized",
    "the Authorization field cannot be read",
    hint='it is "Bearer" and an API key, or "Basic" as in RFC 7617; and there is but one',
)
_UNAVAILABLE: Final = Flaw(
    503, "unavailable", "credentials cannot be checked just now", retry_after_s=5
)


class Tries(Protocol):
    """Remembers who came with wrong keys."""

    def wait_s(self, address: str) -> float: ...

    def failed(self, address: str) -> None: ...


class Client(Protocol):
    """What a request of :mod:`.listener` knows of its client.

    :ivar tls: how its channel is protected; None for HTTP in the clear.
    """

    client_address: str
    tls: TlsFacts | None
    trusted_networks: Sequence[Network]
    requestHeaders: Headers


@attrs.frozen
class _Password:
    name: str
    password: str = attrs.field(repr=False)


class Credentials:
    """Finds out who asks, and whether they may.

    :param tries: those with a wrong key, who are told to wait.
    :param new_session_id: names a request in events and in the log.
    :param empty_hands: those without any key, who need not wait, but make no events meanwhile.
    """

    def __init__(
        self,
        callers: Callers,
        tries: Tries,
        events: Events,
        *,
        new_session_id: Callable[[], str],
        empty_hands: Tries,
    ) -> None:
        self._callers = callers
        self._tries = tries
        self._empty_hands = empty_hands
        self._events = events
        self._new_session_id = new_session_id

    async def __call__(self, request: IRequest, scope: Scope, *others: Scope) -> Caller | Flaw:
        """As :data:`~.endpoint.Authenticate`; any of several scopes will do."""
        client = cast(Client, request)
        found = self._found(client, cast(bytes, request.path))
        if isinstance(found, _Password):
            found = await self._logged_in(client, found)
        if isinstance(found, Flaw) or {scope, *others, "admin"} & found.scopes:
            return found
        return self._told(client, _scope_flaw(scope), "scope-missing", found)

    def gate(self, path: bytes, client: object) -> Flaw | None:
        """Why a request need not be read any further than its header.

        :param path: as it was written, with or without a query.
        :param client: the request, of which the header is there.
        """
        if not path.startswith(PROTECTED):
            return None
        found = self._found(cast(Client, client), path)
        return found if isinstance(found, Flaw) else None

    # --- kinds of credentials --------------------------------------------------------------------

    def _found(self, client: Client, path: bytes) -> Caller | _Password | Flaw:
        fields = client.requestHeaders.getRawHeaders(b"authorization") or []
        if not fields:
            is_near = is_in(client.client_address, client.trusted_networks)
            if is_near and path.startswith(BY_NETWORK):
                return Caller(identity="", scopes=frozenset({"send"}))
            return self._failed(client, _NO_KEY)
        if len(fields) > 1:
            return self._failed(client, _UNREADABLE)
        scheme, _, rest = fields[0].strip().partition(b" ")
        match scheme.lower():
            case b"bearer":
                return self._holder(client, rest.strip())
            case b"basic":
                return _password(rest.strip()) or self._failed(client, _UNREADABLE)
        return self._failed(client, _UNREADABLE)

    def _holder(self, client: Client, secret: bytes) -> Caller | Flaw:
        try:
            caller = self._callers.bearer(secret.decode("latin-1"))
        except StateFailed:
            return _UNAVAILABLE
        return self._failed(client, _WRONG_KEY) if caller is None else caller

    async def _logged_in(self, client: Client, given: _Password) -> Caller | Flaw:
        """Its waits, locks and events are those of AUTH."""
        found = await self._callers.basic(given.name, given.password, self._peer(client, ""))
        if isinstance(found, Caller):
            return found
        if found == TABLE["login-locked"]:
            return Flaw(429, "too-many-tries", "too many failed attempts", retry_after_s=60)
        return _WRONG_PASSWORD if found.code >= 500 else _UNAVAILABLE

    # --- refusals --------------------------------------------------------------------------------

    def _failed(self, client: Client, flaw: Flaw) -> Flaw:
        """Whoever has to wait is not told of again: a broken client would fill the journal."""
        tries = self._empty_hands if flaw is _NO_KEY else self._tries
        wait_s = tries.wait_s(client.client_address)
        if wait_s and flaw is _NO_KEY:  # nothing was guessed at
            return flaw
        if wait_s:
            return Flaw(
                429,
                "too-many-tries",
                "too many requests without a right key",
                hint="with a right key there is nothing to wait for",
                retry_after_s=math.ceil(wait_s),
            )
        tries.failed(client.client_address)
        return self._told(client, flaw, "key-required" if flaw is _NO_KEY else "key-refused", None)

    def _told(self, client: Client, flaw: Flaw, reply: str, caller: Caller | None) -> Flaw:
        identity, tenant = (caller.identity, caller.tenant) if caller is not None else ("", "")
        peer = self._peer(client, identity)
        self._events.rejected(peer, None, "", TABLE[reply], About(tenant=tenant))
        return flaw

    def _peer(self, client: Client, identity: str) -> Peer:
        return peer_of(client, self._new_session_id(), identity)


def peer_of(client: Client, session_id: str, identity: str) -> Peer:
    """A client as the house knows peers.

    :param identity: empty where nobody has said who it is.
    """
    return Peer(
        *(client.client_address, 0, LISTENER, session_id),
        tls=client.tls,
        identity=identity,
        source="http",
    )


def _scope_flaw(scope: Scope) -> Flaw:
    return Flaw(
        403,
        "scope-missing",
        f"this needs the scope {scope}, which these credentials do not have",
        hint='"protege-mta apikey set NAME --scope" gives a key others',
    )


def _password(text: bytes) -> _Password | None:
    """None for what is no such credentials (RFC 7617, 2)."""
    try:
        name, colon, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        return None
    return _Password(name, password) if colon else None
