"""The one file that knows everybody: makes the parts of a service from its settings.

A :class:`House` is made once; what the configuration decides lies in its parts and is replaced by
:meth:`House.configure` when it is read again.  Nothing is opened, bound or started here: that is
:mod:`.tap`'s order of things.
"""

from __future__ import annotations

import os
import pickle
import random
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from . import __version__, deliverer, from_settings, multiplying, outbound
from .child import spawner
from .clerk import Clerk
from .config.bounce_rules import classifier
from .config.model import Settings
from .entrance import Entrance
from .event_feed import EventFeed, journal_of
from .gateway import Gateway
from .injection import Injection, MailroomDesk
from .listeners import Listeners
from .message_log import MessageLog
from .model.address import Address
from .model.envelope import Message
from .model.hop import HopKind, NextHop
from .model.identity import Identity
from .model.ids import IdSource, SessionIds
from .model.outcome import Fate, Outcome
from .model.ports import Transport
from .model.tally import Tally
from .observe.events import EventLines
from .observe.health import Health, HealthLimits, ReactorLag
from .observe.metrics import Metrics
from .overview import Overview
from .policy.door import SmtpDoor
from .policy.limits import Limits
from .policy.pass_through import PassThrough
from .policy.submission import SubmissionDoor
from .policy.tarpit import Tarpit
from .register import Register
from .relay_server import RelayServer, attester
from .returns import Returns
from .routing.networks import OwnListeners
from .routing.table import RoutingTable, agent_hop
from .schedule.bounces import Bounces
from .schedule.desk import Desk
from .schedule.dispatch import Dispatcher
from .schedule.enrolment import Enrolment
from .schedule.intake import Acceptance
from .schedule.ledger import Ledger
from .schedule.overdue import Overdue
from .schedule.prepare import Preparer
from .schedule.scheduler import Scheduler
from .schedule.settings import SchedulerSettings
from .spool import ring_line
from .spool.disk import DiskSpool
from .state.database import Database
from .state.requests import StoredRequests
from .strangers import Strangers
from .transport.addresses import is_local
from .transport.agent import Attest, stream_to_agent
from .transport.delegate import Delegate
from .transport.dns import DnsResolver
from .transport.link import Setup
from .ways_out import WaysOut

_T = TypeVar("_T")

SANDBOX: Final = NextHop("sandbox", "")

TO_RETURNS: Final = NextHop("returns", "")
"""The way of what other servers report."""


class House:
    """The parts of one service.

    :param reactor: Twisted's.
    :ivar settings: those in force.
    :ivar attest: our word about a message's sender, for agents; None to give none.
    """

    attest: Attest | None = None

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self.settings = settings
        self.reactor = reactor
        self.started_at = time.time()
        self._rng = random.Random(secrets.randbits(64))
        self.signers = outbound.signer_crew(reactor)

        self.tally = Tally()
        self.metrics = Metrics(self.tally, __version__)
        self.journal = journal_of(settings, self._count_journal_error)
        self.feed = EventFeed(reactor, settings, self._in_thread)
        self.events = EventLines(time.time, self.journal.append, self.metrics.counts)
        self.lag = ReactorLag(reactor)

        self.spool = DiskSpool(
            settings.state_dir / "spool",
            from_settings.spool(settings),
            now=time.time,
            in_reactor=reactor.callFromThread,
            in_thread=self._in_thread,
            journal=self.journal,
            committed=self.metrics.committed,
            line=ring_line.maker(reactor),
        )
        self.database = Database(
            settings.state_dir, in_reactor=reactor.callFromThread, monotonic=time.monotonic
        )
        self.health = Health(
            settings.state_dir / "spool" / "healthz",
            HealthLimits(settings.limits.free_octets, settings.limits.free_inodes),
            clock=reactor,
            in_thread=self._in_thread,
            stats=self.spool.stats,
            lag=self.lag,
        )

        new_id = IdSource(time.time, secrets.token_bytes)
        new_session_id = SessionIds(secrets.token_bytes)
        self.register = Register(
            reactor,
            self.database,
            self.events,
            self.tally,
            settings,
            changed=lambda: self.listeners.renew(),
            new_session_id=new_session_id,
        )
        self.entrance = Entrance(settings)
        self.relay_server = RelayServer(
            reactor,
            settings,
            database=self.database,
            events=self.events,
            begin=self.entrance.stream,
            usage=self.register.usage,
            tally=self.tally,
            in_thread=self._in_thread,
            new_message_id=lambda: f"<{new_id()}@{self.settings.hostname}>",
            new_session_id=new_session_id,
        )
        self.events.settled = self._settled
        self.agents, self.sessions = self.relay_server.agents, self.relay_server.sessions
        self.sessions.arrived = self.agent_changed
        self.sessions.left = self.agent_changed

        self.own = OwnListeners(is_local)
        self.delegate = self._new_delegate(settings)
        self.resolver = DnsResolver(
            reactor,
            [(one.host, one.port) for one in settings.dns.nameservers] or None,
            trust_ad=settings.dns.trust_ad,
            rng=random.SystemRandom(),
        )
        self.strangers = Strangers(
            reactor,
            settings,
            resolver=self.resolver,
            events=self.events,
            counts=self.metrics.counts,
            accept=self.entrance.smtp,
            chance=self._rng.random,
        )
        self.bounces = Bounces(
            self.events,
            hostname=settings.hostname,
            now=time.time,
            first_s=self._first_s,
            reporter=lambda message, index: from_settings.reporter(
                self.settings, lambda: self.gateway.passports, message, index
            ),
        )
        self.ledger = Ledger(self.spool, self.events, self.bounces)
        self.transports: dict[HopKind, Transport] = {}
        self.enrolment = Enrolment(self.spool, now=time.time)
        self.dispatcher = Dispatcher(
            self.spool,
            self.events,
            self.ledger,
            self.enrolment,
            transports=self.transports,
            locate=lambda hop: self._locator(hop),
            now=time.time,
            rng=self._rng,
        )
        overdue = Overdue(self.ledger)
        self.scheduler = Scheduler(
            clock=reactor,
            now=time.time,
            rng=self._rng,
            locate=lambda hop: self._locator(hop),
            start=self.dispatcher.start,
            unlocated=self.dispatcher.unlocated,
            expired=overdue.expired,
            late=overdue.late,
            settings=SchedulerSettings(),
        )
        self.enrolment.scheduler = self.dispatcher.scheduler = self.scheduler
        self.ledger.accepted = self.enrolment.accepted
        self.requests = StoredRequests(
            self.database,
            clock=reactor,
            now=time.time,
            is_queued=lambda id: bool(self.scheduler.entries(id)),
            kept_s=from_settings.request_memory_s(settings),
        )
        self.acceptance = Acceptance(
            self.spool,
            self.events,
            requests=self.requests,
            now=time.time,
            new_id=new_id,
            first_s=self._first_s,
            accepted=self.enrolment.accepted,
            took=self.metrics.accept_s.observe,
        )
        self.entrance.acceptance = self.acceptance
        self.pass_through = PassThrough(
            self.agents,
            self.sessions,
            self.events,
            from_settings.pass_through(settings),
            clock=reactor,
            now=time.time,
            new_id=new_id,
            stream=lambda message, index, size: stream_to_agent(message, index, size, self.attest),
            told=lambda content, done: self.ledger.passed_on(content, done, self.journal.append),
        )
        self.entrance.pass_through = self.pass_through
        self.limits = Limits(
            from_settings.limits(settings),
            time.monotonic,
            trusts=lambda peer: self.door.relaying.may_relay(peer),
            tell=lambda peer, reply: self.events.rejected(peer, None, "", reply),
        )
        self.tarpit = Tarpit(settings.limits.unknown_recipients, reactor, self.tally)
        self.door = SmtpDoor(
            from_settings.relaying(settings, self.agents, self.sessions),
            self.limits,
            self.events,
            self.entrance.smtp,
            tarpit=self.tarpit,
        )
        self.submission_door = SubmissionDoor(
            from_settings.relaying(settings, self.agents, self.sessions),
            self.limits,
            self.events,
            self.entrance.smtp,
            caller=self.register.callers.of,
            logins=self.register.logins,
            sending=self.register.sending,
            now=time.time,
            new_message_id=lambda: f"<{new_id()}@{self.settings.hostname}>",
        )
        self.door.pass_through = self.submission_door.pass_through = self.pass_through
        self.returns = Returns(
            settings,
            database=self.database,
            events=self.events,
            spool=self.spool,
            is_own=lambda address: self.door.relaying.is_own(address),
            has_mailbox=lambda address: self.door.relaying.has_mailbox(address),
            forward=self.entrance.report,
        )
        self.door.is_return_path = self.returns.is_return_path
        self.dispatcher.signs = self.returns.signed
        self.dispatcher.withholding = self.returns.suppression
        self.submission_door.is_suppressed = self.returns.suppression.refusal
        self.injection = Injection(
            MailroomDesk(
                self.door.relaying,
                self.register.sending,
                self.acceptance,
                self.requests,
                self.events,
                is_suppressed=self.returns.suppression.refusal,
                now=time.time,
                new_id=new_id,
                hostname=lambda: self.settings.hostname,
            ),
            self.register.credentials,
            settings=lambda: self.settings,
            unsubscribe_url=self.returns.unsubscribe_url,
            now=time.time,
            pause=lambda: deferLater(reactor, 0),
            new_session_id=new_session_id,
            is_configured=lambda: self.settings.route != "tunnel" or bool(self.gateway.status()),
            look=lambda id: self.message_log.look(id),
            place_s=self.register.place_s,
            clock=reactor,
        )
        self.gateway = Gateway(
            reactor,
            settings,
            relaying=from_settings.relaying(settings, self.agents, self.sessions),
            events=self.events,
            acceptance=self.acceptance,
            changed=self.scheduler.changed,
            rerouted=self._rerouted,
            renew=self.configure,
            in_thread=self._in_thread,
            rng=self._rng,
            new_session_id=new_session_id,
        )
        self.listeners = Listeners(
            reactor,
            settings,
            door=self.door,
            submission_door=self.submission_door,
            takes_cram_md5=lambda: self.register.takes_cram_md5,
            serve=self._serve_endpoints,
            gate=self.register.credentials.gate,
            upgrade=lambda: self.relay_server.upgrade,
            metrics=self.metrics,
            health=self.health,
            tally=self.tally,
            in_thread=self._in_thread,
            new_session_id=new_session_id,
        )
        self.desk = Desk(
            self.spool,
            self.ledger,
            time.time,
            self.scheduler,
            arriving=lambda: self.acceptance.arriving,
        )
        self.message_log = MessageLog(
            settings.state_dir,
            self.feed.journal,
            self.journal.flush,
            self.desk,
            self._in_thread,
            reactor,
        )
        self.ways = WaysOut(
            reactor=reactor,
            own=self.own,
            resolver=self.resolver,
            tally=self.tally,
            delegate=self.delegate,
            relay_server=self.relay_server,
            gateway=self.gateway,
            returns=self.returns,
            in_thread=self._in_thread,
            rng=self._rng,
            started_at=self.started_at,
        )
        self.overview = Overview(
            settings=lambda: self.settings,
            started_at=self.started_at,
            scheduler=self.scheduler,
            spool=self.spool,
            tally=self.tally,
            gateway=self.gateway,
            relay_server=self.relay_server,
            feed=self.feed,
        )
        self.configure(settings)
        self.metrics.watch(
            depth=self.overview.depth,
            stats=self.spool.stats,
            lag_s=self.lag.worst_s,
            certificates=self.listeners.certificates.ends,
            tunnel=self.relay_server.figures,
            webhooks=self.feed.webhooks.figures,
        )

    # --- what a reload replaces ------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Put settings into force, listeners and folders aside; all of them or, where a file
        cannot be used, none.

        :raise ValueError, OSError: a key or certificate cannot be used.
        """
        keys = self.listeners.read_keys(settings)
        attest = attester(settings)
        signers = outbound.signers(settings)
        transports = self.ways.transports(settings, attest)
        by_name = self.ways.smarthost()
        locator = self.ways.locator(settings, by_name)
        relaying = from_settings.relaying(settings, self.agents, self.sessions)
        self.feed.check(settings)
        classify = classifier(settings.bounces.rules)
        self.relay_server.configure(settings)
        is_rerouted = self.gateway.configure(settings, relaying, by_name)

        self.feed.configure(settings)
        is_rerouted = is_rerouted or from_settings.routes(settings) != from_settings.routes(
            self.settings
        )
        self.settings = settings
        self.returns.configure(settings, classify)
        self.attest = attest
        self._locator = locator
        self._route(settings)
        self.enrolment.retry = from_settings.retry(settings)
        self.enrolment.hold_s = from_settings.hold_s(settings)
        self.pass_through.settings = from_settings.pass_through(settings)
        self.scheduler.back_off_by(from_settings.site_backoff(settings))
        self.dispatcher.preparer = Preparer(signers, self.signers)
        if self.delegate is not None and self.transports:
            self.delegate.set_up(self.delegated())
        self.entrance.configure(settings, relaying)
        self.door.relaying = self.submission_door.relaying = relaying
        self.relay_server.door.relaying = self.injection.mailroom.relaying = relaying
        self.register.configure(settings)
        self.strangers.configure(settings)
        self.door.guard = self.strangers.guard
        self.door.begin_stranger = self.strangers.begin
        self.tarpit.free = settings.limits.unknown_recipients
        self.limits.settings = from_settings.limits(settings)
        self.journal.keep(settings.journal.keep_octets, settings.journal.keep_s)
        self.requests.kept_s = from_settings.request_memory_s(settings)
        self.listeners.configure(settings, keys)
        old = list(self.transports.values())
        self.transports.update(transports)
        for transport in old:
            transport.close()
        self.metrics.relay = self.gateway.figures if settings.mode == "relay" else None
        if old and is_rerouted:
            self._retry_all()

    def _route(self, settings: Settings) -> None:
        table = RoutingTable(
            *from_settings.routes(settings), self.agents, from_settings.shared(settings)
        )

        def hop(address: Address, message: Message) -> NextHop:
            if message.origin.is_sandbox:
                return SANDBOX
            if self.returns.takes(address):
                return TO_RETURNS
            found = table.hop(address)
            return found if found.kind != "tunnel" else self.gateway.hop(message)

        self.dispatcher.route_by(hop)

    def _rerouted(self) -> None:
        """Mail goes through other sessions than before."""
        self._route(self.settings)
        self._retry_all()

    def _retry_all(self) -> None:
        """What waits for a way that is no more finds the new one at once."""
        for id in self.spool.ids():
            self.scheduler.retry_released(id)

    def _settled(
        self,
        message: Message,
        fate: Fate | Literal["deferred"],
        outcome: Outcome | None,
        next_attempt_at: float | None,
    ) -> None:
        """A recipient's fate, or a failed attempt, is about to be written down."""
        if message.origin.hold:
            self.register.settled(message, fate)
        self.relay_server.door.settled(message, fate, outcome, next_attempt_at)
        self.injection.mailroom.settled(message, fate)

    # --- agents ----------------------------------------------------------------------------------

    def agent_changed(self, identity: Identity) -> None:
        """An agent has come, or gone: its mail goes to the session that is there now, or waits."""
        self.scheduler.changed(agent_hop(identity))

    # --- the delivery process --------------------------------------------------------------------

    def _new_delegate(self, settings: Settings) -> Delegate | None:
        where = settings.workers.delivery
        if where == "main" or (where == "auto" and len(os.sched_getaffinity(0)) < 2):
            return None
        spawn = spawner(self.reactor, deliverer.__name__, multiplying.environment(os.environ))
        return Delegate(spawn, clock=self.reactor, tally=self.tally)

    def delegated(self) -> Setup:
        """What the delivery process works by."""
        return Setup(pickle.dumps(self.settings), self.own.listeners())

    # --- HTTP ------------------------------------------------------------------------------------

    def _serve_endpoints(self, app: Klein) -> None:
        """Put on an app what programs ask for."""
        authenticate = self.register.credentials
        self.injection.add(app)
        self.message_log.add(app, authenticate)
        self.feed.add(app, authenticate)
        self.returns.serve_links(app)
        self.returns.serve_list(app, authenticate, self.injection.desk.read_limits)

    # --- commands --------------------------------------------------------------------------------

    def clerk(self, reload: Callable[[], Any]) -> Clerk:
        """Carries out the commands of ``control.sock``."""
        return Clerk(
            self.desk,
            self.overview.status,
            reload,
            pause=lambda: deferLater(self.reactor, 0),
            told=lambda: self._in_thread(self.journal.flush),
        )

    # --- threads ---------------------------------------------------------------------------------

    def _in_thread(self, work: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), work)

    # --- figures ---------------------------------------------------------------------------------

    def _first_s(self) -> float:
        return self.settings.retry.first_s

    def _count_journal_error(self) -> None:
        self.metrics.journal_errors += 1
