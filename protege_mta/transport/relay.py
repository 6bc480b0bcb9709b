"""Mail to other hosts over SMTP, or to a local server over LMTP: the :class:`~..model.ports.Transport`
of the kinds ``mx``, ``smarthost`` and ``lmtp`` (RFC 5321, 5.1; RFC 2033).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle
from typing import Final, cast
from typing import Protocol as Interface

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector, IReactorTCP, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.hop import Host
from ..model.outcome import Contact, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt, HopAbilities, Prepared
from ..model.reply import TABLE, Reply
from ..model.tally import Tally
from ..wire.client import UNMET, our_reply, unmet
from ..wire.opening import Opening
from ..wire.transaction import Transaction, judged
from . import fast
from .client_settings import ClientSettings
from .pool import Pool
from .smtp_client import Connection
from .tls_client import ClientTls

UNIX: Final = "unix:"
"""Begins an address that is the path of a socket."""

STRICT: Final = " REQUIRETLS"
"""Ends the keys of connections that were verified for mail that requires TLS."""


class Network(Interface):
    """The part of a reactor that makes connections."""

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector: ...

    def connectUNIX(self, address: str, factory: ClientFactory, timeout: float = 30) -> object: ...


@attrs.frozen
class Target:
    """One address of one host.

    :ivar is_clear: TLS has failed there a moment ago, and is not asked for again.
    """

    host: Host
    address: str
    is_clear: bool = False

    @property
    def contact(self) -> Contact:
        return Contact(self.host.name, "" if self.address.startswith(UNIX) else self.address)


class SmtpTransport:
    """Delivers over SMTP or LMTP, on connections that it keeps for a while.

    Host addresses that begin with ``unix:`` are paths of sockets.

    :param network: the reactor.
    :param is_prohibited: whether an address and port may not be connected to.
    """

    log = Logger()

    def __init__(
        self,
        network: Network,
        settings: ClientSettings,
        *,
        clock: IReactorTime,
        tally: Tally,
        is_prohibited: Callable[[str, int], bool],
    ) -> None:
        self.settings = settings
        self.tally = tally
        self.is_prohibited = is_prohibited
        self.pool = Pool(clock, tally, idle_s=settings.idle_s, messages=settings.messages)
        self._network = network
        self._tls = ClientTls(
            is_verifying=settings.is_verifying and settings.tls in ("starttls", "implicit"),
            ca_file=settings.ca_file,
        )
        sources = [(text, ipaddress.ip_address(text).version) for text in settings.source_addresses]
        # For mail that requires TLS (RFC 8689), whatever is enough for the rest.
        self._strict_tls = (
            self._tls
            if self._tls.is_verifying
            else ClientTls(is_verifying=True, ca_file=settings.ca_file)
        )
        self._sources = {
            version: cycle([text for text, of in sources if of == version])
            for version in {of for _, of in sources}
        }
        self._underway = 0
        self._is_closing = False
        self._waiting: list[Deferred[None]] = []

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        """See :meth:`..model.ports.Transport.deliver`.  The content stays the caller's to close."""
        self._underway += 1
        delivery = _Delivery(self, attempt)
        if self._is_closing:
            delivery.fail(
                TransientFailure(Scope.MESSAGE, our_reply("4.3.2", "we are shutting down"))
            )
        else:
            delivery.start()
        return delivery.done

    def close(self) -> Deferred[None]:
        """See :meth:`..model.ports.Transport.close`."""
        self._is_closing = True
        self.pool.close(self._check_closed)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._check_closed()
        return done

    def ended(self, connection: Connection | None) -> None:
        """A delivery is over, and does not need its connection any more."""
        self._underway -= 1
        if connection is not None:
            self.pool.release(connection)
        if self._is_closing:
            self._check_closed()

    def _check_closed(self) -> None:
        if not self._underway and not len(self.pool):
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)

    def targets(self, attempt: Attempt) -> list[Target]:
        """Every address of every host, in the order to try."""
        return [Target(host, each) for host in attempt.site.hosts for each in host.addresses]

    def unmet(self, attempt: Attempt) -> str:
        """Why mail that requires TLS cannot go this way, as far as one knows before a connection
        (RFC 8689, 4.2.1); empty where it may."""
        settings, site = self.settings, attempt.site
        if settings.protocol == "lmtp":
            is_near = all(_is_near(one) for host in site.hosts for one in host.addresses)
            return "" if is_near else "LMTP to another machine goes in clear"
        if settings.tls == "none":
            return "the next hop is spoken to without TLS"
        if site.kind == "mx" and not site.is_authentic:
            return "DNS does not prove which hosts are the domain's"
        return ""

    def dial(self, delivery: _Delivery, target: Target) -> Reply | None:
        """Begin to connect; what became of it is for :class:`_Delivery`.

        :return: why not even that could be done.
        """
        settings, address = self.settings, target.address
        if address.startswith(UNIX):
            factory = _Dialer(self, delivery, target, is_loopback=True)
            self._network.connectUNIX(
                address.removeprefix(UNIX), factory, timeout=settings.connect_s
            )
            return None
        ip = ipaddress.ip_address(address)
        bind = None
        if self._sources:
            source = self._sources.get(ip.version)
            if source is None:
                return our_reply("4.4.1", f"no source address for IPv{ip.version}")
            bind = (next(source), 0)
        factory = _Dialer(self, delivery, target, is_loopback=ip.is_loopback)
        fast.connect(
            cast(IReactorTCP, self._network),
            address,
            target.host.port,
            factory,
            settings.connect_s,
            bind,
        )
        return None

    def connection(self, delivery: _Delivery, target: Target, *, is_loopback: bool) -> Connection:
        """The protocol for a channel that has just come about."""
        settings, is_strict = self.settings, delivery.is_strict
        tls = "none" if target.is_clear or target.address.startswith(UNIX) else settings.tls
        if is_strict and tls == "opportunistic":
            tls = "starttls"
        client_tls = self._strict_tls if is_strict else self._tls
        opening = Opening(
            settings.ehlo_name,
            tls="required" if tls == "starttls" else "none" if tls == "implicit" else tls,
            requires_tls=is_strict,
            credentials=settings.credentials,
            is_lmtp=settings.protocol == "lmtp",
            may_authenticate_in_clear=is_loopback,
        )
        return Connection(
            self.pool,
            delivery.key,
            target.contact,
            delivery,
            opening,
            settings.reply_s,
            None if tls == "none" else client_tls.creator(target.host.name),
            is_implicit=tls == "implicit",
            is_verified=client_tls.is_verifying,
        )


class _Dialer(ClientFactory):
    """Carries a target through Twisted's connecting."""

    noisy = False

    def __init__(
        self, transport: SmtpTransport, delivery: _Delivery, target: Target, *, is_loopback: bool
    ) -> None:
        self._transport = transport
        self._delivery = delivery
        self._target = target
        self._is_loopback = is_loopback

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        try:
            return self._transport.connection(
                self._delivery, self._target, is_loopback=self._is_loopback
            )
        except Exception:
            self._transport.log.failure("no TLS context for {host}", host=self._target.host.name)
            self._delivery.unreached(self._target, TABLE["local-error"])
            return None

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        text = f"no answer from {self._target.address}: {type(reason.value).__name__}"
        self._delivery.unreached(self._target, our_reply("4.4.1", text))


class _Delivery:
    """One attempt on its way from connection to connection.

    :ivar key: which connections it may use.
    :ivar is_strict: whether they need verified TLS and REQUIRETLS (RFC 8689); others go on without.

    Each step is begun by the one before it and none waits here, so that the ordinary case costs no
    Deferred but :attr:`done`.
    """

    __slots__ = (
        "_attempt",
        "_failure",
        "_is_reused",
        "_outcomes",
        "_pending",
        "_prepared",
        "_prepared_for",
        "_prohibited",
        "_scope",
        "_target",
        "_targets",
        "_transport",
        "_unmet",
        "done",
        "is_strict",
        "key",
    )

    def __init__(self, transport: SmtpTransport, attempt: Attempt) -> None:
        self.done: Deferred[Sequence[tuple[int, Outcome]]] = Deferred()
        self.key = attempt.site.key
        self.is_strict = False
        self._transport = transport
        self._attempt = attempt
        self._pending: Sequence[int] = attempt.recipients
        self._outcomes: list[tuple[int, Outcome]] = []
        self._targets: Iterator[Target] | None = None
        self._target: Target | None = None
        self._prohibited: list[str] = []
        self._failure: tuple[Reply, Contact] | None = None
        self._scope = Scope.SITE  # of the failure
        self._unmet: tuple[Reply, Contact] | None = None
        self._is_reused = False
        self._prepared: Prepared | None = None
        self._prepared_for: HopAbilities | None = None

    def start(self) -> None:
        if self._attempt.content.message.envelope.requires_tls:
            why = self._transport.unmet(self._attempt)
            if why:
                self.fail(PermanentFailure(Scope.MESSAGE, unmet(why)))
                return
            # Local mail servers are the end of the way: there is nothing more to require of them.
            if self._transport.settings.protocol == "smtp":
                self.is_strict = True
                self.key += STRICT
        connection = self._transport.pool.take(self.key)
        if connection is None:
            self._next_target()
        else:
            self._is_reused = True
            self.opened(connection)

    def fail(self, outcome: Outcome) -> None:
        """One outcome for whoever has none yet."""
        self._outcomes.extend((index, outcome) for index in self._pending)
        self._finish(None)

    # --- hosts ----------------------------------------------------------------------------------

    def _next_target(self) -> None:
        if self._targets is None:
            self._targets = iter(self._transport.targets(self._attempt))
        for target in self._targets:
            try:
                if self._is_begun(target):
                    return
            except Exception:
                self._transport.log.failure("cannot connect to {target}", target=target)
                self._failure = (TABLE["local-error"], target.contact)
        self._give_up()

    def _is_begun(self, target: Target) -> bool:
        address, port = target.address, target.host.port
        if not address.startswith(UNIX) and self._transport.is_prohibited(address, port):
            self._prohibited.append(address)
            return False
        refusal = self._transport.dial(self, target)
        if refusal is not None:
            self._failure = (refusal, target.contact)
            return False
        self._target = target
        return True

    def _give_up(self) -> None:
        if self._failure is not None:
            cause, contact = self._failure
            self.fail(TransientFailure(self._scope, cause, contact))
        elif self._unmet is not None:
            cause, contact = self._unmet
            self.fail(PermanentFailure(Scope.MESSAGE, cause, contact))
        elif self._prohibited:
            text = f"address is prohibited: {', '.join(self._prohibited[:5])}"
            if self._attempt.site.kind == "mx":
                self.fail(PermanentFailure(Scope.SITE, Reply(550, "5.4.4", (text,))))
            else:  # not the sender's fault but that of our configuration
                self.fail(TransientFailure(Scope.SITE, our_reply("4.4.4", text)))
        else:
            cause = our_reply("4.4.4", "no address to deliver to")
            self.fail(TransientFailure(Scope.SITE, cause))

    def unreached(self, target: Target, cause: Reply) -> None:
        self._transport.tally.connections_out_failed += 1
        self._failure = (cause, target.contact)
        if self.is_strict and cause is TABLE["local-error"]:  # there is no verifying such a name
            self._scope = Scope.MESSAGE
        self._next_target()

    def refused(self, connection: Connection, cause: Reply, *, is_tls: bool) -> None:
        target = self._target
        if is_tls:
            self._transport.tally.tls_failures_out += 1
            is_optional = self._transport.settings.tls == "opportunistic" and not self.is_strict
            if is_optional and target is not None:
                clear = attrs.evolve(target, is_clear=True)
                self._targets = chain([clear], self._targets or ())
        if cause.enhanced == UNMET and self.is_strict:
            self._unmet = (cause, connection.contact)
        else:
            self._failure = (cause, connection.contact)
            if self.is_strict:  # other mail may well get through
                self._scope = Scope.MESSAGE
        self._next_target()

    # --- transactions ---------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        hop = connection.abilities.hop
        if self._prepared is not None and self._prepared_for == hop:
            self._ready(self._prepared, connection)
            return
        self._prepared_for = hop
        try:
            answer = self._attempt.prepare(hop)
        except Exception:
            answer = self._unprepared(Failure())
        if isinstance(answer, Deferred):
            answer.addErrback(self._unprepared).addCallback(self._ready, connection)
        else:
            self._ready(answer, connection)

    def _ready(self, answer: Prepared | Reply, connection: Connection) -> None:
        if not isinstance(answer, Reply):
            self._prepared = answer
            try:
                self._send(connection, answer)
                return
            except Exception:
                self._transport.log.failure("delivery to {site} failed", site=self.key)
                connection.drop()
                answer = TABLE["local-error"]
        outcome = judged(answer, Scope.MESSAGE, connection.contact)
        self._outcomes.extend((index, outcome) for index in self._pending)
        self._finish(connection)

    def _unprepared(self, failure: Failure) -> Reply:
        self._transport.log.failure("a message cannot be prepared", failure=failure)
        return TABLE["local-error"]

    def _send(self, connection: Connection, prepared: Prepared) -> None:
        if not connection.is_open:  # lost while the message was being prepared
            self._broken(connection, our_reply("4.4.2", "connection lost"), is_silent=True)
            return
        content = self._attempt.content
        rest = content.size_octets - prepared.skip_octets
        transaction = Transaction(
            content.message.envelope,
            self._pending,
            connection.abilities,
            len(prepared.head) + (rest if prepared.body is None else len(prepared.body)),
            connection.contact,
            is_eight_bit=prepared.is_eight_bit,
            is_lmtp=self._transport.settings.protocol == "lmtp",
            needs_reset=connection.needs_reset,
        )
        first = transaction.begin()
        if isinstance(first, bytes):
            connection.run(self, transaction, first, prepared, content)
        else:
            self.ended(connection, transaction)

    def ended(self, connection: Connection, transaction: Transaction) -> None:
        self._outcomes.extend(transaction.outcomes)
        if transaction.unsettled:
            self._pending = transaction.unsettled
            cause = transaction.cause or TABLE["local-error"]
            self._broken(connection, cause, is_silent=not transaction.is_answered)
        elif transaction.left_over and connection.is_open:
            self._pending = [index for index, _ in transaction.left_over]
            self.opened(connection)
        else:
            self._outcomes.extend(
                (index, TransientFailure(Scope.RECIPIENT, reply, connection.contact))
                for index, reply in transaction.left_over
            )
            self._finish(connection)

    def _broken(self, connection: Connection, cause: Reply, *, is_silent: bool) -> None:
        """The host is lost to us before it took the message; there may be others."""
        if self._is_reused and is_silent:
            # It had died of boredom and we had not noticed.
            self._is_reused = False
        else:
            self._scope = Scope.HOST
            self._failure = (cause, connection.contact)
        self._next_target()

    def _finish(self, connection: Connection | None) -> None:
        self._transport.ended(connection)
        self.done.callback(self._outcomes)


def _is_near(address: str) -> bool:
    """Whether what goes there never leaves the machine."""
    return address.startswith(UNIX) or ipaddress.ip_address(address).is_loopback
