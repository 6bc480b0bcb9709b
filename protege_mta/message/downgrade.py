"""What a message has to look like for a hop that lacks 8BITMIME or SMTPUTF8.

For a hop without 8BITMIME the leaf parts with octets above 127 are recoded to quoted-printable
(text) or base64 (the rest), and all else stays as it is, octet for octet (RFC 6152, section 3;
RFC 2045, section 6).  Where that cannot be done, or would break another's signature, the message
is to be returned with 5.6.3.  A hop without SMTPUTF8 cannot be helped at all (RFC 6531, 3.5).

Content is taken whole: only 8-bit mail to a 7-bit hop comes this far, which is rare enough that a
big one may be in memory for once.  :func:`is_fit` tells that before any content is read; recode
off the reactor's thread.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from typing import Final

import attrs

from ..model.address import is_ascii
from ..model.envelope import Envelope, Message
from ..model.ports import HopAbilities
from ..model.reply import Reply
from .headers import header_end, values
from .mime import MESSAGE, PLAIN_TEXT, ContentType, content_type, delimiter, transfer_encoding

CANNOT_RECODE: Final = Reply(
    554, "5.6.3", ("the next hop takes no 8-bit content, and this message cannot be recoded",)
)
NEEDS_SMTPUTF8: Final = Reply(
    553, "5.6.7", ("the next hop takes no addresses or header fields beyond US-ASCII",)
)

_DEPTH: Final = 20  # parts within parts; real mail has five
_ENCODING_FIELD: Final = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*",
    re.IGNORECASE | re.MULTILINE,
)


@attrs.frozen
class Unchanged:
    """The hop takes the content as it is."""


@attrs.frozen
class Recoded:
    """The whole message in 7-bit form."""

    octets: bytes


@attrs.frozen
class Refused:
    """No form of the message would do.  :ivar reply: the permanent failure's cause."""

    reply: Reply


Form = Unchanged | Recoded | Refused


def is_fit(message: Message, recipients: Sequence[int], abilities: HopAbilities) -> bool:
    """Whether the hop takes the content as it is, as far as can be told without reading it.

    :param recipients: indexes of those that this hop gets.
    """
    if abilities.has_8bitmime and abilities.has_smtputf8:
        return True
    if message.is_eight_bit and (not abilities.has_8bitmime or message.envelope.is_smtputf8):
        return False
    return abilities.has_smtputf8 or _is_ascii(message.envelope, recipients)


def for_hop(
    octets: bytes, envelope: Envelope, recipients: Sequence[int], abilities: HopAbilities
) -> Form:
    """Give the message the form that the hop can take.

    :param octets: the whole content, unsigned by us.
    :param recipients: indexes of those that this hop gets.
    """
    header = octets[: header_end(octets)]
    if not abilities.has_smtputf8 and needs_smtputf8(header, envelope, recipients):
        return Refused(NEEDS_SMTPUTF8)
    if abilities.has_8bitmime or octets.isascii():
        return Unchanged()
    if values(header, b"dkim-signature"):
        return Refused(CANNOT_RECODE)
    recoded = _entity(octets, PLAIN_TEXT, _DEPTH, is_message=True)
    if recoded is None:
        return Refused(CANNOT_RECODE)
    return Recoded(recoded if recoded.endswith(b"\r\n") else recoded + b"\r\n")


def needs_smtputf8(header: bytes, envelope: Envelope, recipients: Sequence[int]) -> bool:
    """Whether this transaction cannot do without SMTPUTF8 (RFC 6531, 3.2).

    Raw octets above 127 in the header count only where the sender declared SMTPUTF8: without it
    they are the old sloppiness that 8-bit hops have always passed on.
    """
    if not _is_ascii(envelope, recipients):
        return True
    return envelope.is_smtputf8 and not header.isascii()


def _is_ascii(envelope: Envelope, recipients: Sequence[int]) -> bool:
    return is_ascii(envelope.sender) and all(
        is_ascii(envelope.recipients[index].address) for index in recipients
    )


def _entity(
    octets: bytes, default: ContentType, depth: int, *, is_message: bool = False
) -> bytes | None:
    """A message or a part of one in 7-bit form, or None where it has none.

    :param default: its type where it names none.
    :param depth: how many levels may still lie below.
    """
    if octets.isascii():
        return octets
    end = header_end(octets)
    header, body = octets[:end], octets[end:]
    types = values(header, b"content-type")
    encodings = values(header, b"content-transfer-encoding")
    if not header.isascii() or len(types) > 1 or len(encodings) > 1 or not depth:
        return None
    if encodings and transfer_encoding(encodings[0]) not in ("7bit", "8bit", "binary"):
        return None  # labelled as encoded, and is not
    kind = content_type(types[0]) if types else default
    missing = (
        b"MIME-Version: 1.0\r\n" if is_message and not values(header, b"mime-version") else b""
    )
    recoded: bytes | None
    match kind:
        case None:
            return None
        case ContentType("multipart", sub, boundary):
            encoding = b"7bit"
            recoded = None if sub == "signed" else _parts(body, sub, boundary, depth)
        case ContentType("message", "rfc822"):
            encoding = b"7bit"
            recoded = _entity(body, PLAIN_TEXT, depth - 1, is_message=True)
        case ContentType("message", sub) if not sub.startswith("global"):
            return (
                None  # RFC 2046, 5.2: no encoding is allowed; RFC 6532, 3.7, allows it for global
            )
        case _:
            if not types and default is PLAIN_TEXT:  # RFC 1428, section 3
                missing += b"Content-Type: text/plain; charset=unknown-8bit\r\n"
            encoding, recoded = _leaf(body, is_text=kind.main == "text")
    if recoded is None:
        return None
    if encodings:
        label = b"Content-Transfer-Encoding: " + encoding
        header = _ENCODING_FIELD.sub(label, header, count=1)
    elif encoding != b"7bit":
        missing += b"Content-Transfer-Encoding: %b\r\n" % encoding
    return b"".join((header[:-2], missing, header[-2:], recoded))


def _parts(body: bytes, sub: str, boundary: bytes, depth: int) -> bytes | None:
    """A multipart's body with each part in 7-bit form."""
    if not boundary:
        return None
    default = MESSAGE if sub == "digest" else PLAIN_TEXT
    pieces: list[bytes] = []
    at = 0  # start of the part, or of the preamble
    is_part = False
    for match in delimiter(boundary).finditer(body):
        part = body[at : match.start()]
        # The CRLF before the delimiter belongs to it (RFC 2046, 5.1.1).
        closing = b"\r\n" if part.endswith(b"\r\n") else b""
        recoded = part if part.isascii() else None
        if recoded is None and is_part:
            recoded = _entity(part[: len(part) - len(closing)], default, depth - 1)
            recoded = None if recoded is None else recoded + closing
        if recoded is None:
            return None
        pieces += (recoded, match[0])
        at, is_part = match.end(), True
        if match[1]:
            is_part = False
            break
    rest: bytes | None = body[at:]  # the epilogue, or a part that nothing closes
    if is_part:
        rest = _entity(body[at:], default, depth - 1)
    if rest is None or not rest.isascii():
        return None
    return b"".join((*pieces, rest))


def _leaf(body: bytes, *, is_text: bool) -> tuple[bytes, bytes]:
    """Encoding and encoded form of what is not made of parts; a CRLF at its end is the caller's."""
    if is_text and body.count(b"\r") == body.count(b"\n") == body.count(b"\r\n"):
        # The codec takes its line ends from the first one it meets, and there may be none.
        return b"quoted-printable", binascii.b2a_qp(body + b"\r\n")[:-2]
    lines = [
        binascii.b2a_base64(body[at : at + 57], newline=False) for at in range(0, len(body), 57)
    ]
    return b"base64", b"\r\n".join(lines)
