"""Private keys for DKIM (RFC 6376, 3.3; RFC 8301; RFC 8463).

A key is parsed once and then signs many times, from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

LEAST_RSA_BITS: Final = 1024
GOOD_RSA_BITS: Final = 2048
"""RFC 8301, 3.2: verifiers refuse fewer than 1024 bits, and signers should have 2048."""


class BadKey(ValueError):
    """The file holds no key that DKIM can use; the text says what is wrong, never what is in it."""


@attrs.frozen
class SigningKey:
    """A private key.

    :ivar kind: the k= tag of its DNS record.
    :ivar algorithm: the a= tag of its signatures.
    :ivar bits: of the modulus; 256 for Ed25519.
    :ivar public_octets: what the p= tag of the DNS record has in base 64.
    """

    kind: Literal["rsa", "ed25519"]
    algorithm: Literal["rsa-sha256", "ed25519-sha256"]
    bits: int
    public_octets: bytes
    _sign: Callable[[bytes], bytes] = attrs.field(repr=False, eq=False)

    def sign(self, digest: bytes) -> bytes:
        """Sign a SHA-256 digest.  The same digest gives the same signature, with either kind."""
        return self._sign(digest)

    @property
    def is_weak(self) -> bool:
        """Whether it works, and should be replaced by a longer one."""
        return self.kind == "rsa" and self.bits < GOOD_RSA_BITS


def load(pem: bytes) -> SigningKey:
    """Parse an RSA or Ed25519 private key without a passphrase.

    :raise BadKey: no PEM, encrypted, another kind of key, or RSA with fewer than 1024 bits.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise BadKey("the key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("not a private key in PEM") from None
    match key:
        case rsa.RSAPrivateKey():
            if key.key_size < LEAST_RSA_BITS:
                raise BadKey(f"an RSA key of {key.key_size} bits, wanted {GOOD_RSA_BITS}")
            return _rsa(key)
        case ed25519.Ed25519PrivateKey():
            public = key.public_key().public_bytes_raw()
            return SigningKey("ed25519", "ed25519-sha256", 256, public, key.sign)
        case _:
            raise BadKey("neither an RSA nor an Ed25519 key")


def _rsa(key: rsa.RSAPrivateKey) -> SigningKey:
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    scheme, prehashed = padding.PKCS1v15(), Prehashed(hashes.SHA256())

    def sign(digest: bytes) -> bytes:
        return key.sign(digest, scheme, prehashed)

    return SigningKey("rsa", "rsa-sha256", key.key_size, public, sign)


def generate_rsa(bits: int = GOOD_RSA_BITS) -> bytes:
    """A new RSA key in PEM (PKCS #8).  2048 bits: the most that every verifier must take."""
    return _pem(rsa.generate_private_key(public_exponent=65537, key_size=bits))


def generate_ed25519() -> bytes:
    """A new Ed25519 key in PEM (PKCS #8)."""
    return _pem(ed25519.Ed25519PrivateKey.generate())


def _pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
