"""Messages made of their parts, as programs hand them in (RFC 5322; MIME: RFC 2045 to 2047, 2231,
2387; RFC 6532 where an address needs it; List-Unsubscribe: RFC 2369, RFC 8058).

The octets are a function of the :class:`Draft` alone.  They are US-ASCII unless a local-part is
not, so that no hop has to recode them, in lines of 998 octets at most.  The standard library's
``email`` package makes the same of them in ten times the time.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import quote

import attrs

from ..model.address import Address

LINE_OCTETS: Final = 998
"""RFC 5322, 2.1.1."""

_FOLD_AT: Final = 76  # RFC 2047, 2, which is more careful than RFC 5322
_WORD_OCTETS: Final = 75
_TOKEN_OCTETS: Final = 900  # what has no space to fold at, and still leaves room for a name


@attrs.frozen
class Mailbox:
    """:ivar name: the display name; empty if none."""

    address: Address
    name: str = ""


@attrs.frozen(kw_only=True)
class Attachment:
    """:ivar content_type: with parameters, if it has some; what is no media type, or one that may
        not be encoded, becomes ``application/octet-stream``.
    :ivar content_id: without angle brackets, for ``cid:`` in HTML; empty for what is no part of it.
    """

    content: bytes = attrs.field(repr=False)
    filename: str = "attachment"
    content_type: str = "application/octet-stream"
    content_id: str = ""


@attrs.frozen(kw_only=True)
class Draft:
    """A message in parts; texts without controls, see :func:`flaw_of_text`.

    :ivar sender: None where the author is that too (RFC 5322, 3.6.2).
    :ivar text: None where there is none; with neither text nor HTML the body is empty.
    :ivar fields: more fields, each accepted by :func:`flaw_of_field`.
    :ivar date: a date-time (RFC 5322, 3.3).
    :ivar message_id: with its angle brackets.
    :ivar seed: letters, digits and hyphens that no other message has, for boundaries.
    """

    author: Mailbox
    sender: Mailbox | None = None
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    amp: str | None = None
    attachments: tuple[Attachment, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    date: str
    message_id: str
    seed: str


def composed(draft: Draft) -> bytes:
    """The message, with CRLF line ends."""
    given = {name.lower() for name, _ in draft.fields}
    lines = [f"Date: {draft.date}\r\n", _mailboxes("From", (draft.author,))]
    if draft.sender is not None:
        lines.append(_mailboxes("Sender", (draft.sender,)))
    if draft.to:
        lines.append(_mailboxes("To", draft.to))
    elif not draft.cc:
        lines.append("To: undisclosed-recipients:;\r\n")
    if draft.cc:
        lines.append(_mailboxes("Cc", draft.cc))
    if draft.reply_to:
        lines.append(_mailboxes("Reply-To", draft.reply_to))
    lines.append(_unstructured("Subject", draft.subject))
    if "message-id" not in given:
        lines.append(f"Message-ID: {draft.message_id}\r\n")
    lines += [_field(name, value) for name, value in draft.fields]
    lines.append("MIME-Version: 1.0\r\n")
    head = "".join(lines).encode("utf-8")
    return b"".join((head, *_entity(draft)))


# --- what may be in it ---------------------------------------------------------------------------

_CONTROLS: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME: Final = re.compile(r"[!-9;-~]{1,76}")
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,480}@[!-;=?-~]{1,480}>")
_MESSAGE_IDS: Final = re.compile(r"(?:<[!-;=?-~]{1,900}>\s*)+")
_CONTENT_ID: Final = re.compile(r"[!-;=?-~]{1,250}")

_OURS: Final = frozenset(
    [
        "from",
        "sender",
        "to",
        "cc",
        "bcc",
        "reply-to",
        "subject",
        "date",
        "return-path",
        "received",
        "delivered-to",
        "mime-version",
        "dkim-signature",
        "authentication-results",
        "received-spf",
        "x-original-to",
        "errors-to",
        "apparently-to",
        "envelope-to",
    ]
)
"""Fields that are made of members, by us, or on the way: trace, structure and word of who it is."""
_OUR_PREFIXES: Final = ("content-", "resent-", "arc-", "domainkey-")
_STRUCTURED: Final = frozenset(
    ["message-id", "in-reply-to", "references", "auto-submitted", "precedence"]
)
_STRUCTURED_PREFIX: Final = "list-"


def flaw_of_text(text: str) -> str:
    """Why a text cannot stand in a header; empty if it can.  Constant, like all of these."""
    return "has a line end or another control character" if _CONTROLS.search(text) else ""


def flaw_of_field(name: str, value: str) -> str:
    """Why there can be no such field; empty if there can."""
    lower = name.lower()
    if not _NAME.fullmatch(name):
        return "is no name of a header field"
    if lower in _OURS or lower.startswith(_OUR_PREFIXES):
        return "is made here, or is a member of its own"
    if not value.strip():
        return "is empty"
    flaw = flaw_of_text(value)
    if flaw:
        return flaw
    if lower == "message-id" and not _MESSAGE_ID.fullmatch(value.strip()):
        return "is no message id"
    if lower in ("in-reply-to", "references") and not _MESSAGE_IDS.fullmatch(value.strip()):
        return "is no list of message ids"
    if _is_structured(lower) and (
        not value.isascii() or any(len(word) > _TOKEN_OCTETS for word in value.split())
    ):
        return "has what such a field cannot have"
    return ""


def flaw_of_content_id(text: str) -> str:
    """Why this can be no content id; empty if it can."""
    return "" if _CONTENT_ID.fullmatch(text) else "is no content id"


def _is_structured(lower: str) -> bool:
    return lower in _STRUCTURED or lower.startswith(_STRUCTURED_PREFIX)


# --- fields --------------------------------------------------------------------------------------

_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PIECE: Final = re.compile(r" *[^ ]+")
_Q_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")


def _field(name: str, value: str) -> str:
    return _folded(name, value) if _is_structured(name.lower()) else _unstructured(name, value)


def _unstructured(name: str, value: str) -> str:
    value = value.replace("\t", " ").strip(" ")
    if len(name) + len(value) + 2 <= _FOLD_AT and value.isascii() and "=?" not in value:
        return f"{name}: {value}\r\n"
    if (
        value.isascii()
        and "=?" not in value
        and all(len(word) <= _TOKEN_OCTETS for word in value.split(" "))
    ):
        return _folded(name, value)
    return f"{name}: {_encoded(value, len(name) + 2)}\r\n"


def _folded(name: str, value: str) -> str:
    """Folded at spaces, all of which stay."""
    line, lines = f"{name}:", []
    for piece in _PIECE.finditer(" " + value.replace("\t", " ").strip(" ")):
        if len(line) + len(piece[0]) > _FOLD_AT and line[-1] != ":":
            lines.append(line)
            line = ""
        line += piece[0]
    return "\r\n".join((*lines, line)) + "\r\n"


def _encoded(text: str, used: int) -> str:
    """Encoded words, each a line of its own (RFC 2047, 2); no character is torn.

    :param used: columns that the first line has already.
    """
    octets = text.encode("utf-8")
    safe = sum(octet in _Q_SAFE or octet == 0x20 for octet in octets)
    is_q = safe * 3 > len(octets) * 2  # four octets for three, or three for each that is not safe
    frame = len("=?utf-8?q??=")
    room = max(min(_WORD_OCTETS, _FOLD_AT - used), frame + 12) - frame
    words: list[str] = []
    word = b""
    for character in text:
        piece = character.encode("utf-8")
        grown = word + (_q(piece) if is_q else piece)
        if (len(grown) if is_q else (len(grown) + 2) // 3 * 4) > room and word:
            words.append(_word(word, is_q))
            grown = _q(piece) if is_q else piece
            room = _WORD_OCTETS - frame
        word = grown
    words.append(_word(word, is_q))
    return "\r\n ".join(words)


def _q(octets: bytes) -> bytes:
    """RFC 2047, 4.2, with what may stand in a phrase too (5)."""
    return b"".join(
        b"_" if octet == 0x20 else bytes((octet,)) if octet in _Q_SAFE else b"=%02X" % octet
        for octet in octets
    )


def _word(octets: bytes, is_q: bool) -> str:
    if is_q:
        return f"=?utf-8?q?{octets.decode('ascii')}?="
    return f"=?utf-8?b?{binascii.b2a_base64(octets, newline=False).decode('ascii')}?="


def _mailboxes(name: str, mailboxes: Sequence[Mailbox]) -> str:
    line, lines = f"{name}:", []
    last = len(mailboxes) - 1
    for index, mailbox in enumerate(mailboxes):
        piece = _mailbox(mailbox, len(name) + 2) + ("," if index < last else "")
        first = piece.find("\r\n")
        if len(line) + 1 + (first if first >= 0 else len(piece)) > _FOLD_AT and line[-1] != ":":
            lines.append(line)
            line = ""
        line += f" {piece}"
    return "\r\n".join((*lines, line)) + "\r\n"


def _mailbox(mailbox: Mailbox, used: int) -> str:
    name, address = mailbox.name.replace("\t", " ").strip(" "), mailbox.address
    if not name:
        return address
    if _ATOMS.fullmatch(name) and "=?" not in name and len(name) <= _FOLD_AT:
        return f"{name} <{address}>"
    if name.isascii() and "=?" not in name and len(name) <= _FOLD_AT:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{address}>'
    words = _encoded(name, used)
    column = len(words) - words.rfind("\n") - 1 + (used if "\n" not in words else 0)
    between = "\r\n " if column + len(address) + 4 > _FOLD_AT else " "
    return f"{words}{between}<{address}>"


# --- bodies --------------------------------------------------------------------------------------

_NOT_7BIT: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_Part = list[bytes]
"""A MIME entity in pieces: its fields, a blank line, its body with a CRLF at the end."""


def _entity(draft: Draft) -> _Part:
    boundaries = _boundaries(draft.seed)
    inline = [one for one in draft.attachments if one.content_id and draft.html is not None]
    attached = [one for one in draft.attachments if one not in inline]
    bodies: list[_Part] = []
    if draft.text is not None or (draft.html is None and draft.amp is None):
        bodies.append(_text("plain", draft.text or ""))
    if draft.amp is not None:
        bodies.append(_text("x-amp-html", draft.amp))
    if draft.html is not None:
        html = _text("html", draft.html)
        if inline:
            parts = [html, *(_file(one, "inline") for one in inline)]
            html = _multipart("related", parts, next(boundaries), '; type="text/html"')
        bodies.append(html)
    body = bodies[0] if len(bodies) == 1 else _multipart("alternative", bodies, next(boundaries))
    if not attached:
        return body
    parts = [body, *(_file(one, "attachment") for one in attached)]
    return _multipart("mixed", parts, next(boundaries))


def _boundaries(seed: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"=_{seed}_{number}"  # what neither quoted-printable nor base64 ever has in a line


def _multipart(kind: str, parts: Sequence[_Part], boundary: str, more: str = "") -> _Part:
    mark = f"--{boundary}"
    whole = [
        f'Content-Type: multipart/{kind};\r\n boundary="{boundary}"{more}\r\n\r\n'.encode("ascii")
    ]
    for part in parts:
        whole.append(f"{mark}\r\n".encode("ascii"))
        whole += part
    whole.append(f"{mark}--\r\n".encode("ascii"))
    return whole


def _text(kind: str, text: str) -> _Part:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\n", "\r\n")
    if not text.endswith("\r\n"):
        text += "\r\n"
    octets = text.encode("utf-8")
    encoding, charset = "7bit", "us-ascii" if text.isascii() else "utf-8"
    if (
        charset == "utf-8"
        or _NOT_7BIT.search(octets)
        or b"=_" in octets  # as our boundaries begin
        or max(map(len, octets.split(b"\r\n"))) > LINE_OCTETS
    ):
        encoding, octets = _recoded(octets)
    head = (
        f'Content-Type: text/{kind}; charset="{charset}"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return [head.encode("ascii"), octets]


def _recoded(octets: bytes) -> tuple[str, bytes]:
    """In the shorter of both; people can read quoted-printable."""
    quoted = binascii.b2a_qp(octets, istext=True)
    if len(quoted) * 3 <= len(octets) * 5:
        return "quoted-printable", quoted
    return "base64", _base64(octets)


def _base64(octets: bytes) -> bytes:
    plain = binascii.b2a_base64(octets, newline=False)
    lines = [plain[at : at + _FOLD_AT] for at in range(0, len(plain), _FOLD_AT)]
    return b"\r\n".join((*lines, b""))


_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}"
_MEDIA_TYPE: Final = re.compile(
    rf'({_TOKEN})/({_TOKEN})((?:\s*;\s*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]{{0,127}}"))*)\s*'
)
_PARAMETER: Final = re.compile(rf';\s*({_TOKEN})=({_TOKEN}|"[^"]*")')
_NOT_FOR_FILES: Final = ("multipart", "message")  # which base64 is not for (RFC 2045, 6.4)
_PLAIN_NAME: Final = re.compile(r"[ !#-\[\]-~]{1,60}")
_ODD: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _file(attachment: Attachment, disposition: str) -> _Part:
    lines = [
        f"Content-Type: {_media_type(attachment.content_type)}\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        f"Content-Disposition: {disposition}{_file_name(attachment.filename)}\r\n",
    ]
    if attachment.content_id:
        lines.append(f"Content-ID: <{attachment.content_id}>\r\n")
    return ["".join((*lines, "\r\n")).encode("ascii"), _base64(attachment.content)]


def _media_type(text: str) -> str:
    match = _MEDIA_TYPE.fullmatch(text.strip()) if text.isascii() and len(text) <= 500 else None
    if match is None or match[1].lower() in _NOT_FOR_FILES:
        return "application/octet-stream"
    return f"{match[1]}/{match[2]}" + "".join(
        f";\r\n {one[1]}={one[2]}" for one in _PARAMETER.finditer(match[3])
    )


def _file_name(name: str) -> str:
    """The parameter of Content-Disposition (RFC 2183, 2.3; RFC 2231, 3 and 4)."""
    name = _ODD.sub(" ", name).strip() or "attachment"
    if _PLAIN_NAME.fullmatch(name):
        return f';\r\n filename="{name}"'
    pieces = [""]
    for character in name:
        piece = quote(character, safe="")
        if len(pieces[-1]) + len(piece) > 55:
            pieces.append("")
        pieces[-1] += piece
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n filename*{n}*={piece}" for n, piece in enumerate(pieces))


# --- unsubscribing -------------------------------------------------------------------------------


def unsubscribe_fields(places: Sequence[str], *, is_one_click: bool) -> tuple[tuple[str, str], ...]:
    """List-Unsubscribe and, if one POST shall do, List-Unsubscribe-Post (RFC 8058, 3.1).

    :param places: ``mailto:`` and ``https:`` URIs.
    """
    field = ("List-Unsubscribe", ", ".join(f"<{one}>" for one in places))
    one_click = ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
    return (field, one_click) if is_one_click else (field,)


_URI: Final = re.compile(r"(?:https?://|mailto:)[!#-;=?-\[\]_a-z~]{1,880}", re.IGNORECASE)


def is_unsubscribe_place(text: str) -> bool:
    """Whether a URI may stand in List-Unsubscribe."""
    return _URI.fullmatch(text) is not None and "," not in text
