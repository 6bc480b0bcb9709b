"""What signatures of others are worth (RFC 6376, section 6; RFC 8301; RFC 8463).

dkimpy reads the fields and hashes the header; the body is hashed in pieces by :mod:`.canonical`,
since it may lie in a file; keys and signatures are left to ``cryptography``.  Everything is bounded:
what is looked at was written by strangers, who choose its size.  No lookup is made here: whoever
asks the DNS hands in what it said.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import attrs
import dkim  # type: ignore[import-untyped]
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from dkim.canonicalization import CanonicalizationPolicy  # type: ignore[import-untyped]
from dkim.util import parse_tag_value  # type: ignore[import-untyped]

from ..model.domain import ascii_domain
from ..model.ports import Answer, Found, Octets, TryAgain
from ..model.verdicts import Result
from .canonical import AnyBodyHash, BodyHash, SimpleBodyHash
from .keys import LEAST_RSA_BITS

SIGNATURES: Final = 5
"""So many of a message are looked at, from the top; the others as if they were not there."""

_FIELD_OCTETS: Final = 4096  # of a signature; with RSA-4096 and all names it has half of that
_HEADER_LINES: Final = 2000
_SIGNED_NAMES: Final = 200
_MOST_RSA_BITS: Final = 8192
_BLOCK_OCTETS: Final = 256 * 1024
_PREFIX_CHARACTERS: Final = 8  # RFC 6008, section 3

_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")  # fmt: skip
_WIDE_SPACE: Final = re.compile(rb"\s{64}")  # patterns of dkimpy take long for that

Form = Literal["simple", "relaxed"]
_FORMS: Final[Mapping[Form, type[AnyBodyHash]]] = {"simple": SimpleBodyHash, "relaxed": BodyHash}


@attrs.frozen
class Finding:
    """What one signature came to.

    :ivar domain: the d= tag, as A-labels in lower case; empty where it is none.
    :ivar selector: the s= tag likewise.
    :ivar prefix: the first characters of the signature, which tell it from others.
    :ivar reason: for people, empty for ``pass``; never an octet of the sender's.
    """

    result: Result
    domain: str = ""
    selector: str = ""
    prefix: str = ""
    reason: str = ""


@attrs.frozen
class Body:
    """A whole body in one of the forms."""

    digest: bytes
    size_octets: int


@attrs.frozen
class Claim:
    """A signature that is well-formed, and all that is left to do for it.

    :ivar key_name: where the key is in the DNS.
    :ivar form: of the body.
    :ivar size_octets: the l= tag: how much of the body is signed; None for all of it.
    :ivar body_digest: what the signature says of the body.
    :ivar header_digest: what it has to be a signature of.
    :ivar has_subdomain: whether the i= tag names one of d='s subdomains.
    """

    domain: str
    selector: str
    prefix: str
    key_name: str
    algorithm: Literal["rsa-sha256", "ed25519-sha256"]
    form: Form
    size_octets: int | None
    body_digest: bytes
    header_digest: bytes
    signature: bytes
    has_subdomain: bool

    def finding(self, result: Result, reason: str = "") -> Finding:
        return Finding(result, self.domain, self.selector, self.prefix, reason)


def claims(fields: bytes, now: float) -> list[Claim | Finding]:
    """The signatures of a message, in the order of its header; those that no key and no body could
    mend are findings already.

    :param fields: the header section without the blank line.
    :param now: POSIX seconds, for the x= tag.
    """
    if b"dkim-signature" not in fields.lower():
        return []
    if fields.count(b"\n") > _HEADER_LINES:
        return [Finding("permerror", reason="header section is too long")]
    try:
        message = dkim.DKIM(fields + b"\r\n")
    except (dkim.DKIMException, LookupError):
        return [Finding("permerror", reason="header section is malformed")]
    signatures = [value for name, value in message.headers if name.lower() == b"dkim-signature"]
    return [_claim(message, n, value, now) for n, value in enumerate(signatures[:SIGNATURES])]


def _claim(message: dkim.DKIM, number: int, value: bytes, now: float) -> Claim | Finding:
    if len(value) > _FIELD_OCTETS or _WIDE_SPACE.search(value):
        return Finding("neutral", reason="signature is too long")
    try:
        tags = parse_tag_value(value)
        domain, selector = _name(tags[b"d"]), _name(tags[b"s"])
        prefix = "".join(tags[b"b"].decode("ascii").split())[:_PREFIX_CHARACTERS]
        if b"x" in tags and int(tags[b"x"]) < now:
            return Finding("policy", domain, selector, prefix, "signature has expired")
        _, names, signatures = message.verify_headerprep(number)
        signature, body_digest = _octets(tags[b"b"]), _octets(tags[b"bh"])
        canonical = CanonicalizationPolicy.from_c_value(tags.get(b"c", b"simple/simple"))
        size_octets = int(tags[b"l"]) if tags.get(b"l") else None
        has_subdomain = _identity_domain(tags, domain) != domain
    except Exception:
        # dkimpy has exceptions of its own, and leaves others to chance: i= as short as d=, digits
        # without end, octets that are no text.  None of them is a signature that can be checked.
        return Finding("neutral", reason="signature is malformed")
    refused = _refusal(tags, names, domain, selector)
    if refused is not None:
        return Finding(refused[0], domain, selector, prefix, refused[1])
    # Another From than the signed ones spoils the signature (RFC 6376, 8.15), as in dkimpy.
    names.append(b"from")
    header = hashlib.sha256()
    dkim.hash_headers(
        header,
        canonical,
        canonical.canonicalize_headers(message.headers),
        names,
        signatures[number],
        tags,
    )
    return Claim(
        domain,
        selector,
        prefix,
        f"{selector}._domainkey.{domain}",
        "ed25519-sha256" if tags[b"a"] == b"ed25519-sha256" else "rsa-sha256",
        "simple" if canonical.body_algorithm.name == b"simple" else "relaxed",
        size_octets,
        body_digest,
        header.digest(),
        signature,
        has_subdomain,
    )


def _refusal(
    tags: Mapping[bytes, bytes], names: Sequence[bytes], domain: str, selector: str
) -> tuple[Result, str] | None:
    if not domain or not selector:
        return "neutral", "domain or selector is malformed"
    if b"from" not in names:  # RFC 6376, 6.1.1
        return "permerror", "From is not signed"
    if len(names) > _SIGNED_NAMES:
        return "policy", "too many fields are signed"
    if tags[b"a"] == b"rsa-sha1":  # RFC 8301, 3.1
        return "policy", "SHA-1 is not trusted"
    return None


def bodies(content: Octets, offset: int, found: Iterable[Claim | Finding]) -> dict[Form, Body]:
    """Hash a body in the forms that claims need, in one pass.  Takes long for a big one.

    :param offset: where the body begins.
    """
    hashed = {one.form: _FORMS[one.form]() for one in found if isinstance(one, Claim)}
    while hashed and (block := content.read(offset, _BLOCK_OCTETS)):
        offset += len(block)
        for one in hashed.values():
            one.update(block)
    done = {form: (one.digest(), one) for form, one in hashed.items()}
    return {form: Body(digest, one.size_octets) for form, (digest, one) in done.items()}


def judged(claim: Claim, body: Body, answer: Answer) -> Finding:
    """What a claim comes to, given the body and what the DNS says of the key."""
    if isinstance(answer, TryAgain):
        return claim.finding("temperror", "no answer about the key")
    if not isinstance(answer, Found):
        return claim.finding("permerror", "no key")
    key = _key(claim, answer)
    if isinstance(key, Finding):
        return key
    if claim.size_octets is not None and claim.size_octets != body.size_octets:
        if claim.size_octets > body.size_octets:
            return claim.finding("fail", "body is shorter than signed")
        # Whoever added to it chose what the reader sees (RFC 6376, 8.2).
        return claim.finding("policy", "not all of the body is signed")
    if claim.body_digest != body.digest:
        return claim.finding("fail", "body hash did not verify")
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(
                claim.signature,
                claim.header_digest,
                padding.PKCS1v15(),
                Prehashed(hashes.SHA256()),
            )
        else:
            key.verify(claim.signature, claim.header_digest)
    except InvalidSignature:
        return claim.finding("fail", "signature did not verify")
    return claim.finding("pass")


def best(findings: Iterable[Finding]) -> Result:
    """The result of them all; ``none`` where there are none."""
    return min((one.result for one in findings), key=_ORDER.index, default="none")


_ORDER: Final[Sequence[Result]] = ("pass", "temperror", "policy", "fail", "neutral", "permerror")


# --- keys ----------------------------------------------------------------------------------------

_Key = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def _key(claim: Claim, answer: Found) -> _Key | Finding:
    """The first key record that reads as one (RFC 6376, 3.6.1)."""
    unfit: Finding | None = None
    for record in answer.records:
        if isinstance(record, str):
            found = _read_key(claim, record)
            if not isinstance(found, Finding):
                return found
            unfit = unfit or found
    return unfit or claim.finding("permerror", "no key")


def _read_key(claim: Claim, record: str) -> _Key | Finding:
    try:
        tags = parse_tag_value(record.encode("utf-8"))
        kind = tags.get(b"k", b"rsa")
        octets = _octets(tags[b"p"])
        if tags.get(b"v", b"DKIM1") != b"DKIM1" or kind not in (b"rsa", b"ed25519"):
            raise ValueError("another version or kind")
    except Exception:  # as in _claim
        return claim.finding("permerror", "key record is malformed")
    if not octets:
        return claim.finding("permerror", "key is revoked")
    if not claim.algorithm.startswith(kind.decode("ascii")):
        return claim.finding("permerror", "key is of another kind")
    if not _lists(tags, b"h", b"sha256") or not _lists(tags, b"s", b"email"):
        return claim.finding("permerror", "key is for another purpose")
    if claim.has_subdomain and _lists(tags, b"t", b"s", default=False):
        return claim.finding("permerror", "key is not for subdomains")
    try:
        if kind == b"ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(octets)
        key = serialization.load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        return claim.finding("permerror", "key cannot be read")
    if not isinstance(key, rsa.RSAPublicKey):
        return claim.finding("permerror", "key is of another kind")
    if key.key_size < LEAST_RSA_BITS:  # RFC 8301, 3.2
        return claim.finding("policy", "key is too short")
    if key.key_size > _MOST_RSA_BITS:
        return claim.finding("policy", "key is too long")
    return key


def _lists(
    tags: Mapping[bytes, bytes], name: bytes, wanted: bytes, *, default: bool = True
) -> bool:
    """Whether a tag's list, with colons in between, names something, or all; ``default`` without."""
    if name not in tags:
        return default
    items = {item.strip() for item in tags[name].split(b":")}
    return wanted in items or (b"*" in items and name == b"s")


# --- tags ----------------------------------------------------------------------------------------


def _octets(text: bytes) -> bytes:
    """Base 64 with white space in it.  :raise binascii.Error:"""
    return binascii.a2b_base64(b"".join(text.split()))


def _name(text: bytes) -> str:
    """A domain or selector as the DNS knows it (RFC 8616, 5); empty where it is none."""
    name = ascii_domain(text.decode("utf-8"))
    return name if len(name) <= 253 and _NAME.fullmatch(name) else ""


def _identity_domain(tags: Mapping[bytes, bytes], domain: str) -> str:
    """That of the i= tag, which dkimpy has found to be in ``domain``."""
    if b"i" not in tags:
        return domain
    return ascii_domain(tags[b"i"].rpartition(b"@")[2].decode("utf-8", "replace"))
