"""Repairs of any header section, in any pieces."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.repair import HeaderReader, repaired, split

PIECES = st.sampled_from(
    [b"From", b"From ", b"Bcc", b"bCC", b"Resent-Bcc", b"Return-Path", b"Date", b"Message-ID", b"Subject",
     b":", b": ", b" ", b"\t", b"\r\n", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"\r", b"\n", b"\0", b"\xff",
     b"Thu, 26 Nov 2026 01:00:00 +0000", b"<1@x.test>", b"a@x.test", b"text"]
)  # fmt: skip
WILD = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)

NAMES = st.sampled_from(
    [b"From", b"Sender", b"X-One", b"Date", b"Bcc", b"bcc", b"RESENT-BCC", b"Return-path", b"Bccx"]
)
COLONS = st.sampled_from([b":", b": ", b" :", b"\t:"])
FOLDS = st.lists(st.sampled_from([b"a@x.test", b"", b"Bcc: b", b"\xe4"]), min_size=1, max_size=3)
FIELDS = st.tuples(NAMES, COLONS, FOLDS).map(lambda f: f[0] + f[1] + b"\r\n ".join(f[2]) + b"\r\n")
UNFIT = re.compile(rb"(?:resent-)?bcc[ \t]*:|return-path[ \t]*:", re.IGNORECASE)


def repair(fields: bytes) -> bytes:
    return repaired(
        fields,
        date="Thu, 26 Nov 2026 01:00:00 +0000",
        author="ada@x.test",
        message_id="<new@mx.test>",
    )


class ChunkTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(
        octets=WILD,
        cuts=st.lists(st.integers(0, 60)),
        most_octets=st.sampled_from([8, 20, 1000]),
    )
    def test_chunks_are_not_seen(self, octets: bytes, cuts: list[int], most_octets: int) -> None:
        """What is header, what is body, and what is too long does not depend on how it comes."""

        def read(pieces: list[bytes]) -> tuple[bytes, bytes] | None:
            reader = HeaderReader(most_octets)
            for n, piece in enumerate(pieces):
                parts = reader.feed(piece)
                if parts is not None:
                    return parts[0], parts[1] + b"".join(pieces[n + 1 :])
                if reader.is_too_long:
                    return None
            return reader.end()

        edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
        pieces = [octets[a:b] for a, b in pairwise(edges)]
        self.assertEqual(read(pieces), read([octets]))
        self.assertEqual(read([octets[n : n + 1] for n in range(len(octets))]), read([octets]))

    @settings(max_examples=300, deadline=None)
    @given(octets=WILD)
    def test_nothing_is_lost(self, octets: bytes) -> None:
        """But for the blank line, and a line that belongs to a mailbox file."""
        fields, body = split(octets)
        wholes = [
            octets[: len(octets) - len(kept)]
            for octets in (octets, octets + b"\r\n")
            for kept in (fields + body, fields + b"\r\n" + body)
            if octets.endswith(kept)
        ]
        self.assertTrue(any(re.fullmatch(rb"(?:From .*?\r\n)?", one, re.DOTALL) for one in wholes))


class RepairTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(octets=WILD)
    def test_a_second_time_changes_nothing(self, octets: bytes) -> None:
        fields, body = split(octets)
        once = repair(fields) + b"\r\n" + body
        again, rest = split(once)
        self.assertEqual(repair(again) + b"\r\n" + rest, once)

    @settings(max_examples=500, deadline=None)
    @given(
        fields=st.lists(FIELDS, max_size=8), body=st.sampled_from([b"", b"Bcc: in the body\r\n"])
    )
    def test_only_what_is_named_goes(self, fields: list[bytes], body: bytes) -> None:
        """Fields that may stay are there octet for octet, in order; no Bcc is, in no disguise."""
        head, rest = split(b"".join(fields) + b"\r\n" + body)
        self.assertEqual((head, rest), (b"".join(fields), body))
        kept = [each for each in fields if not UNFIT.match(each) and not each.startswith(b"Date")]
        after = repair(head)
        self.assertTrue(after.startswith(b"".join(kept)))
        names = re.findall(rb"^([!-9;-~]+)[ \t]*:", after.lower(), re.MULTILINE)
        self.assertFalse({b"bcc", b"resent-bcc", b"return-path"} & set(names))
        self.assertEqual((names.count(b"date"), names.count(b"message-id")), (1, 1))
        self.assertIn(b"from", names)
