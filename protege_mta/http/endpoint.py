"""What an endpoint takes and answers, as a table: the source of the OpenAPI document.

Each module of endpoints has ``ENDPOINTS``, a tuple of :class:`Endpoint`, beside its ``add``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import attrs
from twisted.web.iweb import IRequest

from ..model.caller import Caller, Flaw, Scope

Authenticate = Callable[[IRequest, Scope], Awaitable[Caller | Flaw]]
"""Who asks, where they may do what the scope says; else why they are refused (401, 403, 503).

It reads the header only, so that nobody is let to send a body for nothing.
"""


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

    :ivar type: of the body, as msgspec reads annotations; None for a body that is no JSON, or none.
    :ivar media_type: of the body; empty for no body.
    """

    summary: str
    type: Any = None
    media_type: str = "application/json"


@attrs.frozen(kw_only=True)
class Endpoint:
    """One method of one path.

    :ivar path: as OpenAPI writes it, ``/v1/message/{id}``; what is in braces is a string.
    :ivar summary: one line, without a full stop.
    :ivar description: more about it, in CommonMark; empty if the line says all.
    :ivar request: the type of the body, as msgspec reads annotations; None for no body.
    :ivar answers: by status.
    :ivar problems: the statuses that come as ``application/problem+json`` (RFC 9457).
    :ivar scope: what the caller's key has to be for; None for an endpoint that is open to everybody.
    :ivar tag: the family, by which the page is divided.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    summary: str
    description: str = ""
    request: Any = None
    parameters: tuple[Parameter, ...] = ()
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()
    scope: Scope | None = None
    tag: str = ""
