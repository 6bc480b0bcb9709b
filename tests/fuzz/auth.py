"""What strangers answer to challenges of SASL."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from protege_mta.model.account import ScramVerifier
from protege_mta.model.ports import PasswordProof, Proof, ScramProof
from protege_mta.model.reply import Reply
from protege_mta.testing.doors import FakeDoor, scram_verifier
from protege_mta.testing.smtp_dialog import Client
from protege_mta.wire.sasl import MECHANISMS, Exchange, Terms
from protege_mta.wire.settings import ServerSettings

from .target import Target, nothing_logged

NONCE: Final = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT: Final = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
VERIFIER: Final = scram_verifier("pencil")
BINDINGS: Final = {"tls-exporter": b"\0" * 32, "tls-server-end-point": b"x"}
NAMES: Final = tuple(MECHANISMS)


class _Connection:
    """The part of a connection that an exchange asks."""

    def nonce(self) -> str:
        return NONCE.decode()

    def scram(self, name: str) -> ScramVerifier | None:
        return VERIFIER

    def channel_binding(self, kind: str) -> bytes | None:
        return BINDINGS.get(kind)


def sasl(data: bytes) -> None:
    """The first octet says which mechanism, and whether the first response comes with the command;
    0xFF, which UTF-8 has not, stands between responses."""
    if not data:
        return
    name = NAMES[data[0] % len(NAMES)]
    responses = data[1:].split(b"\xff")
    lines = list(map(base64.b64encode, responses))
    initial = (lines.pop(0) or b"=") if data[0] & 8 else None
    exchange = Exchange(name, initial, Terms("mx.test", _Connection(), True))  # type: ignore[arg-type]
    challenges = []
    step = exchange.begin()
    while isinstance(step, bytes) and lines:
        challenges.append(step)
        step = exchange.respond(lines.pop(0))
    assert len(challenges) <= 3, "an exchange without end"
    if not isinstance(step, bytes):
        _judge(name, responses, step)
    _play(data, name, responses)


def _judge(name: str, responses: list[bytes], end: Proof | Reply) -> None:
    if isinstance(end, Reply):
        assert end.code >= 400, "somebody is let in without a proof"
    elif isinstance(end, PasswordProof):
        said = b"\xff".join(responses)
        assert end.password.encode() in said, "a password that nobody said"
        assert name in ("PLAIN", "LOGIN")
    elif isinstance(end, ScramProof) and end.is_right:
        assert _is_right(responses[0], responses[1]), "a proof that is none"


def _is_right(first: bytes, final: bytes) -> bool:
    """What a client that knows the password would have said."""
    header, bare = first.split(b",n=", 1)
    bare = b"n=" + bare
    unproved, proof = final.rsplit(b",p=", 1)
    nonce = bare.split(b",")[1].removeprefix(b"r=") + NONCE
    server_first = b"r=%b,s=%b,i=4096" % (nonce, base64.b64encode(SALT))
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, 4096)
    key = hmac.digest(salted, b"Client Key", "sha256")
    said = b",".join((bare, server_first, unproved))
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    kind = header.split(b",")[0].removeprefix(b"p=").decode()
    channel = base64.b64encode(header + b"," + BINDINGS.get(kind, b""))
    return base64.b64decode(proof) == bytes(
        a ^ b for a, b in zip(key, signature, strict=True)
    ) and unproved.split(b",")[:2] == [b"c=" + channel, b"r=" + nonce]


def _play(data: bytes, name: str, responses: list[bytes]) -> None:
    """The same on the wire, as it is and in Base64: whatever is said, only a proof lets in."""
    if name == "SCRAM-SHA-256-PLUS":
        return
    for lines in (responses, list(map(base64.b64encode, responses))):
        with nothing_logged():
            door = FakeDoor()
            client = Client(door, ServerSettings("mx.test", mechanisms=NAMES[1:]))
            client.say(b"EHLO c.example\r\n")
            space = b" " if data[0] & 8 else b"\r\n"
            said = client.say(b"AUTH %b%b%b\r\n" % (name.encode(), space, b"\r\n".join(lines)))
        is_in = b"\r\n235 " in b"\r\n" + said
        identity = door.peers[0].identity if door.peers else ""
        assert is_in == bool(identity), "an identity without 235, or the other way round"
        if is_in:
            assert door.on_login(door.proofs[-1]).code == 235  # type: ignore[union-attr]
        assert said.isascii(), "a reply beyond US-ASCII"


SASL: Final = Target(
    "server_sasl",
    sasl,
    [
        b"\x0d\0user\0pencil",  # PLAIN with the command
        b"\x03\0user\0pencil",
        b"\x0euser\xffpencil",  # LOGIN
        b"\x04user\xffpencil",
        b"\x02tim b913a602c7eda7a495b4e6e7334d3890",  # CRAM-MD5
        b"\x0bn,,n=user,r=rOprNGfwEbeRWgbNEkqO\xff"  # SCRAM-SHA-256
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=\xff",
        b"\x0ap=tls-server-end-point,a=user,n=user,r=x\xff"  # SCRAM-SHA-256-PLUS
        b"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCxhPXVzZXIseA==,"
        b"r=x%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=AAAA\xff",
    ],
    (
        b"\xff", b"\0", b",", b"=", b"=2C", b"=3D", b"n,,", b"y,,", b"p=tls-exporter,,", b"n=", b"r=", b"c=",
        b"p=", b"a=", b"m=", b"x=y", b"user", b"pencil", b"biws", b"*", b"\r\n", b"\xc2\xad", b"\xe2\x85\xa8",
        b"\xd8\xa7", NONCE,
    ),
)  # fmt: skip
