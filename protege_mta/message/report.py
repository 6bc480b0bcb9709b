"""Reading what other systems report about mail of ours: delivery status notifications (RFC 3464;
RFC 6533), and complaints in the abuse reporting format (RFC 5965; RFC 6650).

Lenient: senders of reports are old, many, and wrong in their own ways.  Nothing raises, whatever the
octets are, and the work is bounded by their number.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

import attrs

from ..model.address import Address, parse
from ..model.reply import Reply
from .headers import header_end, values
from .mime import content_type, delimiter, transfer_encoding

REPORT_OCTETS: Final = 262_144
"""So much of a report is looked at."""
_PARTS: Final = 50
_RECIPIENTS: Final = 1000
_DEPTH: Final = 4
_TEXT_CHARACTERS: Final = 500


@attrs.frozen
class Status:
    """What a notification says of one recipient.

    :ivar recipient: as the reporting server knows it; None where it says none that is an address.
    :ivar original: as we wrote it, where the report tells.
    :ivar action: ``failed``, ``delayed``, ``delivered``, ``relayed`` or ``expanded``.
    :ivar reply: the diagnosis, in the shape of a reply.
    """

    recipient: Address | None
    original: Address | None
    action: str
    reply: Reply


@attrs.frozen
class Notification:
    """A DSN.  :ivar reporting_mta: who says so, in its own words."""

    statuses: tuple[Status, ...]
    reporting_mta: str = ""


@attrs.frozen
class Complaint:
    """An ARF report.

    :ivar kind: the feedback type (RFC 5965, 7.3): ``abuse``, ``fraud``, ``not-spam``, ...
    :ivar recipients: who complains, where the report tells.
    :ivar return_paths: to whom the message would have come back: addresses in the report, the
        likelier ones first.
    """

    kind: str
    user_agent: str = ""
    recipients: tuple[Address, ...] = ()
    return_paths: tuple[Address, ...] = ()


def read(octets: bytes) -> Notification | Complaint | None:
    """What a message reports, judged by its first :data:`REPORT_OCTETS`; None for any other mail."""
    octets = _with_crlf(octets[:REPORT_OCTETS])
    parts = _parts(octets)
    for kind, body in parts:
        if kind == "message/feedback-report":
            return _complaint(body, parts)
    for kind, body in parts:
        if kind in ("message/delivery-status", "message/global-delivery-status"):
            found = _notification(body)
            if found is not None:
                return found
    return _guessed(octets, parts)


# --- MIME ----------------------------------------------------------------------------------------

Part = tuple[str, bytes]
"""Media type and decoded body."""


def _with_crlf(octets: bytes) -> bytes:
    return re.sub(rb"\r\n|\r|\n", b"\r\n", octets)


def _parts(octets: bytes) -> list[Part]:
    """All parts that are no multiparts themselves, in order."""
    found: list[Part] = []
    waiting = [(octets, 0)]
    while waiting and len(found) < _PARTS:
        entity, depth = waiting.pop()
        end = header_end(entity)
        header, body = entity[:end], entity[end:]
        stated = values(header, b"content-type")
        kind = content_type(stated[0]) if stated else None
        if kind is not None and kind.main == "multipart" and kind.boundary and depth < _DEPTH:
            pieces = _pieces(body, kind.boundary)
            waiting += [(piece, depth + 1) for piece in reversed(pieces)]
        else:
            name = f"{kind.main}/{kind.sub}" if kind is not None else "text/plain"
            found.append((name, _decoded(header, body)))
    return found


def _pieces(body: bytes, boundary: bytes) -> list[bytes]:
    pieces, start = [], -1
    for found in delimiter(boundary).finditer(body):
        if start >= 0:
            pieces.append(body[start : max(start, found.start() - 2)])
        start = found.end()
        if found[1] or len(pieces) >= _PARTS:
            return pieces
    if start >= 0:  # cut short
        pieces.append(body[start:])
    return pieces


def _decoded(header: bytes, body: bytes) -> bytes:
    stated = values(header, b"content-transfer-encoding")
    encoding = transfer_encoding(stated[0]) if stated else ""
    if encoding == "base64":
        try:
            plain = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
            return _with_crlf(binascii.a2b_base64(plain[: len(plain) // 4 * 4]))
        except binascii.Error:
            return body
    if encoding == "quoted-printable":
        return _with_crlf(binascii.a2b_qp(body))
    return body


def _text(octets: bytes) -> str:
    """As one line of printable text, and not too much of it."""
    text = octets[: 4 * _TEXT_CHARACTERS].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:_TEXT_CHARACTERS]


def _field(fields: bytes, name: bytes) -> str:
    found = values(fields, name)
    return _text(found[0]) if found else ""


# --- addresses -----------------------------------------------------------------------------------

_IN_BRACKETS: Final = re.compile(r"<([^<>\s]{3,320})>")
_BARE: Final = re.compile(r"[^\s<>\"'(),;:]{1,64}@[^\s<>\"'(),;:\[\]]{1,255}")


def _address(text: str) -> Address | None:
    """The address in a field such as ``rfc822; <a@b.example>``."""
    _, semicolon, behind = text.partition(";")
    text = (behind if semicolon else text).strip()
    for pattern in (_IN_BRACKETS, _BARE):
        for found in pattern.findall(text):
            address = parse(found.rstrip("."), is_smtputf8=True)
            if address is not None:
                return address
    return parse(text.strip("<>"), is_smtputf8=True)


# --- notifications -------------------------------------------------------------------------------

_STATUS: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CODE: Final = re.compile(r"(?<![\d.])([245]\d\d)(?![\d.])")
_ACTIONS: Final = ("failed", "delayed", "delivered", "relayed", "expanded")
_BLANK: Final = re.compile(rb"(?:\r\n[ \t]*){2,}")


def _notification(body: bytes) -> Notification | None:
    """The message/delivery-status part (RFC 3464, 2.1)."""
    blocks = [block for block in _BLANK.split(body.strip()) if block.strip()]
    statuses = [_status(block + b"\r\n") for block in blocks[: _RECIPIENTS + 1]]
    found = [status for status in statuses if status is not None]
    if not found:
        return None
    reporting = _field(blocks[0] + b"\r\n", b"reporting-mta")
    return Notification(tuple(found), reporting.partition(";")[2].strip() or reporting)


def _status(fields: bytes) -> Status | None:
    """The fields of one recipient; None for the message's own."""
    final, original = _field(fields, b"final-recipient"), _field(fields, b"original-recipient")
    stated = _field(fields, b"action").partition(" ")[0].lower().rstrip(";")
    if not final and not original:
        return None
    diagnosis = _field(fields, b"diagnostic-code")
    kind, semicolon, text = diagnosis.partition(";")
    if not semicolon or " " in kind.strip():
        text = diagnosis
    status = _field(fields, b"status")
    action = stated if stated in _ACTIONS else ("delayed" if status[:1] == "4" else "failed")
    return Status(
        _address(final), _address(original), action, _diagnosed(text.strip(), status, action)
    )


_CLASSES: Final = {"failed": 5, "delayed": 4}


def _diagnosed(text: str, status: str, action: str) -> Reply:
    """A diagnosis as the reply that it was, or might have been."""
    digit = _CLASSES.get(action, 2)
    said = _STATUS.search(status)
    inside = _STATUS.search(text)
    # "5.0.0" says nothing that the text would not say better.
    if inside is not None and (said is None or said[0].endswith((".0.0", ".0"))):
        said = inside
    code = _CODE.search(text[:200])
    enhanced = said[0] if said is not None else ""
    number = int(code[1]) if code is not None else digit * 100 + 50
    if code is not None:
        text = text[code.end() :].lstrip(" -#")
        text = text.removeprefix(enhanced).strip(" -") if enhanced else text
    if number // 100 != digit:
        number = digit * 100 + 50
    return Reply(number, enhanced, (text or "no diagnosis was given",))


_FAILED_BY_QMAIL: Final = re.compile(
    rb"^<([^<>\s]{3,320})>:[ \t]*\r\n((?:(?!<|---)[^\r\n]+\r\n){1,10})", re.MULTILINE
)
_QMAIL: Final = re.compile(rb"(?:qmail-send program|--- Below this line is a copy of the message)")
_BLOCK: Final = re.compile(rb"^final-recipient[ \t]*:", re.IGNORECASE | re.MULTILINE)


def _guessed(octets: bytes, parts: list[Part]) -> Notification | None:
    """A notification in a shape that no standard knows: qmail's, old Exim's, a status part that is
    labelled as text."""
    header = octets[: header_end(octets)]
    texts = b"\r\n\r\n".join(body for kind, body in parts if kind.startswith("text/"))
    if _BLOCK.search(texts) and values(header, b"content-type"):
        found = _notification(texts)
        if found is not None:
            return found
    failed = values(header, b"x-failed-recipients")
    if failed:
        plain = _text(texts)
        at = _STATUS.search(plain) or _CODE.search(plain)
        said = plain[max(0, at.start() - 10) :] if at is not None else ""
        names = [_address(one) for one in _text(b",".join(failed)).split(",")[:_RECIPIENTS]]
        reply = _diagnosed(said[said.find(" ") + 1 :] if at is not None else "", "", "failed")
        return Notification(tuple(Status(one, None, "failed", reply) for one in names if one))
    if _QMAIL.search(texts):
        statuses = [
            Status(_address(_text(name)), None, "failed", _diagnosed(_text(said), "", "failed"))
            for name, said in _FAILED_BY_QMAIL.findall(texts)[:_RECIPIENTS]
        ]
        if statuses:
            return Notification(tuple(statuses))
    return None


# --- complaints ----------------------------------------------------------------------------------

_RETURN_PATH: Final = re.compile(rb"\bb\+[0-9a-z]{50}@[0-9a-z.-]{1,255}", re.IGNORECASE)


def _complaint(body: bytes, parts: list[Part]) -> Complaint:
    fields = body.strip(b"\r\n") + b"\r\n"
    recipients = [
        _address(_text(value))
        for name in (b"original-rcpt-to", b"removal-recipient")
        for value in values(fields, name)
    ]
    originals = [
        octets
        for kind, octets in parts
        if kind in ("message/rfc822", "text/rfc822-headers", "message/global")
        or kind == "message/global-headers"
    ]
    paths: list[Address | None] = [_address(_field(fields, b"original-mail-from"))]
    for octets in originals:
        header = octets[: header_end(octets)]
        paths.append(_address(_field(header, b"return-path")))
    for octets in (body, *originals):
        paths += [_address(_text(found)) for found in _RETURN_PATH.findall(octets)[:10]]
    return Complaint(
        _field(fields, b"feedback-type").lower()[:40] or "other",
        _field(fields, b"user-agent")[:200],
        tuple(dict.fromkeys(one for one in recipients if one)),
        tuple(dict.fromkeys(one for one in paths if one)),
    )
