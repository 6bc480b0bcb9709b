"""The parts of a message, by where they lie (RFC 2045, RFC 2046, RFC 2231).

Content is read in pieces and never changed; a message of any size takes little memory.  Nothing
raises whatever the octets are; depth and number of parts are bounded, and what lies beyond is part
of what it lies in.
"""

from __future__ import annotations

import binascii
import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs

from ..model.ports import Octets
from .headers import charset_text, decoded, header_end, simplified, values
from .mime import MESSAGE, PLAIN_TEXT, ContentType, content_type, transfer_encoding

DEPTH: Final = 16
PARTS: Final = 500
HEADER_OCTETS: Final = 65_536
"""So much of a part's header is looked at."""

PARAMETERS: Final = 1000
"""So many of a field are looked at; a name that is continued (RFC 2231, 3) has one for each piece."""

NAME_CHARACTERS: Final = 255

_DELIMITERS: Final = 20_000
_PIECE_OCTETS: Final = 262_144
_LINE_OCTETS: Final = 256
_DASHED: Final = re.compile(rb"\r\n(--[^\r\n]{1,200}+)(?=\r\n|\Z)")
_PARAMETER: Final = re.compile(rb';[ \t]*+([^\s=;"]+)[ \t]*+=[ \t]*+("|[^\s;"]+)')
_SECTION: Final = re.compile(rb"([^*]+)(?:\*(\d{1,3}))?(\*)?")
_NOT_BASE64: Final = bytes(
    octet
    for octet in range(256)
    if octet not in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
)
_SEPARATORS: Final = re.compile(r"[/\\]+")


@attrs.frozen
class Part:
    """A part without parts in it.

    :ivar header: as much of it as is looked at.
    :ivar start: where its body begins in the content.
    :ivar end: and where it ends.
    :ivar kind: its media type.
    :ivar is_body: whether it is text to be read with the message, rather than an attachment.
    """

    header: bytes = attrs.field(repr=False)
    start: int
    end: int
    kind: ContentType
    is_body: bool

    @property
    def encoding(self) -> str:
        return transfer_encoding(first(self.header, b"content-transfer-encoding"))

    @property
    def name(self) -> str:
        """What its sender called it, without separators of paths; empty where it did not."""
        found = parameters(first(self.header, b"content-disposition")).get("filename", "")
        found = found or parameters(first(self.header, b"content-type")).get("name", "")
        return _SEPARATORS.sub("_", found)[:NAME_CHARACTERS]

    @property
    def charset(self) -> str:
        return parameters(first(self.header, b"content-type")).get("charset", "utf-8")


@attrs.frozen
class Parts:
    """:ivar header: the message's own.  :ivar is_cut: whether there is more than is told here."""

    header: bytes = attrs.field(repr=False)
    leaves: tuple[Part, ...]
    is_cut: bool


def first(header: bytes, name: bytes) -> bytes:
    """The first value of a field; empty where there is none."""
    found = values(header, name)
    return found[0] if found else b""


def read_parts(octets: Octets) -> Parts:
    """Find the parts of a message."""
    return _Walk(octets).parts()


def attachments(parts: Parts) -> list[Part]:
    """Those that are attachments, in the order of their numbers."""
    return [part for part in parts.leaves if not part.is_body]


def body_of(octets: Octets, part: Part) -> Iterator[bytes]:
    """A part's content, its transfer encoding undone, in pieces."""
    match part.encoding:
        case "base64":
            return _base64(octets, part)
        case "quoted-printable":
            return _quoted_printable(octets, part)
    return _pieces(octets, part)


def text_of(octets: Octets, part: Part, most_octets: int) -> tuple[str, bool]:
    """A part's text, with LF line ends, and whether it was cut."""
    found, size = [], 0
    for piece in body_of(octets, part):
        found.append(piece)
        size += len(piece)
        if size > most_octets:
            break
    octets_found = b"".join(found)[:most_octets]
    text = charset_text(part.charset, octets_found)
    return text.replace("\r\n", "\n"), size > most_octets


def parameters(value: bytes) -> dict[str, str]:
    """The parameters of an unfolded value by lower-case name, continued and encoded ones put
    together (RFC 2231, 3 and 4; RFC 2047 in values, as everybody sends them)."""
    plain, quoted = simplified(value)
    sections: dict[str, list[tuple[int, bool, bytes]]] = {}
    quotes = at = 0  # how many quoted strings there were before that
    for found in islice(_PARAMETER.finditer(plain), PARAMETERS):
        raw = found[2]
        quotes += plain.count(b'"', at, found.start(2))
        at = found.start(2)
        if raw == b'"':
            raw = quoted[quotes]
        name = _SECTION.fullmatch(found[1])
        if name is not None:
            key = name[1].decode("ascii", "replace").lower()
            section = (int(name[2] or 0), name[3] is not None, raw)
            sections.setdefault(key, []).append(section)
    return {name: _joined(found) for name, found in sections.items()}


def _joined(sections: list[tuple[int, bool, bytes]]) -> str:
    sections.sort(key=lambda one: one[0])
    if not sections[0][1]:
        return decoded(b"".join(raw for _, _, raw in sections))
    charset, quote, rest = sections[0][2].partition(b"'")
    if quote:
        _, _, rest = rest.partition(b"'")
    else:
        charset, rest = b"utf-8", charset
    octets = unquote_to_bytes(rest) + b"".join(
        unquote_to_bytes(raw) if is_encoded else raw for _, is_encoded, raw in sections[1:]
    )
    text = charset_text(charset.decode("ascii", "replace"), octets)
    return "".join(one if one.isprintable() else " " for one in text).strip()


class _Walk:
    """One pass for all lines that may be delimiters, then a look at each part's header."""

    def __init__(self, octets: Octets) -> None:
        self._octets = octets
        self._size = octets.size_octets
        self._lines: list[tuple[int, bytes]] = []
        self._leaves: list[Part] = []
        self._is_cut = False

    def parts(self) -> Parts:
        header = self._header(0, self._size)
        kind = content_type(first(header, b"content-type")) or PLAIN_TEXT
        if kind.main == "multipart":
            self._find_lines(max(0, len(header) - 2))
        self._walk(0, self._size, PLAIN_TEXT, 0)
        return Parts(header, tuple(self._leaves), self._is_cut)

    def _header(self, start: int, end: int) -> bytes:
        octets = self._octets.read(start, min(end - start, HEADER_OCTETS))
        return octets[: header_end(octets)]

    def _find_lines(self, start: int) -> None:
        for offset in range(start, self._size, _PIECE_OCTETS):
            piece = self._octets.read(offset, _PIECE_OCTETS + _LINE_OCTETS)
            for found in _DASHED.finditer(piece):
                if found.start() >= _PIECE_OCTETS:
                    break
                if len(self._lines) >= _DELIMITERS:
                    self._is_cut = True
                    return
                self._lines.append((offset + found.start(1), found[1]))

    def _walk(self, start: int, end: int, default: ContentType, depth: int) -> None:
        if len(self._leaves) >= PARTS:
            self._is_cut = True
            return
        header = self._header(start, end)
        body = min(end, start + len(header))
        kind = content_type(first(header, b"content-type")) or default
        if kind.main == "multipart" and kind.boundary:
            if depth < DEPTH:
                inner = MESSAGE if kind.sub == "digest" else PLAIN_TEXT
                for child in self._spans(kind.boundary, body, end):
                    self._walk(*child, inner, depth + 1)
                return
            self._is_cut = True
        self._leaves.append(Part(header, body, end, kind, _is_body(header, kind)))

    def _spans(self, boundary: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a multipart (RFC 2046, 5.1.1); one that is never closed ends with its whole."""
        opening = b"--" + boundary.rstrip(b" \t")
        begun = -1
        for number in range(bisect_left(self._lines, (start, b"")), len(self._lines)):
            at, raw = self._lines[number]
            if at >= end:
                break
            line = raw.rstrip(b" \t")
            if line not in (opening, opening + b"--"):
                continue
            if begun >= 0:
                yield begun, max(begun, at - 2)
            if line != opening:
                return
            begun = min(end, at + len(raw) + 2)
        if begun >= 0:
            yield begun, end


def _is_body(header: bytes, kind: ContentType) -> bool:
    if kind.main != "text" or kind.sub not in ("plain", "html"):
        # What is in a multipart without a boundary is there to be read, if by nobody else.
        return False
    disposition = first(header, b"content-disposition")
    word = simplified(disposition)[0].partition(b";")[0].strip(b" \t").lower()
    return word != b"attachment" and "filename" not in parameters(disposition)


def _pieces(octets: Octets, part: Part) -> Iterator[bytes]:
    for offset in range(part.start, part.end, _PIECE_OCTETS):
        yield octets.read(offset, min(_PIECE_OCTETS, part.end - offset))


def _base64(octets: Octets, part: Part) -> Iterator[bytes]:
    held = b""
    for piece in _pieces(octets, part):
        held += piece.translate(None, _NOT_BASE64)
        whole = len(held) // 4 * 4
        yield binascii.a2b_base64(held[:whole])
        held = held[whole:]
    if len(held) > 1:
        yield binascii.a2b_base64(held + b"=" * (4 - len(held)))


def _quoted_printable(octets: Octets, part: Part) -> Iterator[bytes]:
    held = b""
    for piece in _pieces(octets, part):
        held += piece
        cut = held.rfind(b"\n") + 1
        if not cut:  # not between the characters of an octet
            equals = held.rfind(b"=", max(0, len(held) - 3))
            cut = equals if equals >= 0 else len(held)
        yield binascii.a2b_qp(held[:cut])
        held = held[cut:]
    yield binascii.a2b_qp(held)
