"""The keys of a gateway, and the folder of personas."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.model.identity import Identity, identity_of, public_key_of
from protege_mta.tunnel.passports import (
    BadPassport,
    PassportFiles,
    Passports,
    read_passport,
)


def write_key(path: Path, seed: int) -> Identity:
    """A private key as Protege writes it, made from one octet."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return identity_of(key.public_key().public_bytes_raw())


class PassportsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def persona(self, name: str, seed: int, **said: object) -> Identity:
        identity = write_key(self.folder / name / "passport.key", seed)
        if said:
            (self.folder / name / "persona.json").write_text(json.dumps(said))
        return identity

    def read(self, files: PassportFiles) -> Passports:
        found = files.read()
        assert found is not None
        return found


class ReadingTests(PassportsCase):
    def test_a_key_signs_as_its_identity(self) -> None:
        path = self.folder / "key.pem"
        identity = write_key(path, 1)
        passport = read_passport(path, "me")
        self.assertEqual(passport.identity, identity)
        passport.key.public_key().verify(passport.sign(b"challenge"), b"challenge")
        self.assertEqual(passport.key.public_key().public_bytes_raw(), public_key_of(identity))

    def test_a_key_of_another_kind_is_none(self) -> None:
        path = self.folder / "rsa.pem"
        key = generate_private_key(65537, 2048)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        error = self.assertRaises(BadPassport, read_passport, path, "me")
        self.assertIn("another kind than Ed25519", str(error))

    def test_secrets_are_not_shown(self) -> None:
        path = self.folder / "key.pem"
        write_key(path, 1)
        self.assertNotIn("key=", repr(read_passport(path, "me")))


class FolderTests(PassportsCase):
    def test_named_keys_first_then_personas_by_name(self) -> None:
        second, first = self.persona("b", 1), self.persona("a", 2)
        named = write_key(self.folder / "own.pem", 3)
        (self.folder / "README").write_text("no persona")
        (self.folder / "empty").mkdir()
        files = PassportFiles({"own": self.folder / "own.pem"}, self.folder)
        self.assertEqual(list(self.read(files).by_identity), [named, first, second])

    def test_new_ones_are_found_and_old_ones_missed(self) -> None:
        files = PassportFiles({}, self.folder)
        one = self.persona("a", 1)
        self.assertEqual(list(self.read(files).by_identity), [one])
        two = self.persona("b", 2)
        (self.folder / "a" / "passport.key").unlink()
        self.assertEqual(list(self.read(files).by_identity), [two])

    def test_a_broken_key_is_told_once_and_stops_nobody(self) -> None:
        files = PassportFiles({}, self.folder)
        good = self.persona("b", 1)
        (self.folder / "a").mkdir()
        path = self.folder / "a" / "passport.key"
        path.write_text("no key")
        with capturedLogs() as logged:
            for _ in range(3):
                self.assertEqual(list(self.read(files).by_identity), [good])
            self.assertEqual(len(logged), 1)
            mended = write_key(path, 2)
            self.assertEqual(list(self.read(files).by_identity), [mended, good])
            path.write_text("no key again")
            self.read(files)
        self.assertEqual(len(logged), 2)

    def test_what_is_being_made_is_no_persona_yet(self) -> None:
        """A set-up that was cut off leaves such a folder, with a key that nobody will ever use."""
        one = self.persona("a", 1)
        self.persona(".new-persona", 2)
        self.assertEqual(list(self.read(PassportFiles({}, self.folder)).by_identity), [one])

    def test_a_folder_that_cannot_be_looked_at_changes_nothing(self) -> None:
        files = PassportFiles({}, self.folder / "nowhere")
        self.assertIsNone(files.read())

    def test_the_same_key_twice_is_one_agent_with_all_its_addresses(self) -> None:
        one = self.persona("a", 1, emailAddress="a@x.test")
        self.persona("b", 1, emailAddress="b@x.test")
        found = self.read(PassportFiles({}, self.folder))
        self.assertEqual(found.by_identity[one].addresses, ("a@x.test", "b@x.test"))

    def test_what_persona_json_may_hold(self) -> None:
        """Nonsense costs the aliases, not the session."""
        for seed, text in enumerate(
            ["{", "[]", '{"aliases": 3}', '{"aliases": [1, "Ann@X.test"]}', "[" * 200_000], 1
        ):
            self.persona(f"p{seed}", seed)
            (self.folder / f"p{seed}" / "persona.json").write_text(text)
        found = self.read(PassportFiles({}, self.folder))
        self.assertEqual(
            [passport.addresses for passport in found.by_identity.values()],
            [(), (), (), ("ann@x.test",), ()],
        )

    def test_a_changed_alias_is_seen(self) -> None:
        files = PassportFiles({}, self.folder)
        one = self.persona("a", 1, aliases=["old@x.test"])
        self.read(files)
        self.persona("a", 1, aliases=["newer@x.test"])
        self.assertEqual(self.read(files).by_identity[one].addresses, ("newer@x.test",))


class WhoseTests(PassportsCase):
    def test_senders(self) -> None:
        first = self.persona("a", 1)
        second = self.persona("b", 2, emailAddress="Bob@Home.test", aliases=["bobby"])
        found = self.read(PassportFiles({}, self.folder))
        for address, identity in [
            (f"{second}@home.test", second),
            (f"{second.upper()}@elsewhere.test", second),
            (f"{second}+tag@home.test", second),
            ("bob@home.test", second),
            ("BOB+list@home.test", second),
            ("bobby@any.test", second),
            ("bob@elsewhere.test", first),
            ("", first),
            ("stranger@home.test", first),
        ]:
            self.assertEqual(found.of(address), identity, address)
        self.assertTrue(found.has(second.upper()))
        self.assertFalse(found.has("bob"))
        self.assertIsNone(Passports({}).of("a@b.test"))
