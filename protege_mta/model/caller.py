"""Who asks for something over HTTP, and what they may do."""

from __future__ import annotations

from typing import Literal

import attrs

from .account import AccountLimits

Scope = Literal["send", "read", "admin"]
"""``send`` messages and look at one's own; ``read`` everything of the tenant; ``admin`` everything."""

SCOPES: tuple[Scope, ...] = ("send", "read", "admin")

Approval = Literal["none", "first_time", "all"]
"""Which messages wait for a person: none; those to somebody the key has never written to; all."""


@attrs.frozen(kw_only=True)
class AgentPolicy:
    """What a program may do with a key that a person might not want it to.

    :ivar may_bcc: whether recipients may be hidden from the others.
    :ivar first_time_per_day: so many recipients a day that it has never written to; 0 = any.
    """

    approval: Approval = "none"
    may_bcc: bool = True
    first_time_per_day: int = 0


@attrs.frozen(kw_only=True)
class Caller:
    """An API key, or a submission account that came with its password.

    :ivar identity: as events and limits name it, ``key:NAME`` or the account's name.
    :ivar allowed_from: as :attr:`~.account.Account.allowed_from`, and likewise the other two lists.
    :ivar is_sandbox: nothing that it sends leaves; magic recipients say what becomes of it.
    :ivar waits: whether ``/api/send`` holds its answer until the first attempt has ended.
    """

    identity: str
    scopes: frozenset[Scope]
    allowed_from: tuple[str, ...] = ()
    allowed_to: tuple[str, ...] = ()
    denied_to: tuple[str, ...] = ()
    tenant: str = ""
    limits: AccountLimits = attrs.field(factory=AccountLimits)
    policy: AgentPolicy = attrs.field(factory=AgentPolicy)
    is_sandbox: bool = False
    waits: bool = True


@attrs.frozen
class Flaw:
    """Why a request is refused, for people and programs (RFC 9457).

    :ivar kind: the last part of the problem's ``type``, such as ``recipient-not-allowed``.
    :ivar detail: constant text, never octets of the request.
    :ivar member: where in the request, as a JSON pointer (RFC 6901); empty for all of it.
    :ivar hint: what to do about it.
    :ivar retry_after_s: when the same may be asked again (RFC 9110, 10.2.3); 0 where waiting does
        not help, or nobody knows.
    :ivar recipient: whom it is about, for events; empty for the whole message.  Clients have
        ``member``.
    """

    status: int
    kind: str
    detail: str
    member: str = ""
    hint: str = ""
    retry_after_s: int = 0
    recipient: str = ""
