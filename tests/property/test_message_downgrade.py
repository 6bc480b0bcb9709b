"""Recoding keeps what a reader sees, for every shape of message."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import compat32

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.downgrade import Recoded, Refused, Unchanged, for_hop
from protege_mta.model.address import Address
from protege_mta.model.envelope import Envelope, Recipient
from protege_mta.model.ports import HopAbilities

ENVELOPE = Envelope(Address("a@x.test"), (Recipient(Address("b@y.test")),))
SEVEN_BIT = HopAbilities(has_8bitmime=False)

LINES = st.sampled_from(
    [b"plain", b"tail \t", b"", b".", b"From x", b"=3D", b"--", b"\xc3\xa4", b"\xff" * 90, b"\0",
     b"x" * 80, b"-- "]
)  # fmt: skip
BODY = st.lists(LINES, max_size=6).map(b"\r\n".join)
LABEL = st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n"])
LEAF = st.tuples(
    st.sampled_from([b"", b"Content-Type: text/html; charset=utf-8\r\n", b"Content-Type: a/b\r\n"]),
    LABEL,
    BODY,
).map(lambda parts: parts[0] + parts[1] + b"\r\n" + parts[2])


def within(level: int, label: bytes, parts: list[bytes]) -> bytes:
    boundary = b"b%d" % level
    return (
        b"Content-Type: multipart/mixed; boundary=%b\r\n%b\r\npreamble" % (boundary, label)
        + b"".join(b"\r\n--%b\r\n%b" % (boundary, part) for part in parts)
        + b"\r\n--%b--\r\n" % boundary
    )


def multipart(level: int, parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(within, st.just(level), LABEL, st.lists(parts, min_size=1, max_size=3))


MESSAGES = st.builds(
    bytes.__add__,
    st.sampled_from([b"MIME-Version: 1.0\r\n", b"Subject: x\r\n", b""]),
    st.one_of(LEAF, multipart(1, LEAF), multipart(1, st.one_of(LEAF, multipart(2, LEAF)))),
)
WILD = st.lists(
    st.sampled_from(
        [b"Content-Type: ", b"multipart/mixed", b"; boundary=b", b"message/rfc822", b"\r\n--b",
         b"--", b"\r\n", b"\r\n\r\n", b"Content-Transfer-Encoding: ", b"8bit", b"text/plain",
         b"\xc3\xa4", b"x", b" "]
    ), max_size=30,
).map(b"".join)  # fmt: skip


def leaves(octets: bytes) -> list[bytes]:
    """What is in the parts, line ends aside: DATA may add the last one."""
    found = []
    for part in message_from_bytes(octets, policy=compat32).walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append(content.rstrip(b"\r\n"))
    return found


class RecodeTests(SynchronousTestCase):
    """For a hop without 8BITMIME."""

    @settings(max_examples=250, deadline=None)
    @given(octets=MESSAGES)
    def test_reader_sees_no_difference(self, octets: bytes) -> None:
        form = for_hop(octets, ENVELOPE, [0], SEVEN_BIT)
        if octets.isascii():
            self.assertEqual(form, Unchanged())
            return
        assert isinstance(form, Recoded), form
        self.assertTrue(form.octets.isascii())
        self.assertEqual(leaves(form.octets), leaves(octets))
        self.assertEqual(form.octets.count(b"\n"), form.octets.count(b"\r\n"))

    @settings(max_examples=300, deadline=None)
    @given(octets=st.one_of(WILD, st.binary(max_size=100)))
    def test_anything_is_recoded_or_refused(self, octets: bytes) -> None:
        form = for_hop(octets, ENVELOPE, [0], SEVEN_BIT)
        match form:
            case Recoded(recoded):
                self.assertTrue(recoded.isascii())
                self.assertEqual(for_hop(recoded, ENVELOPE, [0], SEVEN_BIT), Unchanged())
            case Refused(reply):
                self.assertEqual(reply.enhanced, "5.6.3")
            case Unchanged():
                self.assertTrue(octets.isascii())
