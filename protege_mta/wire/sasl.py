"""The server's half of SASL, as SMTP carries it (RFC 4422; RFC 4954, 4).

PLAIN (RFC 4616), LOGIN (as it is in use; no RFC), CRAM-MD5 (RFC 2195), SCRAM-SHA-256 and
SCRAM-SHA-256-PLUS (RFC 5802; RFC 7677; channel bindings of RFC 5929 and RFC 9266).

Here a proof is put together; whether it is one, the door says, but for SCRAM, which is checked here
against the account's verifier, since the server has to prove itself too.  No account is looked up
but by SCRAM, and none is told from one that is not there.

A mechanism is a generator: it yields challenges, is sent the responses, and returns the proof, or
the reply that ends the exchange without one.  SCRAM yields its proof, since there is more to say to
a client that the door lets in, and not before it does: not even a right guess may learn that it is
one while the door is locked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from ..model.account import account_name
from ..model.ports import PasswordProof, Proof, ResponseProof, ScramProof
from ..model.reply import TABLE, Reply
from .lines import TOO_LONG, Oversize

if TYPE_CHECKING:
    from .shell import Shell

RESPONSE_LINE_OCTETS: Final = 12_288 + 2
"""Longest line of an exchange, its CRLF included (RFC 4954, 4)."""

PLUS: Final = "SCRAM-SHA-256-PLUS"

UNIQUE_BINDINGS: Final = ("tls-exporter", "tls-unique")
"""Where a channel has one of these, -PLUS is offered; clients choose between them by the version of
TLS (RFC 9266, 3).  ``tls-server-end-point`` is taken besides."""

_VALUE: Final = rb"(?:[^\0,=]|=2C|=3D)+"
_NONCE: Final = rb"[!-+\--~]+"
_EXTENSIONS: Final = rb"(?:,[A-Za-z]=[^\0,]+)*"
_CLIENT_FIRST: Final = re.compile(
    rb"(?P<header>(?:(?P<flag>[ny])|p=(?P<binding>[A-Za-z0-9.-]+)),"
    rb"(?:a=(?P<authzid>%b))?,)"
    rb"(?P<bare>n=(?P<name>%b),r=(?P<nonce>%b)%b)\Z" % (_VALUE, _VALUE, _NONCE, _EXTENSIONS)
)
"""RFC 5802, 7.  ``m=`` before the name, an extension that must be understood, is not let through."""
_CLIENT_FINAL: Final = re.compile(
    rb"(?P<unproved>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>%b)%b),p=(?P<proof>[A-Za-z0-9+/=]+)\Z"
    % (_NONCE, _EXTENSIONS)
)
_DIGEST: Final = re.compile(rb"(.+) ([0-9a-f]{32})\Z", re.DOTALL)


@attrs.frozen
class Terms:
    """What an exchange goes by.

    :ivar hostname: our own, which makes CRAM-MD5's challenge unlike other servers'.
    :ivar shell: has nonces, SCRAM verifiers and the channel's bindings.
    :ivar is_plus_offered: whether the client was told of :data:`PLUS`.
    """

    hostname: str
    shell: Shell
    is_plus_offered: bool = False


Talk = Generator[bytes | Proof, bytes, Proof | Reply]


class Exchange:
    """One AUTH command: lines in; challenges, then a proof or a refusal out.

    :param mechanism: one of :data:`MECHANISMS`.
    :param initial: the initial response as it came in the command, None where there was none.
    """

    __slots__ = ("_initial", "_mechanism", "_talk", "_terms")

    def __init__(self, mechanism: str, initial: bytes | None, terms: Terms) -> None:
        self._mechanism = MECHANISMS[mechanism]
        self._initial = initial
        self._terms = terms

    def begin(self) -> bytes | Proof | Reply:
        """Say the first challenge, or what comes of the initial response."""
        response = None
        if self._initial is not None:
            # One of no octets is written "=" (RFC 4954, 4).
            response = b"" if self._initial == b"=" else _decoded(self._initial)
            if response is None:
                return TABLE["login-malformed"]
        self._talk = self._mechanism(self._terms, response)
        return self._step(None)

    def respond(self, line: bytes | Oversize) -> bytes | Proof | Reply:
        """Take the client's next line, without its CRLF."""
        if line is TOO_LONG:
            return TABLE["login-too-long"]
        if line == b"*":
            return TABLE["login-cancelled"]
        response = _decoded(line)
        return TABLE["login-malformed"] if response is None else self._step(response)

    def accepted(self) -> bytes | None:
        """The door has let the client in.

        :return: a challenge that is to be said and answered before 235, None for none.
        """
        try:
            challenge = next(self._talk)
        except StopIteration:
            return None
        if not isinstance(challenge, bytes):
            raise RuntimeError("a second proof")
        return challenge

    def _step(self, response: bytes | None) -> bytes | Proof | Reply:
        try:
            return next(self._talk) if response is None else self._talk.send(response)
        except StopIteration as stop:
            end: Proof | Reply = stop.value
            return end


def challenge_line(challenge: bytes) -> bytes:
    """334 (RFC 4954, 4)."""
    return b"334 %b\r\n" % base64.b64encode(challenge)


def _decoded(line: bytes) -> bytes | None:
    """Base64 in the one form that encoding gives (RFC 4648, 3.5 and 4), or None."""
    try:
        octets = binascii.a2b_base64(line)
    except binascii.Error:
        return None
    # The strict mode of some Pythons takes more padding than there should be.
    return octets if base64.b64encode(octets) == line else None


# --- passwords -----------------------------------------------------------------------------------


def _plain(terms: Terms, response: bytes | None) -> Talk:
    if response is None:
        response = yield b""
    parts = response.split(b"\0")
    if len(parts) != 3:
        return TABLE["login-malformed"]
    return _password_proof(*parts)


def _login(terms: Terms, response: bytes | None) -> Talk:
    """Many clients send the name as initial response, though the server is to speak first."""
    name = (yield b"Username:") if response is None else response
    password = yield b"Password:"
    return _password_proof(b"", name, password)


def _password_proof(authzid: bytes, name: bytes, password: bytes) -> Proof | Reply:
    try:
        texts = authzid.decode("utf-8"), name.decode("utf-8"), password.decode("utf-8")
    except UnicodeDecodeError:
        return TABLE["login-malformed"]
    if not _is_own(texts[0], texts[1]):
        return TABLE["login-failed"]
    return PasswordProof(_name(texts[1]), texts[2])


def _name(text: str) -> str:
    return account_name(text) or text


def _is_own(authzid: str, name: str) -> bool:
    """Nobody acts for somebody else (RFC 4422, 3.4.1)."""
    return not authzid or _name(authzid) == _name(name)


# --- a keyed hash --------------------------------------------------------------------------------


def _cram_md5(terms: Terms, response: bytes | None) -> Talk:
    if response is not None:
        return TABLE["server-speaks-first"]
    challenge = f"<{terms.shell.nonce()}@{terms.hostname}>".encode("ascii")
    found = _DIGEST.match((yield challenge))
    if found is None:
        return TABLE["login-malformed"]
    try:
        name = found[1].decode("utf-8")
    except UnicodeDecodeError:
        return TABLE["login-malformed"]
    return ResponseProof(_name(name), challenge, found[2].decode("ascii"))


# --- SCRAM ---------------------------------------------------------------------------------------


def _scram_sha_256(terms: Terms, response: bytes | None) -> Talk:
    return _scram(terms, response, is_plus=False)


def _scram_sha_256_plus(terms: Terms, response: bytes | None) -> Talk:
    return _scram(terms, response, is_plus=True)


def _scram(terms: Terms, response: bytes | None, *, is_plus: bool) -> Talk:
    """RFC 5802, 5.1 and 6."""
    if response is None:
        response = yield b""
    first = _CLIENT_FIRST.match(response)
    if first is None:
        return TABLE["login-malformed"]
    try:
        name, authzid = _unescaped(first["name"]), _unescaped(first["authzid"] or b"")
    except UnicodeDecodeError:
        return TABLE["login-malformed"]
    binding = _binding(terms, first, is_plus)
    if binding is None or not _is_own(authzid, name):
        return TABLE["login-failed"]
    name = _name(name)
    verifier = terms.shell.scram(name)
    if verifier is None:
        return TABLE["login-later"]

    nonce = first["nonce"] + terms.shell.nonce().encode("ascii")
    salt = base64.b64encode(verifier.salt)
    server_first = b"r=%b,s=%b,i=%d" % (nonce, salt, verifier.iterations)
    final = _CLIENT_FINAL.match((yield server_first))
    if final is None:
        return TABLE["login-malformed"]
    claimed, proof = _decoded(final["binding"]), _decoded(final["proof"])
    if claimed is None or proof is None:
        return TABLE["login-malformed"]

    said = b"%b,%b,%b" % (first["bare"], server_first, final["unproved"])
    signature = hmac.digest(verifier.stored_key, said, "sha256")
    is_right = len(proof) == len(signature) and hmac.compare_digest(
        hashlib.sha256(_xor(proof, signature)).digest(), verifier.stored_key
    )
    # Looked at in every case, so that the time it takes tells nothing.
    is_here = hmac.compare_digest(claimed, first["header"] + binding)
    is_now = hmac.compare_digest(final["nonce"], nonce)
    is_right = is_right and is_here and is_now
    yield ScramProof(name, is_right)
    if not is_right:
        raise RuntimeError("a wrong proof was let in")
    # SMTP's 235 carries no data: they go in a challenge, which is met with nothing (RFC 4954, 4).
    server_signature = hmac.digest(verifier.server_key, said, "sha256")
    answer = yield b"v=" + base64.b64encode(server_signature)
    return TABLE["login-malformed"] if answer else TABLE["logged-in"]


def _binding(terms: Terms, first: re.Match[bytes], is_plus: bool) -> bytes | None:
    """The channel's data that the client has to know; None where its word about channel binding
    is not to be taken.

    ``y`` says that we do not offer -PLUS: if we do, somebody between has struck it out (RFC 5802,
    6).
    """
    if is_plus:
        kind = first["binding"]
        return None if kind is None else terms.shell.channel_binding(kind.decode("ascii"))
    is_sound = first["flag"] == b"n" or (first["flag"] == b"y" and not terms.is_plus_offered)
    return b"" if is_sound else None


def _unescaped(octets: bytes) -> str:
    return octets.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


MECHANISMS: Final[Mapping[str, Callable[[Terms, bytes | None], Talk]]] = {
    PLUS: _scram_sha_256_plus,
    "SCRAM-SHA-256": _scram_sha_256,
    "CRAM-MD5": _cram_md5,
    "PLAIN": _plain,
    "LOGIN": _login,
}
