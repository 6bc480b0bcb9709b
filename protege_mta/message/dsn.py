"""Delivery status notifications (RFC 3464; RFC 6522; RFC 3461, section 6; RFC 4865;
RFC 6533; RFC 8689, section 5; RFC 3834).

:func:`compose` is pure: a DSN made again after a crash is the same octets.  What a peer said is
quoted, and no octet of it gets out of its line.
"""

from __future__ import annotations

import binascii
import re
import textwrap
from collections.abc import Sequence
from typing import Final, Literal

import attrs

from ..model.address import NULL, Address, is_ascii
from ..model.envelope import Message, Notify, Recipient
from ..model.ids import QueueId
from ..model.reply import Reply
from .headers import header_end
from .trace import date

Kind = Literal["failure", "delay", "success"]
Action = Literal["failed", "delayed", "delivered", "relayed"]

FULL_OCTETS: Final = 50_000
"""The largest message that comes back whole, where RET=FULL asks for it."""
HEADER_OCTETS: Final = 65_536
"""As much of a header section as comes back."""

_SAID_CHARACTERS: Final = 500  # of a peer's reply


@attrs.frozen
class Report:
    """What there is to tell of one recipient.

    :ivar reply: the peer's, or ours in the same shape.
    :ivar host: the MTA that gave the reply; empty where it is ours.
    :ivar status: the status code (RFC 3463); empty to take it from the reply.
    :ivar last_attempt_at: POSIX seconds; None where there was no attempt.
    :ivar retry_until: when we shall give up, POSIX seconds; for ``delayed``.
    """

    recipient: Recipient
    action: Action
    reply: Reply
    host: str = ""
    status: str = ""
    last_attempt_at: float | None = None
    retry_until: float | None = None


def wants(notify: Notify, kind: Kind) -> bool:
    """Whether a recipient's NOTIFY asks for such a DSN (RFC 3461, 4.1).

    Left out, it asks for failures, and leaves delays to us: we tell.
    """
    if not notify:
        return kind != "success"
    return bool(notify & _ASKED[kind])


def is_due(message: Message, recipient: Recipient, kind: Kind) -> bool:
    """Whether a DSN has to be sent: it is wanted, and there is somebody to send it to."""
    return message.envelope.sender != NULL and wants(recipient.notify, kind)


def wanted_octets(message: Message, kind: Kind) -> int:
    """How many octets from the start of the content :func:`compose` can make use of."""
    if kind == "failure" and _is_wanted_whole(message):
        return message.size_octets
    return min(message.size_octets, HEADER_OCTETS)


def _is_wanted_whole(message: Message) -> bool:
    """Whether a failure brings back all of it: never with REQUIRETLS (RFC 8689, 5)."""
    envelope = message.envelope
    return (
        envelope.ret == "FULL" and not envelope.requires_tls and message.size_octets <= FULL_OCTETS
    )


def compose(
    *,
    kind: Kind,
    message: Message,
    reports: Sequence[Report],
    original: bytes,
    hostname: str,
    at: float,
    id: QueueId,
    author: Address = NULL,
) -> bytes:
    """Write one DSN to the message's sender, about some of its recipients.

    It goes out with a null reverse-path; with SMTPUTF8 if the sender's address needs it, with
    BODY=8BITMIME if it has octets above 127.

    :param kind: one DSN tells of one kind only.
    :param reports: at least one.
    :param original: the first :func:`wanted_octets` of the content.
    :param hostname: ours.
    :param at: the transition's time, POSIX seconds.
    :param id: the DSN's own.
    :param author: whom it is from; left out, ``MAILER-DAEMON`` at ``hostname``.
    """
    boundary = b"=_" + id.encode("ascii")
    while boundary in original:
        boundary += b"_"
    parts = (
        _explanation(kind, message, reports, hostname),
        _status(message, reports, hostname),
        _returned(kind, message, original),
    )
    header = [
        f"From: Mail Delivery System <{author or f'MAILER-DAEMON@{hostname}'}>",
        f"To: <{message.envelope.sender}>",
        f"Subject: {SUBJECTS[kind]}",
        f"Date: {date(int(at))}",
        f"Message-ID: <{id}@{hostname}>",
    ]
    if _MESSAGE_ID.fullmatch(message.header_message_id):
        header.append(f"In-Reply-To: {message.header_message_id}")
        header.append(f"References: {message.header_message_id}")
    header += [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary.decode("ascii")}"',
    ]
    if not all(part.isascii() for part in parts):
        header.append("Content-Transfer-Encoding: 8bit")
    pieces = ["".join(f"{line}\r\n" for line in header).encode()]
    for part in parts:
        pieces += (b"\r\n--", boundary, b"\r\n", part)
    return b"".join((*pieces, b"\r\n--", boundary, b"--\r\n"))


_ASKED: Final[dict[Kind, Notify]] = {
    "failure": Notify.FAILURE,
    "delay": Notify.DELAY,
    "success": Notify.SUCCESS,
}
SUBJECTS: Final[dict[Kind, str]] = {
    "failure": "Undelivered Mail Returned to Sender",
    "delay": "Delayed Mail (still being retried)",
    "success": "Successful Mail Delivery Report",
}
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,900}>")


# --- for people ----------------------------------------------------------------------------------

_WRAP: Final = textwrap.TextWrapper(72, break_long_words=False, break_on_hyphens=False)
_WRAP_SENTENCE: Final = textwrap.TextWrapper(
    72,
    initial_indent="    ",
    subsequent_indent="    ",
    break_long_words=False,
    break_on_hyphens=False,
)
_OPENINGS: Final[dict[Kind, str]] = {
    "failure": "Your message could not be delivered to the {addresses} below. We have given up:"
    " it will not arrive there.",
    "delay": "Your message has not been delivered to the {addresses} below yet. You need not do"
    " anything: we keep trying, and tell you if we have to give up.",
    "success": "This is the report you asked for when you sent your message.",
}

_ADVICE: Final[dict[str, str]] = {
    "1.1": "There is no such mailbox. Please check the address for typing errors.",
    "1.2": "There is no such mail domain. Please check the part behind the @.",
    "1.3": "The address is not written as mail addresses are.",
    "1.10": "This domain says that it takes no mail at all.",
    "2.1": "The mailbox is disabled.",
    "2.2": "The mailbox is full: the recipient has to make room.",
    "2.3": "The message is too big for this mailbox.",
    "3.4": "The message is too big for the recipient's mail system.",
    "4.1": "The recipient's mail system did not answer.",
    "4.4": "The recipient's domain could not be looked up, or names no mail system.",
    "4.6": "The message went in circles between mail systems.",
    "4.7": "The recipient's mail system could not be reached for too long.",
    "6.3": "The next mail system takes plain ASCII text only, and the message cannot be converted"
    " without breaking it.",
    "6.7": "The next mail system takes no addresses or subjects beyond plain ASCII.",
    "7.1": "The recipient's mail system does not take this message from you.",
    "7.30": "You asked for encryption all the way to the recipient (REQUIRETLS), and the recipient's"
    " mail system does not offer that.",
}
"""By subject and detail of the status code (RFC 3463; RFC 7505)."""


def _explanation(kind: Kind, message: Message, reports: Sequence[Report], hostname: str) -> bytes:
    """The part that people read."""
    paragraphs = [
        _WRAP.fill(f"This is the mail system at {hostname}."),
        _WRAP.fill(
            _OPENINGS[kind].format(addresses="address" if len(reports) == 1 else "addresses")
        ),
    ]
    for report in reports:
        lines = [f"  {report.recipient.address}", *_what_happened(report)]
        paragraphs.append("\n".join(lines))
    about = [f"The message arrived here at {date(int(message.arrived_at))}."]
    if message.subject:
        about.append(f"Its subject: {message.subject}")
    if message.header_message_id:
        about.append(f"Its Message-ID: {_clean(message.header_message_id)}")
    about.append(f"Our name for it: {message.id}")
    paragraphs.append("\n".join(about))
    text = ("\n\n".join(paragraphs) + "\n").replace("\n", "\r\n")
    if text.isascii():
        return _part("text/plain; charset=us-ascii", "7bit", text.encode("ascii"))
    body = binascii.b2a_qp(text.encode("utf-8", "replace"))
    return _part("text/plain; charset=utf-8", "quoted-printable", body)


def _what_happened(report: Report) -> list[str]:
    reply = _said(report.reply)
    sentences = []
    match report.action:
        case "delivered":
            sentences.append("has been delivered to the mailbox.")
        case "relayed":
            sentences.append(
                f"has been handed on to {_clean(report.host) or 'the next mail system'}, which does"
                " not send reports like this one: you may hear no more of it."
            )
        case "failed" | "delayed":
            sentences.append(f"{_clean(report.host)} said: {reply}" if report.host else reply)
            _, _, detail = status_of(report).partition(".")
            if report.action == "failed" and detail in _ADVICE:
                sentences.append(_ADVICE[detail])
    if report.retry_until is not None:
        sentences.append(f"We shall try until {date(int(report.retry_until))}.")
    return [_WRAP_SENTENCE.fill(sentence) for sentence in sentences]


# --- for programs --------------------------------------------------------------------------------

_WRAP_FIELD: Final = textwrap.TextWrapper(
    76, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False
)
_STATUS: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


def status_of(report: Report) -> str:
    """The status code of a report (RFC 3463): given, the reply's, or made from its first digit."""
    for status in (report.status, report.reply.enhanced):
        if _STATUS.fullmatch(status):
            return status
    return f"{report.reply.code // 100}.0.0"


def _status(message: Message, reports: Sequence[Report], hostname: str) -> bytes:
    """The message/delivery-status part (RFC 3464, 2.1), global where it must be (RFC 6533, 3)."""
    lines = []
    if message.envelope.envid:
        lines.append(f"Original-Envelope-Id: {_clean(_unxtext(message.envelope.envid))}")
    lines.append(f"Reporting-MTA: dns; {hostname}")
    lines.append(f"Arrival-Date: {date(int(message.arrived_at))}")
    if message.envelope.future_release:
        lines.append(f"Future-Release-Request: {message.envelope.future_release}")
    is_global = False
    for report in reports:
        address = report.recipient.address
        lines.append("")
        if report.recipient.orcpt:
            kind, _, encoded = report.recipient.orcpt.partition(";")
            # The utf-8 type has an encoding of its own, which is legal here as it is.
            value = encoded if kind.lower() == "utf-8" else _unxtext(encoded)
            lines.append(f"Original-Recipient: {_clean(kind)}; {_clean(value)}")
        lines.append(f"Final-Recipient: {'rfc822' if is_ascii(address) else 'utf-8'}; {address}")
        is_global = is_global or not is_ascii(address)
        lines.append(f"Action: {report.action}")
        lines.append(f"Status: {status_of(report)}")
        if report.host:
            lines.append(f"Remote-MTA: dns; {_clean(report.host)}")
        kind = "smtp" if report.host else "X-Protege-MTA"
        lines += _WRAP_FIELD.wrap(f"Diagnostic-Code: {kind}; {_said(report.reply)}")
        if report.last_attempt_at is not None:
            lines.append(f"Last-Attempt-Date: {date(int(report.last_attempt_at))}")
        if report.retry_until is not None:
            lines.append(f"Will-Retry-Until: {date(int(report.retry_until))}")
    body = "".join(f"{line}\r\n" for line in lines).encode()
    if is_global:
        return _part("message/global-delivery-status", "8bit", body)
    return _part("message/delivery-status", "7bit", body)


def _unxtext(text: str) -> str:
    """Undo xtext (RFC 3461, section 4); as it stands where what comes out is not printable."""
    plain = re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)
    return plain if plain.isascii() and plain.isprintable() else text


# --- what comes back -----------------------------------------------------------------------------

_LONG_LINE: Final = re.compile(rb"[^\n]{999}")  # 998 octets and CR


def _returned(kind: Kind, message: Message, original: bytes) -> bytes:
    """The original: whole where that was asked for and is safe, else its header section."""
    end = header_end(original)
    is_whole = (
        kind == "failure" and _is_wanted_whole(message) and len(original) == message.size_octets
    )
    header = original[:end]
    is_global = not header.isascii() and _is_utf8(header)
    if is_whole and _is_safe(original) and (header.isascii() or is_global):
        encoding = "7bit" if original.isascii() else "8bit"
        closing = b"" if original.endswith(b"\r\n") else b"\r\n"
        name = "message/global" if is_global else "message/rfc822"
        return _part(name, encoding, original + closing)
    if header.endswith(b"\r\n\r\n"):
        header = header[:-2]
    elif header[HEADER_OCTETS - 1 :]:  # cut short, so to the last whole line
        header = header[: header.rfind(b"\r\n") + 2]
    if not header.endswith(b"\r\n"):
        header += b"\r\n"
    if header.isascii() and _is_safe(header):
        return _part("text/rfc822-headers", "7bit", header)
    if is_global and _is_safe(header):
        return _part("message/global-headers", "8bit", header)
    return _part("text/rfc822-headers", "quoted-printable", binascii.b2a_qp(header))


def _is_safe(octets: bytes) -> bool:
    """Whether they may stand in a message without an encoding (RFC 2045, 2.7 and 2.8)."""
    return b"\0" not in octets and _LONG_LINE.search(octets) is None


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _part(kind: str, encoding: str, body: bytes) -> bytes:
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode("ascii") + body


def _said(reply: Reply) -> str:
    """A reply in one harmless line."""
    return _clean(str(reply))


def _clean(text: str) -> str:
    """Printable US-ASCII on one line, and not too much of it."""
    text = re.sub(r"[^!-~]+", " ", re.sub(r"[^\x00-\x7f]", "?", text)).strip()
    return text if len(text) <= _SAID_CHARACTERS else text[:_SAID_CHARACTERS] + "..."
