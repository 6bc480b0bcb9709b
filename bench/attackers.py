"""Attackers on loopback: ``python -m bench.attackers KIND PORT``, until SIGTERM or done.

A process of its own, so that the honest client's clock is not theirs.  Says at the end what it has
done, as a line of JSON.  Kinds: ``flood`` opens connections, 10,000 a minute from one address;
``loris`` holds connections in each state, with an octet a second or none; ``line`` sends a gigabyte
without a line end, once as a command and once as content; ``guess`` tries passwords over TLS from
one address, each connection as often as it is let.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

FROM: Final = "127.0.0.66"
PER_MINUTE: Final = 10_000
HELD: Final = 40
"""Connections of each state and address; below what one address may have."""

LORIS_ADDRESSES: Final = 5
LINE_OCTETS: Final = 1_000_000_000
GUESSERS: Final = 20
ANSWER_S: Final = 120.0

OPENINGS: Final[dict[str, tuple[bytes, ...]]] = {
    "silent": (),
    "command": (b"",),
    "handshake": (b"EHLO a.test\r\n", b"STARTTLS\r\n"),
    "data": (
        b"EHLO a.test\r\n",
        b"MAIL FROM:<a@b.test>\r\n",
        b"RCPT TO:<c@d.test>\r\n",
        b"DATA\r\n",
    ),
    "chunk": (
        b"EHLO a.test\r\n",
        b"MAIL FROM:<a@b.test>\r\n",
        b"RCPT TO:<c@d.test>\r\n",
        b"BDAT 1000000\r\n",
    ),
}
"""What is said before a connection is held, by the state it is held in."""

Done = Counter[str]


async def flood(port: int, done: Done) -> None:
    began, number = time.monotonic(), 0
    running: set[asyncio.Task[None]] = set()
    while True:
        due = int((time.monotonic() - began) * PER_MINUTE / 60)
        for _ in range(due - number):
            task = asyncio.create_task(_knock(port, done))
            running.add(task)
            task.add_done_callback(running.discard)
        number = due
        await asyncio.sleep(0.01)


async def _knock(port: int, done: Done) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(FROM, 0))
        done[(await reader.readline())[:3].decode("ascii", "replace")] += 1
        writer.close()
    except OSError:
        done["refused"] += 1


async def loris(port: int, done: Done) -> None:
    await asyncio.gather(
        *(
            _hold(port, f"127.0.1.{1 + 10 * kind + number % LORIS_ADDRESSES}", state, done)
            for kind, state in enumerate(OPENINGS)
            for number in range(HELD * LORIS_ADDRESSES)
        )
    )


async def _hold(port: int, address: str, state: str, done: Done) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        for line in OPENINGS[state]:
            await reader.readuntil(b"\r\n") if line else None
            writer.write(line)
            await writer.drain()
        done[state] += 1
        while state != "silent" and not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(1)
        await asyncio.sleep(3600)
    except (OSError, asyncio.IncompleteReadError):
        done[f"{state}, hung up on"] += 1


async def line(port: int, done: Done) -> None:
    block = b"x" * 1_000_000
    for state in ("command", "data"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(FROM, 0))
        for opening in OPENINGS[state]:
            await reader.readuntil(b"\r\n")
            writer.write(opening)
        try:
            for _ in range(LINE_OCTETS // len(block)):
                writer.write(block)
                await writer.drain()
                done[f"{state}, MB"] += 1
        except OSError:
            done[f"{state}, hung up on"] += 1
        writer.close()
    done["done"] = 1


async def guess(port: int, done: Done) -> None:
    await asyncio.gather(*(_guess(port, number, done) for number in range(GUESSERS)))


async def _guess(port: int, number: int, done: Done) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    while True:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, local_addr=(FROM, 0)
            )
            greeting = await reader.readline()
            if not greeting.startswith(b"220"):
                done[greeting[:3].decode("ascii", "replace")] += 1
                writer.close()
                await asyncio.sleep(0.05)
                continue
            writer.write(b"EHLO a.test\r\n")
            while (await reader.readline())[3:4] == b"-":
                pass
            code = b""
            while code != b"421" and not reader.at_eof():
                proof = base64.b64encode(b"\0user%d\0guess%d" % (number, done["guesses"]))
                writer.write(b"AUTH PLAIN %b\r\n" % proof)
                done["guesses"] += 1
                code = (await asyncio.wait_for(reader.readline(), ANSWER_S))[:3]
                done[code.decode("ascii", "replace")] += 1
            writer.close()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            done["hung up on"] += 1
            await asyncio.sleep(0.05)


KINDS: Final[dict[str, Callable[[int, Done], Coroutine[Any, Any, None]]]] = {
    "flood": flood,
    "loris": loris,
    "line": line,
    "guess": guess,
}


async def _main(kind: str, port: int) -> None:
    done: Done = Counter()
    attack = asyncio.create_task(KINDS[kind](port, done))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, attack.cancel)
    try:
        await attack
    except asyncio.CancelledError:
        done["stopped"] = 1
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
