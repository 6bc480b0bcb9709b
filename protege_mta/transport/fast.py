"""Twisted's TCP with four short cuts, for connections that are short and live on small writes.

Early writing: what is written in a turn of the event loop is sent at its end, and a connection that
is closed goes then, without asking epoll first.  A reply so costs one system call, not four and
another turn.  To send at once, in the midst of the turn, takes 2 to 7 % more processor time a message:
whom it wakes takes the processor, and what goes on then finds its caches cold, after each reply.

Plain accepting: a connection that comes and goes has no log prepared for it, and nobody is asked
whether he cares for half of it.

Lean dispatch: a socket that is ready is read without a log context around the call.

Quiet calls: who calls something in the reactor's thread wakes it only if it sleeps; one that is busy
looks before it goes to sleep.  That saves a pipe's write and read, and 4 % of the processor time of a
small message that is relayed.

The first three save 60 % of the CPU time of receiving a small message; :mod:`.fast_tls` is what goes on
over TLS.  All reach into Twisted's private parts, and these two files are the only ones that do.
What they touch is looked at first; where a release of Twisted has changed it, or another reactor
runs, the stock classes serve.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from errno import ENOBUFS
from select import EPOLLIN, EPOLLOUT
from typing import Any, Final, Protocol, cast

from twisted.internet import main, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv6Address
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import (
    IConnector,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorCore,
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
)
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import ClientFactory, ServerFactory
from twisted.logger import Logger
from twisted.python import log as legacy_log
from twisted.python.failure import Failure

from . import fast_tls

_log = Logger()


def _has_all(thing: object, *names: str) -> bool:
    return all(hasattr(thing, name) for name in names)


_HAS_SEAMS: Final = (
    _has_all(tcp.Connection, "TLS", "dataBuffer", "disconnecting", "connected", "bufferSize")
    and _has_all(tcp.Connection, "_shouldShutdown", "_maybePauseProducer", "_postLoseConnection")
    and _has_all(
        FileDescriptor(reactor=object()),  # type: ignore[arg-type]
        *("_tempDataBuffer", "_tempDataLen", "_writeDisconnecting", "_writeDisconnected"),
        *("offset", "producer", "producerPaused", "streamingProducer"),
    )
    and _has_all(tcp.Port, "transport", "_fromListeningDescriptor", "createInternetSocket")
    and _has_all(tcp.Port, "sessionno", "_buildAddr")
    and _has_all(tcp.Server, "_addressType", "readConnectionLost")
    and hasattr(tcp.Connector, "_makeTransport")
)


_DUE: Final = "protege_mta_due"
"""The reactor's attribute with the connections that have something to write in this turn."""

_ASLEEP: Final = "protege_mta_asleep"
"""The reactor's attribute that says whether it may be waiting for events."""

ADDED: Final = ("doPoll", "doIteration", "callFromThread", _DUE, _ASLEEP)
"""What :func:`install` gives a reactor; without them it is the stock one again."""

# --- early writing -------------------------------------------------------------------------------


class _Early(tcp.Connection):
    """Comes before a stock transport in the order of classes.

    It waits for the end of the turn, not for epoll, to write; where the reactor has no such end, it
    is the stock class.
    """

    protocol: Any  # an IProtocol; over TLS what fast_tls has put before it
    _tlsClientDefault: bool
    _is_due = False
    _is_sealed_late = False  # TLS by fast_tls, which has to be told that the turn ends
    # Nobody shares our sockets, so that close() says all that shutdown() before it would; where the
    # client was quicker to close, as after QUIT, that is but an exception to catch.
    _shouldShutdown = False

    def startWriting(self) -> None:
        if not self._is_due:
            due: list[Writer] | None = getattr(self.reactor, _DUE, None)
            if due is None or not self.connected:  # but being connected shows in epoll alone
                super().startWriting()
            else:
                self._is_due = True
                due.append(self)

    def write(self, data: bytes) -> None:
        # The stock class's, but that who has no full buffer is not asked for his producer.
        if self.TLS:
            super().write(data)
        elif data and self.connected and not self._writeDisconnected:
            self._tempDataBuffer.append(data)
            self._tempDataLen += len(data)
            if len(self.dataBuffer) + self._tempDataLen > self.bufferSize:
                self._maybePauseProducer()
            self.startWriting()

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        if fast_tls.HAS_SEAMS and hasattr(self.reactor, _DUE):
            fast_tls.start(self, ctx, self._tlsClientDefault == normal)
            self._is_sealed_late = True
        else:
            super().startTLS(ctx, normal)

    def getHandle(self) -> Any:
        return self.protocol.getHandle() if self._is_sealed_late else super().getHandle()

    def getPeerCertificate(self) -> Any:
        return self.protocol.getPeerCertificate()

    def write_now(self) -> Any:
        """The turn is over.  :return: why the connection has ended, or None."""
        if not self.connected:
            self._is_due = False
            return None
        if self._is_sealed_late:
            self.protocol.seal()
        self._is_due = False
        pieces = self._tempDataBuffer
        if self.dataBuffer or self._writeDisconnecting:
            why = self.doWrite()
        elif not pieces:
            why = self._all_written()
        else:
            # The stock class's doWrite() in its most frequent case: nothing is left of an earlier
            # turn, all of it goes, and epoll has never heard of it.
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                if error.errno != ENOBUFS:
                    return main.CONNECTION_LOST
                sent = 0
            pieces.clear()
            self._tempDataLen = 0
            if sent == len(data):
                return self._all_written()
            self.dataBuffer, self.offset = data[sent:], 0
            why = None
        if why is None and (self.dataBuffer or self._tempDataBuffer):
            if self.disconnecting:
                self.stopReading()
            super().startWriting()
        return why

    def _all_written(self) -> Any:
        producer: Any = self.producer
        if producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            producer.resumeProducing()
        elif self.disconnecting:
            return self._postLoseConnection()
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        # The stock class would ask the protocol whether it can do with half of a connection; none
        # of ours can.
        self.connectionLost(reason)

    def loseConnection(self) -> None:
        if (
            self.connected
            and not self.disconnecting
            and not self.TLS
            and hasattr(self.reactor, _DUE)
        ):
            # Mostly the end of this turn is its end.
            self.disconnecting = True
            self.startWriting()
        else:
            super().loseConnection()

    def doRead(self) -> Any:
        # The stock class's, but that it takes two calls more.
        if self.disconnecting:
            return None
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        return self.protocol.dataReceived(data)


class _EarlyServer(_Early, tcp.Server):
    logstr = "a server's connection"

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: tcp.Port,
        sessionno: int,
        reactor: IReactorFDSet,
    ) -> None:
        # The stock class's, but that it words two names for each connection.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.sessionno = sessionno
        self.hostname = client[0]
        self.startReading()
        self.connected = 1

    def __repr__(self) -> str:
        return f"<{type(self.protocol).__name__} #{self.sessionno} from {self.hostname}>"


class _EarlyClient(_Early, tcp.Client):
    pass


class _EarlyPort(tcp.Port):
    transport = _EarlyServer
    _at_once = 100  # so many are accepted in a turn, if there are as many

    def doRead(self) -> None:
        accepted = 0
        try:
            while accepted < self._at_once:
                try:
                    connected, client = self.socket.accept()
                except BlockingIOError:
                    break
                except OSError:
                    # The stock class knows what to do when there are no descriptors left.
                    super().doRead()
                    return
                accepted += 1
                self._take(connected, client)
        except Exception:
            _log.failure("a connection could not be taken")
        # As many again and some more if there was no end of them, as the stock class has it.
        if accepted == self._at_once:
            self._at_once += 20
        else:
            self._at_once = max(1, accepted)

    def _take(self, connected: socket.socket, client: tuple[Any, ...]) -> None:
        if len(client) == 4:
            # With the scope, if there is one.
            host, _ = socket.getnameinfo(client, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            client = (host, *client[1:])
        factory: Any = self.factory
        protocol = factory.buildProtocol(self._buildAddr(client))
        if protocol is None:
            connected.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        protocol.makeConnection(
            self.transport(connected, protocol, client, self, number, self.reactor)
        )


class _EarlyConnector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:
        return _EarlyClient(self.host, self.port, self.bindAddress, self, self.reactor)


def adopt(
    reactor: IReactorCore, listening: socket.socket, factory: IProtocolFactory
) -> IListeningPort:
    """Accept from a TCP socket that listens, made by us or inherited.

    :param listening: the port's from now on; made non-blocking, for a blocking one would hold up
        the reactor whenever another process was quicker to accept.
    """
    listening.setblocking(False)
    # Accepted sockets inherit it.  Replies to a pipelined group may come in parts.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        if not (_HAS_SEAMS and isinstance(reactor, PosixReactorBase)):
            return cast(IReactorSocket, reactor).adoptStreamPort(
                listening.fileno(), listening.family, cast(ServerFactory[Any], factory)
            )
        port: IListeningPort = _EarlyPort._fromListeningDescriptor(
            reactor, listening.fileno(), listening.family, factory
        )
        port.startListening()
        return port


def connect(
    reactor: IReactorTCP,
    host: str,
    port: int,
    factory: IProtocolFactory,
    timeout: float = 30,
    bindAddress: tuple[str, int] | None = None,
) -> IConnector:
    """As ``reactor.connectTCP``.

    :param host: an IP address.
    """
    client = cast(ClientFactory[Any], factory)
    if not (_HAS_SEAMS and isinstance(reactor, PosixReactorBase)):
        return reactor.connectTCP(host, port, client, timeout, bindAddress)
    connector = _EarlyConnector(host, port, client, timeout, bindAddress, reactor)
    connector.connect()
    return connector


# --- lean dispatch -------------------------------------------------------------------------------


def install(reactor: IReactorCore) -> bool:
    """Give this one reactor the lean dispatch and quiet calls, running or not.

    :return: whether it has it now; only the stock epoll reactor can.
    """
    has_seams = type(reactor) is EPollReactor and _has_all(
        *(reactor, "_poller", "_selectables", "_disconnectSelectable", "_doReadOrWrite", "doPoll"),
        *("callFromThread", "threadCallQueue", "wakeUp"),
    )
    if has_seams:
        setattr(reactor, _DUE, [])
        setattr(reactor, _ASLEEP, False)
        reactor.callFromThread = functools.partial(_call_from_thread, reactor)  # type: ignore[attr-defined]
        reactor.doPoll = reactor.doIteration = functools.partial(_poll, reactor)  # type: ignore[attr-defined]
    else:
        _log.info("the reactor is not one that lean dispatch knows; it runs as it is")
    return has_seams


def _poll(reactor: Any, timeout: float | None) -> None:
    """In place of ``EPollReactor.doPoll``: the same, but for the log context, and that each part of
    a turn, the timed calls before this and the events in it, ends with its writes."""
    selectables, due = reactor._selectables, getattr(reactor, _DUE)
    if due:
        _write(reactor, due)
        if due:
            timeout = 0
        elif timeout != 0:  # whoever may go on now may have asked to be called
            timeout = reactor.timeout()
    if timeout != 0:
        # In this order: who calls from another thread looks the other way round.
        setattr(reactor, _ASLEEP, True)
        if reactor.threadCallQueue:
            timeout = 0
    # epoll takes up EINTR by itself (PEP 475).
    events = reactor._poller.poll(-1 if timeout is None else timeout, len(selectables))
    setattr(reactor, _ASLEEP, False)
    for fd, event in events:
        selectable = selectables.get(fd)
        if selectable is None:
            continue
        if event == EPOLLIN:
            work = selectable.doRead
        elif event == EPOLLOUT:
            work = selectable.doWrite
        else:
            legacy_log.callWithLogger(selectable, reactor._doReadOrWrite, selectable, fd, event)
            continue
        try:
            why = work()
        except Exception as error:
            _log.failure("a connection broke")
            why = error
        if why:
            _disconnect(reactor, selectable, why, event == EPOLLIN)
    if due:
        _write(reactor, due)


class Writer(Protocol):
    """Has something to write."""

    def write_now(self) -> Any:
        """The turn is over.  :return: why the connection has ended, or None."""


def write_at_end(reactor: object, writer: Writer) -> bool:
    """Have something written when this turn of the reactor ends.

    :return: False: this reactor's turns have no such end.
    """
    due: list[Writer] | None = getattr(reactor, _DUE, None)
    if due is None:
        return False
    due.append(writer)
    return True


def _call_from_thread(
    reactor: Any, call: Callable[..., object], *args: object, **kwargs: object
) -> None:
    """In place of ``ReactorBase.callFromThread``; from signal handlers too."""
    reactor.threadCallQueue.append((call, args, kwargs))
    if getattr(reactor, _ASLEEP, True):
        reactor.wakeUp()


def _write(reactor: Any, due: list[Writer]) -> None:
    # What becomes due in here is next turn's, so that who always has more to say holds up nobody.
    now = due.copy()
    due.clear()
    for connection in now:
        try:
            why = connection.write_now()
        except Exception as error:
            _log.failure("a connection broke")
            why = error
        if why:
            _disconnect(reactor, connection, why, False)


def _disconnect(reactor: Any, selectable: Any, why: Any, is_read: bool) -> None:
    try:
        reactor._disconnectSelectable(selectable, why, is_read)
    except Exception:
        _log.failure("a broken connection could not be closed")
