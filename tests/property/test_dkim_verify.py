"""We and dkimpy agree about small messages, and nothing that a stranger writes is too much."""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import Final

import dkim  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim import keys
from protege_mta.dkim.canonical import SimpleBodyHash
from protege_mta.dkim.record import dns_record
from protege_mta.dkim.verify import Claim, Finding, bodies, claims, judged
from protege_mta.message.repair import split
from protege_mta.model.ports import Answer, Found, NoSuchName
from protege_mta.spool.content import MemoryOctets
from tests.property.test_dkim_sign import BODY, CUTS, FIELDS, WILD
from tests.unit.test_dkim_sign import as_sent

AT: Final = 1_700_000_000
_PEM: Final = keys.generate_rsa()
_TRADITIONAL: Final = load_pem_private_key(_PEM, None).private_bytes(
    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
)
_RECORD: Final = dns_record(keys.load(_PEM))
_FORMS: Final = st.tuples(*[st.sampled_from([b"simple", b"relaxed"])] * 2)


def txt(name: bytes, timeout: float = 5) -> bytes | None:
    """dkimpy's question to the DNS."""
    return _RECORD.encode() if name == b"one._domainkey.example.org." else None


def answer(name: str) -> Answer:
    return Found((_RECORD,)) if name == "one._domainkey.example.org" else NoSuchName()


def findings(octets: bytes) -> list[Finding]:
    fields, body = split(octets)
    found = claims(fields, AT)
    content = MemoryOctets((fields, b"\r\n", body))
    hashed = bodies(content, len(fields) + 2, found)
    return [
        judged(one, hashed[one.form], answer(one.key_name)) if isinstance(one, Claim) else one
        for one in found
    ]


def dkimpy_says(octets: bytes) -> bool:
    try:
        return bool(dkim.verify(octets, dnsfunc=txt))
    except dkim.DKIMException:
        return False


class AgreementTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(
        above=FIELDS,
        below=FIELDS,
        body=BODY,
        forms=_FORMS,
        old=st.sampled_from([b"", b" ", b"\r\n", b"a", b"\t", b"From", b"word", b"b="]),
        new=st.sampled_from([b"", b" ", b"  ", b"\r\n", b"b", b" \t", b"\r\n\r\n"]),
        more=st.sampled_from([b"", b"\r\n", b" \r\n", b"x"]),
    )
    def test_signed_by_dkimpy_and_changed(
        self,
        above: list[bytes],
        below: list[bytes],
        body: bytes,
        forms: tuple[bytes, bytes],
        old: bytes,
        new: bytes,
        more: bytes,
    ) -> None:
        """Whatever happens to a message, both find that its signature holds, or neither."""
        octets = as_sent(b"".join((*above, b"From: a@example.org\r\n", *below, b"\r\n", body)))
        field = dkim.sign(octets, b"one", b"example.org", _TRADITIONAL, canonicalize=forms)
        sent = as_sent(field + (octets.replace(old, new, 1) if old else octets) + more)
        fields, rest = split(sent)
        if sent != fields + b"\r\n" + rest:
            return  # where the blank line is lost there is more than one message to speak of
        found = findings(sent)
        self.assertEqual(any(one.result == "pass" for one in found), dkimpy_says(sent), found)

    def test_last_line_without_its_end(self) -> None:
        """White space there does not count (RFC 6376, 3.4.4); for dkimpy it does, so that it is only
        asked about messages that end as SMTP has them."""
        for body, ours in ((b" ", "fail"), (b"a\t", "fail"), (b" \r\n", "pass"), (b"a", "pass")):
            octets = b"From: a@example.org\r\n\r\n" + body
            forms = (b"simple", b"relaxed")
            field = dkim.sign(octets, b"one", b"example.org", _TRADITIONAL, canonicalize=forms)
            self.assertTrue(dkimpy_says(field + octets))
            self.assertEqual([one.result for one in findings(field + octets)], [ours], body)

    @settings(max_examples=300, deadline=None)
    @given(body=st.one_of(BODY, WILD), cuts=CUTS)
    def test_simple_body_in_pieces(self, body: bytes, cuts: list[int]) -> None:
        """The simple form's hash is dkimpy's, wherever the body is cut."""
        pieces = SimpleBodyHash()
        edges = [0, *sorted(cut for cut in cuts if cut <= len(body)), len(body)]
        for start, stop in pairwise(edges):
            pieces.update(body[start:stop])
        canonical = dkim.CanonicalizationPolicy.from_c_value(b"simple/simple").canonicalize_body(
            body
        )
        self.assertEqual(pieces.digest(), dkim.HASH_ALGORITHMS[b"rsa-sha256"](canonical).digest())
        self.assertEqual(pieces.size_octets, len(canonical))


TAGS: Final = st.lists(
    st.tuples(
        st.sampled_from(["v", "a", "c", "d", "s", "h", "bh", "b", "i", "l", "t", "x", "q", "z"]),
        st.one_of(
            st.sampled_from(
                ["1", "rsa-sha256", "ed25519-sha256", "simple", "relaxed/relaxed", "example.org",
                 "one", "from", "from:from:to", "@example.org", "0", "9" * 90, "dns/txt", "YWJj",
                 base64.b64encode(b"x" * 32).decode(), "ü.test", " \r\n ", "\r\n\t;"]
            ),
            st.text(max_size=30),
        ),
    ),
    max_size=12,
)  # fmt: skip
RECORDS: Final = st.one_of(
    st.text(max_size=60),
    TAGS.map(lambda tags: ";".join(f"{name}={value}" for name, value in tags)),
    st.binary(max_size=80).map(lambda octets: f"p={base64.b64encode(octets).decode()}"),
    st.binary(max_size=80).map(lambda octets: f"k=ed25519;p={base64.b64encode(octets).decode()}"),
)


class HostileTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(tags=TAGS, garbage=st.binary(max_size=60), record=RECORDS)
    def test_any_signature_and_any_key(
        self, tags: list[tuple[str, str]], garbage: bytes, record: str
    ) -> None:
        """There is a finding for each, and it passes none on that is not a name."""
        text = ";".join(f"{name}={value}" for name, value in tags)
        octets = b"DKIM-Signature: %b\r\nDKIM-Signature:%b\r\nFrom: a@b.test\r\n\r\n" % (
            text.encode("utf-8", "replace"),
            garbage,
        )
        fields, _ = split(octets)
        for one in claims(fields, AT):
            if isinstance(one, Claim):
                hashed = bodies(MemoryOctets((b"body",)), 0, [one])
                one = judged(one, hashed[one.form], Found((record,)))
            self.assertNotEqual(one.result, "pass")
            for name in (one.domain, one.selector):
                self.assertRegex(name, r"\A[a-z0-9_.-]*\Z")
