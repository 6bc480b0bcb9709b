"""DKIM signatures (RFC 6376, sections 3.5 and 5; RFC 8463).

A signature is a pure function of the message's octets, the key and the time: whoever makes it
again, after a restart too, gets the same octets.  It covers the header and the whole body, both in
relaxed form, and no l= tag ever leaves room behind the body.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from typing import Final

import attrs

from ..message.headers import header_end
from .canonical import body_hash, relaxed_fields
from .keys import SigningKey

ALWAYS: Final = (b"from", b"to", b"cc", b"subject", b"reply-to")
"""Signed once more often than they occur, so that nobody can add one: a second From, Subject or
Reply-To is what attackers add (RFC 6376, 8.15).  The set is that of rspamd and, but for Date and
Message-ID, of Gmail.  Those two may be absent and added by the next hop, so see below."""

WHERE_PRESENT: Final = (
    b"date",
    b"message-id",
    b"sender",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"content-disposition",
    b"content-id",
    b"content-description",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
    b"feedback-id",
)
"""Signed once more often than they occur, but only if they do: a relay or a mailing list may add
them where they are missing.  RFC 8058, section 4, wants both List-Unsubscribe fields signed."""

AS_PRESENT: Final = tuple(
    b"resent-" + name for name in (b"date", b"from", b"sender", b"to", b"cc", b"message-id")
)
"""Signed as often as they occur: who sends the message on puts a block of his own on top."""

_OVERSIGNED: Final = {
    **dict.fromkeys((*ALWAYS, *WHERE_PRESENT), 1),
    **dict.fromkeys(AS_PRESENT, 0),
}


@attrs.frozen
class Signer:
    """In whose name to sign.

    :ivar domain: the d= tag, in A-labels.
    :ivar selector: the s= tag.
    """

    domain: str
    selector: str
    key: SigningKey


def sign(octets: bytes, signers: Sequence[Signer], at: int) -> bytes:
    """DKIM-Signature fields to put in front of a message, one a signer.

    :param octets: header section and body as they will be sent, CRLF line ends.
    :param at: the t= tag; the message's arrival, POSIX seconds, so that every attempt has the same.
    :return: fields with their CRLFs; empty where the message has no From field to sign.
    """
    end = header_end(octets)
    return sign_header(octets[:end], body_hash(octets[end:]), signers, at)


def sign_header(header: bytes, body_digest: bytes, signers: Sequence[Signer], at: int) -> bytes:
    """As :func:`sign`, for a body that was hashed in pieces by :class:`~.canonical.BodyHash`."""
    present = relaxed_fields(header, _OVERSIGNED)
    if b"from" not in present:
        return b""
    for name in ALWAYS:
        if name not in present:
            present[name] = []
    for found in present.values():
        found.reverse()  # RFC 6376, 5.4.2: from the bottom up
    common = hashlib.sha256(b"".join([line for found in present.values() for line in found]))
    signed_names = _h_tag(tuple((name, len(found)) for name, found in present.items()))
    digest_text = base64.b64encode(body_digest)
    fields = []
    for signer in signers:
        tags = (
            f"v=1; a={signer.key.algorithm}; c=relaxed/relaxed;\r\n"
            f" d={signer.domain}; s={signer.selector}; t={at};\r\n h="
        ).encode("ascii") + b"%b;\r\n bh=%b;\r\n b=" % (signed_names, digest_text)
        hashed = common.copy()
        hashed.update(b"dkim-signature:" + tags.replace(b"\r\n", b""))
        signature = base64.b64encode(signer.key.sign(hashed.digest()))
        rows = [signature[start : start + 72] for start in range(0, len(signature), 72)]
        fields.append(b"DKIM-Signature: %b%b\r\n" % (tags, b"\r\n ".join(rows)))
    return b"".join(fields)


@functools.lru_cache(256)
def _h_tag(counts: tuple[tuple[bytes, int], ...]) -> bytes:
    """The h= tag's value on lines of at most 77 octets; one application's mail has one or two."""
    rows = [b""]
    for name, count in counts:
        for _ in range(count + _OVERSIGNED[name]):
            if len(rows[-1]) + len(name) > 72:
                rows.append(b"")
            rows[-1] += name + b":"
    return b"\r\n ".join(rows)[:-1]
