"""What goes back to an HTTP client: JSON, and problems as RFC 9457 has them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import attrs
import msgspec
from twisted.web.iweb import IRequest

from ..model.caller import Flaw
from ..model.ports import Damaged, SpoolFailed, SpoolFull

CHALLENGE: Final = b'Bearer realm="protege-mta", Basic realm="protege-mta", charset="UTF-8"'
"""What may be said in Authorization (RFC 6750, 3; RFC 7617, 2)."""


LOCAL_TROUBLE: Final = (OSError, SpoolFailed, SpoolFull, Damaged)
"""How ports say that a disk, or a database on it, fails them: :class:`~..model.ports.StateFailed` is
an ``OSError``."""

TOO_LARGE: Final = Flaw(413, "too-large", "the body is larger than this server takes")
UNAVAILABLE: Final = Flaw(
    503,
    "unavailable",
    "what this needs cannot be read or written just now",
    hint="try again later",
    retry_after_s=10,
)
_NO_ROOM: Final = attrs.evolve(UNAVAILABLE, kind="no-room", retry_after_s=60)
_DAMAGED: Final = Flaw(
    503,
    "damaged",
    "the content of the message is damaged, and was set aside",
    hint='a person has to see to it, by "protege-mta queue show"',
    retry_after_s=3600,
)


PROBLEM: Final = "application/problem+json"
_PROBLEM: Final = PROBLEM.encode("ascii")


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
    request.setHeader(b"Content-Type", _PROBLEM)
    return _plain(status, detail)


def to_nobody(status: int, detail: str) -> bytes:
    """A whole answer to what cannot be read as a request, after which the connection ends."""
    body = _plain(status, detail)
    fields = (
        b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode("ascii")),
        b"Content-Type: %b" % _PROBLEM,
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        b"X-Content-Type-Options: nosniff",
    )
    return b"\r\n".join((*fields, b"", body))


def _plain(status: int, detail: str) -> bytes:
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return msgspec.json.encode(told | ({"detail": detail} if detail else {}))


def flaw(request: IRequest, why: Flaw) -> bytes:
    """A request that is refused, with the member at fault and what to do about it (RFC 9457)."""
    request.setHeader(b"Content-Type", _PROBLEM)
    _refuse(request, why)
    return msgspec.json.encode(problem_of(why))


def problem_of(flaw: Flaw) -> Problem:
    """A flaw as clients see it."""
    return Problem(
        type=f"urn:protege-mta:problem:{flaw.kind}",
        title=HTTPStatus(flaw.status).phrase,
        status=flaw.status,
        detail=flaw.detail,
        member=flaw.member,
        hint=flaw.hint,
    )


SHORT: Final = (b"/api/send", b"/api/health")
"""Endpoints whose clients know ``{"ok", "error"}``, and no problems."""


def short(request: IRequest, why: Flaw) -> bytes:
    """A request of such a client that is refused."""
    request.setHeader(b"Content-Type", b"application/json")
    _refuse(request, why)
    return msgspec.json.encode({"ok": False, "error": why.detail})


def trouble(error: object) -> Flaw:
    """One of :data:`LOCAL_TROUBLE` as the client is told of it."""
    match error:
        case Damaged():
            return _DAMAGED
        case SpoolFull():
            return _NO_ROOM
    return UNAVAILABLE


def in_form(request: IRequest, target: bytes, why: Flaw) -> bytes:
    """A request that is refused, in the form that its endpoint has.

    :param target: as the client wrote it.
    """
    is_short = target.partition(b"?")[0] in SHORT
    return short(request, why) if is_short else flaw(request, why)


def _refuse(request: IRequest, flaw: Flaw) -> None:
    request.setResponseCode(flaw.status)
    if flaw.status == 401:
        request.setHeader(b"WWW-Authenticate", CHALLENGE)
    if flaw.retry_after_s:
        request.setHeader(b"Retry-After", b"%d" % flaw.retry_after_s)
