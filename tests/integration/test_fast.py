"""The short cuts over real sockets: nothing is lost, nothing stays behind, nobody sleeps too long.

a peer, in a thread  <-- loopback, in the clear or over TLS -->  our transports
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IHandshakeListener,
    IListeningPort,
    IPullProducer,
    IPushProducer,
    IReactorCore,
    IReactorFromThreads,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from protege_mta.testing.authority import Authority
from protege_mta.transport import fast, fast_tls
from protege_mta.transport.listening import bind
from protege_mta.transport.tls_server import ServerContext

BIG = b"0123456789abcdef" * 500_000
WAIT_S = 20.0


@implementer(IHandshakeListener)
class Speaker(Protocol):
    """Says what a test has it say when it is connected, and when it is spoken to."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        if self.case.context is None:
            self.handshakeCompleted()
        else:
            cast(Any, self.transport).startTLS(self.case.context)

    def handshakeCompleted(self) -> None:
        self.case.made.callback(self)
        self.case.first(self)

    def dataReceived(self, data: bytes) -> None:
        self.case.then(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@implementer(IPushProducer)
class Pausable:
    """A producer that goes on from the start, and whenever it may again.

    :ivar written: how much so far, in units of its own.
    """

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.written = 0
        self.is_paused = False
        transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self.go_on()

    def go_on(self) -> None:
        raise NotImplementedError

    def stopProducing(self) -> None: ...


def nothing(speaker: Speaker, *data: bytes) -> None:
    """Say nothing."""


class Case(TestCase):
    timeout = 60
    context: ServerContext | None = None

    def setUp(self) -> None:
        self.made: Deferred[Speaker] = Deferred()
        self.first: Callable[[Speaker], object] = nothing
        self.then: Callable[[Speaker, bytes], None] = nothing
        self.assertTrue(fast.install(cast(IReactorCore, _reactor)))
        self.addCleanup(self.uninstall)

    def uninstall(self) -> None:
        for name in fast.ADDED:
            _reactor.__dict__.pop(name, None)

    def listen(self) -> int:
        factory = Factory.forProtocol(lambda: Speaker(self))
        port: IListeningPort = bind("fast", "127.0.0.1", 0).accept(
            cast(IReactorCore, _reactor), factory
        )
        self.addCleanup(port.stopListening)
        return cast(int, cast(Any, port.getHost()).port)

    def peer(self, port: int) -> socket.socket:
        """A connection to our port, as a peer has it."""
        return socket.create_connection(("127.0.0.1", port), WAIT_S)

    async def ended(self) -> Speaker:
        speaker = await self.made
        await speaker.lost
        return speaker

    async def read_from(self, producing: Callable[[Any], object]) -> int:
        """How many octets a peer reads of what is written to the transport, up to its end."""
        self.first = lambda speaker: producing(speaker.transport)
        port = self.listen()

        def read() -> int:
            with self.peer(port) as channel:
                got = 0
                while piece := channel.recv(100_000):
                    got += len(piece)
                return got

        total = await deferToThread(read)
        await self.ended()
        return total


class FastTests(Case):
    async def test_everything_arrives_before_the_end(self) -> None:
        """However much it is, and however slowly the peer reads."""

        def say(speaker: Speaker) -> None:
            for at in range(0, len(BIG), 1_000_000):
                cast(Any, speaker.transport).write(BIG[at : at + 1_000_000])
            cast(Any, speaker.transport).loseConnection()

        self.first = say
        port = self.listen()

        def read() -> bytes:
            with self.peer(port) as channel:
                heard = b""
                while piece := channel.recv(100_000):
                    heard += piece
                return heard

        heard = await deferToThread(read)
        await self.ended()
        self.assertTrue(heard == BIG)

    async def test_what_is_said_in_one_turn_arrives_together(self) -> None:
        def answer(speaker: Speaker, data: bytes) -> None:
            for _ in range(10):
                cast(Any, speaker.transport).write(data)

        self.then = answer
        port = self.listen()

        def talk() -> list[bytes]:
            with self.peer(port) as channel:
                heard = []
                for _ in range(3):
                    channel.sendall(b"abc")
                    heard.append(channel.recv(1000))
                return heard

        self.assertEqual(await deferToThread(talk), [b"abc" * 10] * 3)
        await self.ended()

    async def test_an_end_with_nothing_to_say(self) -> None:
        self.then = lambda speaker, data: cast(Any, speaker.transport).loseConnection()
        port = self.listen()

        def talk() -> bytes:
            with self.peer(port) as channel:
                channel.sendall(b"bye")
                return channel.recv(1000)

        self.assertEqual(await deferToThread(talk), b"")
        await self.ended()

    async def test_a_peer_that_is_gone(self) -> None:
        """What is written to it in the turn in which its end shows breaks nothing else."""
        self.then = lambda speaker, data: cast(Any, speaker.transport).write(BIG)
        port = self.listen()

        def talk() -> None:
            with self.peer(port) as channel:
                channel.sendall(b"hello")

        await deferToThread(talk)
        await self.ended()

    async def test_who_does_not_read_is_waited_for(self) -> None:
        """A producer is paused before much is kept for its peer, and goes on when it has room."""
        total, at_once = 5_000_000, 0

        class Eager(Pausable):
            def go_on(self) -> None:
                nonlocal at_once
                before = self.written
                while self.written < total and not self.is_paused:
                    self.transport.write(b"x" * 10_000)
                    self.written += 10_000
                at_once = max(at_once, self.written - before)
                if self.written == total:
                    self.transport.unregisterProducer()
                    self.transport.loseConnection()

        self.assertEqual(await self.read_from(Eager), total)
        self.assertLess(at_once, 200_000)

    async def test_who_goes_on_by_a_call(self) -> None:
        """Is called once there is room, be nothing else due for long: so Twisted has producers
        pulled that HTTP answers with."""
        at_most = 40

        class Called(Pausable):
            def go_on(self) -> None:
                cast(IReactorTime, _reactor).callLater(0, self.write)

            def write(self) -> None:
                if self.is_paused or self.written == at_most:
                    return
                self.written += 1
                if self.written == at_most:
                    self.transport.unregisterProducer()
                self.transport.write(b"x" * 200_000)
                if self.written == at_most:
                    self.transport.loseConnection()

        self.assertEqual(await self.read_from(Called), at_most * 200_000)


class PlainTests(Case):
    """What TLS does otherwise: it reads on until the peer has taken leave, and has Twisted's
    cooperator ask who is asked for more."""

    async def test_nothing_is_read_behind_the_end(self) -> None:
        heard: list[bytes] = []

        def end(speaker: Speaker, data: bytes) -> None:
            heard.append(data)
            cast(Any, speaker.transport).write(b"x" * 10_000_000)  # more than the kernel takes
            cast(Any, speaker.transport).loseConnection()

        self.then = end
        port = self.listen()

        def talk() -> None:
            with self.peer(port) as channel:
                channel.sendall(b"first")
                channel.recv(100)
                channel.sendall(b"second")
                with contextlib.suppress(ConnectionResetError):  # for what it did not read
                    while channel.recv(1 << 20):
                        pass

        await deferToThread(talk)
        await self.ended()
        self.assertEqual(heard, [b"first"])

    async def test_who_always_has_more_to_say_holds_up_nobody(self) -> None:
        """A producer is asked a few times in a turn, however fast its peer reads."""
        blocks, turns = 0, 0

        @implementer(IPullProducer)
        class Endless:
            def __init__(self, transport: Any) -> None:
                self.transport = transport

            def resumeProducing(self) -> None:
                nonlocal blocks
                blocks += 1
                self.transport.write(b"x" * 1000)
                if blocks == 200:
                    self.transport.unregisterProducer()
                    self.transport.loseConnection()

            def stopProducing(self) -> None: ...

        def count() -> None:
            nonlocal turns
            turns += 1
            if blocks < 200:
                cast(IReactorTime, _reactor).callLater(0, count)

        def produce(transport: Any) -> None:
            count()
            transport.registerProducer(Endless(transport), False)

        self.assertEqual(await self.read_from(produce), 200_000)
        self.assertGreaterEqual(turns, 50)

    async def test_a_connection_is_there_before_the_peer_speaks(self) -> None:
        """Who connects learns of it from the network, not from the first octets."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            factory = ClientFactory()
            factory.buildProtocol = lambda addr: Speaker(self)  # type: ignore[method-assign]
            address, port = silent.getsockname()
            fast.connect(cast(IReactorTCP, _reactor), address, port, factory, 5)
            speaker = await self.made
            cast(Any, speaker.transport).write(b"hello")
            channel, _ = await deferToThread(silent.accept)
            with channel:
                channel.settimeout(WAIT_S)
                self.assertEqual(await deferToThread(channel.recv, 100), b"hello")
            await speaker.lost


class FastTlsTests(FastTests):
    """The same over TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.assertTrue(fast_tls.HAS_SEAMS)
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority(folder)
        self.trusting = ssl.create_default_context(cafile=str(authority.ca_file))
        self.context = authority.context("127.0.0.1")

    def peer(self, port: int) -> socket.socket:
        return self.trusting.wrap_socket(super().peer(port), server_hostname="127.0.0.1")


class CallTests(Case):
    async def test_a_sleeping_reactor_is_woken(self) -> None:
        """Each call from a thread is answered at once, whether the reactor sleeps or not."""

        def ask() -> list[int]:
            return [
                blockingCallFromThread(cast(IReactorFromThreads, _reactor), int, number)
                for number in range(2000)
            ]

        answers = await gatherResults([deferToThread(ask) for _ in range(4)])
        self.assertEqual(answers, [list(range(2000))] * 4)

    async def test_calls_keep_their_order(self) -> None:
        made: list[int] = []
        done: Deferred[None] = Deferred()

        def call() -> None:
            for number in range(5000):
                cast(IReactorFromThreads, _reactor).callFromThread(made.append, number)
            cast(IReactorFromThreads, _reactor).callFromThread(done.callback, None)

        await deferToThread(call)
        await done
        self.assertEqual(made, list(range(5000)))

    async def test_a_busy_reactor_is_not_woken(self) -> None:
        """It looks for itself before it goes to sleep."""
        wakes: list[None] = []
        self.patch(_reactor, "wakeUp", lambda: wakes.append(None))
        done: Deferred[None] = Deferred()
        cast(IReactorFromThreads, _reactor).callFromThread(done.callback, None)
        await done
        self.assertEqual(wakes, [])

    async def test_a_signal_wakes(self) -> None:
        """A handler's call is made though the signal came while the reactor slept."""
        done: Deferred[None] = Deferred()

        def handle(number: int, frame: object) -> None:
            cast(IReactorFromThreads, _reactor).callFromThread(done.callback, None)

        self.addCleanup(signal.signal, signal.SIGUSR2, signal.signal(signal.SIGUSR2, handle))
        killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR2))
        killer.start()
        self.addCleanup(killer.join)
        await done
