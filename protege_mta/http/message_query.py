"""What ``GET /v1/messages`` may be asked for, and what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from twisted.web.iweb import IRequest

from ..model import ids
from ..model.address import parse
from ..model.caller import Caller, Flaw
from ..model.domain import ascii_domain
from ..model.message_query import MessageQuery
from ..model.outcome import Fate
from .endpoint import Parameter
from .members import is_tag, time_of
from .reading import Refused, pointer

MOST: Final = 1000
TEXT_CHARACTERS: Final = 256
"""Nothing that a message is found by is longer."""

STATUSES: Final = (
    *("received", "scheduled", "deferred", "delayed", "held", "released"),
    *get_args(Fate),
)
"""What a recipient's last event may be."""

USUAL: Final = 100

PARAMETERS: Final = (
    Parameter(name="recipient", summary="Only those to this address"),
    Parameter(name="sender", summary="Only those of this reverse-path"),
    Parameter(
        name="status",
        summary="Only those with a recipient whose last event is this: " + ", ".join(STATUSES),
    ),
    Parameter(name="tenant", summary="Only those of this tenant; empty for nobody's"),
    Parameter(name="campaign", summary="Only those of this campaign"),
    Parameter(name="tag", summary="Only those with this tag"),
    Parameter(name="since", summary="Only those that came at this time (RFC 3339) or later"),
    Parameter(name="until", summary="Only those that came before this time"),
    Parameter(name="after", summary="The `next` of the page before"),
    Parameter(name="limit", summary=f"Most messages, up to {MOST}", type=int),
)

_KNOWN: Final = frozenset(one.name for one in PARAMETERS)


def asked(values: Mapping[str, str], caller: Caller) -> MessageQuery:
    """What a query asks for, as far as the caller may know it.

    :raise Refused: it makes no sense, or it asks for what is another tenant's.
    """
    texts = {
        name: _text(values, name) for name in ("recipient", "sender", "tenant", "campaign", "tag")
    }
    status = values.get("status", "")
    if "status" in values and status not in STATUSES:
        raise _bad("status", "there is no such status", f"one of {', '.join(STATUSES)}")
    if texts["tag"] is not None and not is_tag(texts["tag"]):
        raise _bad("tag", "this is no tag")
    for name in ("recipient", "campaign"):
        if texts[name] == "":
            raise _bad(name, "there is nothing to look for")
    since, until = _bound(values, "since"), _bound(values, "until")
    if since and until and until <= since:
        raise _bad("until", "this is not later than since")
    before = until
    if "after" in values:
        cursor = ids.parse(values["after"])
        if cursor is None:
            raise Refused(Flaw(400, "bad-cursor", "this is no cursor of ours", "/after"))
        before = min(before, cursor) if before else cursor
    sender = texts["sender"]
    if sender is not None and sender not in ("", "<>"):
        sender = _address(sender, "sender")
    tenant, identity = texts["tenant"], ""
    if "admin" not in caller.scopes and (caller.tenant or "read" not in caller.scopes):
        if tenant not in (None, caller.tenant):
            raise Refused(
                Flaw(403, "not-your-tenant", "the key belongs to another tenant", "/tenant")
            )
        tenant = caller.tenant
        if "read" not in caller.scopes:
            identity = caller.identity or " "  # who has no name has sent nothing
    return MessageQuery(
        recipient=_address(texts["recipient"], "recipient") if texts["recipient"] else "",
        sender="" if sender == "<>" else sender,
        status=status,
        tenant=tenant,
        identity=identity,
        campaign=texts["campaign"] or "",
        tag=texts["tag"] or "",
        before=before,
        since=since,
    )


def values_of(request: IRequest) -> dict[str, str]:
    """What the query says, each once.  :raise Refused:"""
    found = {}
    arguments: dict[bytes, list[bytes]] = request.args or {}
    for octets, values in arguments.items():
        name = octets.decode("latin-1")
        if name not in _KNOWN:
            raise Refused(
                Flaw(
                    400,
                    "unknown-parameter",
                    "there is no such parameter",
                    pointer(name) if name.isprintable() and len(name) < TEXT_CHARACTERS else "",
                    ", ".join(sorted(_KNOWN)),
                )
            )
        if len(values) > 1:
            raise _bad(name, "this is there twice")
        try:
            found[name] = values[0].decode("utf-8")
        except UnicodeDecodeError:
            raise _bad(name, "this is no UTF-8") from None
    return found


def _text(values: Mapping[str, str], name: str) -> str | None:
    text = values.get(name)
    if text is not None and len(text) > TEXT_CHARACTERS:
        raise _bad(name, "this is longer than any can be")
    return text


def _address(text: str, name: str) -> str:
    """As events have it, in whatever case."""
    local, at, domain = text.rpartition("@")
    if not domain.isascii():
        text = f"{local}@{ascii_domain(domain)}"
    if not at or parse(text, is_smtputf8=True) is None:
        raise _bad(name, "this is no address", "user@example.org")
    return text


def _bound(values: Mapping[str, str], name: str) -> str:
    """A time as ids begin with it; empty for none."""
    if name not in values:
        return ""
    at = time_of(values[name])
    if at is None:
        raise _bad(name, "this is no time as RFC 3339 has it", "2026-12-01T09:00:00Z")
    return ids.first_at(at)


def limit_of(values: Mapping[str, str]) -> int:
    text = values.get("limit", str(USUAL))
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= MOST:
        raise Refused(Flaw(400, "bad-limit", f"wanted a number from 1 to {MOST}", "/limit"))
    return int(text)


def _bad(name: str, detail: str, hint: str = "") -> Refused:
    return Refused(Flaw(400, "bad-parameter", detail, f"/{name}", hint))
