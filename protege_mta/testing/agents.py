"""An agent's end of a tunnel, for tests: blocking, one thread, its WebSocket its own (RFC 6455).

It shares no code with the relay server but the words of the protocol, and does as it is told, also
what no gateway would.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..model.identity import Identity, identity_of

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

WAIT_S: Final = 20.0


class Closed(Exception):
    """The other side has closed.

    :ivar code: of the close frame; 1006 where the channel was lost without.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class NotUpgraded(Exception):
    """The server answered in HTTP.  :ivar status: 0 where it hung up without an answer."""

    def __init__(self, status: int, head: bytes) -> None:
        super().__init__(head.decode("latin-1"))
        self.status = status


class TunnelAgent:
    """One agent, and its connection while it has one.

    :param seed: 32 octets, its private key; left out, a fresh one.
    """

    def __init__(self, seed: bytes | None = None) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(seed or os.urandom(32))
        self.identity: Identity = identity_of(self.key.public_key().public_bytes_raw())
        self._channel: socket.socket | None = None
        self._octets = b""

    # --- WebSocket -------------------------------------------------------------------------------

    def connect(
        self,
        port: int,
        *,
        target: str = "/ws",
        tls: ssl.SSLContext | None = None,
        fields: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """Open a WebSocket.  :raise NotUpgraded:"""
        self.close()
        channel = socket.create_connection((address, port), WAIT_S)
        if tls is not None:
            channel = tls.wrap_socket(channel, server_hostname="localhost")
        self._channel, self._octets = channel, b""
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {address}:{port}",
            "Connection: upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            *(f"{name}: {value}" for name, value in (fields or {}).items()),
        ]
        channel.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        while b"\r\n\r\n" not in self._octets:
            octets = channel.recv(65536)
            if not octets:
                raise NotUpgraded(0, self._octets)
            self._octets += octets
        head, _, self._octets = self._octets.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 101:
            self.close()
            raise NotUpgraded(status, head)

    def close(self) -> None:
        """Hang up."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def write(self, kind: int, octets: bytes) -> None:
        """One frame, masked."""
        size = len(octets)
        head = bytes([0x80 | kind])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += struct.pack(">BH", 0x80 | 126, size)
        else:
            head += struct.pack(">BQ", 0x80 | 127, size)
        # A mask of zeros is one, too, and leaves the octets readable.
        self._open.sendall(head + bytes(4) + octets)

    def read(self) -> tuple[int, bytes]:
        """The next message; pings are answered.  :raise Closed:"""
        while True:
            kind, octets = self._frame()
            if kind == PING:
                self.write(PONG, octets)
            elif kind == CLOSE:
                code = int.from_bytes(octets[:2], "big") if octets else 1005
                self.write(CLOSE, octets[:2])
                self.close()
                raise Closed(code, octets[2:].decode("utf-8", "replace"))
            elif kind in (TEXT, BINARY):
                return kind, octets

    def _frame(self) -> tuple[int, bytes]:
        first, size = self._take(2)
        if size == 126:
            size = int.from_bytes(self._take(2), "big")
        elif size == 127:
            size = int.from_bytes(self._take(8), "big")
        if not first & 0x80 or first & 0x70:
            raise RuntimeError(f"a frame that is in pieces, or compressed: {first:#x}")
        return first & 0x0F, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._octets) < size:
            try:
                octets = self._open.recv(65536)
            except ConnectionError:
                octets = b""
            if not octets:
                self.close()
                raise Closed(1006)
            self._octets += octets
        taken, self._octets = self._octets[:size], self._octets[size:]
        return taken

    @property
    def _open(self) -> socket.socket:
        if self._channel is None:
            raise RuntimeError("there is no connection")
        return self._channel

    # --- the protocol ----------------------------------------------------------------------------

    def say(self, **members: Any) -> None:
        """A control message."""
        self.write(TEXT, json.dumps(members).encode("utf-8"))

    def heard(self) -> dict[str, Any]:
        """The next control message; frames of streams before it are dropped."""
        while True:
            kind, octets = self.read()
            if kind == TEXT:
                found: dict[str, Any] = json.loads(octets)
                return found

    def log_in(self, *, role: str = "inbound", is_reliable: bool = False) -> dict[str, Any]:
        """Prove the key.  :return: what the relay said: ``auth_ok``, or why not."""
        challenge = self.ask(role)
        if challenge["type"] != "auth_challenge":
            return challenge
        return self.prove(challenge, role=role, is_reliable=is_reliable)

    def ask(self, role: str = "inbound") -> dict[str, Any]:
        """Begin to log in.  :return: the challenge, or why there is none."""
        self.say(type="auth_challenge_request", publicKeyBase32=self.identity, sessionRole=role)
        return self.heard()

    def prove(
        self, challenge: Mapping[str, Any], *, role: str = "inbound", is_reliable: bool = False
    ) -> dict[str, Any]:
        """Answer a challenge.  :return: as :meth:`log_in`."""
        signature = self.key.sign(challenge["challengeText"].encode("utf-8"))
        asked = {"version": 1, "window": 2**20, "maxOctets": 2**26}
        self.say(
            type="auth_challenge_response",
            publicKeyBase32=self.identity,
            challengeId=challenge["challengeId"],
            signatureBase64=base64.b64encode(signature).decode("ascii"),
            sessionRole=role,
            **({"reliable": asked} if is_reliable else {}),
        )
        return self.heard()

    def start(self, sender: str, recipient: str, **members: Any) -> str:
        """Begin a stream.  :return: its id."""
        stream_id = str(uuid4())
        body = {"mailFrom": sender, "rcptTo": recipient, **members}
        self.write(BINARY, frame(1, stream_id, json.dumps(body).encode("utf-8")))
        return stream_id

    def chunk(self, stream_id: str, octets: bytes) -> None:
        self.write(BINARY, frame(2, stream_id, octets))

    def end(self, stream_id: str, body: bytes = b"") -> None:
        self.write(BINARY, frame(3, stream_id, body))

    def send(self, sender: str, recipient: str, content: bytes) -> dict[str, Any]:
        """A message as an original gateway sends it.  :return: its ``relay_delivery_result``."""
        stream_id = self.start(sender, recipient)
        for at in range(0, len(content), 65536):
            self.chunk(stream_id, content[at : at + 65536])
        self.end(stream_id)
        while True:
            said = self.heard()
            if said.get("streamId") == stream_id:
                return said


def frame(kind: int, stream_id: str, body: bytes) -> bytes:
    """A binary message: version, type, lengths, stream id, body."""
    name = stream_id.encode("utf-8")
    return struct.pack(">BBBI", 1, kind, len(name), len(body)) + name + body
