"""A client that sends mail over TLS as fast as a server takes it: ``python -m bench.tls_client LOAD``.

smtp-source of Postfix speaks no TLS, so that this is the load of both servers.  Like smtp-source it
waits for each reply before it says more.  A process of its own, that its processor time is not
taken for ours, with one thread and one epoll, for it shares the processors with whom it measures.

It says ``ready`` when all is imported, begins once it may read a line, and writes a
:class:`Report` at the end.  A reply of another kind than expected ends it with the status 1.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import attrs

from .paced import content

CONNECT: Final = b""
"""In place of what to say: close what is open, and connect."""

HANDSHAKE: Final = b"\x16"
"""In place of what to say: agree on TLS.  No reply comes."""

EHLO: Final = b"EHLO client.test\r\n"
MAIL: Final = b"MAIL FROM:<sender@client.test>\r\n"
RCPT: Final = b"RCPT TO:<rcpt@dest.test>\r\n"
RECORD_OCTETS: Final = 16384
SILENCE_S: Final = 60.0

Step = tuple[bytes, bytes]
"""What is said, and how the reply to it begins."""

Version = Literal["", "1.2", "1.3"]


@attrs.frozen
class Load:
    """What to do.

    :ivar sessions: connections at a time.
    :ivar count: of messages; of connections, where there are no messages.
    :ivar size_octets: of each message; 0 for connections that only shake hands.
    :ivar is_reusing: many messages a connection, or one.
    :ivar version: of TLS; empty for none.
    :ivar is_resuming: whether a connection takes up the TLS session of the one before.
    """

    port: int
    sessions: int
    count: int
    size_octets: int = 0
    is_reusing: bool = False
    version: Version = "1.3"
    is_resuming: bool = False


@attrs.frozen
class Report:
    """What was done.

    :ivar count: as asked for.
    :ivar seconds: from the first connection to the last reply.
    :ivar cpu_s: of this process in that time.
    :ivar handshakes: all of them; ``resumed`` are those that took up a session.
    :ivar ciphers: with the version of TLS, each once.
    """

    count: int
    seconds: float
    cpu_s: float
    handshakes: int
    resumed: int
    ciphers: Sequence[str]


class Work:
    """Counts what is begun and what is done, by all sessions together."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.done = 0

    def take(self) -> bool:
        """Whether there is another one to begin with."""
        self._left -= 1
        return self._left >= 0


def steps(load: Load, work: Work) -> Iterator[Step]:
    """What a session does, connection after connection, until there is no more to take."""
    octets = content(load.size_octets) if load.size_octets else b""
    while work.take():
        yield CONNECT, b"220"
        yield EHLO, b"250"
        if load.version:
            yield b"STARTTLS\r\n", b"220"
            yield HANDSHAKE, b""
            yield EHLO, b"250"
        is_taken = bool(octets)
        while is_taken:
            yield MAIL, b"250"
            yield RCPT, b"250"
            yield b"DATA\r\n", b"354"
            yield octets, b"250"
            work.done += 1
            is_taken = load.is_reusing and work.take()
        yield b"QUIT\r\n", b"221"
        work.done += not octets


def is_whole(reply: bytes) -> bool:
    """Whether the line without a hyphen is there, the last one of a reply (RFC 5321, 4.2.1)."""
    if not reply.endswith(b"\r\n"):
        return False
    last = reply.rfind(b"\n", 0, -2) + 1
    return reply[last + 3 : last + 4] != b"-"


class Session:
    """Goes through its steps, one connection after the other.

    :param context: None without TLS.
    """

    def __init__(
        self, run: Run, load: Load, context: ssl.SSLContext | None, to_do: Iterator[Step]
    ) -> None:
        self._run = run
        self._load = load
        self._context = context
        self._to_do = to_do
        self._channel: socket.socket | None = None
        self._tls: ssl.SSLSession | None = None
        self._expected = b""
        self._said = b""
        self._unsent = memoryview(b"")
        self._reply = b""
        self._is_shaking = False

    def go_on(self) -> None:
        """Begin the next step."""
        step = next(self._to_do, None)
        if step is None:
            self._close()
            self._run.is_over(self)
            return
        self._said, self._expected = step
        if self._said is CONNECT:
            self._connect()
        elif self._said is HANDSHAKE:
            self._start_tls()
        else:
            self._unsent = memoryview(self._said)
            self._send()

    def ready(self) -> None:
        """The connection can be read, or written to."""
        if self._is_shaking:
            self._shake()
        elif self._unsent:
            self._send()
        else:
            self._receive()

    def _connect(self) -> None:
        self._close()
        self._channel = socket.create_connection(("127.0.0.1", self._load.port), SILENCE_S)
        self._channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._channel.setblocking(False)
        self._run.watch(self._channel, self)

    def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if isinstance(channel, ssl.SSLSocket) and self._load.is_resuming:
            self._tls = channel.session  # with TLS 1.3 there by now, and not before
        self._run.forget(channel)
        channel.close()

    def _start_tls(self) -> None:
        assert self._channel is not None
        assert self._context is not None
        self._channel = self._context.wrap_socket(
            self._channel,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
            session=self._tls,
        )
        self._is_shaking = True
        self._shake()

    def _shake(self) -> None:
        channel = self._channel
        assert isinstance(channel, ssl.SSLSocket)
        try:
            channel.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._is_shaking = False
        self._run.note(channel)
        self.go_on()

    def _send(self) -> None:
        assert self._channel is not None
        try:
            while self._unsent:
                sent = self._channel.send(self._unsent[:RECORD_OCTETS])
                self._unsent = self._unsent[sent:]
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._run.wait(self._channel, select.EPOLLOUT)
            return
        if len(self._said) > RECORD_OCTETS:
            self._run.wait(self._channel, select.EPOLLIN)

    def _receive(self) -> None:
        assert self._channel is not None
        try:
            octets = self._channel.recv(RECORD_OCTETS)
        except (BlockingIOError, ssl.SSLWantReadError):
            return  # a session ticket, say
        if not octets:
            raise RuntimeError(f"hung up on after {self._said[:40]!r}")
        self._reply += octets
        if is_whole(self._reply):
            reply, self._reply = self._reply, b""
            if not reply.startswith(self._expected):
                raise RuntimeError(f"{self._said[:40]!r} was answered {reply!r}")
            self.go_on()


class Run:
    """Every session, and what they wait for."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._work = Work(load.count)
        self._epoll = select.epoll()
        self._watched: dict[int, Session] = {}
        self._handshakes = self._resumed = 0
        self._ciphers: Counter[str] = Counter()
        self._open: set[Session] = set()

    def go(self) -> Report:
        """:raise RuntimeError, OSError: a server does not do as it should."""
        began, cpu_began = time.perf_counter(), time.process_time()
        context = _context(self._load) if self._load.version else None
        self._open = {
            Session(self, self._load, context, steps(self._load, self._work))
            for _ in range(self._load.sessions)
        }
        for session in list(self._open):
            session.go_on()
        while self._open:
            ready = self._epoll.poll(SILENCE_S)
            if not ready:
                raise RuntimeError(f"nothing came for {SILENCE_S:.0f} s")
            for descriptor, _ in ready:
                self._watched[descriptor].ready()
        return Report(
            self._work.done,
            time.perf_counter() - began,
            time.process_time() - cpu_began,
            self._handshakes,
            self._resumed,
            sorted(self._ciphers),
        )

    def watch(self, channel: socket.socket, session: Session) -> None:
        self._epoll.register(channel, select.EPOLLIN)
        self._watched[channel.fileno()] = session

    def forget(self, channel: socket.socket) -> None:
        self._epoll.unregister(channel)
        del self._watched[channel.fileno()]

    def wait(self, channel: socket.socket, event: int) -> None:
        """For one kind of event in place of the other."""
        self._epoll.modify(channel, event)

    def note(self, channel: ssl.SSLSocket) -> None:
        """A handshake is done."""
        self._handshakes += 1
        self._resumed += bool(channel.session_reused)
        cipher = channel.cipher()
        self._ciphers[f"{channel.version()} {cipher[0] if cipher else ''}"] += 1

    def is_over(self, session: Session) -> None:
        self._open.remove(session)


def _context(load: Load) -> ssl.SSLContext:
    """Whom we talk to is known; the signature of the handshake is checked all the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[load.version]
    context.minimum_version = context.maximum_version = version
    return context


def main(argument: str) -> None:
    load = Load(**json.loads(argument))
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        report = Run(load).go()
    except (RuntimeError, OSError) as error:
        sys.exit(str(error))
    print(json.dumps(attrs.asdict(report)))


if __name__ == "__main__":
    main(sys.argv[1])
