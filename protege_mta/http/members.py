"""What single members of a request say: addresses, header fields, tags, times and attachments.

Whichever endpoint they stand at; what does not do is refused by the member's name.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ..message import compose
from ..message.compose import Attachment, Mailbox
from ..model.address import Address, domain_of, parse
from ..model.caller import Flaw
from ..model.domain import ascii_domain
from .new_message import AnyMailbox, NewAttachment
from .outgoing import MessageLimits
from .reading import Refused, pointer, unfit

_TAG: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NAMED: Final = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^<>"]*?))\s*<([^<>]*)>\s*')


def pointer_to(at: str, name: str, index: int) -> str:
    """Where an entry of a list of mailboxes is."""
    return f"{at}/{name}/{index}"


def time_of(text: str) -> float | None:
    """What RFC 3339 has, in POSIX seconds; None for anything else."""
    try:
        when: datetime = msgspec.convert(text, Annotated[datetime, Meta(tz=True)])
        return when.timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        return None


def is_tag(text: str) -> bool:
    """Whether a message may be marked so."""
    return _TAG.fullmatch(text) is not None


def tags_of(given: Sequence[str], at: str) -> tuple[str, ...]:
    """Each once.  :raise Refused:"""
    for number, tag in enumerate(given):
        if not is_tag(tag):
            raise unfit(
                "bad-member",
                "a tag has 64 letters, digits and ._:- at most",
                at + pointer("tags", number),
            )
    return tuple(dict.fromkeys(given))


def mailboxes_of(given: Sequence[AnyMailbox], at: str) -> Iterator[Mailbox]:
    """:raise Refused:"""
    for index, one in enumerate(given):
        yield mailbox_of(one, f"{at}/{index}")


def mailbox_of(given: AnyMailbox, at: str) -> Mailbox:
    """:raise Refused:"""
    if isinstance(given, str):
        name, text = "", given
        if given.endswith(">"):
            match = _NAMED.fullmatch(given) if len(given) <= 1000 else None
            if match is not None:
                quoted, plain, text = match.groups()
                name = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
    else:
        name, text = given.name, given.address
        at = f"{at}/address" if not compose.flaw_of_text(name) else f"{at}/name"
    if compose.flaw_of_text(name):
        raise unfit("bad-member", f"this text {compose.flaw_of_text(name)}", at)
    if len(name) > 500:
        raise unfit("bad-member", "the name is too long", at)
    return Mailbox(address_of(text.strip(), at), name)


def address_of(text: str, at: str) -> Address:
    """An address; a domain in U-labels becomes one in A-labels, which every server takes
    (RFC 5890).  :raise Refused:"""
    found = parse(text, is_smtputf8=True)
    if found is not None and not found.isascii():
        local, _, domain = found.rpartition("@")
        if not domain.isascii():
            found = parse(f"{local}@{ascii_domain(domain)}", is_smtputf8=True)
    if found is None or not domain_of(found):
        raise unfit("bad-address", "this is no address", at, "user@example.org")
    return found


def subject_of(text: str, at: str) -> str:
    """:raise Refused:"""
    if compose.flaw_of_text(text):
        raise unfit("bad-member", f"this text {compose.flaw_of_text(text)}", at + "/subject")
    return text


def fields_of(given: Mapping[str, str], at: str) -> Iterator[tuple[str, str]]:
    """Header fields that may be added.  :raise Refused:"""
    seen: set[str] = set()
    for name, value in given.items():
        flaw = compose.flaw_of_field(name, value)
        if not flaw and name.lower() in seen:
            flaw = "is there twice"
        seen.add(name.lower())
        if flaw:
            member = pointer(name) if name.isprintable() else ""
            raise unfit("bad-header", f"this field {flaw}", at + member)
        yield name, value


def attachments_of(
    given: Sequence[NewAttachment], at: str, limits: MessageLimits
) -> tuple[Attachment, ...]:
    """Decoded.  :raise Refused:"""
    found, total = [], 0
    for index, one in enumerate(given):
        where = f"{at}/{index}"
        content = decoded(one.content_b64)
        if content is None:
            raise unfit("bad-base64", "this is no base64", f"{where}/content_b64")
        total += len(content)
        if total > limits.attachment_octets:
            raise Refused(
                Flaw(413, "attachments-too-large", "the attachments are too large together", where)
            )
        if one.content_id and compose.flaw_of_content_id(one.content_id):
            raise unfit("bad-member", "this is no content id", f"{where}/content_id")
        found.append(
            Attachment(
                content=content,
                filename=one.filename,
                content_type=one.content_type,
                content_id=one.content_id,
            )
        )
    return tuple(found)


def decoded(text: str) -> bytes | None:
    """Base64, which may be in lines; None for what is none."""
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True) if text else b""
    except (binascii.Error, ValueError):
        return None
