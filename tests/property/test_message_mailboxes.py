"""Where we see no doubt, other readers see what we see."""

from __future__ import annotations

import re
from email.headerregistry import HeaderRegistry
from email.utils import getaddresses
from typing import Any, Final

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.message.mailboxes import mailboxes, names_somebody

PIECES = st.sampled_from(
    ["ada", "@", "x.test", "<", ">", "a@x.test", "<b@y.test>", ",", ", ", " ", "(", ")", '"', "\\", ";",
     ":", ".", "=?utf-8?q?", "=40", "=3C", "?=", "\0", "\n", "ä", "[", "]", "\u2028", "J. D."]
)  # fmt: skip
VALUES = st.lists(PIECES, max_size=10).map("".join)

NAMES = st.sampled_from(
    [
        "",
        "Ada ",
        "Ada (a b) ",
        "(a) ",
        "A. L. ",
        '"a@y.test, B" ',
        '"\\"" ',
        "=?utf-8?q?=C3=A4?= ",
        "ä ",
    ]
)
COMMENTS = st.sampled_from(["", " (Ada)", " (a b) "])
ADDRESSES = st.sampled_from(["a@x.test", "b.c+d@y.test", "o'n@z.test", '"e f"@x.test'])
LIKELY = st.lists(
    st.one_of(
        st.tuples(NAMES, ADDRESSES, COMMENTS).map(lambda t: f"{t[0]}<{t[1]}>{t[2]}"),
        st.tuples(ADDRESSES, COMMENTS).map("".join),
    ),
    min_size=1,
    max_size=3,
).map(", ".join)


_NEEDLESS: Final = re.compile(
    r'^"([\w!#$%&\'*+/=?^`{|}~-]+(?:\.[\w!#$%&\'*+/=?^`{|}~-]+)*)"@', re.ASCII
)


class MailboxesTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(value=VALUES | LIKELY)
    @example(value="J. D.<b@y.test>")
    @example(value='""@x.test')
    @example(value='"ada"@x.test')
    def test_readers_agree(self, value: str) -> None:
        """Two readers of the standard library, which err in ways of their own; the second one breaks
        over some names with a dot, and takes away quotes that nobody needs."""
        found = mailboxes(value.encode())
        assume(found is not None)
        self.assertEqual([each for _, each in getaddresses([value]) if each], found)
        try:
            header: Any = HeaderRegistry()("from", value)
        except (AttributeError, TypeError):
            self.assertIn(".", value)
            return
        plain = [_NEEDLESS.sub(r"\1@", each) for each in found or ()]
        self.assertEqual([each.addr_spec for each in header.addresses], plain)

    @settings(max_examples=300, deadline=None)
    @given(value=LIKELY)
    def test_what_people_write_is_read(self, value: str) -> None:
        self.assertTrue(mailboxes(value.encode()))
        self.assertTrue(names_somebody(value.encode()))

    @settings(max_examples=300, deadline=None)
    @given(octets=st.binary(max_size=40))
    def test_nothing_raises(self, octets: bytes) -> None:
        mailboxes(octets)
        names_somebody(octets)
