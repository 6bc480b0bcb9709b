"""What a server offers in its answer to EHLO or LHLO (RFC 5321, 4.1.1.1)."""

from __future__ import annotations

import attrs

from ..model.ports import HopAbilities
from ..model.reply import Reply


@attrs.frozen
class Abilities:
    """Service extensions, as far as we use them; the default is a server that knows HELO only.

    :ivar size_octets: the SIZE limit (RFC 1870): None where it is not offered, 0 where there is no
        fixed limit.
    :ivar auth: SASL mechanisms in upper case (RFC 4954).
    :ivar hop: the same, as far as it changes what is sent.
    """

    has_pipelining: bool = False
    size_octets: int | None = None
    has_8bitmime: bool = False
    has_smtputf8: bool = False
    has_dsn: bool = False
    has_starttls: bool = False
    has_chunking: bool = False
    has_enhanced_codes: bool = False
    has_requiretls: bool = False
    auth: frozenset[str] = frozenset()
    hop: HopAbilities = attrs.field(init=False)

    @hop.default
    def _hop(self) -> HopAbilities:
        return HopAbilities(has_8bitmime=self.has_8bitmime, has_smtputf8=self.has_smtputf8)


def parse(reply: Reply) -> Abilities:
    """Read the keywords below the first line; unknown ones are no concern of ours."""
    words: dict[str, list[str]] = {}
    for line in reply.lines[1:]:
        keyword, *arguments = line.upper().replace("AUTH=", "AUTH ", 1).split() or [""]
        words.setdefault(keyword, []).extend(arguments)
    size: int | None = None
    if "SIZE" in words:
        limit = next(iter(words["SIZE"]), "0")
        # RFC 1870, 4: up to 20 digits.  Nonsense is no limit.
        size = int(limit) if limit.isdigit() and len(limit) <= 20 else 0
    return Abilities(
        has_pipelining="PIPELINING" in words,
        size_octets=size,
        has_8bitmime="8BITMIME" in words,
        # RFC 6531, 3.1: it must come with 8BITMIME, and without it we could not send a header.
        has_smtputf8="SMTPUTF8" in words and "8BITMIME" in words,
        has_dsn="DSN" in words,
        has_starttls="STARTTLS" in words,
        has_chunking="CHUNKING" in words,
        has_enhanced_codes="ENHANCEDSTATUSCODES" in words,
        has_requiretls="REQUIRETLS" in words,
        auth=frozenset(words.get("AUTH", ())),
    )
