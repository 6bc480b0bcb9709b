"""The body of a request, unpacked, and JSON as a typed value; what is wrong with it as a
:class:`~..model.caller.Flaw` that names the member (RFC 8259; RFC 6901).

Two members of one name are refused: readers of JSON differ about which one counts, and a check
before us may have read the other (RFC 8259, 4).
"""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec
from twisted.web.iweb import IRequest

from ..message.parts import parameters
from ..model.caller import Flaw
from .answer import TOO_LARGE

_T = TypeVar("_T")

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON: Final = re.compile(rb"application/(?:[a-z0-9.-]+\+)?json(?:;|\Z)")
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii"})
"""Names of what can be read as UTF-8: ASCII is a part of it."""


@attrs.frozen
class ReadLimits:
    """:ivar body_octets: the largest body.  :ivar depth: how deep it may be nested."""

    body_octets: int = 64 * 2**20
    depth: int = 32


class Refused(Exception):
    """A request is refused.  :ivar flaw: why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.detail)
        self.flaw = flaw


def unfit(kind: str, detail: str, member: str, hint: str = "") -> Refused:
    """A member's value is understood, and does not do: 422."""
    return Refused(Flaw(422, kind, detail, member, hint))


def body_of(request: IRequest, limits: ReadLimits) -> bytes:
    """The octets of a body that says it is JSON.  :raise Refused:"""
    kind = (request.getHeader(b"Content-Type") or b"").strip().lower().replace(b" ", b"")
    if not _JSON.match(kind):
        raise Refused(
            Flaw(415, "not-json", "the body is not JSON", hint="Content-Type: application/json")
        )
    return octets_of(request, limits)


def octets_of(request: IRequest, limits: ReadLimits) -> bytes:
    """The octets of a body in UTF-8, unpacked where it is packed; the one way to any body.

    :raise Refused:
    """
    _check_charset(request)
    octets = cast(bytes, request.content.read())
    packed = (request.getHeader(b"Content-Encoding") or b"").strip().lower()
    if packed in _WINDOWS:
        octets = _unpacked(octets, _WINDOWS[packed], limits.body_octets)
    elif packed not in (b"", b"identity"):
        request.setHeader(b"Accept-Encoding", b"gzip, deflate")  # RFC 9110, 15.5.16
        raise Refused(
            Flaw(
                415,
                "unknown-encoding",
                "the body is packed in a way that is not known here",
                hint="Content-Encoding: gzip, or none",
            )
        )
    if len(octets) > limits.body_octets:
        raise Refused(TOO_LARGE)
    return octets


def value_of(octets: bytes, limits: ReadLimits) -> Any:
    """JSON as plain values, all of whose texts can be written in UTF-8.  :raise Refused:"""
    try:
        value = json.loads(
            octets.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_number,
        )
    except _Duplicate as error:
        raise Refused(
            Flaw(
                400,
                "duplicate-member",
                "an object has two members of one name",
                f"/{_escaped(error.name)}" if error.name.isprintable() else "",
                "the pointer says its name, not where the object is",
            )
        ) from None
    except RecursionError:
        raise Refused(_too_deep(limits)) from None
    except ValueError as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else None
        raise Refused(
            Flaw(
                400,
                "bad-json",
                "the body is not JSON",
                hint="" if at is None else f"look at character {at + 1}",
            )
        ) from None
    if not _is_flat(value, limits.depth):
        raise Refused(_too_deep(limits))
    if _SURROGATE.search(octets) and not _is_whole(value):
        raise Refused(
            Flaw(
                422,
                "bad-text",
                "a text has a half of a character",
                hint="a surrogate stands in a pair (RFC 7493, 2.1)",
            )
        )
    return value


def typed(value: Any, type: type[_T] | Any, at: str = "") -> _T:
    """A plain value as what an endpoint wants.

    :param at: where the value is in the body, as a JSON pointer.
    :raise Refused: 422 that names the member.
    """
    try:
        return cast(_T, msgspec.convert(value, type))
    except msgspec.ValidationError as error:
        raise Refused(_invalid(str(error), at)) from None


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{_escaped(str(part))}" for part in parts)


# --- details -------------------------------------------------------------------------------------


def _check_charset(request: IRequest) -> None:
    """JSON is in UTF-8 (RFC 8259, 8.1), and so is all else that is read here.

    :raise Refused: 415; a body that says it is in another charset would be read as what it is not.
    """
    kind = request.getHeader(b"Content-Type") or b""
    if parameters(kind).get("charset", "utf-8").lower() not in _UTF_8:
        raise Refused(
            Flaw(
                415,
                "not-utf-8",
                "the body says that it is not in UTF-8",
                hint="send it in UTF-8, with charset=utf-8 in Content-Type or without a charset",
            )
        )


class _Duplicate(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Duplicate(next(name for name in names if names.count(name) > 1))
    return found


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _number(text: str) -> float:
    """What is too large for a float would be infinite, which JSON cannot say."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _is_whole(value: Any) -> bool:
    """Whether no text in it has a surrogate without its other half."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_WINDOWS: Final = {
    b"gzip": zlib.MAX_WBITS + 16,
    b"x-gzip": zlib.MAX_WBITS + 16,
    b"deflate": zlib.MAX_WBITS,
}
"""How zlib reads each coding (RFC 9110, 8.4.1)."""


def _unpacked(octets: bytes, window: int, most_octets: int) -> bytes:
    """:return: all of it, or more than the most that is allowed, but not much.  :raise Refused:"""
    reader = zlib.decompressobj(window)
    try:
        found = reader.decompress(octets, most_octets + 1)
    except zlib.error:
        raise Refused(_unpackable()) from None
    if len(found) <= most_octets and (not reader.eof or reader.unused_data):
        raise Refused(_unpackable())
    return found


def _unpackable() -> Flaw:
    return Flaw(400, "bad-encoding", "the body is not packed as Content-Encoding says")


def _is_flat(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def _too_deep(limits: ReadLimits) -> Flaw:
    return Flaw(400, "too-deep", f"the body is nested deeper than {limits.depth} levels")


_PATH: Final = re.compile(r" - at `(?:key in )?(\$[^`]*)`\Z")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")


def _invalid(said: str, at: str) -> Flaw:
    """What msgspec says, as we do: its texts name the types wanted, and never a value."""
    found = _PATH.search(said)
    what = said[: found.start()] if found else said
    steps = [step[1] or step[2] for step in _STEP.finditer(found[1])] if found else []
    member = at + "".join(f"/{_escaped(step)}" for step in steps if step != "...")
    unknown = _UNKNOWN.match(what)
    if unknown is not None:
        name = f"/{_escaped(unknown[1])}" if unknown[1].isprintable() else ""
        return Flaw(
            422, "unknown-member", "there is no such member", member + name, "see /openapi.json"
        )
    missing = _MISSING.match(what)
    if missing is not None:
        return Flaw(
            422, "missing-member", "a member is missing", f"{member}/{missing[1]}", "it is required"
        )
    return Flaw(422, "bad-member", "a member is not what it should be", member, what)


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
