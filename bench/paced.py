"""A client that sends at a steady rate, whatever the server does, and notes each final dot.

Sessions stay open and carry many messages; one that is due goes out on whichever is free.  How late
it went out is noted as well: a client that cannot keep its pace measures nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Final, Self

import attrs

from .figures import Latency, latency, matched
from .machine import wait_for
from .servers import Server, end

TAIL_S: Final = 30.0
"""How long the last replies may take."""


@attrs.frozen
class Sent:
    """What a paced load showed, moments by CLOCK_MONOTONIC and by the message's name.

    :ivar dots: when the final dot was sent.
    :ivar accepted: when its 250 came.
    :ivar late_s: how long each was due before a session was free for it.
    :ivar refused: replies other than 2yz and 354.
    """

    dots: dict[str, float] = attrs.field(factory=dict)
    accepted: dict[str, float] = attrs.field(factory=dict)
    late_s: list[float] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)


class Session(asyncio.Protocol):
    """One connection, which tells when it is free."""

    def __init__(self, content: bytes, sent: Sent, free: Callable[[Session], None]) -> None:
        self._content = content
        self._sent = sent
        self._free = free
        self._buffer = b""
        self._awaited: deque[str] = deque(["220"])
        self._name = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, name: str, domain: str) -> None:
        """One message, to ``name@domain``."""
        self._name = name
        self._awaited += ["MAIL", "RCPT", "DATA"]
        self._transport.write(
            b"MAIL FROM:<sender@client.test>\r\nRCPT TO:<%b@%b>\r\nDATA\r\n"
            % (name.encode("ascii"), domain.encode("ascii"))
        )

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            if line[3:4] != b"-":
                self._reply(line.decode("ascii", "replace"))

    def _reply(self, line: str) -> None:
        awaited = self._awaited.popleft() if self._awaited else ""
        if line[:1] not in "23" or not awaited:
            self._sent.refused.append(line)
            if awaited != "dot":
                return
        match awaited:
            case "220":
                self._awaited.append("EHLO")
                self._transport.write(b"EHLO client.test\r\n")
            case "EHLO":
                self._free(self)
            case "DATA":
                self._awaited.append("dot")
                self._sent.dots[self._name] = time.monotonic()
                self._transport.write(self._content)
            case "dot":
                self._sent.accepted[self._name] = time.monotonic()
                self._free(self)


def content(size_octets: int) -> bytes:
    """A message of about so many octets, with its final dot."""
    header = b"From: <sender@client.test>\r\nTo: <rcpt@dest.test>\r\nSubject: paced\r\n\r\n"
    line = b"x" * 70 + b"\r\n"
    return header + line * max((size_octets - len(header)) // len(line), 1) + b".\r\n"


def send_paced(
    port: int,
    *,
    per_s: float,
    seconds: float,
    sessions: int = 20,
    size_octets: int = 4096,
    domain: Callable[[int], str] = lambda number: "dest.test",
    prefix: str = "m",
) -> Sent:
    """Send at that rate for so long.

    :param domain: of each message, by its number.
    :param prefix: of messages' names, which are local-parts of recipients.
    """
    return asyncio.run(_send(port, per_s, seconds, sessions, content(size_octets), domain, prefix))


async def _send(
    port: int,
    per_s: float,
    seconds: float,
    sessions: int,
    octets: bytes,
    domain: Callable[[int], str],
    prefix: str,
) -> Sent:
    loop, sent = asyncio.get_running_loop(), Sent()
    free: deque[Session] = deque()
    made = [
        (
            await loop.create_connection(
                lambda: Session(octets, sent, free.append), "127.0.0.1", port
            )
        )[1]
        for _ in range(sessions)
    ]
    while len(free) < sessions:  # noqa: ASYNC110  polling is plain, and before the clock runs
        await asyncio.sleep(0.01)
    began, number, total = time.monotonic(), 0, round(per_s * seconds)
    while number < total:
        now = time.monotonic()
        while free and number < total and (due := began + number / per_s) <= now:
            sent.late_s.append(now - due)
            free.popleft().send(f"{prefix}{number}", domain(number))
            number += 1
        if now - began > seconds * 2 + TAIL_S:
            break  # it cannot keep up; late_s tells
        await asyncio.sleep(0.0005)
    give_up_at = time.monotonic() + TAIL_S
    while len(sent.accepted) < number and time.monotonic() < give_up_at:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for session in made:
        session.close()
    return sent


@attrs.frozen
class Noticed:
    """What a healthy client has noticed.

    :ivar relay: from its final dot to the next hop's 250; ``accept`` to ours.
    """

    relay: Latency
    accept: Latency

    TITLES: ClassVar = ("accept p50 ms", "p99 ms", "relay p50 ms", "p99 ms")

    def cells(self) -> tuple[str, ...]:
        """Under :attr:`TITLES`."""
        times = (each for one in (self.accept, self.relay) for each in (one.p50_ms, one.p99_ms))
        return tuple(f"{each:.1f}" for each in times)


def notice(
    server: Server, hop: TimingSink, *, per_s: float, seconds: float, prefix: str
) -> tuple[Latency, Latency]:
    """Send as :func:`send_paced` does.

    :return: the values of :class:`Noticed`.
    :raise RuntimeError: something was refused.
    """
    sent = send_paced(server.port, per_s=per_s, seconds=seconds, prefix=prefix)
    if sent.refused:
        raise RuntimeError(f"{server.name} said {sent.refused[0]!r}")
    arrived = hop.wait(frozenset(sent.accepted), TAIL_S)
    return latency(matched(sent.dots, arrived)), latency(matched(sent.dots, sent.accepted))


class TimingSink:
    """Next hops in a process of their own; see :mod:`.timing_sink`.

    :param kinds: by address.
    :param folder: for what they tell.
    """

    def __init__(self, port: int, folder: Path, kinds: Mapping[str, str]) -> None:
        self._path = folder / f"arrived-{port}"
        arguments = [f"{address}={kind}" for address, kind in kinds.items()]
        with self._path.open("wb") as told:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.timing_sink", str(port), *arguments],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "PYTHONUNBUFFERED": ""},
                stdin=subprocess.DEVNULL,
                stdout=told,
            )
        try:
            for address, kind in kinds.items():
                if kind == "good":
                    wait_for(port, address=address)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def arrived(self) -> dict[str, float]:
        """The moment of each message's first acceptance, by its name."""
        found: dict[str, float] = {}
        for line in self._path.read_text("ascii").splitlines(keepends=True):
            if line.endswith("\n"):
                at, name = line.split()
                found.setdefault(name, float(at))
        return found

    def wait(self, names: frozenset[str], limit_s: float) -> dict[str, float]:
        """What has arrived once all of these have, or when it takes too long."""
        give_up_at = time.monotonic() + limit_s
        while not names <= (found := self.arrived()).keys() and time.monotonic() < give_up_at:
            time.sleep(0.1)
        return found

    def stop(self) -> None:
        end(self._process)
