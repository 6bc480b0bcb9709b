"""Names and passwords of accounts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.account import account_name, prepared_password


class PreparedPasswordTests(SynchronousTestCase):
    """SASLprep, with the examples of RFC 4013, 3."""

    def test_what_looks_alike_is_alike(self) -> None:
        for typed, prepared in (
            ("I\u00adX", "IX"),  # a soft hyphen is nothing
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),  # Roman numeral nine
            ("a\u00a0b", "a b"),  # any space is a space
            ("u\u0308ber", "\u00fcber"),
            ("\u0627\u0628", "\u0627\u0628"),
        ):
            self.assertEqual(prepared_password(typed), prepared, ascii(typed))

    def test_refused(self) -> None:
        for typed in (
            "",
            "x" * 1025,
            "\ufdfa" * 1024,  # eighteen characters each, when prepared
            "\u0007",
            "with\0nul",
            "tab\t",
            "\u00ad",  # nothing is left of it
            "\u00e9\u0000",
            "\u0627\u0031",  # right to left, and does not end so
            "\u0627a\u0627",
            "\ue000",  # private use
            "\ud800\u00e9",  # a lone surrogate
            "\U0001f600\u00e9",  # Unicode 3.2 did not know it
        ):
            self.assertIsNone(prepared_password(typed), ascii(typed))

    def test_ascii_is_left_alone(self) -> None:
        text = "".join(map(chr, range(32, 127)))
        self.assertEqual(prepared_password(text), text)


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(account_name("Alice@Example.ORG"), "alice@example.org")
        for text in ("", "a b", "\u00e4", "-x", "a\n", "x" * 129, "a=2c", "\u212a"):
            self.assertIsNone(account_name(text), ascii(text))
