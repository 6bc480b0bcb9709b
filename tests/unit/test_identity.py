"""Keys as text: one spelling a key, and the names that a Protege project derives from it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.credentials import identity_in
from protege_mta.config.kinds import InlineText
from protege_mta.model.identity import identity_of, parse_identity, persona_id, public_key_of

from .projects import keys

KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
TEXT = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena"  # RFC 8032, 7.1, test 1


class IdentityTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        self.assertEqual(identity_of(KEY), TEXT)
        self.assertEqual(public_key_of(identity_of(KEY)), KEY)

    def test_as_people_type_it(self) -> None:
        self.assertEqual(parse_identity(f" {TEXT.upper()}\n"), TEXT)

    def test_the_other_spellings_of_a_key_are_none(self) -> None:
        others = [TEXT[:-1] + last for last in "bcdefghijklmnoprstuvwxyz234567"]
        self.assertEqual([parse_identity(text) for text in others], [None] * 30)

    def test_what_is_no_key(self) -> None:
        for text in ("", "abc", TEXT[:-1], TEXT + "a", TEXT[:-2] + "1a", TEXT[:-2] + "\u0131a"):
            self.assertIsNone(parse_identity(text), text)
        self.assertRaises(ValueError, identity_of, KEY[:-1])

    def test_the_persona(self) -> None:
        self.assertEqual(persona_id(identity_of(KEY)), "dd46b054d3e4011c")

    def test_as_the_original(self) -> None:
        """The key file, the text and the persona's folder that a Protege gateway makes of a key."""
        self.assertGreater(len(keys()), 4)
        for key in keys():
            self.assertEqual(len(key.pem), 119)
            identity = identity_in(InlineText(key.pem))
            assert isinstance(identity, str)
            self.assertEqual((identity, persona_id(identity)), (key.text, key.id))
