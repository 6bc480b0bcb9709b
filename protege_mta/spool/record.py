"""Records: what a segment is made of, octet by octet (``docs/explanation/spool.md``).

A record is a header of 72 octets, a ``meta`` part in msgpack, a body of plain octets, and zeros up
to the next multiple of 8.  The header's checksum covers the header and the meta part, so that
recovery can trust both without reading the body, which has a checksum of its own.  All pure.
"""

from __future__ import annotations

import struct
from typing import Final, cast
from zlib import crc32

import msgspec

from ..model.address import Address
from ..model.batch import Append, BigFile, Operation, Update
from ..model.envelope import Envelope, Message, Notify, Origin, Recipient, Source
from ..model.ids import QueueId
from ..model.outcome import Fate
from ..model.verdicts import UNCHECKED, Result, Verdicts
from .index import Place
from .states import Standing, States, initial, standing

CONTENT: Final = 1  # a message: its envelope, its recipients' states, its octets
UPDATE: Final = 2  # a new state of some recipients
END: Final = 3  # the fate of some recipients
STATES: Final = 4  # a live message's states, carried forward from a segment that goes
GONE: Final = 5  # a dead message's death, likewise
COMMIT: Final = 6  # closes a group; its body is the group's event lines

MAGIC: Final = b"\xf5PM\x1a"  # no UTF-8, and no text that a mail holds by chance
ALIGNMENT: Final = 8
HEADER_OCTETS: Final = 72
COMMIT_OCTETS: Final = HEADER_OCTETS + 16
"""What a commit record takes at most, its body aside."""

_HEADER: Final = struct.Struct("<4sBBHIIIIQQ26s2x")
_CHECKSUM: Final = struct.Struct("<I")
_NO_ID: Final = b"\0" * 26
_PADDING: Final = tuple(b"\0" * n for n in range(ALIGNMENT))


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record found in a segment, its header and meta part already verified.

    :ivar sequence: the number of its group; later groups have greater ones, in all segments.
    :ivar offset: of its header in the segment.
    :ivar octets: its length, padding included.
    """

    kind: int
    id: QueueId
    sequence: int
    offset: int
    octets: int
    meta: bytes
    body_octets: int
    body_checksum: int

    @property
    def body_offset(self) -> int:
        return self.offset + HEADER_OCTETS + len(self.meta)

    @property
    def end(self) -> int:
        return self.offset + self.octets


class Draft(msgspec.Struct, gc=False):
    """A record to be written, but for what only the writer knows: epoch and sequence.

    :ivar checksum: of the body, where it is not to be computed: a body that is copied keeps the
        checksum it came with, so that damage to it stays damage.
    :ivar states: of a new message's recipients, for the index.
    :ivar place: of content, once it is written.
    """

    kind: int
    id: bytes
    meta: bytes
    body: tuple[bytes, ...] = ()
    body_octets: int = 0
    checksum: int | None = None
    states: States = b""
    place: Place | None = None

    @property
    def octets(self) -> int:
        """The record's length, padding included."""
        return -(-(HEADER_OCTETS + len(self.meta) + self.body_octets) // ALIGNMENT) * ALIGNMENT


def write(draft: Draft, *, epoch: int, sequence: int, to: list[bytes]) -> int:
    """Add a record's octets to ``to``.  :return: how many there are."""
    checksum = draft.checksum
    if checksum is None:
        checksum = 0
        for piece in draft.body:
            checksum = crc32(piece, checksum)
    meta = draft.meta
    header = _HEADER.pack(
        MAGIC,
        draft.kind,
        0,
        0,
        len(meta),
        draft.body_octets,
        checksum,
        0,
        epoch,
        sequence,
        draft.id,
    )
    to.append(header + _CHECKSUM.pack(crc32(meta, crc32(header))) + meta)
    octets = HEADER_OCTETS + len(meta) + draft.body_octets
    if draft.body:
        to.extend(draft.body)
    padding = -octets % ALIGNMENT
    if padding:
        to.append(_PADDING[padding])
    return octets + padding


def meta_octets(header: bytes) -> int | None:
    """How long the meta part is, by a header that may be anything; None where it is no header."""
    if len(header) < HEADER_OCTETS or not header.startswith(MAGIC):
        return None
    length: int = _HEADER.unpack_from(header)[4]
    return length


def read(octets: bytes, offset: int, at: int, epoch: int) -> Record | None:
    """The record whose header begins at ``octets[offset]``.

    :param at: the same place in the segment.
    :return: None where header and meta part are not whole and ours.
    """
    if len(octets) < offset + HEADER_OCTETS:
        return None
    (magic, kind, _, _, meta_length, body_length, checksum, _, its_epoch, sequence, name) = (
        _HEADER.unpack_from(octets, offset)
    )
    if magic != MAGIC or its_epoch != epoch:
        return None
    start = offset + HEADER_OCTETS
    meta = octets[start : start + meta_length]
    if len(meta) != meta_length:
        return None
    header = octets[offset : start - 4]
    if _CHECKSUM.unpack_from(octets, start - 4)[0] != crc32(meta, crc32(header)):
        return None
    length = -(-(HEADER_OCTETS + meta_length + body_length) // ALIGNMENT) * ALIGNMENT
    id = "" if kind == COMMIT else name.decode("ascii")
    return Record(kind, QueueId(id), sequence, at, length, meta, body_length, checksum)


# --- meta parts ----------------------------------------------------------------------------------


class _Recipient(msgspec.Struct, omit_defaults=True, gc=False):
    a: str
    n: int = 0
    o: str = ""


class _Message(msgspec.Struct, omit_defaults=True, gc=False):
    """A :class:`~..model.envelope.Message` under short names, which no change of the model's names
    moves.  Keys may be added with defaults; unknown ones are passed over."""

    frm: str
    to: list[_Recipient]
    at: float
    size: int
    src: Source
    body: str = "7BIT"
    utf8: bool = False
    ret: str = ""
    env: str = ""
    who: str = ""
    peer: str = ""
    sign: bool = False
    tnt: str = ""
    cmp: str = ""
    mid: str = ""
    sub: str = ""
    b8: bool = False
    urg: bool = False
    hold: float = 0.0
    rel: str = ""
    tls: bool = False
    rid: str = ""
    ans: str = ""
    spf: str = ""
    dkim: str = ""
    dmarc: str = ""
    why: str = ""
    box: bool = False
    tag: tuple[str, ...] = ()


class ContentMeta(msgspec.Struct, omit_defaults=True):
    """:ivar m: the message.  :ivar s: its recipients' states.
    :ivar big: the name of the file in ``big`` that holds the octets, but for the first ones, which
        the body may have; empty where the body has them all.
    :ivar sum: that file's CRC-32, where it is known.
    """

    m: msgspec.Raw
    s: msgspec.Raw
    big: str = ""
    sum: int | None = None


_MEMORY_META: Final = b"\x82\xa1m%b\xa1s%b"
"""What msgpack makes of a :class:`ContentMeta` without ``big``, whose values it leaves as they are:
a map of two."""


class EndMeta(msgspec.Struct, array_like=True):
    recipients: tuple[int, ...]
    fate: Fate


class CommitMeta(msgspec.Struct, array_like=True):
    """:ivar start: where the group begins.  :ivar count: of its records, this one aside."""

    start: int
    count: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_message: Final = msgspec.msgpack.Decoder(_Message).decode
content_meta: Final = msgspec.msgpack.Decoder(ContentMeta).decode
update_meta: Final = msgspec.msgpack.Decoder(Standing).decode
end_meta: Final = msgspec.msgpack.Decoder(EndMeta).decode
commit_meta: Final = msgspec.msgpack.Decoder(CommitMeta).decode


def _clean(text: str) -> str:
    """Text that has octets; lone surrogates, which have none, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _message_octets(message: Message) -> bytes:
    envelope, origin = message.envelope, message.origin
    it = _Message(
        envelope.sender,
        [_Recipient(one.address, int(one.notify), one.orcpt) for one in envelope.recipients],
        message.arrived_at,
        message.size_octets,
        origin.source,
        envelope.body,
        envelope.is_smtputf8,
        envelope.ret,
        envelope.envid,
        origin.identity,
        origin.peer_address,
        origin.may_sign,
        origin.tenant,
        origin.campaign,
        message.header_message_id,
        message.subject,
        message.is_eight_bit,
        message.is_urgent,
        envelope.hold_until,
        envelope.future_release,
        envelope.requires_tls,
        origin.request_id,
        origin.answer,
        message.verdicts.spf,
        message.verdicts.dkim,
        message.verdicts.dmarc,
        origin.hold,
        origin.is_sandbox,
        origin.tags,
    )
    try:
        return _encode(it)
    except UnicodeEncodeError:
        it.sub, it.mid, it.cmp, it.tnt = map(_clean, (it.sub, it.mid, it.cmp, it.tnt))
        return _encode(it)


def _verdicts(it: _Message) -> Verdicts:
    if not (it.spf or it.dkim or it.dmarc):
        return UNCHECKED
    # As they were written; a result that a later version knows is passed on as it is.
    return Verdicts(cast(Result, it.spf), cast(Result, it.dkim), cast(Result, it.dmarc))


def message_of(id: QueueId, meta: ContentMeta) -> Message:
    """The message that a content record holds."""
    it = _decode_message(meta.m)
    return Message(
        id=id,
        envelope=Envelope(
            sender=Address(it.frm),
            recipients=tuple(Recipient(Address(one.a), Notify(one.n), one.o) for one in it.to),
            body="8BITMIME" if it.body == "8BITMIME" else "7BIT",
            is_smtputf8=it.utf8,
            ret="FULL" if it.ret == "FULL" else "HDRS" if it.ret == "HDRS" else "",
            envid=it.env,
            hold_until=it.hold,
            future_release=it.rel,
            requires_tls=it.tls,
        ),
        origin=Origin(
            *(it.src, it.who, it.peer, it.sign, it.tnt, it.cmp, it.rid, it.ans, it.why, it.box),
            tags=it.tag,
        ),
        arrived_at=it.at,
        size_octets=it.size,
        header_message_id=it.mid,
        subject=it.sub,
        is_eight_bit=it.b8,
        is_urgent=it.urg,
        verdicts=_verdicts(it),
    )


def _id_octets(id: QueueId) -> bytes:
    octets = id.encode("ascii")
    if len(octets) != 26:
        raise ValueError(f"not a queue id: {id!r}")
    return octets


def draft(operation: Operation) -> Draft:
    """The record that stands for an operation."""
    if isinstance(operation, Append):
        message, content = operation.message, operation.content
        id = _id_octets(message.id)
        states = initial(len(message.envelope.recipients), operation.status)
        envelope = _message_octets(message)
        if isinstance(content, BigFile):
            meta = ContentMeta(
                msgspec.Raw(envelope), msgspec.Raw(states), content.name, content.checksum
            )
            head = content.head
            return Draft(
                CONTENT, id, _encode(meta), (head,) if head else (), len(head), None, states
            )
        octets = len(content[0]) if len(content) == 1 else sum(map(len, content))
        meta_octets = _MEMORY_META % (envelope, states)
        return Draft(CONTENT, id, meta_octets, content, octets, None, states)
    id = _id_octets(operation.id)
    if isinstance(operation, Update):
        return Draft(UPDATE, id, _encode(standing(operation.recipients, operation.status)))
    return Draft(END, id, _encode((operation.recipients, operation.fate)))  # an EndMeta


def carried(record: Record, states: States, body: bytes) -> Draft:
    """A content record once more, with the states of today."""
    meta = content_meta(record.meta)
    meta.s = msgspec.Raw(states)
    pieces = (body,) if body else ()
    return Draft(
        CONTENT, _id_octets(record.id), _encode(meta), pieces, len(body), record.body_checksum
    )


def states_draft(id: QueueId, states: States) -> Draft:
    return Draft(STATES, _id_octets(id), states)


def gone_draft(id: QueueId) -> Draft:
    return Draft(GONE, _id_octets(id), b"")


def commit_draft(start: int, count: int, lines: bytes) -> Draft:
    body = (lines,) if lines else ()
    return Draft(COMMIT, _NO_ID, _encode((start, count)), body, len(lines))  # a CommitMeta
