"""Nobody adds a word to our Authentication-Results, and nothing of ours is left in others'."""

from __future__ import annotations

import re
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.authres import ResInfo, field, without_foreign
from protege_mta.message.headers import is_well_formed, simplified, values

OURS: Final = "mx.local.test"
TEXT: Final = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["a", ".", "@", ";", " ", "\r\n", "\t", '"', "(", ")", "=", "/", "\\", "ü"]),
        max_size=20,
    ).map("".join),
)  # fmt: skip
NAMES: Final = st.sampled_from([b"Authentication-Results", b"authentication-results ", b"X"])
VALUES: Final = st.lists(
    st.sampled_from(
        [b"mx.local.test", b"MX.LOCAL.test", b"other.test", b";", b" ", b"(", b")", b'"', b"\\",
         b"\r\n ", b"\t", b"1", b"/", b"spf=pass", b"."]
    ),
    max_size=10,
).map(b"".join)  # fmt: skip


class AuthresTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(texts=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
    def test_no_injection(self, texts: list[tuple[str, str]]) -> None:
        """There are as many results as methods were tried, and they are ours."""
        outcomes = [
            ResInfo("dkim", "fail", "a reason; or two", (("header.d", one), ("header.s", two)))
            for one, two in texts
        ]
        made = field(OURS, outcomes)
        self.assertTrue(is_well_formed(made))
        self.assertTrue(all(len(line) <= 998 for line in made.split(b"\r\n")))
        [value] = values(made, b"authentication-results")
        plain, _ = simplified(value)
        name, *infos = plain.split(b";")
        self.assertEqual((name, len(infos)), (OURS.encode(), len(texts)))
        for info in infos:
            self.assertEqual(re.findall(rb"(?:^|\s)(spf|dkim|dmarc|arc)=(\w+)", info), [(b"dkim", b"fail")])  # fmt: skip

    @settings(max_examples=400, deadline=None)
    @given(fields=st.lists(st.tuples(NAMES, VALUES), max_size=4))
    def test_foreign(self, fields: list[tuple[bytes, bytes]]) -> None:
        """What is kept is what was there, in order; what names us first is not."""
        whole = [b"%b:%b\r\n" % one for one in fields]
        kept = without_foreign(b"".join(whole), OURS)
        rest = iter(whole)
        left = [one for one in whole if one in kept]
        self.assertTrue(all(one in rest for one in left))
        for value in values(kept, b"authentication-results"):
            plain, _ = simplified(value)
            first = plain.partition(b";")[0].split()[:1]
            self.assertNotIn(b"mx.local.test", [one.lower() for one in first])
        self.assertEqual(without_foreign(kept, OURS), kept)
