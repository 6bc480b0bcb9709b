"""The Authentication-Results field (RFC 8601), and X-Protege-Quarantine.

All that a stranger chose is written only where it is a name that the DNS could have; whatever else
is left out, so that nobody can add results of his own to ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ..model.value import value
from ..model.verdicts import Result
from .headers import simplified
from .repair import named

LINE_CHARACTERS: Final = 78

QUARANTINE: Final = b"X-Protege-Quarantine: dmarc\r\n"
"""Marks a message that is delivered although it fails DMARC."""

_SAFE: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_SAFE_MAILBOX: Final = re.compile(r"[A-Za-z0-9!#$%&'*+^_`{|}~.-]{1,64}@[A-Za-z0-9._-]{1,255}")
_SAFE_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/=]{1,64}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+^_`{|}~.@-]+")

_RESULTS: Final = named(b"authentication-results")
_MARKS: Final = named(b"x-protege-quarantine")


@value
class ResInfo:
    """One ``resinfo``: a method, its result, and whom it is about.

    :ivar reason: a text of ours; empty for none.
    :ivar properties: ``(name, value)``; those are left out whose value is not safe.
    """

    method: str
    result: Result
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()


def field(authserv_id: str, results: Sequence[ResInfo]) -> bytes:
    """The whole field, folded, with its CRLF.

    :param authserv_id: our host name.
    """
    infos = []
    for one in results:
        words = [f"{one.method}={one.result}"]
        if one.reason:
            words.append(f'reason="{one.reason}"')
        words += [f"{name}={safe}" for name, text in one.properties if (safe := _value(text))]
        infos.append(words)
    if not infos:
        infos = [["none"]]
    lines = [f"Authentication-Results: {authserv_id};"]
    for number, words in enumerate(infos):
        if number < len(infos) - 1:
            words[-1] += ";"
        lines.append("\t")
        for word in words:
            if lines[-1] == "\t":
                lines[-1] += word
            elif len(lines[-1]) + 1 + len(word) > LINE_CHARACTERS - 7:  # a tab counts for eight
                lines.append(f"\t {word}")
            else:
                lines[-1] += f" {word}"
    return "\r\n".join(lines).encode("ascii") + b"\r\n"


def without_foreign(fields: bytes, authserv_id: str) -> bytes:
    """A header section without the fields that claim to be our word (RFC 8601, 5).

    Others stay as they are, octet by octet.

    :param fields: whole fields; no blank line.
    """
    lower = fields.lower()
    if b"authentication-results" in lower:
        ours = authserv_id.lower().encode("ascii")
        fields = _RESULTS.sub(lambda found: b"" if _claims(found[0], ours) else found[0], fields)
    return _MARKS.sub(b"", fields) if b"x-protege-quarantine" in lower else fields


def _claims(whole: bytes, ours: bytes) -> bool:
    """Whether somebody may read ``ours`` as the authserv-id of a field."""
    text = whole.partition(b":")[2].replace(b"\r\n", b" ").lower()
    if ours not in text:
        return False
    plain, quoted = simplified(text)
    words = plain.partition(b";")[0].replace(b"/", b" ").split()
    if not words:  # an open comment, or nothing
        return True
    name = quoted[0] if words[0].startswith(b'"') and quoted else words[0]
    return name.strip().rstrip(b".") == ours.rstrip(b".")


def _value(text: str) -> str:
    """A ``pvalue``; empty for what is not safe to write."""
    for safe in (_SAFE, _SAFE_MAILBOX, _SAFE_SIGNATURE):
        if safe.fullmatch(text):
            return text if _TOKEN.fullmatch(text) else f'"{text}"'
    return ""
