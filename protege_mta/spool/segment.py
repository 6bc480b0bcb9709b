"""Segments: the files that the log is made of, their names and their headers.

``0000000012-9f3c0a5b77e1d2c4.fresh``: the number, by which later segments of a kind follow earlier
ones, and the epoch, a random number that every record repeats in its header.  So nothing else that
lies on the disk passes for a record, not octets that a sender put into a message, and not records
of another segment that the file was before (:mod:`.spares`).
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import attrs

Kind = Literal["fresh", "kept"]
"""``fresh`` segments take what is committed; ``kept`` ones what was carried forward out of segments
that went, mostly mail that is deferred for long."""

SEGMENT_HEADER_OCTETS: Final = 64
BLANK_OCTETS: Final = 512 - SEGMENT_HEADER_OCTETS
"""How many zeros follow the header of a segment that was never written to, at least."""

_HEADER: Final = struct.Struct("<8sHHIQQ28x")
_CHECKSUM: Final = struct.Struct("<I")
_MAGIC: Final = b"PMTASEG\n"
_VERSION: Final = 1
_NAME: Final = re.compile(r"(\d{10})-([0-9a-f]{16})\.(fresh|kept)")


@attrs.frozen
class Segment:
    """A segment's identity.

    :ivar number: from 1; never used again in a spool's life.
    """

    number: int
    epoch: int
    kind: Kind

    @property
    def name(self) -> str:
        return f"{self.number:010d}-{self.epoch:016x}.{self.kind}"

    def path(self, folder: Path) -> Path:
        return folder / self.name

    def header(self) -> bytes:
        """What its file begins with."""
        octets = _HEADER.pack(
            _MAGIC, _VERSION, self.kind == "kept", SEGMENT_HEADER_OCTETS, self.number, self.epoch
        )
        return octets + _CHECKSUM.pack(crc32(octets))


def parse(name: str) -> Segment | None:
    """The segment that a file's name speaks of."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    kind: Kind = "kept" if match[3] == "kept" else "fresh"
    return Segment(int(match[1]), int(match[2], 16), kind)
