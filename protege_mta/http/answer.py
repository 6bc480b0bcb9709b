"""What goes back to an HTTP client: JSON, and problems as RFC 9457 has them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from twisted.web.iweb import IRequest

from ..model.caller import Flaw


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Why a request is refused (RFC 9457).  ``type`` says it to programs.

    :ivar member: where in the request, as a JSON pointer (RFC 6901).
    :ivar hint: what to do about it.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    member: str = ""
    hint: str = ""


def json(request: IRequest, value: object, status: int = 200) -> bytes:
    """Set status and type; the return is the body."""
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/json")
    return msgspec.json.encode(value)


def problem(request: IRequest, status: int, detail: str = "") -> bytes:
    """An error of our own endpoints (RFC 9457).

    :param detail: what the client can do about it; constant text, never octets of the request.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/problem+json")
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return msgspec.json.encode(told | ({"detail": detail} if detail else {}))


def flaw(request: IRequest, flaw: Flaw) -> bytes:
    """A request that is refused, with the member at fault and what to do about it (RFC 9457)."""
    request.setResponseCode(flaw.status)
    request.setHeader(b"Content-Type", b"application/problem+json")
    if flaw.status == 401:
        request.setHeader(b"WWW-Authenticate", b'Bearer realm="protege-mta"')
    return msgspec.json.encode(
        Problem(
            type=f"urn:protege-mta:problem:{flaw.kind}",
            title=HTTPStatus(flaw.status).phrase,
            status=flaw.status,
            detail=flaw.detail,
            member=flaw.member,
            hint=flaw.hint,
        )
    )
