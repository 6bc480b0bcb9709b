"""Agents of a relay server: ``python -m bench.agents PLAN``, until SIGTERM.

A process of its own, whose clock (CLOCK_MONOTONIC) is the senders' too and whose processor time is no
server's.  Each agent has an address of its own and a WebSocket, written here by hand so that it costs
little; it acknowledges what comes at once and keeps nothing.  One that is deaf reads nothing after
its login.

It says ``ready`` when all is imported and all keys are made, begins once it may read a line, and
then writes a line for each login and for each message: the moment, ``login`` or ``mail``, and the
agent's number or the local-part of the recipient.  An agent that is turned away, or loses its
session, ends it all with the status 1.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protege_mta.model.identity import Identity, identity_of

FLUSH_S: Final = 0.02
WINDOW: Final = 2**20
"""Octets that an agent takes ahead; credit for a quarter of them at a time."""

DEAF_OCTETS: Final = 4096
"""For what a deaf agent has not read."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
START, CHUNK, END = 1, 2, 3


@attrs.frozen
class Plan:
    """:ivar port: of the relay server's HTTP.
    :ivar is_reliable: whether sessions are; else they are an original agent's.
    :ivar deaf: so many, the first ones, read nothing.
    """

    port: int
    agents: int
    is_reliable: bool = True
    deaf: int = 0


class Refused(Exception):
    """The relay server does not do as it should."""


def key_of(number: int) -> Ed25519PrivateKey:
    """An agent's key; the same in every process."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"agent %d" % number).digest())


def identity(number: int) -> Identity:
    return identity_of(key_of(number).public_key().public_bytes_raw())


def pem(number: int) -> bytes:
    """The private key as a gateway wants it."""
    return key_of(number).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def address(number: int) -> str:
    """Where an agent comes from."""
    return f"127.2.{number // 250}.{number % 250 + 1}"


# --- WebSocket (RFC 6455) ------------------------------------------------------------------------


def frame(opcode: int, payload: bytes) -> bytes:
    """A frame of a client.  The mask is zero, which changes nothing and is no less work to undo."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB4x", 0x80 | opcode, 0x80 | size) + payload
    return struct.pack(">BBH4x", 0x80 | opcode, 0xFE, size) + payload


class Frames:
    """Takes a server's octets in pieces."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, octets: bytes) -> Iterator[tuple[int, bytes]]:
        """Every frame that is whole, as its opcode and its payload."""
        octets = self._kept + octets if self._kept else octets
        at, end = 0, len(octets)
        while end - at >= 2:
            size, head = octets[at + 1], 2
            if size == 126:
                head = 4
                size = int.from_bytes(octets[at + 2 : at + 4], "big")
            elif size == 127:
                head = 10
                size = int.from_bytes(octets[at + 2 : at + 10], "big")
            if end - at < head + size:
                break
            yield octets[at] & 0xF, octets[at + head : at + head + size]
            at += head + size
        self._kept = octets[at:]


# --- an agent ------------------------------------------------------------------------------------


class Agent(asyncio.Protocol):
    """One session.

    :param key: of its identity.
    :param lines: takes what is to be told.
    :param failed: told of the first thing that goes wrong.
    """

    def __init__(
        self,
        number: int,
        key: Ed25519PrivateKey,
        plan: Plan,
        lines: list[str],
        failed: asyncio.Future[None],
    ) -> None:
        self._number = number
        self._key = key
        self._plan = plan
        self._lines = lines
        self._failed = failed
        self._head: bytes | None = b""
        self._frames = Frames()
        self._streams: dict[bytes, tuple[str, str]] = {}  # request id and local-part, by stream
        self._uncredited = 0
        self._is_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        nonce = base64.b64encode(b"%016d" % self._number)
        transport.write(
            b"GET /ws HTTP/1.1\r\nHost: relay.bench.test\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
            % nonce
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"its session ended: {error}")

    def data_received(self, data: bytes) -> None:
        try:
            if self._head is not None:
                data = self._opened(self._head + data)
            replies = [reply for one in self._frames.feed(data) for reply in self._frame(*one)]
            if replies:
                self._transport.write(b"".join(replies))
        except (Refused, ValueError, KeyError) as error:
            self._fail(repr(error))

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(Refused(f"agent {self._number}: {why}"))

    def _opened(self, octets: bytes) -> bytes:
        """The answer to the upgrade; what comes behind it is given back."""
        head, end, rest = octets.partition(b"\r\n\r\n")
        if not end:
            self._head = octets
            return b""
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Refused(head[:80])
        self._head = None
        self._transport.write(
            _text(
                type="auth_challenge_request", publicKeyBase32=self._identity, sessionRole="inbound"
            )
        )
        return rest

    @functools.cached_property
    def _identity(self) -> Identity:
        return identity_of(self._key.public_key().public_bytes_raw())

    def _frame(self, opcode: int, payload: bytes) -> Iterator[bytes]:
        if opcode == BINARY:
            yield from self._part(payload)
        elif opcode == PING:
            yield frame(PONG, payload)
        elif opcode == TEXT:
            if not self._is_in:
                yield from self._log_in(json.loads(payload))
        elif opcode == CLOSE:
            raise Refused(payload)

    def _log_in(self, message: Mapping[str, Any]) -> Iterator[bytes]:
        if message["type"] == "auth_challenge":
            signature = self._key.sign(message["challengeText"].encode("utf-8"))
            terms = {"version": 1, "window": WINDOW, "maxOctets": 2**30}
            yield _text(
                type="auth_challenge_response",
                publicKeyBase32=self._identity,
                challengeId=message["challengeId"],
                signatureBase64=base64.b64encode(signature).decode("ascii"),
                sessionRole="inbound",
                **({"reliable": terms} if self._plan.is_reliable else {}),
            )
        elif message["type"] == "auth_ok":
            self._is_in = True
            self._tell("login", str(self._number))
            if self._number < self._plan.deaf:
                self._transport.pause_reading()
        else:
            raise Refused(message)

    def _part(self, message: bytes) -> Iterator[bytes]:
        """A start, a piece or the end of a stream."""
        kind, end = message[1], 7 + message[2]
        stream = message[7:end]
        if kind == START:
            start = json.loads(message[end:])
            name = start["rcptTo"].partition("@")[0]
            self._streams[stream] = start.get("requestId", ""), name
        elif kind == CHUNK:
            self._uncredited += len(message) - end
            if self._plan.is_reliable and self._uncredited * 4 >= WINDOW:
                yield _text(type="credit", octets=self._uncredited)
                self._uncredited = 0
        elif kind == END:
            request, name = self._streams.pop(stream)
            self._tell("mail", name)
            if self._plan.is_reliable:
                yield _text(
                    type="stream_result",
                    streamId=stream.decode("ascii"),
                    requestId=request,
                    status="queued",
                    code="2.0.0",
                    text="taken",
                    permanent=False,
                )

    def _tell(self, what: str, whom: str) -> None:
        self._lines.append(f"{time.monotonic():.6f} {what} {whom}\n")


def _text(**members: object) -> bytes:
    return frame(TEXT, json.dumps(members).encode("ascii"))


# --- all of them ---------------------------------------------------------------------------------


async def run(plan: Plan, keys: list[Ed25519PrivateKey]) -> None:
    """Until SIGTERM.  :raise Refused: somebody was turned away."""
    loop, lines, over = asyncio.get_running_loop(), list[str](), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    failed: asyncio.Future[None] = loop.create_future()
    connecting = asyncio.gather(
        *(_connect(number, key, plan, lines, failed) for number, key in enumerate(keys))
    )
    while not over.is_set() and not failed.done():
        await asyncio.sleep(FLUSH_S)
        if connecting.done():
            connecting.result()
        if lines:
            os.write(1, "".join(lines).encode("ascii"))
            lines.clear()
    if failed.done() and not over.is_set():
        failed.result()
    failed.cancel()
    connecting.cancel()


async def _connect(
    number: int,
    key: Ed25519PrivateKey,
    plan: Plan,
    lines: list[str],
    failed: asyncio.Future[None],
) -> None:
    channel = socket.socket()
    channel.setblocking(False)
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if number < plan.deaf:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_OCTETS)
    channel.bind((address(number), 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(channel, ("127.0.0.1", plan.port))
    await loop.create_connection(lambda: Agent(number, key, plan, lines, failed), sock=channel)


def main(argument: str) -> None:
    plan = Plan(**json.loads(argument))
    keys = [key_of(number) for number in range(plan.agents)]
    os.write(1, b"ready\n")
    sys.stdin.readline()
    try:
        asyncio.run(run(plan, keys))
    except (Refused, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1])
