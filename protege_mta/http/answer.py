"""What goes back to an HTTP client: JSON, and problems as RFC 9457 has them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from twisted.web.iweb import IRequest


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
