"""The Twisted shell around the outbound machines: one connection to one SMTP or LMTP server.

It owns the channel.  What is said is :mod:`..wire.opening` and :mod:`..wire.transaction`; whom to
call and what becomes of a message is :mod:`.relay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, cast
from typing import Protocol as Interface

from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IPullProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..model.outcome import Contact, TlsFacts
from ..model.ports import Content, Prepared
from ..model.reply import TABLE, Reply
from ..wire.abilities import Abilities
from ..wire.client import Awaited, name_of, our_reply, unmet
from ..wire.dotstuff import Stuffer
from ..wire.opening import Opened, Opening
from ..wire.replies import ReplyParser
from ..wire.transaction import END, WAIT, Transaction
from .pool import Pool
from .sweep import NEVER
from .tls_client import facts_of, fault_of, is_distrust

WHOLE_OCTETS: Final = 256 * 1024
"""Content up to this size is sent in one write; above, block by block."""

BLOCK_OCTETS: Final = 64 * 1024

LOST: Final = our_reply("4.4.2", "connection lost")


class Channel(Interface):
    """The part of a Twisted transport that a client uses."""

    disconnecting: bool

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def startTLS(self, contextFactory: IOpenSSLClientConnectionCreator) -> object: ...
    def getHandle(self) -> object: ...


class Owner(Interface):
    """Who uses a connection at present; told of one end of each thing it began."""

    def opened(self, connection: Connection) -> None:
        """It is ready for a transaction."""

    def refused(self, connection: Connection, cause: Reply, *, is_tls: bool) -> None:
        """It never became ready.  :param is_tls: whether the TLS handshake failed."""

    def ended(self, connection: Connection, transaction: Transaction) -> None: ...


@implementer(IHandshakeListener)
class Connection(Protocol):
    """One channel, from its greeting to its end.

    :param key: what it may be used for again.
    :param contact: whom it leads to.
    :param tls: what to shake hands with; None where there will be no TLS.
    :param is_implicit: whether TLS comes before the greeting.
    :ivar messages: transactions it has carried.
    :ivar deadline: see :class:`~.sweep.Expiring`; it moves only when a reply is complete, so that
        dribbled octets buy no time.
    """

    log = Logger()

    def __init__(
        self,
        pool: Pool,
        key: str,
        contact: Contact,
        owner: Owner,
        opening: Opening,
        reply_s: dict[Awaited, float],
        tls: IOpenSSLClientConnectionCreator | None,
        *,
        is_implicit: bool = False,
        is_verified: bool = False,
    ) -> None:
        self.key = key
        self.contact = contact
        self.messages = 0
        self.deadline = NEVER
        self.is_open = False
        self.needs_reset = False
        self._pool = pool
        self._replies_out = pool.tally.replies_out
        self._owner: Owner | None = owner
        self._opening: Opening | None = opening
        self._abilities = opening.abilities
        self._transaction: Transaction | None = None
        self._prepared: Prepared | None = None
        self._content: Content | None = None
        self._pump: _Pump | None = None
        self._reply_s = reply_s
        self._tls = tls
        self._is_implicit = is_implicit
        self._is_verified = is_verified
        self._is_shaking = False
        self._parser = ReplyParser()

    # --- for the owner --------------------------------------------------------------------------

    @property
    def abilities(self) -> Abilities:
        return self._abilities

    def run(
        self,
        owner: Owner,
        transaction: Transaction,
        first: bytes,
        prepared: Prepared,
        content: Content,
    ) -> None:
        """Carry out a transaction whose first octets are ``first``; the owner hears of its end."""
        self._owner = owner
        self._transaction = transaction
        self._prepared = prepared
        self._content = content
        self.messages += 1
        self._channel.write(first)
        self._wait(transaction.awaited)

    def quit(self) -> None:
        """Say goodbye, and wait a little for the answer (RFC 5321, 4.1.1.10)."""
        if not self.is_open:
            return
        self._leave()
        self._channel.write(b"QUIT\r\n")
        self._wait(Awaited.QUIT)

    def drop(self) -> None:
        """Hang up without a word."""
        if self.is_open:
            self._leave()
            self._channel.loseConnection()
            self._wait(Awaited.QUIT)

    # --- for Twisted ----------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self._channel = cast(Channel, self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.is_open = True
        self._pool.opened(self)
        if self._is_implicit:
            self._start_tls()
        else:
            self._wait(Awaited.GREETING)

    def dataReceived(self, data: bytes) -> None:
        if not self.is_open:
            self._channel.loseConnection()  # the answer to QUIT, or what else it had to say
            return
        try:
            replies = self._parser.feed(data)
            if self._transaction is not None:
                self._converse(self._transaction, replies)
            elif self._opening is not None:
                self._open(self._opening, replies)
            else:
                self.drop()  # nobody asked; mostly 421, for having been idle too long
        except Exception:
            self.log.failure("outbound connection to {contact} failed", contact=self.contact)
            self._break(TABLE["local-error"])

    def handshakeCompleted(self) -> None:
        opening = self._opening
        if opening is None:
            return
        self._is_shaking = False
        self._pool.tally.tls_out += 1
        facts: TlsFacts = facts_of(self._channel.getHandle(), is_verified=self._is_verified)
        self.contact = Contact(self.contact.host, self.contact.peer_address, facts)
        line = opening.secured()
        if line:
            self._channel.write(line)
        self._wait(opening.awaited)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._pool.lost(self)
        self.deadline = NEVER
        if self._is_shaking:
            opening, fault = self._opening, fault_of(reason)
            if opening is not None and opening.requires_tls and is_distrust(reason):
                self._break(unmet(f"the certificate is not to be trusted: {fault}"))
            else:
                self._break(our_reply("4.7.5", f"TLS handshake failed: {fault}"))
        else:
            self._break(LOST)

    # --- replies --------------------------------------------------------------------------------

    # What follows in the same octets a reply that makes us speak was said before we did: it answers
    # nothing that we asked.  After STARTTLS such octets were sent in clear, by whoever could
    # (RFC 3207, 6; CVE-2011-0411).

    def _open(self, opening: Opening, replies: Sequence[Reply]) -> None:
        left = len(replies)
        for reply in replies:
            left -= 1
            self._replies_out[reply.code // 100] += 1
            answer = opening.reply(reply)
            if answer is Opened.REFUSED:
                self._refuse(opening, reply)
                return
            if left or self._parser.is_midway:
                self._break(self._out_of_turn(reply))
                return
            if isinstance(answer, bytes):
                self._channel.write(answer)
                self._wait(opening.awaited)
            elif answer is Opened.START_TLS:
                self._start_tls()
            else:
                self._ready(opening)
        self._check_fault()

    def _converse(self, transaction: Transaction, replies: Sequence[Reply]) -> None:
        left = len(replies)
        counts = self._replies_out
        for reply in replies:
            left -= 1
            counts[reply.code // 100] += 1
            step = transaction.reply(reply)
            if step is WAIT:
                continue
            is_ahead = left > 0 or self._parser.is_midway
            if step is END:
                self._end(transaction, is_ahead=is_ahead)
                return
            if is_ahead:
                self._break(self._out_of_turn(reply))
                return
            if isinstance(step, bytes):
                self._channel.write(step)
            elif not self._send_content(transaction):
                return
        if replies:
            self._wait(transaction.awaited)
        self._check_fault()

    def _check_fault(self) -> None:
        fault = self._parser.fault
        if fault is not None:
            self._break(our_reply("4.5.0", f"the server does not speak SMTP: {fault.reason}"))

    def _out_of_turn(self, reply: Reply) -> Reply:
        return our_reply("4.5.0", f"the server spoke out of turn after {reply.code}")

    def _ready(self, opening: Opening) -> None:
        owner, self._owner, self._opening = self._owner, None, None
        self._abilities = opening.abilities
        self.deadline = NEVER
        if owner is not None:
            owner.opened(self)

    def _refuse(self, opening: Opening, reply: Reply) -> None:
        owner, cause = self._owner, opening.cause or reply
        if opening.is_auth_fault:
            self.log.warn(
                "{host} does not let us in: {cause}", host=self.contact.host, cause=str(cause)
            )
        if cause.code == 421:
            self.drop()
        else:
            self.quit()
        if owner is not None:
            owner.refused(self, cause, is_tls=False)

    def _start_tls(self) -> None:
        if self._tls is None:
            raise RuntimeError("STARTTLS without a TLS context")
        self._is_shaking = True
        self._wait(Awaited.TLS)
        self._channel.startTLS(self._tls)

    # --- content --------------------------------------------------------------------------------

    def _send_content(self, transaction: Transaction) -> bool:
        """:return: whether there is still a transaction."""
        prepared, content = self._prepared, self._content
        if prepared is None or content is None:
            raise RuntimeError("a transaction without content")
        if transaction.size_octets > WHOLE_OCTETS:
            self._pump = _Pump(self, _blocks(prepared, content, transaction.size_octets))
            self._channel.registerProducer(self._pump, False)
            return self._transaction is not None
        try:
            octets = _whole(prepared, content, transaction.size_octets)
        except Exception:
            self.content_failed()
            return False
        stuffer = Stuffer()
        self._channel.write(stuffer.feed(octets) + stuffer.finish())
        transaction.content_sent()
        return True

    def block(self, octets: bytes, *, is_last: bool) -> None:
        """The pump's next octets."""
        transaction = self._transaction
        if transaction is None:
            return
        self._channel.write(octets)
        if is_last:
            self._pump = None
            self._channel.unregisterProducer()
            transaction.content_sent()
        self._wait(transaction.awaited)

    def content_failed(self) -> None:
        """The content cannot be read: the dot must never be sent."""
        transaction = self._transaction
        self.log.failure("content for {host} cannot be read", host=self.contact.host)
        if transaction is not None:
            transaction.content_failed(TABLE["local-error"])
            self._end(transaction, is_ahead=True)

    # --- ends -----------------------------------------------------------------------------------

    def _wait(self, awaited: Awaited) -> None:
        self.deadline = self._pool.sweep.after(self._reply_s[awaited])

    def expired(self) -> None:
        """The deadline has passed."""
        if not self.is_open:  # QUIT, or a TLS goodbye, without an answer
            self.deadline = NEVER
            self._channel.abortConnection()
        elif self._transaction is not None:
            self._break(_timed_out(self._transaction.awaited))
        elif self._opening is not None:
            awaited = Awaited.TLS if self._is_shaking else self._opening.awaited
            self._break(_timed_out(awaited))
        else:
            self.quit()

    def _end(self, transaction: Transaction, *, is_ahead: bool) -> None:
        owner, self._owner = self._owner, None
        self._transaction = self._prepared = self._content = None
        self.deadline = NEVER
        self.needs_reset = transaction.needs_reset
        if transaction.cause is not None or is_ahead:
            self.drop()
        if owner is not None:
            owner.ended(self, transaction)

    def _break(self, cause: Reply) -> None:
        """The channel is of no more use; tell the owner what that comes to."""
        owner, opening, transaction = self._owner, self._opening, self._transaction
        is_tls = self._is_shaking
        self.drop()
        if transaction is not None and owner is not None:
            transaction.broken(cause)
            owner.ended(self, transaction)
        elif opening is not None and owner is not None:
            owner.refused(self, cause, is_tls=is_tls)

    def _leave(self) -> None:
        self.is_open = False
        self._is_shaking = False
        self._owner = self._opening = self._transaction = None
        self._prepared = self._content = None
        if self._pump is not None:
            self._pump = None
            self._channel.unregisterProducer()
        self._pool.forget(self)


@implementer(IPullProducer)
class _Pump:
    """Big content, block by block, as fast as the channel takes it."""

    def __init__(self, connection: Connection, blocks: Iterator[bytes]) -> None:
        self._connection = connection
        self._blocks = blocks
        self._stuffer = Stuffer()

    def resumeProducing(self) -> None:
        try:
            octets = next(self._blocks, b"")
        except Exception:
            self._connection.content_failed()
            return
        if octets:
            self._connection.block(self._stuffer.feed(octets), is_last=False)
        else:
            self._connection.block(self._stuffer.finish(), is_last=True)

    def stopProducing(self) -> None:
        """The channel is lost, as the connection hears by itself."""


class _ShortContent(Exception):
    """Content ended before its size: a cut message must never be taken for a whole one."""


def _whole(prepared: Prepared, content: Content, size_octets: int) -> bytes:
    """What is to be sent, before dot-stuffing.  :raise _ShortContent:"""
    head, rest = prepared.head, prepared.body
    if rest is None:
        rest = content.read(prepared.skip_octets, size_octets - len(head))
    octets = head + rest if head else rest
    if len(octets) != size_octets:
        raise _ShortContent(f"{len(octets)} octets of {size_octets}")
    return octets


def _blocks(prepared: Prepared, content: Content, size_octets: int) -> Iterator[bytes]:
    """The same in pieces, none of them empty."""
    head = prepared.head
    if head:
        yield head
    if prepared.body is not None:
        for start in range(0, len(prepared.body), BLOCK_OCTETS):
            yield prepared.body[start : start + BLOCK_OCTETS]
        return
    offset, end = prepared.skip_octets, prepared.skip_octets + size_octets - len(head)
    while offset < end:
        block = content.read(offset, min(BLOCK_OCTETS, end - offset))
        if not block:
            raise _ShortContent(f"{offset} octets of {end}")
        offset += len(block)
        yield block


def _timed_out(awaited: Awaited) -> Reply:
    return our_reply("4.4.2", f"timed out while waiting for {name_of(awaited)}")
