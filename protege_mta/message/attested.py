"""A relay's word about a message's sender, as the field that mail readers look at (RFC 8601)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..model.address import Address, domain_of
from ..model.verdicts import Verdicts
from .headers import simplified

_FIELD: Final = re.compile(rb"[^\r\n]*(?:\r\n[ \t][^\r\n]*)*(?:\r\n|\Z)")
_NAME: Final = b"authentication-results"


def results_field(hostname: str, verdicts: Verdicts, *, sender: Address, key_id: str) -> bytes:
    """The Authentication-Results field, folded, with its CRLF.

    :param hostname: ours: the reader trusts us, who trust the relay.
    :param verdicts: an empty one was not told.
    :param key_id: the key that the relay signed its word with.
    """
    domain = domain_of(sender)
    mail_from = f" smtp.mailfrom={domain}" if domain and domain.isascii() else ""
    said = [
        f"{method}={result}{about}"
        for method, result, about in (
            ("spf", verdicts.spf, mail_from),
            ("dkim", verdicts.dkim, ""),
            ("dmarc", verdicts.dmarc, ""),
        )
        if result
    ]
    told = ";\r\n\t".join([f"{hostname} (told by relay {key_id})", *(said or ["none"])])
    return f"Authentication-Results: {told}\r\n".encode("ascii")


def without_results(header: bytes, hostname: str) -> bytes:
    """A header section without the Authentication-Results fields that claim to be ours
    (RFC 8601, 5): whoever wrote them, it was not us."""
    lower = header.lower()
    if _NAME not in lower:
        return header
    wanted = hostname.lower().encode("ascii")
    return b"".join(field for field in _fields(header) if not _claims(field, wanted))


def _fields(header: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(header):
        match = _FIELD.match(header, at)
        assert match is not None  # it matches nothing, too
        end = match.end() if match.end() > at else len(header)
        yield header[at:end]
        at = end


def _claims(field: bytes, hostname: bytes) -> bool:
    name, _, value = field.partition(b":")
    if name.strip(b" \t\r\n").lower() != _NAME:
        return False
    plain, quoted = simplified(value.replace(b"\r\n", b""))
    words = plain.replace(b";", b" ; ").split()
    if not words:
        return False
    first = quoted[0] if words[0] == b'"' and quoted else words[0]
    return first.lower().strip().removesuffix(b".") == hostname
