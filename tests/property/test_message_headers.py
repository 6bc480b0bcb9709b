"""Nothing that a stranger writes into a header raises, hangs or gets out of its line."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import compat32

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.headers import (
    decoded,
    from_domain,
    glance,
    header_end,
    is_well_formed,
    simplified,
    values,
)
from protege_mta.message.mime import content_type, transfer_encoding
from protege_mta.message.trace import received
from protege_mta.model.ids import QueueId

PIECES = st.sampled_from(
    [b"From", b"Subject", b"Message-ID", b"Received", b":", b": ", b" ", b"\t", b"\r\n", b"\r\n ",
     b"\r\n\r\n", b"\r", b"\n", b"\0", b"=?utf-8?b?", b"=?iso-8859-1?q?", b"?=", b"=E4", b"w6Q=", b"@",
     b"a", b"<", b">", b"(", b")", b'"', b"\\", b";", b",", b"\xc3\xa4", b"\xff", b"x.test"]
)  # fmt: skip
WILD = st.one_of(st.lists(PIECES, max_size=40).map(b"".join), st.binary(max_size=200))

NAMES = st.sampled_from([b"From", b"Subject", b"X-One", b"to", b"DATE"])
WORDS = st.text("ab:;<>@ \t=?", max_size=12).map(str.encode)
FIELDS = st.lists(st.tuples(NAMES, st.lists(WORDS, min_size=1, max_size=3)), max_size=8)


class WildTests(SynchronousTestCase):
    """Any octets at all."""

    @settings(max_examples=400, deadline=None)
    @given(octets=WILD)
    def test_never_raises(self, octets: bytes) -> None:
        seen = glance(octets)
        for text in (seen.subject, seen.message_id):
            self.assertNotIn("\n", text)
            self.assertNotIn("\r", text)
            text.encode("utf-8")
        self.assertLessEqual(len(seen.subject), 200)
        self.assertTrue(0 <= header_end(octets) <= len(octets))
        domain = from_domain(octets)
        self.assertFalse(set(domain) & set("\r\n <>@,;"))
        values(octets, b"subject")
        simplified(octets)
        transfer_encoding(octets)
        content_type(octets)
        decoded(octets)

    @settings(max_examples=200, deadline=None)
    @given(helo=st.text(max_size=40), address=st.sampled_from(["192.0.2.1", "2001:db8::1", ""]))
    def test_received_is_one_field(self, helo: str, address: str) -> None:
        octets = received(
            hostname="mx.test",
            id=QueueId("0" * 26),
            at=0,
            protocol="SMTP",
            helo=helo,
            peer_address=address,
        )
        self.assertTrue(octets.isascii())
        self.assertTrue(is_well_formed(octets))
        self.assertEqual(len(message_from_bytes(octets, policy=compat32).keys()), 1)


class OrderlyTests(SynchronousTestCase):
    """Headers by the grammar, read as Python's own parser reads them."""

    @settings(max_examples=200, deadline=None)
    @given(given_fields=FIELDS)
    def test_agrees_with_the_standard_library(
        self, given_fields: list[tuple[bytes, list[bytes]]]
    ) -> None:
        header = b"".join(
            name + b":" + b"\r\n\t".join(words) + b"\r\n" for name, words in given_fields
        )
        octets = header + b"\r\nbody: x\r\n"
        self.assertTrue(is_well_formed(header + b"\r\n"))
        self.assertEqual(header_end(octets), len(header) + 2)
        parsed = message_from_bytes(octets, policy=compat32)
        for name in ("from", "subject", "x-one", "to", "date"):
            self.assertEqual(
                [value.decode() for value in values(header, name.encode())],
                [value.replace("\r\n", "").strip(" \t") for value in parsed.get_all(name, [])],
            )
