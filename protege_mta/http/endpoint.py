"""What an endpoint takes and answers, as a table: the source of the OpenAPI document.

Each module of endpoints has ``ENDPOINTS``, a tuple of :class:`Endpoint`, beside its ``add``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

import attrs
from twisted.web.iweb import IRequest

from ..model.caller import Caller, Flaw, Scope

Authenticate = Callable[[IRequest, Scope], Awaitable[Caller | Flaw]]
"""Who asks, where they may do what the scope says; else why they are refused (401, 403, 503).

It reads the header only, so that nobody is let to send a body for nothing.
"""


SCOPED: Final = (401, 403, 429, 503)
"""What whoever needs a key may be told: it has none or a wrong one, or one for something else, or has
tried too often; or it, or what is asked for, cannot be looked at now."""


class AnyOf(tuple[Any, ...]):
    """Types of which a body has one, where msgspec cannot tell them apart by itself."""


@attrs.frozen(kw_only=True)
class Parameter:
    """A parameter in the query or the header.

    :ivar type: what it is, as msgspec reads annotations.
    """

    name: str
    summary: str
    type: Any = str
    place: Literal["query", "header"] = "query"
    is_required: bool = False


@attrs.frozen(kw_only=True)
class Answer:
    """What an endpoint may answer with one status.

    :ivar type: of the body, likewise; None for a body that is no JSON, or none.
    :ivar media_type: of the body; empty for no body.
    :ivar others: media types that it may have too, where the client asks for them.
    """

    summary: str
    type: Any = None
    media_type: str = "application/json"
    others: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Endpoint:
    """One method of one path.

    :ivar path: as OpenAPI writes it, ``/v1/message/{id}``; what is in braces is a string.
    :ivar summary: one line, without a full stop.
    :ivar description: more about it, in CommonMark; empty if the line says all.
    :ivar request: the type of the body, as msgspec reads annotations, or :class:`AnyOf`; None for
        no body of JSON.
    :ivar other_requests: media types that the body may have too; where there is no ``request``, it
        may be left out.
    :ivar answers: by status.
    :ivar problems: the statuses that come as ``application/problem+json`` (RFC 9457), besides those
        that ``scope`` brings.
    :ivar why: what problems of a status are about here, where it is not what they mostly are about.
    :ivar scope: what the caller's key has to be for; None for an endpoint that is open to everybody.
    :ivar or_scope: another that will do as well; what is seen then is another matter.
    :ivar by_network: whether who comes from a network that the listener trusts needs no key.
    :ivar tag: the family, by which the page is divided.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    summary: str
    description: str = ""
    request: Any = None
    other_requests: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()
    why: Mapping[int, str] = attrs.field(factory=dict)
    scope: Scope | None = None
    or_scope: Scope | None = None
    by_network: bool = False
    tag: str = ""

    @property
    def refusals(self) -> tuple[int, ...]:
        """All statuses that come as problems."""
        of_scope = SCOPED if self.scope is not None else ()
        return tuple(sorted({*self.problems, *of_scope} - self.answers.keys()))
