"""``/v1/suppressions``: who is not written to; looked at, added to, taken from, in and out in bulk."""

from __future__ import annotations

import base64
import binascii
import codecs
import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import attrs
import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from ..model.caller import Caller, Flaw
from ..model.domain import ascii_domain
from ..model.ports import Suppressed
from ..model.suppression import REASONS, Chosen, Place, normalised, place_of
from ..model.suppression_file import (
    BadEntry,
    BadLine,
    Form,
    entry_of,
    members_of,
    read,
    write,
)
from . import answer, pieces
from .endpoint import Answer, Authenticate, Endpoint, Parameter
from .reading import ReadLimits, Refused, body_of, octets_of, value_of

LINES: Final = 100_000
"""The most that one request brings."""
MOST: Final = 1000
"""The most on a page."""
_AT_ONCE: Final = 1000
_TOLD: Final = 100
"""So many lines that were refused are named."""

_FORMS: Final[dict[str, Form]] = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "text/csv": "csv",
}


class NewSuppression(msgspec.Struct, forbid_unknown_fields=True):
    """Who is not to be written to.

    :ivar reason: ``hard_bounce``, ``complaint``, ``unsubscribe``, ``manual`` or ``policy``.
    :ivar until: RFC 3339; left out for ever.
    """

    address: str
    reason: str = "manual"
    tenant: str = ""
    since: str = ""
    until: str | None = None
    detail: str = ""
    message_id: str = ""


class Suppression(msgspec.Struct, omit_defaults=True):
    """An entry of the list; what it has not is left out."""

    address: str
    reason: str
    tenant: str = ""
    since: str = ""
    until: str = ""
    detail: str = ""
    message_id: str = ""


class Page(msgspec.Struct, omit_defaults=True):
    """:ivar next: for ``after``, where there is more."""

    suppressions: list[Suppression]
    next: str = ""


class RefusedLine(msgspec.Struct, omit_defaults=True):
    """A line that was not taken."""

    line: int
    why: str
    member: str = ""


class Imported(msgspec.Struct, omit_defaults=True):
    """What became of an import.

    :ivar refused: how many lines were not taken.
    :ivar lines: the first of those.
    """

    added: int
    refused: int = 0
    lines: list[RefusedLine] = []


class Removed(msgspec.Struct):
    """How many entries were taken off."""

    removed: int


_WHICH: Final = (
    Parameter(name="address", summary="Only this address"),
    Parameter(name="reason", summary=f"Only for this reason: {', '.join(REASONS)}"),
    Parameter(name="tenant", summary="Only of this tenant; empty for what holds for everybody"),
)

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/v1/suppressions",
        summary="Who is not written to",
        description="With `Accept: application/x-ndjson` or `text/csv` all of it, as it is read.",
        parameters=(
            *_WHICH,
            Parameter(name="domain", summary="Only addresses at this domain"),
            Parameter(name="after", summary="The cursor `next` of the page before"),
            Parameter(name="limit", summary=f"How many, {MOST} at most", type=int),
        ),
        answers={
            200: Answer(
                summary="A page of the list, or all of it",
                type=Page,
                others=("application/x-ndjson", "text/csv; charset=utf-8"),
            )
        },
        problems=(400,),
        scope="read",
        tag="Suppressions",
    ),
    Endpoint(
        method="POST",
        path="/v1/suppressions",
        summary="Suppress an address, or import many",
        description=f"One as JSON; up to {LINES} as `application/x-ndjson` or `text/csv`. What is "
        "there already, of the same address, tenant and reason, is replaced.",
        request=NewSuppression,
        other_requests=("application/x-ndjson", "text/csv"),
        answers={
            200: Answer(summary="What became of an import", type=Imported),
            201: Answer(summary="The entry", type=Suppression),
        },
        problems=(400, 413, 415, 422),
        scope="send",
        tag="Suppressions",
    ),
    Endpoint(
        method="DELETE",
        path="/v1/suppressions",
        summary="Write to an address again",
        parameters=_WHICH,
        answers={200: Answer(summary="How many entries there were", type=Removed)},
        problems=(400,),
        scope="send",
        tag="Suppressions",
    ),
)


class List(Protocol):
    """The list, as far as the endpoints use it; see :mod:`protege_mta.state.suppression`."""

    def page(self, chosen: Chosen, after: Place | None, most: int) -> list[Suppressed]: ...

    def add_all(self, entries: Sequence[Suppressed]) -> Deferred[None]: ...

    def remove(self, chosen: Chosen) -> Deferred[int]: ...


def add(
    app: Klein,
    entries: List,
    *,
    authenticate: Authenticate,
    now: Callable[[], float],
    limits: Callable[[], ReadLimits],
) -> None:
    """Serve the list to callers who may see it.

    :param limits: asked each time, since a reload may change them.
    """

    @app.route("/v1/suppressions", methods=["GET"])
    async def listed(request: IRequest) -> Any:
        caller = await authenticate(request, "read")
        if isinstance(caller, Flaw):
            return answer.flaw(request, caller)
        asked = _query(request, {"address", "domain", "reason", "tenant", "after", "limit"})
        chosen = attrs.evolve(_chosen(asked, caller, is_change=False), at=now())
        form = _FORMS.get(_media_type(request.getHeader("Accept")))
        if form is not None:
            kind = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
            headers = {b"Content-Type": kind.encode("ascii")}
            await pieces.send(request, headers, _export(entries, chosen, form))
            return b""
        most = _limit(asked.get("limit", "100"))
        found = entries.page(chosen, _place(asked.get("after", "")), most + 1)
        is_more = len(found) > most
        page = Page(
            [Suppression(**members_of(one)) for one in found[:most]],
            _cursor(place_of(found[most - 1])) if is_more else "",
        )
        return answer.json(request, page)

    @app.route("/v1/suppressions", methods=["POST"])
    async def added(request: IRequest) -> Any:
        caller = await authenticate(request, "send")
        if isinstance(caller, Flaw):
            return answer.flaw(request, caller)
        tenant = _own_tenant(caller)
        form = _FORMS.get(_media_type(request.getHeader("Content-Type")))
        if form is not None:
            return answer.json(request, await _imported(request, form, tenant))
        read_limits = limits()
        row = value_of(body_of(request, read_limits), read_limits)
        if not isinstance(row, dict):
            raise Refused(Flaw(422, "invalid", "wanted an object"))
        entry = _entry(row, tenant)
        await entries.add_all([entry])
        return answer.json(request, Suppression(**members_of(entry)), 201)

    @app.route("/v1/suppressions", methods=["DELETE"])
    async def removed(request: IRequest) -> Any:
        caller = await authenticate(request, "send")
        if isinstance(caller, Flaw):
            return answer.flaw(request, caller)
        asked = _query(request, {"address", "reason", "tenant"})
        chosen = _chosen(asked, caller, is_change=True)
        if not chosen.address:
            raise Refused(
                Flaw(400, "address-missing", "no address is named", hint="?address=a@b.example")
            )
        count = await entries.remove(chosen)
        return answer.json(request, Removed(count))

    async def _imported(request: IRequest, form: Form, tenant: str | None) -> Imported:
        content = io.BytesIO(octets_of(request, limits()))
        if sum(1 for _ in content) > LINES + 1:  # with the line of names
            raise Refused(
                Flaw(413, "too-many-lines", "more lines than are taken at once", hint=str(LINES))
            )
        content.seek(0)
        lines = codecs.iterdecode(content, "utf-8", "replace")
        rows = read(lines, form, now(), tenant)
        result = Imported(0)
        while some := list(islice(rows, _AT_ONCE)):
            good = [one for one in some if isinstance(one, Suppressed)]
            if good:
                await entries.add_all(good)
            result.added += len(good)
            for one in some:
                if isinstance(one, BadLine):
                    result.refused += 1
                    if len(result.lines) < _TOLD:
                        result.lines = [
                            *result.lines,
                            RefusedLine(one.number, one.why, one.member),
                        ]
        return result

    def _entry(row: dict[str, Any], tenant: str | None) -> Suppressed:
        try:
            return entry_of(row, now(), tenant)
        except BadEntry as error:
            member = f"/{error.member}" if error.member.isidentifier() else ""
            raise Refused(Flaw(422, "invalid", str(error), member)) from None


def _export(entries: List, chosen: Chosen, form: Form) -> Iterator[bytes]:
    """All of the list, read a page at a time."""
    after: Place | None = None
    is_first = True
    while True:
        found = entries.page(chosen, after, _AT_ONCE)
        yield write(found, form, is_first=is_first).encode("utf-8", "replace")
        if len(found) < _AT_ONCE:
            return
        is_first, after = False, place_of(found[-1])


# --- questions -----------------------------------------------------------------------------------


def _media_type(value: str | None) -> str:
    return (value or "").partition(";")[0].partition(",")[0].strip().lower()


def _query(request: IRequest, known: set[str]) -> dict[str, str]:
    text = request.uri.partition(b"?")[2].decode("ascii", "replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise Refused(Flaw(400, "bad-query", "the query cannot be read")) from None
    asked = dict(pairs)
    if len(asked) != len(pairs) or not asked.keys() <= known:
        raise Refused(
            Flaw(400, "bad-query", "a parameter is unknown or named twice", hint=", ".join(known))
        )
    return asked


def _own_tenant(caller: Caller) -> str | None:
    """Whose entries the caller may change: its tenant's; None for all.  :raise Refused:"""
    if "admin" in caller.scopes:
        return None
    if not caller.tenant:
        raise Refused(
            Flaw(
                403,
                "not-allowed",
                "the key has no tenant, and this would hold for everybody",
                hint='a key with the scope "admin", or one of a tenant',
            )
        )
    return caller.tenant


def _chosen(asked: dict[str, str], caller: Caller, *, is_change: bool) -> Chosen:
    address = asked.get("address", "")
    if address:
        address = normalised(address) or ""
        if not address:
            raise Refused(Flaw(400, "bad-query", "the address is none", hint="a@example.org"))
    reason = asked.get("reason", "")
    if reason and reason not in REASONS:
        raise Refused(Flaw(400, "bad-query", "there is no such reason", hint=", ".join(REASONS)))
    tenants: tuple[str, ...] | None = None if "tenant" not in asked else (asked["tenant"],)
    if "admin" not in caller.scopes:
        own = _own_tenant(caller) if is_change else caller.tenant
        may = {own} if is_change else {own, ""}
        if tenants is not None and not set(tenants) <= may:
            raise Refused(Flaw(403, "not-allowed", "this is another tenant's"))
        tenants = tenants or tuple(sorted(one for one in may if one is not None))
    return Chosen(address, ascii_domain(asked.get("domain", "")), reason, tenants)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MOST):
        raise Refused(Flaw(400, "bad-query", "limit is a number", hint=f"1 to {MOST}"))
    return int(text)


def _cursor(place: Place) -> str:
    octets = json.dumps(place, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _place(cursor: str) -> Place | None:
    if not cursor:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place = json.loads(base64.b64decode(padded, b"-_", validate=True))
    except (UnicodeError, binascii.Error, ValueError, RecursionError):
        place = None
    if not (isinstance(place, list) and len(place) == 3 and all(isinstance(p, str) for p in place)):
        raise Refused(Flaw(400, "bad-cursor", "after is no cursor of ours"))
    address, tenant, reason = place
    return address, tenant, reason
