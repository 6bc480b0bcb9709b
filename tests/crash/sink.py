"""An SMTP server that fails at random and writes down what it has taken: a process of its own.

``python -m tests.crash.sink RECORD SEED [PORT]`` prints its port and serves until it is ended.
SIGUSR1 calms it: from then on it takes everything.  RECORD gets a line of JSON for each message, written
before anybody is told that it was taken::

    {"at", "sender", "recipients", "key", "digest", "before", "message_ids", "is_cut"}

``at`` is the time in POSIX seconds, ``is_cut`` whether the client is not told, ``key`` is the value of the first ``X-Key`` field, ``digest`` the SHA-256 of all octets from that
field on, ``before`` what stands above it, ``message_ids`` the values of every Message-ID line.
Recipients whose local-part begins with ``no-`` do not exist.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import signal
import sys
import time
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from pathlib import Path
from typing import BinaryIO, Final

import attrs

MARK: Final = b"X-Key: "
_DOT: Final = b"\r\n.\r\n"
_GREATEST: Final = 64 * 1024 * 1024
_ADDRESS: Final = re.compile(rb"<([^>]*)>")
_MESSAGE_ID: Final = re.compile(rb"^Message-ID:\s*(\S+)", re.IGNORECASE | re.MULTILINE)

TROUBLE: Final = {
    "refused": 0.01,
    "MAIL": 0.03,
    "RCPT": 0.05,
    "DATA": 0.02,
    "content": 0.04,
    "cut at MAIL": 0.005,
    "cut at RCPT": 0.005,
    "cut in content": 0.01,
    "cut before taking": 0.01,
    "cut after taking": 0.015,
}
"""How often each thing goes wrong where it can: a 421 greeting, 4yz replies, cut connections."""


class _Cut(Exception):
    """The connection is to be cut."""


@attrs.define(eq=False)
class Sink:
    """Serves every connection.

    :param record: where lines go; unbuffered.
    """

    record: BinaryIO
    rng: random.Random
    is_calm: bool = False

    def fails(self, what: str) -> bool:
        return not self.is_calm and self.rng.random() < TROUBLE[what]

    def calm(self) -> None:
        self.is_calm = True

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection."""
        try:
            await _Session(self, reader, writer).run()
        except (_Cut, ConnectionError, IncompleteReadError):
            writer.transport.abort()
        else:
            writer.close()

    def take(self, sender: bytes, recipients: list[bytes], content: bytes, *, is_cut: bool) -> None:
        """Write a message down; it is ours now."""
        at = content.find(MARK)
        before, rest = (content[:at], content[at:]) if at >= 0 else (content, b"")
        line = {
            "at": time.time(),
            "sender": sender.decode(),
            "recipients": [recipient.decode() for recipient in recipients],
            "key": rest[len(MARK) :].split(b"\r\n", 1)[0].decode(),
            "digest": hashlib.sha256(rest).hexdigest(),
            "before": before.decode("utf-8", "replace"),
            "message_ids": [found.decode() for found in _MESSAGE_ID.findall(content)],
            "is_cut": is_cut,
        }
        self.record.write(json.dumps(line).encode() + b"\n")


@attrs.define(eq=False)
class _Session:
    sink: Sink
    reader: StreamReader
    writer: StreamWriter
    sender: bytes | None = None
    recipients: list[bytes] = attrs.field(factory=list)

    async def run(self) -> None:
        if self.sink.fails("refused"):
            self.say(b"421 4.3.2 not now")
            return
        self.say(b"220 sink.test ESMTP")
        while True:
            line = (await self.reader.readuntil(b"\r\n")).rstrip()
            verb = line[:4].upper()
            if verb == b"QUIT":
                self.say(b"221 2.0.0 bye")
                return
            if verb == b"DATA":
                await self.data()
            else:
                self.command(verb, line)
            await self.writer.drain()

    def command(self, verb: bytes, line: bytes) -> None:
        match verb:
            case b"EHLO":
                self.say(b"250-sink.test", b"250-PIPELINING", b"250 8BITMIME")
            case b"MAIL":
                self.mail(line)
            case b"RCPT" if self.sender is not None:
                self.rcpt(line)
            case b"RSET":
                self.sender = None
                self.say(b"250 2.0.0 ok")
            case b"NOOP":
                self.say(b"250 2.0.0 ok")
            case _:
                self.say(b"503 5.5.1 out of sequence")

    def mail(self, line: bytes) -> None:
        self.cut("cut at MAIL")
        self.recipients = []
        if self.sink.fails("MAIL"):
            self.sender = None
            self.say(b"451 4.3.0 not now")
            return
        self.sender = _address(line)
        self.say(b"250 2.1.0 ok")

    def rcpt(self, line: bytes) -> None:
        self.cut("cut at RCPT")
        address = _address(line)
        if address.startswith(b"no-"):
            self.say(b"550 5.1.1 nobody of that name")
        elif self.sink.fails("RCPT"):
            self.say(b"450 4.2.1 not now")
        else:
            self.recipients.append(address)
            self.say(b"250 2.1.5 ok")

    async def data(self) -> None:
        sender, recipients = self.sender, self.recipients
        self.sender = None
        if sender is None or not recipients:
            self.say(b"554 5.5.1 no valid recipients")
            return
        if self.sink.fails("DATA"):
            self.say(b"451 4.3.0 not now")
            return
        self.say(b"354 go on")
        await self.writer.drain()
        if self.sink.fails("cut in content"):
            await self.reader.readexactly(100)
            raise _Cut
        content = (await self.reader.readuntil(_DOT))[: -len(_DOT) + 2].replace(b"\r\n..", b"\r\n.")
        self.cut("cut before taking")
        if self.sink.fails("content"):
            self.say(b"451 4.3.0 not now")
            return
        is_cut = self.sink.fails("cut after taking")
        self.sink.take(sender, recipients, content, is_cut=is_cut)
        if is_cut:
            raise _Cut
        self.say(b"250 2.0.0 taken")

    def cut(self, what: str) -> None:
        if self.sink.fails(what):
            raise _Cut

    def say(self, *lines: bytes) -> None:
        self.writer.write(b"".join(line + b"\r\n" for line in lines))


def _address(line: bytes) -> bytes:
    found = _ADDRESS.search(line)
    if found is None:
        raise _Cut
    return found[1]


async def main(record: Path, seed: int, port: int) -> None:
    with record.open("ab", buffering=0) as lines:
        sink = Sink(lines, random.Random(seed))
        server = await asyncio.start_server(sink.serve, "127.0.0.1", port, limit=_GREATEST)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, sink.calm)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), port))
