"""A message as JSON that a program can act on: who wrote what to whom, how far that is proven, and
what is better read with care.

Nothing raises whatever the octets are, and the size is bounded: long texts are cut, big attachments
are told of and lie where their ``url`` says, for as long as the message is kept.  Depth and parts are
bounded by :mod:`.parts`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from ..model.address import NULL
from ..model.envelope import Message
from ..model.ports import Octets
from .headers import decoded, simplified, values
from .html_text import INVISIBLE, as_text, without_invisible
from .parts import Part, Parts, attachments, body_of, first, read_parts, text_of

TEXT_OCTETS: Final = 524_288
"""So much of each of the texts is given."""

INLINE_OCTETS: Final = 65_536
"""An attachment up to this size comes along,"""

ALL_INLINE_OCTETS: Final = 1_048_576
"""as long as all that do are no more than this."""

ADDRESSES: Final = 200
REFERENCES: Final = 100
VALUE_OCTETS: Final = 20_000

_MESSAGE_ID: Final = re.compile(rb"<[^<>\s]{1,996}>")
_PIECE: Final = re.compile(rb"[,;]|<[^>]*+>?|[^,;<]++")
_BULK: Final = frozenset((b"bulk", b"list", b"junk", b"auto_reply"))


class Mailbox(msgspec.Struct, frozen=True):
    """:ivar name: as people see it; empty for none."""

    address: str
    name: str = ""


class Sent(msgspec.Struct, frozen=True):
    """The envelope.  :ivar mail_from: empty for the null reverse-path.  :ivar rcpt_to: this one."""

    mail_from: str
    rcpt_to: str
    peer_address: str
    source: str


class Proof(msgspec.Struct, frozen=True):
    """Results as in RFC 8601; empty where nothing was checked."""

    spf: str
    dkim: str
    dmarc: str


class Attachment(msgspec.Struct, frozen=True, omit_defaults=True):
    """:ivar url: where it is while the message is kept.
    :ivar content_base64: all of it, where it is small.
    """

    index: int
    filename: str
    content_type: str
    size_octets: int
    sha256: str
    url: str
    content_id: str = ""
    is_inline: bool = False
    content_base64: str | None = None


class Raw(msgspec.Struct, frozen=True):
    """The message as it is."""

    url: str
    size_octets: int


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """A message for one recipient.

    :ivar text: of its text/plain parts, as it was sent.
    :ivar html: of its text/html parts, likewise.
    :ivar text_from_html: what a person sees of ``html``.
    :ivar reply_text: of ``text``, or ``text_from_html`` where there is none, what is new: without
        the message that is answered, where there is no doubt which part that is.
    :ivar thread_id: the same for all messages of a conversation.
    :ivar is_automated: nobody is to answer it by a program (RFC 3834).
    :ivar quarantine: why it was not refused outright; empty else.
    :ivar flags: ``hidden-text`` a person would not see all of ``html``, ``invisible-characters``
        there are some in the texts, ``cut`` a text or the list of attachments is not whole.
    """

    type: str = "message"
    message_id: str
    received_at: str
    envelope: Sent
    from_: list[Mailbox] = msgspec.field(name="from")
    to: list[Mailbox]
    cc: list[Mailbox]
    reply_to: list[Mailbox]
    subject: str
    date: str | None
    header_message_id: str
    in_reply_to: str
    references: list[str]
    thread_id: str
    text: str
    html: str
    text_from_html: str
    reply_text: str
    attachments: list[Attachment]
    raw: Raw
    authentication: Proof
    is_automated: bool
    list_id: str
    quarantine: str
    flags: list[str]


def compose(octets: Octets, message: Message, *, public_url: str = "") -> Callable[[int], bytes]:
    """Read a message once; what is given back writes it for each of its recipients.

    :param public_url: what paths begin with; empty to leave them as paths.
    """
    found = inbound(octets, message, public_url=public_url)
    envelope = message.envelope

    def for_recipient(index: int) -> bytes:
        sent = Sent(
            _clean(envelope.sender),
            _clean(envelope.recipients[index].address),
            message.origin.peer_address,
            message.origin.source,
        )
        return msgspec.json.encode(msgspec.structs.replace(found, envelope=sent))

    return for_recipient


def inbound(octets: Octets, message: Message, *, public_url: str = "") -> Inbound:
    """All that is the same for every recipient; the envelope is the first one's."""
    parts = read_parts(octets)
    header = parts.header
    base = f"{public_url.rstrip('/')}/v1/message/{message.id}"
    flags = set()
    texts: dict[str, list[str]] = {"plain": [], "html": []}
    rest = {"plain": TEXT_OCTETS, "html": TEXT_OCTETS}
    for part in parts.leaves:
        if part.is_body and rest[part.kind.sub] > 0:
            text, is_cut = text_of(octets, part, rest[part.kind.sub])
            texts[part.kind.sub].append(_clean(text))
            rest[part.kind.sub] -= len(text) + 1
            if is_cut:
                flags.add("cut")
        elif part.is_body:
            flags.add("cut")
    text, html = "\n".join(texts["plain"]), "\n".join(texts["html"])
    seen = as_text(html)
    if seen.hides:
        flags.add("hidden-text")
    subject = decoded(first(header, b"subject"))
    if any(INVISIBLE.search(one) for one in (text, html, subject)):
        flags.add("invisible-characters")
    if parts.is_cut:
        flags.add("cut")
    message_id = _ids(first(header, b"message-id"))
    in_reply_to = _ids(first(header, b"in-reply-to"))
    references = _ids(first(header, b"references"))
    thread = [*references, *in_reply_to, *message_id, message.id]
    verdicts = message.verdicts
    # Where nothing was checked, the field is whoever's who wrote it.
    quarantine = decoded(first(header, b"x-protege-quarantine")) if verdicts.dmarc else ""
    envelope = message.envelope
    return Inbound(
        message_id=message.id,
        received_at=_time(datetime.fromtimestamp(message.arrived_at, UTC)),
        envelope=Sent(
            _clean(envelope.sender),
            _clean(envelope.recipients[0].address),
            message.origin.peer_address,
            message.origin.source,
        ),
        from_=addresses(header, b"from"),
        to=addresses(header, b"to"),
        cc=addresses(header, b"cc"),
        reply_to=addresses(header, b"reply-to"),
        subject=_clean(subject),
        date=_date(first(header, b"date")),
        header_message_id=message_id[0] if message_id else "",
        in_reply_to=in_reply_to[0] if in_reply_to else "",
        references=references,
        thread_id=thread[0],
        text=text,
        html=html,
        text_from_html=seen.text,
        reply_text=reply_text(without_invisible(text) if text.strip() else seen.text),
        attachments=_attachments(octets, parts, base),
        raw=Raw(f"{base}/raw", octets.size_octets),
        authentication=Proof(verdicts.spf, verdicts.dkim, verdicts.dmarc),
        is_automated=_is_automated(header, message),
        list_id=_clean(decoded(first(header, b"list-id"))),
        quarantine=_clean(quarantine)[:40],
        flags=sorted(flags),
    )


# --- header --------------------------------------------------------------------------------------


def addresses(header: bytes, name: bytes) -> list[Mailbox]:
    """Whom the fields of a name list, as far as one can tell (RFC 5322, 3.4): for people and
    programs to look at, never for a decision about trust."""
    found: list[Mailbox] = []
    for value in values(header, name)[:20]:
        plain, quoted = simplified(value[:VALUE_OCTETS])
        waiting = iter(quoted)
        words: list[bytes] = []
        for piece in [*_PIECE.findall(plain), b","]:
            filled = _refilled(piece, waiting)
            if piece not in (b",", b";"):
                words.append(filled)
                continue
            mailbox = _mailbox(words)
            words = []
            if mailbox is not None and len(found) < ADDRESSES:
                found.append(mailbox)
    return found


def _refilled(piece: bytes, quoted: Iterator[bytes]) -> bytes:
    """With the quoted strings in their places again."""
    start, *others = piece.split(b'"')
    return start + b"".join(next(quoted, b"") + one for one in others)


def _mailbox(words: list[bytes]) -> Mailbox | None:
    path = next((word for word in reversed(words) if word.startswith(b"<")), None)
    if path is None:
        text = b"".join(words)
        address = text.rpartition(b":")[2] if b"@" in text.rpartition(b":")[2] else text
        name = b""
    else:
        address = path.strip(b"<>")
        name = b" ".join(word for word in words if not word.startswith(b"<"))
        head, colon, rest = name.partition(b":")  # the name of a group (RFC 5322, 3.4)
        name = rest if colon and b"=?" not in head else name
    shown = _clean(address.decode("utf-8", "replace")).strip()
    if "@" not in shown:
        return None
    return Mailbox("".join(shown.split()), _clean(" ".join(decoded(name).split())))


def _ids(value: bytes) -> list[str]:
    found = _MESSAGE_ID.findall(value[:VALUE_OCTETS])
    return [one.decode("utf-8", "replace") for one in found[:REFERENCES]]


def _date(value: bytes) -> str | None:
    """RFC 3339; None where it cannot be told."""
    text = simplified(value[:200])[0].decode("ascii", "replace").strip()
    try:
        return _time(parsedate_to_datetime(text).astimezone(UTC))
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"


def _is_automated(header: bytes, message: Message) -> bool:
    """RFC 3834, 2 and 5; RFC 2919; and what was said before them."""
    submitted = simplified(first(header, b"auto-submitted"))[0].partition(b";")[0].strip().lower()
    if submitted not in (b"", b"no") or message.envelope.sender == NULL:
        return True
    if first(header, b"precedence").lower() in _BULK or values(header, b"list-id"):
        return True
    return bool(values(header, b"x-auto-response-suppress") or values(header, b"x-autoreply"))


# --- attachments ---------------------------------------------------------------------------------


def _attachments(octets: Octets, parts: Parts, base: str) -> list[Attachment]:
    found, room = [], ALL_INLINE_OCTETS
    for index, part in enumerate(attachments(parts)):
        one = _attachment(octets, part, index, base, min(room, INLINE_OCTETS))
        if one.content_base64 is not None:
            room -= one.size_octets
        found.append(one)
    return found


def _attachment(octets: Octets, part: Part, index: int, base: str, most: int) -> Attachment:
    digest, size, held = hashlib.sha256(), 0, b""
    for piece in body_of(octets, part):
        digest.update(piece)
        size += len(piece)
        if size <= most:
            held += piece
    content_id = first(part.header, b"content-id").strip(b" \t<>")
    disposition = first(part.header, b"content-disposition").lower()
    return Attachment(
        index=index,
        filename=_clean(part.name),
        content_type=f"{part.kind.main}/{part.kind.sub}",
        size_octets=size,
        sha256=digest.hexdigest(),
        url=f"{base}/attachments/{index}",
        content_id=content_id.decode("utf-8", "replace"),
        is_inline=disposition.startswith(b"inline"),
        content_base64=base64.b64encode(held).decode("ascii") if size <= most else None,
    )


# --- text ----------------------------------------------------------------------------------------

_WROTE: Final = re.compile(
    r"(?:on\b.{4,300}\bwrote|am\b.{4,300}\bschrieb.{0,100}|le\b.{4,300}\ba écrit|el\b.{4,300}\bescribió"
    r"|il\b.{4,300}\bha scritto|op\b.{4,300}\bschreef.{0,100}|em\b.{4,300}\bescreveu)\s?:",
    re.IGNORECASE,
)
_ORIGINAL: Final = re.compile(
    r"-{2,}\s?(?:original message|ursprüngliche nachricht|message d'origine|mensaje original)\s?-{2,}",
    re.IGNORECASE,
)


def reply_text(text: str) -> str:
    """What is new in an answer.

    The message that is answered goes where it stands at the end, behind a line that says so, or as
    quoted lines; nothing goes where its author writes between or below what he quotes.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _ORIGINAL.fullmatch(line[:200].strip()) and any(one.strip() for one in lines[:number]):
            return "\n".join(lines[:number]).strip()
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith(">")):
        end -= 1
    if not any(line.startswith(">") for line in lines[end:]):
        return text.strip()
    for size in (1, 2):  # the line before a quotation may be folded
        said = " ".join(lines[max(0, end - size) : end])
        if len(said) < 500 and _WROTE.fullmatch(said.strip()):
            end -= size
            break
    return "\n".join(lines[: max(0, end)]).strip()


def _clean(text: str) -> str:
    """Text that JSON can hold: lone surrogates stand for octets that were not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
