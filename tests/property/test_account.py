"""Passwords are the same however they were typed, and stay so."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import prepared_password

TEXTS = st.text(st.characters(max_codepoint=0x3FF) | st.characters(), max_size=20)


class PreparedPasswordTests(SynchronousTestCase):
    @given(TEXTS)
    def test_twice_is_once(self, text: str) -> None:
        """Who prepares a prepared password changes nothing."""
        prepared = prepared_password(text)
        if prepared is not None:
            self.assertEqual(prepared_password(prepared), prepared)

    @given(TEXTS)
    def test_composed_or_not(self, text: str) -> None:
        """What a keyboard composes and what it leaves apart is one password."""
        forms = {
            prepared_password(unicodedata.ucd_3_2_0.normalize(form, text))
            for form in ("NFC", "NFD", "NFKC", "NFKD")
        }
        if prepared_password(text) is not None:
            self.assertEqual(forms, {prepared_password(text)})

    @given(TEXTS)
    def test_can_be_sent(self, text: str) -> None:
        """No control characters, and UTF-8 can hold it."""
        prepared = prepared_password(text)
        if prepared is not None:
            self.assertNotEqual(prepared.encode(), b"")
            self.assertTrue(prepared.isprintable())
