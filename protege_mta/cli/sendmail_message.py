"""What sendmail(1) does to a message before it is sent: line ends, and header fields that lack."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.headerregistry import Address, AddressHeader
from email.parser import BytesHeaderParser
from email.utils import format_datetime, quote
from typing import Final

from ..message.repair import repaired, split

_SPECIALS: Final = re.compile(r'[()<>\[\]:;@\\,."]')

_RECIPIENTS: Final = ("to", "cc", "bcc")


class BadMessage(Exception):
    """The text cannot be a message."""


def with_crlf(text: bytes, *, ends_at_dot: bool) -> bytes:
    """Give lines the ends that they have on the wire.

    :param ends_at_dot: a line with a dot alone is the end, as in a conversation at a terminal.
    :raise BadMessage: a CR that ends no line, or a NUL.
    """
    text = text.replace(b"\r\n", b"\n")
    if b"\r" in text:
        # Next to a LF it could end our message in the eyes of some server down the line.
        raise BadMessage("a CR without LF in the message")
    if b"\0" in text:
        raise BadMessage("a NUL in the message")
    if ends_at_dot and (text.startswith(b".\n") or text == b"."):
        text = b""
    elif ends_at_dot:
        end = text.find(b"\n.\n")
        if end < 0 and text.endswith(b"\n."):
            end = len(text) - 2
        text = text[: end + 1] if end >= 0 else text
    if text and not text.endswith(b"\n"):
        text += b"\n"
    return text.replace(b"\n", b"\r\n")


def recipients_in(message: bytes) -> list[str]:
    """The addresses of To, Cc and Bcc; of their Resent- forms, where there are any.

    :raise BadMessage: a field cannot be read.
    """
    try:
        return _recipients_in(split(message)[0])
    except (IndexError, AttributeError, TypeError, ValueError) as error:
        # The standard library's parser stumbles over some of what people write.
        raise BadMessage(f"the recipients cannot be read: {error}") from error


def _recipients_in(head: bytes) -> list[str]:
    fields = BytesHeaderParser(policy=policy.SMTPUTF8).parsebytes(head)
    prefix = "resent-" if any(f"resent-{name}" in fields for name in _RECIPIENTS) else ""
    found = []
    for name in _RECIPIENTS:
        for field in fields.get_all(prefix + name, []):
            if not isinstance(field, AddressHeader):
                raise BadMessage(f"{name}: no addresses to be read")
            found += [_spec(address, name) for address in field.addresses]
    return found


def _spec(address: Address, name: str) -> str:
    spec = address.addr_spec if address.domain else address.username
    if not spec:
        raise BadMessage(f"{name}: {str(address)!r} is no address")
    return spec


def complete(message: bytes, *, author: tuple[str, str], hostname: str, now: float) -> bytes:
    """Add Date, From and Message-ID where they are missing, and drop Bcc.

    :param author: name and address for From.
    :param now: POSIX seconds.
    """
    fields, body = split(message)
    name, address = author
    phrase = _phrase(name)
    header = repaired(
        fields,
        date=format_datetime(datetime.fromtimestamp(now, UTC).astimezone()),
        author=f"{phrase} <{address}>" if phrase else address,
        message_id=f"<{uuid.uuid4()}@{hostname}>",
    )
    return header + b"\r\n" + body


def _phrase(name: str) -> str:
    """A display name as a header field takes it (RFC 5322, 3.4; RFC 2047)."""
    name = "".join(c for c in name if c.isprintable()).strip()
    if not name.isascii():
        return Header(name, "utf-8").encode()
    return f'"{quote(name)}"' if _SPECIALS.search(name) else name
