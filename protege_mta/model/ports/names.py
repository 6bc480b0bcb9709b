"""Questions to the DNS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import attrs

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@attrs.frozen
class Found:
    """An answer.

    :ivar records: for MX ``(preference, host)`` pairs, for A and AAAA addresses in text, for TXT
        joined strings.
    :ivar is_authentic: the AD bit, from a server whose AD bit we trust.
    """

    records: tuple[tuple[int, str], ...] | tuple[str, ...]
    is_authentic: bool = False


@attrs.frozen
class NoSuchName:
    """NXDOMAIN."""


@attrs.frozen
class NoSuchRecord:
    """The name exists, and has none of the type asked for."""


@attrs.frozen
class TryAgain:
    """SERVFAIL, no answer, or nonsense.  :ivar cause: for the log and the queue."""

    cause: str


Answer = Found | NoSuchName | NoSuchRecord | TryAgain


RecordKind = Literal["MX", "A", "AAAA", "TXT", "PTR", "TLSA"]


class Resolver(Protocol):
    """DNS as routing sees it.  CNAMEs are followed.  Never fails."""

    def lookup(self, name: str, kind: RecordKind) -> Deferred[Answer]: ...
