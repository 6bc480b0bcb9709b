"""An original Protege relay, as far as a gateway can tell: for tests, on a real WebSocket.

It has the original's ways: no acknowledgements, no pings, whole messages in one chunk, names of
streams that come again, text after the login answered with the end of the session, three quick
tries outward and free text about failures.  Its codec is its own, so that it shares no mistake with
the client that it tests.  SMTP on its other side is played by the test: :meth:`OriginalRelay.deliver`
is mail that comes in, :attr:`OriginalRelay.exchange` takes what goes out.
"""

from __future__ import annotations

import base64
import json
import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import attrs
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from twisted.internet.interfaces import IReactorTime

START, CHUNK, END = 1, 2, 3
MESSAGE_OCTETS: Final = 100 * 1024 * 1024
TRY_AGAIN_S: Final = (0.2, 0.4)
CHALLENGE_S: Final = 60.0


def frame(kind: int, stream_id: str, body: bytes = b"") -> bytes:
    """A binary message of the tunnel."""
    name = stream_id.encode()
    return struct.pack("!BBBI", 1, kind, len(name), len(body)) + name + body


def parse_frame(octets: bytes) -> tuple[int, str, bytes]:
    """:raise ValueError: it is none."""
    if len(octets) < 7:
        raise ValueError("short")
    version, kind, name, body = struct.unpack("!BBBI", octets[:7])
    if version != 1 or kind not in (START, CHUNK, END) or len(octets) != 7 + name + body:
        raise ValueError("frame")
    return kind, octets[7 : 7 + name].decode(), octets[7 + name :]


@attrs.frozen
class Outbound:
    """One completed stream of a gateway."""

    identity: str
    stream_id: str
    mail_from: str
    rcpt_to: str
    octets: bytes


@attrs.define
class _Challenge:
    key: str
    text: str
    expires_at: float
    role: str
    is_used: bool = False


@attrs.define
class _Stream:
    start: dict[str, Any]
    pieces: list[bytes]


class OriginalRelay(WebSocketServerFactory):
    """All of it; listen with it on a port.

    :param clock: for the waits between tries.
    :param exchange: one try to send outward: None, or why it failed.
    :ivar sessions: inbound ones by key, as each was connected last.
    :ivar outbound: streams that have come whole, in order; ``tries`` of them likewise.
    :ivar logins: how many there were; ``refused`` the codes of those that failed.
    :ivar attestation: what it signs about senders, if anything: the key's id, the key, and the
        three signals.
    :ivar is_silent: never answer a stream.
    :ivar logins_left: before the rate limit sets in.
    """

    def __init__(
        self,
        clock: IReactorTime,
        exchange: Callable[[Outbound], str | None] = lambda outbound: None,
    ) -> None:
        super().__init__()
        self.setProtocolOptions(maxMessagePayloadSize=MESSAGE_OCTETS, autoPingInterval=0)
        self.clock = clock
        self.exchange = exchange
        self.sessions: dict[str, OriginalRelaySession] = {}
        self.connections: set[OriginalRelaySession] = set()
        self.challenges: dict[str, _Challenge] = {}
        self.outbound: list[Outbound] = []
        self.tries: list[Outbound] = []
        self.logins = 0
        self.refused: list[str] = []
        self.attestation: tuple[str, Ed25519PrivateKey, dict[str, str]] | None = None
        self.is_silent = False
        self.logins_left = 1_000_000

    def buildProtocol(self, addr: object) -> Any:
        session = OriginalRelaySession()
        session.factory = self
        return session

    def deliver(
        self,
        mail_from: str,
        rcpt_to: str,
        octets: bytes,
        connection: str = "769j4i23i7lump30",
        identity: str = "",
    ) -> str:
        """A message from the internet; whatever the domain, the local-part says whose it is.

        :param connection: the name of the SMTP connection, which streams are named after.
        :param identity: whose it is instead, as no honest relay would have it.
        :return: what the SMTP client is told.
        """
        session = self.sessions.get(identity or rcpt_to.partition("@")[0].lower())
        if session is None:
            return "450 relay_rejected_recipient_not_connected"
        stream_id = f"{connection}:{rcpt_to}"
        start: dict[str, Any] = {"mailFrom": mail_from, "rcptTo": rcpt_to}
        if self.attestation is not None:
            start["authAttestation"] = self._attest(stream_id, mail_from, rcpt_to)
        said = json.dumps(start, separators=(",", ":"), ensure_ascii=False).encode()
        for message in (
            frame(START, stream_id, said),
            frame(CHUNK, stream_id, octets),
            frame(END, stream_id),
        ):
            session.sendMessage(message, isBinary=True)
        return "250 OK: message queued"

    def _attest(self, stream_id: str, mail_from: str, rcpt_to: str) -> dict[str, str]:
        assert self.attestation is not None
        key_id, key, signals = self.attestation
        payload = json.dumps(
            {
                "streamId": stream_id,
                "mailFrom": mail_from,
                "rcptTo": rcpt_to,
                "issuedAt": _iso(self.clock.seconds()),
                "signals": signals,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        return {
            "keyId": key_id,
            "payloadBase64": base64.b64encode(payload).decode(),
            "signatureBase64": base64.b64encode(key.sign(payload)).decode(),
        }


class OriginalRelaySession(WebSocketServerProtocol):
    """One connection.

    :ivar key: empty before the login.
    """

    factory: OriginalRelay
    transport: Any  # a TCP connection

    def __init__(self) -> None:
        super().__init__()
        self.key = ""
        self._id = str(uuid.uuid4())
        self._streams: dict[str, _Stream] = {}

    def onConnect(self, request: Any) -> str | None:
        if self.http_request_uri != "/ws":
            self.transport.abortConnection()
            raise ConnectionDeny(404)
        self.factory.connections.add(self)
        return request.protocols[0] if request.protocols else None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.key:
            self._tunnel(payload, isBinary)
        else:
            self._authenticate(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.connections.discard(self)
        if self.factory.sessions.get(self.key) is self:
            del self.factory.sessions[self.key]

    # --- the login -------------------------------------------------------------------------------

    def _authenticate(self, payload: bytes) -> None:
        relay = self.factory
        relay.logins_left -= 1
        if relay.logins_left < 0:
            self._refuse("rate_limited", 4408)
            return
        try:
            said = json.loads(payload)
            key = said["publicKeyBase32"].strip().lower()
            match said["type"]:
                case "auth_challenge_request":
                    self._challenge(key, said.get("sessionRole"))
                case "auth_challenge_response":
                    challenge_id, signature = said["challengeId"], said["signatureBase64"]
                    self._answer(key, challenge_id, signature, said.get("sessionRole"))
                case _:
                    self._refuse("invalid_message")
        except (ValueError, KeyError, TypeError, AttributeError):
            self._refuse("invalid_message")

    def _challenge(self, key: str, role: object) -> None:
        challenge_id = str(uuid.uuid4())
        text = f"relay-auth:{challenge_id}:{uuid.uuid4()}"
        expires_at = self.factory.clock.seconds() + CHALLENGE_S
        challenge = _Challenge(key, text, expires_at, _role(role) or "")
        self.factory.challenges[challenge_id] = challenge
        self._say(
            type="auth_challenge",
            publicKeyBase32=key,
            challengeId=challenge_id,
            challengeText=text,
            expiresAt=_iso(expires_at),
        )

    def _answer(self, key: str, challenge_id: str, signature: str, role: object) -> None:
        relay = self.factory
        challenge = relay.challenges.get(challenge_id)
        if challenge is None:
            return self._refuse("challenge_not_found")
        if challenge.key != key:
            return self._refuse("challenge_mismatch")
        if challenge.is_used:
            return self._refuse("challenge_already_used")
        challenge.is_used = True
        if challenge.expires_at <= relay.clock.seconds():
            return self._refuse("challenge_expired")
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b32decode(key.upper() + "===="))
            public.verify(base64.b64decode(signature), challenge.text.encode())
        except (InvalidSignature, ValueError):
            return self._refuse("invalid_signature")
        chosen = _role(role) or challenge.role or "inbound"
        replaced = relay.sessions.get(key) if chosen == "inbound" else None
        self.key = key
        relay.logins += 1
        if chosen == "inbound":
            relay.sessions[key] = self
        self._say(
            type="auth_ok",
            publicKeyBase32=key,
            emailLocalPart=key,
            sessionRole=chosen,
            replacedSocketId=None if replaced is None else replaced._id,
        )
        if replaced is not None:
            replaced.sendClose(4400, "replaced_by_new_session")

    def _refuse(self, code: str, status: int = 4401) -> None:
        self.factory.refused.append(code)
        self._say(type="auth_error", code=code)
        self.sendClose(status, code)

    # --- streams of the gateway ------------------------------------------------------------------

    def _tunnel(self, payload: bytes, is_binary: bool) -> None:
        try:
            if not is_binary:
                raise ValueError("text")
            kind, stream_id, body = parse_frame(payload)
            start = json.loads(body) if kind == START else {}
            if kind == START and not all(
                isinstance(start[name], str) for name in ("mailFrom", "rcptTo")
            ):
                raise ValueError("start")
        except (ValueError, KeyError, TypeError):
            self._refuse("invalid_tunnel_frame")
            return
        if kind == START:
            self._streams[stream_id] = _Stream(start, [])
        elif stream_id in self._streams and kind == CHUNK:
            self._streams[stream_id].pieces.append(body)
        elif stream_id in self._streams:
            stream = self._streams.pop(stream_id)
            outbound = Outbound(
                self.key,
                stream_id,
                stream.start["mailFrom"],
                stream.start["rcptTo"],
                b"".join(stream.pieces),
            )
            self.factory.outbound.append(outbound)
            self._try(outbound, 0)

    def _try(self, outbound: Outbound, tried: int) -> None:
        """Three times in all, whatever the error."""
        relay = self.factory
        relay.tries.append(outbound)
        error = relay.exchange(outbound)
        if error is not None and tried < len(TRY_AGAIN_S):
            relay.clock.callLater(TRY_AGAIN_S[tried], self._try, outbound, tried + 1)
            return
        if relay.is_silent:
            return
        about = {"type": "relay_delivery_result", "streamId": outbound.stream_id}
        if error is None:
            self._say(**about, status="sent", messageId=f"<{uuid.uuid4()}@localhost>")
        else:
            self._say(**about, status="failed", error=error)

    def _say(self, **said: object) -> None:
        self.sendMessage(json.dumps(said, separators=(",", ":")).encode())


def _role(role: object) -> str | None:
    return str(role) if role in ("inbound", "outbound") else None


def _iso(at: float) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"
