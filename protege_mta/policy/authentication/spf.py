"""Whether a host may send for a domain (RFC 7208), by pyspf.

pyspf asks the DNS in the middle of its work and waits.  Here it gets what is known already, and
where that is not enough the evaluation is broken off to say what is missing: whoever asks for it
begins anew with the answer.  So no thread waits for the network, and the work is a pure function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

import attrs
import spf  # type: ignore[import-untyped]

from ...model.address import Address, domain_of
from ...model.domain import ascii_domain
from ...model.ports import Answer, Found, RecordKind, TryAgain
from ...model.verdicts import Result

LOOKUPS: Final = 150
"""More than the limits of RFC 7208, 4.6.4, let an evaluation come to."""

_RECORD_OCTETS: Final = 4096  # pyspf's work grows with the square
_NAME_CHARACTERS: Final = 253
_DOMAIN: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{1,63}")
_SPF_RECORD: Final = re.compile(rb"v=spf1(?: |$)", re.IGNORECASE)

Question = tuple[str, RecordKind]


@attrs.frozen
class SpfIdentity:
    """Who claims to send.

    :ivar domain: whose record is asked; empty where there can be none.
    :ivar is_helo: whether it is HELO's name, since the reverse-path is null (RFC 7208, 2.4).
    """

    sender: str
    helo: str
    domain: str
    is_helo: bool


@attrs.frozen
class Needed:
    """An answer is missing.  :ivar question: what to ask."""

    question: Question


class _Missing(Exception):
    """Breaks off an evaluation that :class:`Needed` tells of."""


def identity(sender: Address, helo: str) -> SpfIdentity:
    """The identity that is checked.

    :param sender: the reverse-path.
    :param helo: the argument of HELO or EHLO.
    """
    helo = ascii_domain(helo).rstrip(".")
    domain = ascii_domain(domain_of(sender)) if sender else helo
    if not _DOMAIN.fullmatch(domain) or len(domain) > _NAME_CHARACTERS:  # RFC 7208, 4.3
        domain = ""
    local = sender[: sender.rfind("@")] if sender else "postmaster"
    return SpfIdentity(f"{local}@{domain}", helo, domain, not sender)


def evaluate(
    peer_address: str, who: SpfIdentity, answers: Mapping[Question, Answer]
) -> Result | Needed:
    """check_host() (RFC 7208, 4), as far as it goes.

    :param answers: what the DNS has said so far.
    """
    if not who.domain:
        return "none"
    try:
        return cast(Result, _Query(peer_address, who, answers).check()[0])
    except _Missing as missing:
        return Needed(missing.args[0])
    except Exception:
        # A record that pyspf stumbles over in a way of its own is no record that can be evaluated.
        return "permerror"


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's evaluation, with answers at hand in place of the network."""

    def __init__(
        self, peer_address: str, who: SpfIdentity, answers: Mapping[Question, Answer]
    ) -> None:
        super().__init__(i=peer_address, s=who.sender, h=who.helo)
        self._answers = answers

    def dns(
        self, name: str, qtype: RecordKind, cnames: object = None, ignore_void: bool = False
    ) -> list[Any]:
        """Records as pyspf wants them; a void lookup counts (RFC 7208, 4.6.4)."""
        name = name.lower().removesuffix(".")
        if len(name) > _NAME_CHARACTERS or any(not 0 < len(one) < 64 for one in name.split(".")):
            return []
        answer = self._answers.get((name, qtype))
        if answer is None:
            raise _Missing((name, qtype))
        if isinstance(answer, TryAgain) and qtype != "PTR":  # RFC 7208, 5.5
            raise spf.TempError(answer.cause)
        if isinstance(answer, Found):
            return _records(answer, qtype)
        if not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("too many void lookups")
        return []

    def get_explanation(self, spec: str) -> None:
        """Nobody is told, so nothing is looked up."""


def _records(answer: Found, kind: RecordKind) -> list[Any]:
    if kind != "TXT":
        return list(answer.records)
    texts = [str(record).encode("utf-8") for record in answer.records]
    if any(len(text) > _RECORD_OCTETS and _SPF_RECORD.match(text) for text in texts):
        raise spf.PermError("record is too long")
    return [[text] for text in texts]
