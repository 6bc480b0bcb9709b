"""Keys are parsed once, refused with a reason, and published as verifiers read them."""

from __future__ import annotations

import base64
import warnings

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from dkim.crypto import parse_public_key  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.dkim import keys, record
from protege_mta.dkim.keys import BadKey

PKCS8 = serialization.PrivateFormat.PKCS8
TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL

ED25519 = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""
"""The key of RFC 8463, appendix A.2, and of RFC 8032, 7.1, test 1."""


def pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    form: serialization.PrivateFormat = PKCS8,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, form, encryption or serialization.NoEncryption()
    )


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


class LoadTests(SynchronousTestCase):
    """What a key file may hold."""

    def complaint(self, octets: bytes) -> str:
        return str(self.assertRaises(BadKey, keys.load, octets))

    def test_rsa(self) -> None:
        key = keys.load(keys.generate_rsa())
        self.assertEqual((key.kind, key.algorithm, key.bits), ("rsa", "rsa-sha256", 2048))
        self.assertFalse(key.is_weak)
        self.assertEqual(len(key.sign(b"x" * 32)), 256)

    def test_ed25519(self) -> None:
        key = keys.load(keys.generate_ed25519())
        self.assertEqual((key.kind, key.algorithm, key.bits), ("ed25519", "ed25519-sha256", 256))
        self.assertFalse(key.is_weak)
        self.assertEqual(len(key.sign(b"x" * 32)), 64)

    def test_openssl_s_older_form(self) -> None:
        self.assertEqual(keys.load(pem(rsa_key(2048), TRADITIONAL)).kind, "rsa")

    def test_short_rsa_works_and_says_so(self) -> None:
        key = keys.load(pem(rsa_key(1024)))
        self.assertTrue(key.is_weak)
        self.assertEqual(len(key.sign(b"x" * 32)), 128)

    def test_refusals(self) -> None:
        self.assertEqual(self.complaint(b""), "not a private key in PEM")
        self.assertEqual(self.complaint(b"\xff" * 100), "not a private key in PEM")
        self.assertEqual(
            self.complaint(keys.generate_rsa().replace(b"\n", b"\nA", 1)),
            "not a private key in PEM",
        )
        encrypted = pem(rsa_key(2048), PKCS8, serialization.BestAvailableEncryption(b"secret"))
        self.assertEqual(self.complaint(encrypted), "the key is encrypted")
        curve = pem(ec.generate_private_key(ec.SECP256R1()))
        self.assertEqual(self.complaint(curve), "neither an RSA nor an Ed25519 key")

    def test_too_short_rsa(self) -> None:
        """RFC 8301, 3.2."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                weak = pem(rsa_key(512))
            except ValueError as unsupported:  # this OpenSSL makes none
                self.assertIn("1024", str(unsupported))
                return
        self.assertRaises(BadKey, keys.load, weak)

    def test_secret_is_not_shown(self) -> None:
        self.assertNotIn("sign", repr(keys.load(ED25519)))


class RecordTests(SynchronousTestCase):
    """What goes into DNS."""

    def test_ed25519_literal(self) -> None:
        """RFC 8463, appendix A.2."""
        self.assertEqual(
            record.dns_record(keys.load(ED25519)),
            "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        )

    def test_rsa_is_what_dkimpy_reads(self) -> None:
        private = rsa_key(2048)
        value = record.dns_record(keys.load(pem(private)))
        self.assertTrue(value.startswith("v=DKIM1; k=rsa; p=MII"))
        public = parse_public_key(base64.b64decode(value.partition("p=")[2]))
        self.assertEqual(public["modulus"], private.public_key().public_numbers().n)

    def test_strings(self) -> None:
        """RFC 1035, 3.3.14: 255 octets each."""
        value = record.dns_record(keys.load(keys.generate_rsa()))
        pieces = record.strings(value)
        self.assertEqual([len(piece) for piece in pieces], [255, len(value) - 255])
        self.assertEqual("".join(pieces), value)

    def test_zone_line(self) -> None:
        self.assertEqual(
            record.zone_line("ed", "local.test", keys.load(ED25519)),
            'ed._domainkey.local.test. IN TXT "v=DKIM1; k=ed25519;'
            ' p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="',
        )
