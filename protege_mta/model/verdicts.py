"""What checks of a message's sender came to (RFC 8601, 2.7)."""

from __future__ import annotations

from typing import Literal

from .value import value

Result = Literal[
    "", "pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror"
]
"""Empty where nothing was checked."""

Signal = Literal["pass", "fail", "unknown"]
"""What a tunnel's attestation says of a result."""


@value
class Verdicts:
    """The results for one message.

    :ivar spf: of the reverse-path's domain, or of HELO's where that is null (RFC 7208).
    :ivar dkim: the best of all signatures (RFC 6376).
    :ivar dmarc: of the domain of From (RFC 7489).
    """

    spf: Result = ""
    dkim: Result = ""
    dmarc: Result = ""


UNCHECKED = Verdicts()


def signal(result: Result) -> Signal:
    """A result as an attestation gives it."""
    match result:
        case "pass":
            return "pass"
        case "fail" | "softfail" | "policy" | "temperror" | "permerror":
            return "fail"
        case _:
            return "unknown"
