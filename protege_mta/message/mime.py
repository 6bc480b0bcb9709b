"""MIME's own header fields (RFC 2045, sections 5 and 6)."""

from __future__ import annotations

import re
from typing import Final

import attrs

from .headers import simplified

_TYPE: Final = re.compile(rb"[ \t]*([!-.0-:<-~]+)[ \t]*/[ \t]*([!-.0-:<-~]++)(?![^;]*/)")
_PARAMETER: Final = re.compile(rb';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("|[^\s;"]+)')


@attrs.frozen
class ContentType:
    """A media type, in lower case.

    :ivar boundary: the parameter's value; empty where there is none.
    """

    main: str
    sub: str
    boundary: bytes = b""


PLAIN_TEXT: Final = ContentType("text", "plain")
MESSAGE: Final = ContentType("message", "rfc822")


def content_type(value: bytes) -> ContentType | None:
    """Parse an unfolded Content-Type value; None where it has no type and subtype."""
    plain, quoted = simplified(value)
    match = _TYPE.match(plain)
    if match is None:
        return None
    boundary = b""
    for parameter in _PARAMETER.finditer(plain, match.end()):
        if parameter[1].lower() == b"boundary":
            boundary = parameter[2]
            if boundary == b'"':
                boundary = quoted[plain.count(b'"', 0, parameter.start(2))]
            break
    return ContentType(match[1].decode("ascii").lower(), match[2].decode("ascii").lower(), boundary)


def transfer_encoding(value: bytes) -> str:
    """An unfolded Content-Transfer-Encoding value as a lower-case word."""
    return simplified(value)[0].strip(b" \t").decode("ascii", "replace").lower()


def delimiter(boundary: bytes) -> re.Pattern[bytes]:
    """Finds a multipart's delimiter lines; group 1 is set for the closing one (RFC 2046, 5.1.1)."""
    line = rb"^--" + re.escape(boundary.rstrip(b" \t")) + rb"(--)?[ \t]*(?:\r\n|\Z)"
    return re.compile(line, re.MULTILINE)
