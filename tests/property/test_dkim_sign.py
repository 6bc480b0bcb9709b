"""Signatures hold for every shape of message, and a body's hash for every cut of it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim.canonical import BodyHash, body_hash, relaxed_body
from protege_mta.dkim.sign import sign
from protege_mta.message.headers import is_well_formed

from ..unit.test_dkim_sign import ED25519, RSA, as_sent, is_valid

AT = 1_700_000_000

BODY = st.lists(
    st.sampled_from([b"a", b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b"\xe4", b"word"]), max_size=20
).map(b"".join)
WILD = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r", b"\n", b"\r\n"]), max_size=20).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 40), max_size=8)

NAMES = st.sampled_from(
    [b"To", b"CC", b"subject", b"Subject", b"Date", b"X-Other", b"Received", b"List-Id", b"Resent-To",
     b"From", b"Content-Type"]
)  # fmt: skip
VALUES = st.lists(
    st.sampled_from(
        [b"", b" ", b"\t \t", b"a:b;c=d", b"b=x", b"\r\n ", b"\r\n\t", b"\xc3\xa4", b"DKIM"]
    ),
    max_size=8,
).map(b"".join)
FIELDS = st.lists(st.builds(lambda name, value: name + b":" + value + b"\r\n", NAMES, VALUES))


class BodyHashTests(SynchronousTestCase):
    """However the content is read, its hash is one."""

    @settings(max_examples=400, deadline=None)
    @given(body=st.one_of(BODY, WILD), cuts=CUTS)
    def test_chunking_is_invisible(self, body: bytes, cuts: list[int]) -> None:
        pieces = BodyHash()
        edges = [0, *sorted(cut for cut in cuts if cut <= len(body)), len(body)]
        for start, stop in pairwise(edges):
            pieces.update(body[start:stop])
        self.assertEqual(pieces.digest(), body_hash(body))

    @settings(max_examples=200, deadline=None)
    @given(body=st.one_of(BODY, WILD))
    def test_relaxed_is_relaxed(self, body: bytes) -> None:
        relaxed = relaxed_body(body)
        self.assertEqual(relaxed_body(relaxed), relaxed)
        self.assertTrue(relaxed == b"" or relaxed.endswith(b"\r\n"))
        for absent in (b"  ", b"\t", b" \r\n"):
            self.assertNotIn(absent, relaxed)


class SignTests(SynchronousTestCase):
    """dkimpy agrees about every message that readers agree about."""

    @settings(max_examples=200, deadline=None)
    @given(above=FIELDS, below=FIELDS, body=BODY)
    def test_verifies(self, above: list[bytes], below: list[bytes], body: bytes) -> None:
        header = b"".join((*above, b"From: a@example.org\r\n", *below, b"\r\n"))
        self.assertTrue(is_well_formed(header))
        octets = header + body
        self.assertTrue(is_valid(sign(octets, [ED25519], AT) + as_sent(octets)))

    @settings(max_examples=30, deadline=None)
    @given(fields=FIELDS, body=BODY)
    def test_verifies_with_rsa(self, fields: list[bytes], body: bytes) -> None:
        header = b"".join((*fields, b"From: a@example.org\r\n\r\n"))
        self.assertTrue(is_well_formed(header))
        octets = header + body
        self.assertTrue(is_valid(sign(octets, [RSA], AT) + as_sent(octets)))
