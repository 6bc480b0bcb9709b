"""The search for dots at the beginning of lines is the plain search, however long the content."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.wire.dotstuff import find_line_dot

PIECES = st.lists(
    st.tuples(
        st.sampled_from((b".", b"\r\n.", b"\r\n", b"\r", b"\n.", b"x", b"..", b"\r\r\n.")),
        st.sampled_from((1, 2, 23, 24, 25, 9000)),
    ),
    max_size=12,
)


class FindTests(SynchronousTestCase):
    @given(PIECES)
    @settings(max_examples=300, deadline=None)
    def test_as_find(self, pieces: list[tuple[bytes, int]]) -> None:
        octets = b"".join(piece * times for piece, times in pieces)
        self.assertEqual(find_line_dot(octets), octets.find(b"\r\n."))

    def test_at_the_edges(self) -> None:
        filling = b"x" * 10_000
        for octets in (
            b"\r\n." + filling,
            filling + b"\r\n.",
            b"." + filling + b"\r\n.",
            b"\n." + filling,
            b"." * 24 + filling + b"\r\n.",
            b"." * 22 + b"\r\n." + filling,
            b"." * 23 + b"\r\n." + filling,
            b"." * 24 + b"\r\n." + filling,
        ):
            self.assertEqual(find_line_dot(octets), octets.find(b"\r\n."))
