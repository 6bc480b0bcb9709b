"""``sendmail`` on any command line and any text."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.cli.sendmail_message import BadMessage, complete, recipients_in, with_crlf
from protege_mta.cli.sendmail_options import Asked, NoSuchOption, parsed

_PIECES = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\r", b".", b".\n", b":", b"\xff", b"\0", b"text", b" folded\n"),
        *(b"To: a@b.test\n", b"Bcc: c@d.test\n", b"From: ", b"Date:\n", b"Message-ID: <x>\n"),
        b"From x\n",
    ]
)
TEXTS = st.lists(_PIECES | st.binary(max_size=4), max_size=12).map(b"".join)


class SendmailProperties(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(words=st.lists(st.text("-tifFNRVobBhXOq= a@", max_size=6), max_size=5))
    def test_any_command_line(self, words: list[str]) -> None:
        try:
            self.assertIsInstance(parsed(words), Asked)
        except NoSuchOption as error:
            self.assertTrue(str(error).startswith("-"))

    @settings(max_examples=500, deadline=None)
    @given(text=TEXTS, ends_at_dot=st.booleans())
    def test_no_bare_line_ends(self, text: bytes, ends_at_dot: bool) -> None:
        """What is sent cannot smuggle, and nothing in it is lost but what was asked for."""
        try:
            message = with_crlf(text, ends_at_dot=ends_at_dot)
        except BadMessage:
            self.assertTrue(b"\0" in text or re.search(rb"\r(?!\n)", text))
            return
        self.assertIsNone(re.search(rb"\r(?!\n)|(?<!\r)\n|\0", message))
        if not ends_at_dot:
            self.assertEqual(message.split(), text.split())

    @settings(max_examples=500, deadline=None)
    @given(text=TEXTS)
    def test_completed_once(self, text: bytes) -> None:
        """A second pass finds nothing to do: the header is whole, and Bcc is gone."""
        try:
            message = with_crlf(text, ends_at_dot=False)
        except BadMessage:
            return
        first = complete(message, author=("", "a@b.test"), hostname="h.test", now=0.0)
        again = complete(first, author=("", "x@y.test"), hostname="g.test", now=9.0)
        self.assertEqual(again, first)
        header = first.partition(b"\r\n\r\n")[0].lower()
        self.assertNotIn(b"\r\nbcc:", b"\r\n" + header)
        for name in (b"date", b"from", b"message-id"):
            self.assertEqual(len(re.findall(rb"^%s[ \t]*:" % name, header, re.MULTILINE)) > 0, True)
        self.assertIsNone(re.search(rb"\r(?!\n)|(?<!\r)\n", first))

    @settings(max_examples=300, deadline=None)
    @given(text=TEXTS)
    def test_recipients(self, text: bytes) -> None:
        """Any header has recipients, or is refused in words."""
        try:
            found = recipients_in(with_crlf(text, ends_at_dot=False))
        except BadMessage as error:
            self.assertTrue(str(error))
        else:
            self.assertTrue(all(isinstance(each, str) and each for each in found))
