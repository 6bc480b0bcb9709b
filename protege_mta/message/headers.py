"""Reading the header section of a message (RFC 5322, sections 2.2 and 3.6; RFC 2047).

Written for the way of every message: nothing is parsed that was not asked for, nothing raises
whatever the octets are, and no octet is changed.  Line ends are CRLF; a bare CR or LF is an octet
like any other.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from ..model.value import value

SUBJECT_CHARACTERS: Final = 200
"""As much of a Subject as is worth keeping beside a queued message."""

_MESSAGE_ID_OCTETS: Final = 998
_SUBJECT_OCTETS: Final = 2000  # 200 characters in the wordiest encoding

_WHITE: Final = (b" ", b"\t")
_WELL_FORMED: Final = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*(?:\r\n)?")


_GLANCED_AT: Final = re.compile(
    rb"\r\n(?:received[: \t]|(message-id)[ \t]*:|(subject)[ \t]*:|(\r\n))", re.IGNORECASE
)
"""Fields worth knowing of, and the blank line: one search for all of them."""


@value
class Glance:
    """What is worth knowing of a message at the door.

    :ivar message_id: the Message-ID field's value, empty if none.
    :ivar subject: the Subject field's value, decoded, at most 200 characters, none of them a
        control character.
    :ivar received_count: Received fields, for loop detection (RFC 5321, 6.3).
    """

    message_id: str
    subject: str
    received_count: int


def header_end(octets: bytes) -> int:
    """Offset of the body: behind the blank line, or the end of ``octets`` where there is none."""
    if octets.startswith(b"\r\n"):
        return 2
    at = octets.find(b"\r\n\r\n")
    return len(octets) if at < 0 else at + 4


def glance(head: bytes) -> Glance:
    """Look at a message once, on its way in.

    :param head: the message's first octets, with all of its header section or as much as is wanted.
    """
    header = b"\r\n" + head
    message_id = subject = None
    received_count = 0
    for found in _GLANCED_AT.finditer(header):
        group = found.lastindex
        if group is None:
            received_count += 1
        elif group == 3:
            break
        elif group == 2:
            if subject is None:
                subject = _value(header, found.end())
        elif message_id is None:
            message_id = _value(header, found.end())
    return Glance(
        _plain(message_id[:_MESSAGE_ID_OCTETS]) if message_id else "",
        decoded(subject)[:SUBJECT_CHARACTERS] if subject else "",
        received_count,
    )


def values(header: bytes, name: bytes) -> list[bytes]:
    """The values of every field of that lower-case name, in order; without their folds and the
    white space around them (RFC 5322, 2.2.3)."""
    header = b"\r\n" + header
    lower = header.lower()
    found = []
    at = _find(lower, name)
    while at >= 0:
        found.append(_value(header, at))
        at = _find(lower, name, at)
    return found


def is_well_formed(header: bytes) -> bool:
    """Whether all readers agree about what the fields are, and where the header ends.

    Not even obsolete syntax, white space before a colon (RFC 5322, 4.5), is read alike by all.
    """
    return _WELL_FORMED.fullmatch(header) is not None


# --- text ----------------------------------------------------------------------------------------

_ENCODED_WORD: Final = re.compile(
    rb"=\?([A-Za-z0-9_:.-]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^? ]*)\?="
)
_CHARSET: Final = re.compile(
    r"utf-?8|us-ascii|ascii|iso-8859-\d\d?|iso-2022-(?:jp|kr)|(?:windows|cp)-?125\d|koi8-[ru]|gb2312|"
    r"gbk|gb18030|big5|shift_jis|euc-(?:jp|kr)|ks_c_5601-1987|tis-620",
    re.IGNORECASE,
)
"""Charsets that mail is written in.  Python knows more, but some of its codecs are slow by design,
some warn, and each unknown name that is tried stays in memory."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def decoded(value: bytes) -> str:
    """An unstructured value as text: encoded words decoded, controls made spaces (RFC 2047).

    What cannot be decoded shows as U+FFFD.  Only the first 2,000 octets are looked at.
    """
    value = value[:_SUBJECT_OCTETS]
    if b"=?" not in value:
        return _plain(value)
    pieces: list[tuple[str, bytes]] = []  # neighbours of one charset are one run of octets
    end = 0
    for word in _ENCODED_WORD.finditer(value):
        between = value[end : word.start()]
        if between.strip(b" \t\r\n") or not pieces:
            pieces.append(("utf-8", between))
        charset, octets = word[1].decode("ascii").lower(), _word_octets(word[2], word[3])
        if pieces[-1][0] == charset and end == word.start() - len(between) and end:
            pieces[-1] = (charset, pieces[-1][1] + octets)
        else:
            pieces.append((charset, octets))
        end = word.end()
    pieces.append(("utf-8", value[end:]))
    return _CONTROLS.sub(" ", "".join(charset_text(*piece) for piece in pieces)).strip()


def encoded_words(value: bytes) -> tuple[bytes, list[str | None]]:
    """A value without its encoded words.

    :return: that, and what each word says, in order; None for one in a charset that is not known.
    """
    said = [
        charset_text(word[1].decode("ascii"), _word_octets(word[2], word[3]))
        if _CHARSET.fullmatch(word[1].decode("ascii"))
        else None
        for word in _ENCODED_WORD.finditer(value)
    ]
    return _ENCODED_WORD.sub(b"", value), said


def _word_octets(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"qQ":
        return binascii.a2b_qp(text, header=True)
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b"?"


def charset_text(charset: str, octets: bytes) -> str:
    """Octets as text; what cannot be decoded shows as U+FFFD, as does all but ASCII in a charset that
    is not known."""
    if not _CHARSET.fullmatch(charset):
        charset = "ascii"
    try:
        return octets.decode(charset, "replace")
    except LookupError:  # iso-8859-12 and the like
        return octets.decode("ascii", "replace")


def _plain(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    return text if text.isprintable() else _CONTROLS.sub(" ", text).strip()


# --- structured values ---------------------------------------------------------------------------

_TOKEN: Final = re.compile(rb'\\.|["()]|[^\\"()]+|\\', re.DOTALL)
_DOMAIN: Final = re.compile(
    rb"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9_.\x80-\xff-]*[A-Za-z0-9_\x80-\xff])?"
)


def simplified(value: bytes) -> tuple[bytes, list[bytes]]:
    """A structured value with each comment made a space and each quoted string made one ``"``.

    :return: that, and what the quoted strings hold, quoting undone, in order.
    """
    if b"(" not in value and b'"' not in value:
        return value, []
    plain: list[bytes] = []
    quoted: list[bytes] = []
    depth, is_quoted = 0, False
    for match in _TOKEN.finditer(value):
        token = match[0]
        if is_quoted:
            if token == b'"':
                is_quoted = False
            else:
                quoted[-1] += token[1:] if token[:1] == b"\\" else token
        elif token == b'"' and not depth:
            is_quoted = True
            quoted.append(b"")
            plain.append(token)
        elif token == b"(":
            depth += 1
            plain.append(b" ")
        elif token == b")" and depth:
            depth -= 1
        elif not depth:
            plain.append(token)
    return b"".join(plain), quoted


def from_domain(header: bytes) -> str:
    """The domain of the author, in lower case: the one whose DKIM key may sign.

    Empty where there is no one answer: no From field or several, several mailboxes, a group, an
    address literal, a header section that readers may disagree about.  U-labels stay as they are.
    """
    found = values(header, b"from")
    if len(found) != 1 or not is_well_formed(header):
        return ""
    value, _ = simplified(found[0])
    phrase, bracket, path = value.partition(b"<")
    if bracket:
        address, closing, rest = path.partition(b">")
        if not closing or rest.strip(b" \t") or any(octet in b",:;" for octet in phrase):
            return ""
    else:
        address = value
    local, at, domain = address.strip(b" \t").partition(b"@")
    if not local or not at or not _DOMAIN.fullmatch(domain) or any(o in b",:; \t" for o in local):
        return ""
    try:
        return domain.decode("utf-8").lower()
    except UnicodeDecodeError:
        return ""


def _find(lower: bytes, name: bytes, start: int = 0) -> int:
    """Offset of a field's value in a lower-case header section that opens with CRLF; -1 if none."""
    at = lower.find(b"\r\n" + name, start)
    while at >= 0:
        end = at + 2 + len(name)
        while lower[end : end + 1] in _WHITE:
            end += 1
        if lower[end : end + 1] == b":":
            return end + 1
        at = lower.find(b"\r\n" + name, end)
    return -1


def _value(header: bytes, at: int) -> bytes:
    """The unfolded value that starts at an offset; empty for -1."""
    if at < 0:
        return b""
    end = header.find(b"\r\n", at)
    if end >= 0 and header[end + 2 : end + 3] not in _WHITE:
        return header[at:end].strip(b" \t")
    while end >= 0 and header[end + 2 : end + 3] in _WHITE:
        end = header.find(b"\r\n", end + 2)
    value = header[at:end] if end >= 0 else header[at:]
    return value.replace(b"\r\n", b"").strip(b" \t")
