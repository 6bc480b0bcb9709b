"""What an API key's secret looks like, and what is kept of it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.apikey import ApiKey, KeySecret, fingerprint, secret_text

ZEROS = "pmta_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaauj4q2yy"
NOON = 1_790_000_000.0


def secret(number: int, *, at: float = NOON, expires_at: float | None = None) -> KeySecret:
    return KeySecret(digest=bytes([number]) * 32, created_at=at, expires_at=expires_at)


class SecretTests(SynchronousTestCase):
    def test_shape(self) -> None:
        text = secret_text(bytes(32))
        self.assertEqual(text, ZEROS)
        self.assertEqual(len(text), 64)

    def test_what_is_kept_is_not_the_secret(self) -> None:
        digest = fingerprint(secret_text(b"\x07" * 32))
        assert digest is not None
        self.assertEqual(len(digest), 32)
        self.assertNotEqual(digest, b"\x07" * 32)

    def test_a_typo_is_no_secret(self) -> None:
        """Whatever single character it is in, prefix and checksum among them."""
        text = secret_text(bytes(range(32)))
        self.assertIsNotNone(fingerprint(text))
        for at, character in enumerate(text):
            other = "b" if character != "b" else "c"
            self.assertIsNone(fingerprint(text[:at] + other + text[at + 1 :]), at)

    def test_what_is_none(self) -> None:
        text = secret_text(bytes(32))
        for wrong in ("", "pmta_", text.upper(), text[:-1], text + "a", text + "\n", "\u00e4" * 64):
            self.assertIsNone(fingerprint(wrong), wrong)

    def test_nothing_of_it_is_shown(self) -> None:
        key = ApiKey(name="bot", secrets=(secret(0x41),))
        self.assertNotIn("AAAA", repr(key))
        self.assertNotIn("4141", repr(key))
        self.assertNotIn("4141", key.secrets[0].id)


class RotationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.key = ApiKey(name="bot", secrets=(secret(1),))

    def valid(self, key: ApiKey, at: float) -> list[int]:
        return [one.digest[0] for one in key.secrets if key.is_valid(one, at)]

    def test_both_are_valid_for_a_while(self) -> None:
        key = self.key.rotated(secret(2, at=NOON + 10), overlap_s=60)
        self.assertEqual(self.valid(key, NOON + 10), [1, 2])
        self.assertEqual(self.valid(key, NOON + 69.9), [1, 2])
        self.assertEqual(self.valid(key, NOON + 70), [2])

    def test_no_overlap(self) -> None:
        key = self.key.rotated(secret(2), overlap_s=0)
        self.assertEqual(self.valid(key, NOON), [2])

    def test_another_rotation_prolongs_nothing(self) -> None:
        key = self.key.rotated(secret(2), overlap_s=60)
        key = key.rotated(secret(3, at=NOON + 30), overlap_s=600)
        self.assertEqual(self.valid(key, NOON + 59), [1, 2, 3])
        self.assertEqual(self.valid(key, NOON + 61), [2, 3])

    def test_what_has_ended_is_forgotten(self) -> None:
        key = self.key.rotated(secret(2), overlap_s=60)
        key = key.rotated(secret(3, at=NOON + 100), overlap_s=60)
        self.assertEqual([one.digest[0] for one in key.secrets], [2, 3])

    def test_a_key_ends_with_all_of_its_secrets(self) -> None:
        key = ApiKey(name="bot", secrets=(secret(1), secret(2)), expires_at=NOON + 5)
        self.assertEqual(self.valid(key, NOON + 4.9), [1, 2])
        self.assertEqual(self.valid(key, NOON + 5), [])
