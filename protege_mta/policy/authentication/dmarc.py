"""Whether the domain of From stands behind a message, and what it wants otherwise (RFC 7489)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import attrs

from ...message import headers
from ...message.mailboxes import mailboxes
from ...model.address import domain_of
from ...model.domain import ascii_domain
from ...model.verdicts import Result

Wish = Literal["none", "quarantine", "reject"]
WISHES: Final[Sequence[Wish]] = ("none", "quarantine", "reject")
"""From the mildest to the strictest."""

AUTHORS: Final = 5
"""So many domains in From are asked about; nobody honest has more."""

_DOMAIN: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{1,63}")
_AT: Final = re.compile(rb"@[ \t]*([^\s<>@,;:()\"\[\]\\]+)")
_VERSION: Final = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|$)")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S")


@attrs.frozen
class Record:
    """What a domain has published (RFC 7489, 6.3).

    :ivar wish: the p= tag.
    :ivar subdomains_wish: the sp= tag.
    :ivar percent: the pct= tag.
    :ivar is_dkim_strict: whether ``adkim=s``.  :ivar is_spf_strict: likewise.
    """

    wish: Wish
    subdomains_wish: Wish
    percent: int = 100
    is_dkim_strict: bool = False
    is_spf_strict: bool = False


@attrs.frozen
class Ruling:
    """What DMARC comes to for one domain.

    :ivar domain: that of From; empty where there is none.
    :ivar wish: what the domain wants done; ``none`` unless the result is ``fail``.
    """

    result: Result
    domain: str = ""
    wish: Wish = "none"
    reason: str = ""


TOO_MANY: Final = Ruling("fail", wish="reject", reason="From names too many domains")
"""For more than :data:`AUTHORS`: whoever is meant to be believed may be the last of them."""


def author_domains(fields: bytes) -> tuple[str, ...]:
    """The domains in From, in all From fields, each once, as A-labels: one in ordinary mail.

    Where readers might disagree about what From says, every domain that is written in it.  Encoded
    words are display names, which say nothing (RFC 2047, 5).
    """
    found: dict[str, None] = {}
    for value in headers.values(fields, b"from"):
        certain = mailboxes(value)
        if certain is None:
            certain = mailboxes(headers.encoded_words(value)[0])
        if certain is not None:
            names = [domain_of(one) for one in certain]
        else:
            names = [name.decode("utf-8", "replace") for name in _AT.findall(value)]
        for name in names:
            domain = ascii_domain(name.rstrip("."))
            if _DOMAIN.fullmatch(domain) and len(domain) <= 253:
                found[domain] = None
    return tuple(found)


def read(records: Iterable[str]) -> Record | None:
    """The policy among a name's TXT records; None where there is none, or not one alone
    (RFC 7489, 6.6.3)."""
    policies = [text for text in records if _VERSION.match(text)]
    if len(policies) != 1:
        return None
    tags: dict[str, str] = {}
    for part in policies[0].split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
    wish = _wish(tags.get("p"))
    subdomains = tags.get("sp")
    subdomains_wish = wish if subdomains is None else _wish(subdomains)
    if wish is None or subdomains_wish is None:
        if not _URI.match(tags.get("rua", "")):
            return None
        wish = subdomains_wish = "none"  # it wants reports, so it is there
    return Record(
        wish,
        subdomains_wish,
        _percent(tags.get("pct", "")),
        tags.get("adkim", "").lower() == "s",
        tags.get("aspf", "").lower() == "s",
    )


def _wish(text: str | None) -> Wish | None:
    lower = (text or "").lower()
    return next((wish for wish in WISHES if wish == lower), None)


def _percent(text: str) -> int:
    return min(100, int(text)) if re.fullmatch(r"[0-9]{1,3}", text) else 100


@attrs.frozen
class Evidence:
    """Results of SPF and DKIM with the domains that they are about."""

    spf: Result
    spf_domain: str
    dkim: Sequence[tuple[Result, str]]


def ruled(
    domain: str,
    record: Record,
    *,
    is_subdomain: bool,
    evidence: Evidence,
    organisation: Callable[[str], str],
    chance: float,
) -> Ruling:
    """What a record means for a message.

    :param domain: of From.
    :param is_subdomain: whether the record is that of the organisation, and ``domain`` is not it.
    :param organisation: gives a domain's organisational domain (RFC 7489, 3.2).
    :param chance: from 0 to 1, for the pct= tag (6.6.4).
    """

    def is_aligned(other: str, is_strict: bool) -> bool:
        if other == domain:
            return True
        return bool(other) and not is_strict and organisation(other) == organisation(domain)

    aligned = [
        result for result, signer in evidence.dkim if is_aligned(signer, record.is_dkim_strict)
    ]
    if is_aligned(evidence.spf_domain, record.is_spf_strict):
        aligned.append(evidence.spf)
    if "pass" in aligned:
        return Ruling("pass", domain)
    if "temperror" in aligned:
        return Ruling("temperror", domain, reason="SPF or DKIM could not be checked")
    wish = record.subdomains_wish if is_subdomain else record.wish
    if chance * 100 >= record.percent:
        wish = WISHES[max(0, WISHES.index(wish) - 1)]
    return Ruling("fail", domain, wish)


def together(rulings: Sequence[Ruling]) -> Ruling:
    """What rulings about several domains in From come to: the strictest that fails
    (RFC 7489, 6.6.1)."""
    if not rulings:
        return Ruling("permerror", reason="From names no domain")
    order: Sequence[Result] = ("fail", "temperror", "permerror", "none", "pass")
    return min(rulings, key=lambda one: (order.index(one.result), -WISHES.index(one.wish)))
