"""A next hop that says when it accepted what: ``python -m bench.timing_sink PORT ADDRESS=KIND...``.

A process of its own, whose clock (CLOCK_MONOTONIC) is the client's too.  For each message it writes
a line of the moment and the recipient's local-part to standard output.  Kinds: ``good``; ``slow``
answers each line late; ``silent`` accepts connections and says nothing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from functools import partial
from typing import Final

SLOW_S: Final = 3.0
FLUSH_S: Final = 0.05
END: Final = b"\r\n.\r\n"


class Hop(asyncio.Protocol):
    """One connection.

    :param lines: takes what is to be told.
    """

    def __init__(self, kind: str, lines: list[str]) -> None:
        self._kind = kind
        self._lines = lines
        self._buffer = b""
        self._is_data = False
        self._recipients: list[str] = []
        self._late_until = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._kind != "silent":
            self._say(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while True:
            reply = self._content() if self._is_data else self._command()
            if reply is None:
                break
            replies.append(reply)
        if replies and self._kind != "silent":
            self._say(b"".join(replies))

    def _say(self, octets: bytes) -> None:
        if self._kind == "slow":
            loop = asyncio.get_running_loop()
            self._late_until = max(self._late_until, loop.time()) + SLOW_S
            loop.call_at(self._late_until, self._transport.write, octets)
        else:
            self._transport.write(octets)

    def _command(self) -> bytes | None:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return None
        self._buffer = rest
        match line[:4].upper():
            case b"EHLO":
                return b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
            case b"RCPT":
                local_part = line[line.index(b"<") + 1 :].partition(b"@")[0]
                self._recipients.append(local_part.decode("ascii"))
                return b"250 2.1.5 ok\r\n"
            case b"DATA":
                self._is_data = True
                self._buffer = b"\r\n" + self._buffer  # so that an empty content ends too
                return b"354 go on\r\n"
            case b"QUIT":
                return b"221 2.0.0 bye\r\n"
            case b"RSET":
                self._recipients.clear()
        return b"250 2.0.0 ok\r\n"

    def _content(self) -> bytes | None:
        at = self._buffer.find(END)
        if at < 0:
            self._buffer = self._buffer[-len(END) :]  # nobody reads it
            return None
        self._buffer = self._buffer[at + len(END) :]
        self._is_data = False
        now = time.monotonic()
        self._lines += [f"{now:.6f} {recipient}\n" for recipient in self._recipients]
        self._recipients.clear()
        return b"250 2.0.0 taken\r\n"


async def serve(port: int, kinds: dict[str, str]) -> None:
    """Until SIGTERM.

    :param kinds: by address.
    """
    loop, lines, over = asyncio.get_running_loop(), list[str](), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)

    servers = [
        await loop.create_server(partial(Hop, kind, lines), address, port, backlog=1000)
        for address, kind in kinds.items()
    ]
    while not over.is_set():
        await asyncio.sleep(FLUSH_S)
        if lines:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
            lines.clear()
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), dict(one.split("=") for one in sys.argv[2:])))
