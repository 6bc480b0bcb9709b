"""A house with nothing behind its door, for tests of SMTP servers."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache

from twisted.internet.defer import Deferred, succeed

from ..model.account import ScramVerifier, prepared_password
from ..model.address import domain_of
from ..model.envelope import Envelope, Recipient
from ..model.ports import Intake, MailCommand, PasswordProof, Peer, Proof, ScramProof
from ..model.reply import TABLE, Reply


class FakeIntake:
    """Keeps one message in memory.

    :ivar fate: what ``finish`` gives back.
    :ivar pauses: what the next calls of ``write`` give back, first come first served.
    :ivar ended: ``finished`` or ``aborted`` once it is.
    """

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.pieces: list[bytes] = []
        self.fate: Deferred[Reply] = succeed(TABLE["ok"])
        self.pauses: list[Deferred[None]] = []
        self.ended = ""

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self.ended:
            raise RuntimeError(f"octets for a message that is {self.ended}")
        self.pieces.append(octets)
        return self.pauses.pop(0) if self.pauses else None

    def finish(self) -> Deferred[Reply]:
        self._end("finished")
        return self.fate

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if self.ended:
            raise RuntimeError(f"{how}, but it is {self.ended} already")
        self.ended = how


class FakeLogins:
    """The part of a door that checks who somebody is.

    :ivar passwords: by name, prepared.
    :ivar proofs: what was asked.
    :ivar on_login: replace it to be told otherwise.
    """

    def __init__(self) -> None:
        self.passwords = {"user": "pencil", "tim": "tanstaaftanstaaf"}
        self.proofs: list[Proof] = []
        self.on_login: Callable[[Proof], Reply | Deferred[Reply]] = self._judge_proof

    def scram(self, peer: Peer, name: str) -> ScramVerifier:
        return scram_verifier(self.passwords.get(name, f"nobody's, and not {name}'s either"))

    def login(self, peer: Peer, proof: Proof) -> Reply | Deferred[Reply]:
        self.proofs.append(proof)
        return self.on_login(proof)

    def _judge_proof(self, proof: Proof) -> Reply:
        password = self.passwords.get(proof.name)
        if password is None:
            is_right = False
        elif isinstance(proof, PasswordProof):
            is_right = prepared_password(proof.password) == password
        elif isinstance(proof, ScramProof):
            is_right = proof.is_right
        else:
            digest = hmac.new(password.encode("utf-8"), proof.challenge, hashlib.md5)
            is_right = proof.digest == digest.hexdigest()
        return TABLE["logged-in" if is_right else "login-failed"]


@lru_cache(maxsize=64)
def scram_verifier(password: str) -> ScramVerifier:
    """With the salt and the iterations of RFC 7677, 3."""
    salt, iterations = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("utf-8"), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramVerifier(salt, iterations, stored_key, server_key)


class FakeDoor(FakeLogins):
    """Takes everything, but for recipients whose domain is ``refused.example``.

    Replace an attribute to be told otherwise: ``door.on_sender = lambda mail: Deferred()``.

    :ivar peers: who is connected now.
    :ivar intakes: every message that got as far as its content.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[Peer] = []
        self.intakes: list[FakeIntake] = []
        self.on_opened: Callable[[Peer], Reply | None] = lambda peer: None
        self.on_sender: Callable[[MailCommand], Reply | Deferred[Reply]] = lambda mail: TABLE[
            "sender-ok"
        ]
        self.on_recipient: Callable[[Recipient], Reply | Deferred[Reply]] = _judge
        self.on_receive: Callable[[Envelope], FakeIntake | Reply] = FakeIntake

    def opened(self, peer: Peer) -> Reply | None:
        refusal = self.on_opened(peer)
        if refusal is None:
            self.peers.append(peer)
        return refusal

    def closed(self, peer: Peer) -> None:
        self.peers.remove(peer)

    def sender(self, peer: Peer, mail: MailCommand) -> Reply | Deferred[Reply]:
        return self.on_sender(mail)

    def recipient(
        self, peer: Peer, mail: MailCommand, recipient: Recipient
    ) -> Reply | Deferred[Reply]:
        return self.on_recipient(recipient)

    def receive(self, peer: Peer, envelope: Envelope) -> Intake | Reply:
        intake = self.on_receive(envelope)
        if isinstance(intake, FakeIntake):
            self.intakes.append(intake)
        return intake

    @property
    def messages(self) -> list[FakeIntake]:
        """The intakes that were finished."""
        return [intake for intake in self.intakes if intake.ended == "finished"]


def _judge(recipient: Recipient) -> Reply:
    is_refused = domain_of(recipient.address) == "refused.example"
    return TABLE["no-relaying" if is_refused else "recipient-ok"]
