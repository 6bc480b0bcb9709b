"""What is in messages: header sections, recoding, DSNs, signatures."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.message import Message as Part
from email.policy import compat32
from typing import Final

from protege_mta.dkim.canonical import BodyHash, body_hash
from protege_mta.dkim.sign import sign
from protege_mta.message import headers
from protege_mta.message.downgrade import Recoded, Refused, Unchanged, for_hop
from protege_mta.message.dsn import Report, compose, wanted_octets
from protege_mta.message.mailboxes import mailboxes, names_somebody
from protege_mta.message.mime import content_type, transfer_encoding
from protege_mta.message.repair import HeaderReader, split
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Message, Origin, Recipient
from protege_mta.model.ids import QueueId
from protege_mta.model.ports import HopAbilities
from protege_mta.model.reply import Reply

from ..corpora import messages
from ..property.test_message_repair import repair
from ..unit.test_dkim_sign import ED25519, as_sent, is_valid
from .target import Target, chunks, has_bare_line_end

ENVELOPE: Final = Envelope(Address("a@x.test"), (Recipient(Address("b@y.test")),))
SEVEN_BIT: Final = HopAbilities(has_8bitmime=False)
_BARE: Final = re.compile(rb"\r\n|\r|\n")
_ENCODING: Final = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n",
    re.IGNORECASE | re.MULTILINE,
)
SEEDS: Final = [octets for octets in messages().values() if len(octets) < 3000]
WORDS: Final = (
    b"\r\n", b"\r\n\r\n", b"\r\n ", b"\r", b"\n", b"\0", b"\xff", b"\xc3\xb6", b": ", b";", b"=?utf-8?b?",
    b"=?iso-8859-1?q?", b"?=", b"=E4", b"From: ", b"Subject: ", b"Message-ID: ", b"Received: ",
    b"Content-Type: ", b"multipart/mixed", b"multipart/signed", b"multipart/digest", b"message/rfc822",
    b"message/partial", b"text/plain", b"; boundary=", b"--b", b"--", b'"', b"\\", b"(", b")", b"<", b">",
    b"@", b",", b"Content-Transfer-Encoding: ", b"8bit", b"base64", b"quoted-printable", b"x" * 999,
    b"DKIM-Signature: ", b"a@example.org", b"\t", b"  ",
)  # fmt: skip


def header(data: bytes) -> None:
    """Any octets read as a header section."""
    seen = headers.glance(data)
    for text in (seen.subject, seen.message_id):
        assert not set(text) & set("\r\n\0"), text
        text.encode("utf-8")
    assert len(seen.subject) <= 200
    end = headers.header_end(data)
    assert 0 <= end <= len(data)
    head = data[:end]
    domain = headers.from_domain(head)
    assert not set(domain) & set("\r\n <>@,;\0"), domain
    values = headers.values(head, b"from")
    assert not domain or len(values) == 1, "a domain of several authors"
    assert all(b"\r\n" not in value for value in values)
    for value in headers.values(head, b"content-type"):
        content_type(value)
    transfer_encoding(data)
    headers.simplified(data)
    headers.decoded(data).encode("utf-8")
    if headers.is_well_formed(head) and head.isascii() and b"\0" not in head:
        parsed = message_from_bytes(data, policy=compat32)
        found = [value.replace("\r\n", "").strip(" \t") for value in parsed.get_all("from", [])]
        assert [value.decode() for value in values] == found, "readers disagree about From"


def downgrade(data: bytes) -> None:
    """Any octets on their way to a hop without 8BITMIME."""
    form = for_hop(data, ENVELOPE, [0], SEVEN_BIT)
    match form:
        case Refused(reply):
            assert reply.enhanced == "5.6.3"
        case Unchanged():
            assert data.isascii()
        case Recoded(octets):
            assert octets.isascii()
            assert for_hop(octets, ENVELOPE, [0], SEVEN_BIT) == Unchanged()
            if not has_bare_line_end(data):
                assert not has_bare_line_end(octets), "a bare line end was made"
            _compared(data, octets)


def _compared(before: bytes, after: bytes) -> None:
    """Header fields but for the encoding's label stay, and so does what a plain reader sees."""
    old = before[: headers.header_end(before)]
    if not headers.is_well_formed(old) or not old.endswith(b"\r\n\r\n"):
        return
    new = after[: headers.header_end(after)]
    assert headers.is_well_formed(new), "the header section was broken"
    assert _ENCODING.sub(b"", new).startswith(_ENCODING.sub(b"", old)[:-2]), "a field was changed"
    one = message_from_bytes(before, policy=compat32)
    two = message_from_bytes(after, policy=compat32)
    assert one.get_content_type() == two.get_content_type()
    if one.get_content_maintype() not in ("multipart", "message") and b"\0" not in before:
        first, second = one.get_payload(decode=True), two.get_payload(decode=True)
        assert isinstance(first, bytes)
        assert isinstance(second, bytes)
        assert first.rstrip(b"\r\n") == second.rstrip(b"\r\n"), "the text was changed"


def dsn(data: bytes) -> None:
    """What a peer says, and the original, parted by two NULs."""
    said, _, original = data.partition(b"\0\0")
    original = _BARE.sub(b"\r\n", original)  # as every door sees to it
    text = said.decode("utf-8", "surrogateescape")
    lines = tuple(text.split("\0")) or ("",)
    recipient = Recipient(Address("b@y.test"), orcpt=lines[0][:20])
    about = Message(
        QueueId("1" * 26),
        Envelope(Address("a@x.test"), (recipient,), ret="FULL", envid=lines[-1][:20]),
        Origin("smtp"),
        0.0,
        len(original),
        headers.glance(original).message_id,
        headers.glance(original).subject,
    )
    octets = compose(
        kind="failure",
        message=about,
        reports=[Report(recipient, "failed", Reply(550, lines[0][:6], lines), lines[-1])],
        original=original[: wanted_octets(about, "failure")],
        hostname="mx.test",
        at=0.0,
        id=QueueId("0" * 26),
    )
    assert max(map(len, octets.split(b"\r\n"))) <= 998, "a line is too long"
    own = octets.split(b"--=_" + b"0" * 26)[:3]
    assert all(part.isascii() and not has_bare_line_end(part) for part in own), own
    report = message_from_bytes(octets)
    assert report.get_content_type() == "multipart/report"
    parts = _subparts(report)
    assert len(parts) == 3, "a part more or less"
    groups = _subparts(parts[1])
    assert [group.get_all("Action") for group in groups] == [None, ["failed"]]
    assert groups[1]["Final-Recipient"] == "rfc822; b@y.test"


def _subparts(part: Part) -> list[Part]:
    payload = part.get_payload()
    assert isinstance(payload, list)
    return [one for one in payload if isinstance(one, Part)]


def signature(data: bytes) -> None:
    """The first octet cuts the body for its hash; the rest is signed where it may be."""
    if not data:
        return
    octets = _BARE.sub(b"\r\n", data[1:])
    end = headers.header_end(octets)
    body = BodyHash()
    for piece in chunks(octets[end:], 1 + data[0] % 33):
        body.update(piece)
    assert body.digest() == body_hash(octets[end:]), "chunks are seen in the hash"
    wild = BodyHash()
    for piece in chunks(data, 1 + data[0] % 7):
        wild.update(piece)
    assert wild.digest() == body_hash(data), "chunks are seen in the hash of bare line ends"
    head = octets[:end]
    if set(head) & set(b"\v\f"):
        return  # dkimpy takes them for white space at the end of a field, which RFC 6376 does not
    if headers.from_domain(head) == "example.org" and head.endswith(b"\r\n\r\n"):
        fields = sign(octets, [ED25519], 1_700_000_000)
        assert fields.isascii()
        assert headers.is_well_formed(fields)
        assert is_valid(fields + as_sent(octets)), "dkimpy finds it bad"


def submission(data: bytes) -> None:
    """The first octet cuts a message that an account hands in; its header is read and repaired."""
    if not data:
        return
    octets = data[1:]
    reader = HeaderReader(len(octets) + 2)
    parts = None
    for piece in chunks(octets, 1 + data[0] % 33):
        if parts is None:
            parts = reader.feed(piece)
        else:
            parts = parts[0], parts[1] + piece
    fields, body = parts or reader.end()
    assert (fields, body) == split(octets), "chunks are seen"
    for value in headers.values(fields, b"from"):
        found = mailboxes(value)
        assert found is None or all(found), "a mailbox that is none"
        assert found is None or names_somebody(value), "somebody, and nobody"
    whole = repair(fields)
    assert repair(whole) == whole, "repairs go on and on"
    for name in (b"bcc", b"resent-bcc", b"return-path"):
        assert not headers.values(whole, name), "a secret recipient"
    for name in (b"date", b"message-id", b"from"):
        assert headers.values(whole, name), "something is missing"
    assert split(whole + b"\r\n" + body) == (whole, body), "readers disagree about the header's end"


HEADER: Final = Target("message_header", header, SEEDS, WORDS)
SUBMISSION: Final = Target(
    "submission_header",
    submission,
    [b"\7" + octets for octets in SEEDS],
    (*WORDS, b"Bcc: ", b"Date: ", b"Return-Path: ", b"Sender: ", b"From ", b"Resent-Bcc:"),
)
DOWNGRADE: Final = Target("message_downgrade", downgrade, SEEDS, WORDS)
DSN: Final = Target(
    "message_dsn", dsn, [b"550 no\0such user\0mx.test\0\0" + octets for octets in SEEDS], WORDS
)
SIGNATURE: Final = Target("dkim_signature", signature, [b"\5" + octets for octets in SEEDS], WORDS)
