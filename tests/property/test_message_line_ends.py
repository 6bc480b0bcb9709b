"""Line ends of content that comes through a tunnel, however it is cut."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.line_ends import LineEnds

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b"bc"]) | st.binary(max_size=5)
)


class LineEndsProperties(SynchronousTestCase):
    @given(PIECES)
    def test_a_function_of_the_octets(self, pieces: list[bytes]) -> None:
        """Lines are those between LFs, each ends in CRLF, and no CRLF is torn."""
        content = b"".join(pieces)
        lines = LineEnds()
        given_back = [*map(lines.feed, pieces), lines.end()]
        fixed = b"".join(given_back)
        has_bare_cr = re.search(rb"\r(?!\n)", content) is not None
        self.assertEqual(lines.has_bare_cr, has_bare_cr)
        if has_bare_cr:
            return
        whole = content if not content or content.endswith(b"\n") else content + b"\n"
        self.assertEqual(fixed, re.sub(rb"\r?\n", b"\r\n", whole))
        self.assertFalse(any(one.endswith(b"\r") or one.startswith(b"\n") for one in given_back))
