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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Address
from typing import Any, Final, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from . import __version__, deliverer, inbound_hooks, outbound
from .child import spawner
from .clerk import Clerk
from .config.domains import Domain, LmtpDomain, MaildirDomain, TunnelDomain, WebhookDomain
from .config.kinds import AnswerRange
from .config.model import (
    HttpListener,
    Policy,
    Settings,
    SmtpListener,
    SubmissionListener,
    Tls,
)
from .event_feed import EventFeed, journal_of
from .gateway import Gateway
from .http import health as http_health
from .http import listener as http_listener
from .http import metrics as http_metrics
from .injection import Injection, MailroomDesk
from .message import trace
from .message_log import MessageLog
from .model.address import NULL, Address, domain_of
from .model.domain import ascii_domain
from .model.envelope import Envelope, Message, Origin
from .model.hop import HopKind, NextHop
from .model.identity import Identity
from .model.ids import IdSource, QueueId
from .model.outcome import Fate, Outcome
from .model.ports import Agents, Arrival, Intake, Peer, Sessions, Transport
from .model.reply import TABLE, Reply
from .model.tally import Tally
from .observe.events import EventLines
from .observe.health import Health, HealthLimits, ReactorLag
from .observe.metrics import Depth, Metrics
from .policy.authentication.checks import SenderChecks
from .policy.authentication.organisation import organisation
from .policy.dns_lists import DnsList, DnsLists, refusal
from .policy.door import Begin, SmtpDoor
from .policy.greylist import Greylist, GreylistSettings
from .policy.guard import Guard
from .policy.limits import Limits, LimitSettings
from .policy.pass_through import PassThrough, PassThroughSettings
from .policy.relaying import AgentMailboxes, Mailboxes, Relaying
from .policy.submission import SubmissionDoor
from .policy.tarpit import Tarpit
from .policy.verified import Action, Verification
from .register import Register
from .relay_server import RelayServer, attester
from .routing.agents import AgentRouter
from .routing.lmtp import LmtpRouter
from .routing.mx import MxRouter
from .routing.networks import OwnListeners, Prohibited
from .routing.site import Located, Locator
from .routing.smarthost import SmarthostRouter
from .routing.table import RoutingTable, agent_hop
from .schedule.backoff import Backoff, RetrySchedule
from .schedule.bounces import Bounces
from .schedule.desk import Desk
from .schedule.dispatch import Dispatcher
from .schedule.intake import Acceptance
from .schedule.ledger import Ledger
from .schedule.prepare import Preparer
from .schedule.scheduler import Scheduler, SchedulerSettings
from .spool.disk import DiskSpool
from .spool.settings import SpoolSettings
from .state.database import Database
from .state.requests import StoredRequests
from .transport import certificates, self_signed
from .transport.addresses import has_global_ipv6, is_local
from .transport.agent import AgentTransport, Attest, stream_to_agent
from .transport.crew import Crew
from .transport.delegate import Delegate, DelegatedTransport
from .transport.dns import DnsResolver
from .transport.dns_system import HostsFile
from .transport.link import Setup
from .transport.maildir import MaildirTransport
from .transport.maildir import resolver as maildir_resolver
from .transport.proxied import ProxiedFactory
from .transport.sandbox import SandboxTransport
from .transport.smtp_server import SmtpServerFactory
from .transport.submit import Submission
from .transport.tls_server import KeyPair, ServerContext, ServerContexts, TlsFiles
from .transport.tunnel import TunnelTransport
from .transport.unix import Credentials as PeerCredentials
from .wire.settings import ServerSettings

_T = TypeVar("_T")

MECHANISMS: Final = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
"""Of SASL; what submission offers whatever accounts there are."""

SANDBOX: Final = NextHop("sandbox", "")

PROBE_S: Final = 30.0
"""How long a site that failed as a whole is left alone at first."""


class House:
    """The parts of one service.

    :param reactor: Twisted's.
    :param agents: left out, those of the relay server; likewise ``sessions``.
    :ivar settings: those in force.
    :ivar attest: our word about a message's sender, for agents; None to give none.
    """

    attest: Attest | None = None

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        agents: Agents | None = None,
        sessions: Sessions | None = None,
    ) -> None:
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
            spool_settings(settings),
            now=time.time,
            in_reactor=reactor.callFromThread,
            in_thread=self._in_thread,
            journal=self.journal,
            committed=self.metrics.committed,
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

        self.register = Register(
            reactor,
            self.database,
            self.events,
            self.tally,
            settings.login,
            changed=self.renew_server_settings,
            new_session_id=_session_ids(),
        )
        new_id = IdSource(time.time, secrets.token_bytes)
        self.relay_server = RelayServer(
            reactor,
            settings,
            database=self.database,
            events=self.events,
            begin=self._begin_stream,
            usage=self.register.usage,
            tally=self.tally,
            in_thread=self._in_thread,
            new_message_id=lambda: f"<{new_id()}@{self.settings.hostname}>",
            new_session_id=_session_ids(),
        )
        self.events.settled = self._settled
        self.agents: Agents = self.relay_server.agents if agents is None else agents
        self.sessions: Sessions = self.relay_server.sessions if sessions is None else sessions
        self.relay_server.sessions.arrived = self.agent_changed
        self.relay_server.sessions.left = self.agent_changed

        self.own = OwnListeners(is_local)
        self.delegate = self._new_delegate(settings)
        self.resolver = DnsResolver(
            reactor,
            [(one.host, one.port) for one in settings.dns.nameservers] or None,
            trust_ad=settings.dns.trust_ad,
            rng=random.SystemRandom(),
        )
        self.checkers = Crew(2, reactor.callFromThread, "authentication")
        self.authenticator = SenderChecks(
            self.resolver,
            hostname=settings.hostname,
            clock=reactor,
            now=time.time,
            chance=self._rng.random,
            in_thread=self.checkers,
            organisation=organisation,
            counted=self.metrics.counts.authenticated,
            skipped=self.metrics.counts.authentication_skipped,
        )
        self.bounces = Bounces(
            self.events, hostname=settings.hostname, now=time.time, first_s=self._first_s
        )
        self.ledger = Ledger(self.spool, self.events, self.bounces)
        self.transports: dict[HopKind, Transport] = {}
        self.dispatcher = Dispatcher(
            self.spool,
            self.events,
            self.ledger,
            transports=self.transports,
            locate=lambda hop: self._locator(hop),
            now=time.time,
            rng=self._rng,
        )
        self.scheduler = Scheduler(
            clock=reactor,
            now=time.time,
            rng=self._rng,
            locate=lambda hop: self._locator(hop),
            start=self.dispatcher.start,
            unlocated=self.dispatcher.unlocated,
            expired=self.dispatcher.expired,
            late=self.dispatcher.late,
            settings=SchedulerSettings(),
        )
        self.dispatcher.scheduler = self.scheduler
        self.ledger.accepted = self.dispatcher.accepted
        self.requests = StoredRequests(
            self.database,
            clock=reactor,
            now=time.time,
            is_queued=lambda id: bool(self.scheduler.entries(id)),
            kept_s=settings.limits.request_memory_s,
        )
        self.acceptance = Acceptance(
            self.spool,
            self.events,
            requests=self.requests,
            now=time.time,
            new_id=new_id,
            first_s=self._first_s,
            accepted=self.dispatcher.accepted,
            took=self.metrics.accept_s.observe,
        )
        self.pass_through = PassThrough(
            self.agents,
            self.sessions,
            self.events,
            _pass_through_settings(settings),
            clock=reactor,
            now=time.time,
            new_id=new_id,
            stream=lambda message, index, size: stream_to_agent(message, index, size, self.attest),
            told=lambda content, done: self.ledger.passed_on(content, done, self.journal.append),
        )
        self.limits = Limits(
            _limit_settings(settings),
            time.monotonic,
            trusts=lambda peer: self.door.relaying.may_relay(peer),
            tell=lambda peer, reply: self.events.rejected(peer, None, "", reply),
        )
        self.tarpit = Tarpit(settings.limits.unknown_recipients, reactor, self.tally)
        self.greylist = Greylist(_greylist_settings(settings), time.monotonic)
        self.door = SmtpDoor(
            _relaying(settings, self.agents, self.sessions),
            self.limits,
            self.events,
            self._begin,
            tarpit=self.tarpit,
        )
        self.submission_door = SubmissionDoor(
            _relaying(settings, self.agents, self.sessions),
            self.limits,
            self.events,
            self._begin,
            accounts=self.register.accounts,
            logins=self.register.logins,
            usage=self.register.usage,
            now=time.time,
            new_message_id=lambda: f"<{new_id()}@{self.settings.hostname}>",
        )
        self.door.pass_through = self.submission_door.pass_through = self.pass_through
        self.injection = Injection(
            MailroomDesk(
                self.door.relaying,
                self.register.sending,
                self.acceptance,
                self.requests,
                self.events,
                now=time.time,
                new_id=new_id,
                hostname=lambda: self.settings.hostname,
            ),
            self.register.credentials,
            settings=lambda: self.settings,
            now=time.time,
            pause=lambda: deferLater(reactor, 0),
            new_session_id=_session_ids(),
            is_configured=lambda: self.settings.route != "tunnel" or bool(self.gateway.status()),
            clock=reactor,
        )
        self.gateway = Gateway(
            reactor,
            settings,
            relaying=_relaying(settings, self.agents, self.sessions),
            events=self.events,
            acceptance=self.acceptance,
            changed=self.scheduler.changed,
            rerouted=self._rerouted,
            in_thread=self._in_thread,
            rng=self._rng,
            new_session_id=_session_ids(),
        )
        self.smtp: dict[str, SmtpServerFactory] = {}
        self.http: dict[str, http_listener.HttpFactory] = {}
        self._https: set[str] = set()  # those of them that are under TLS
        self.certificates = certificates.Certificates(
            self._put_tls, clock=reactor, now=time.time, in_thread=self._in_thread
        )
        self.desk = Desk(
            self.spool,
            self.ledger,
            time.time,
            self.scheduler,
            arriving=lambda: self.acceptance.arriving,
        )
        self.message_log = MessageLog(
            settings.state_dir, self.feed.journal, self.desk, self._in_thread, reactor
        )
        self.configure(settings)
        self.metrics.watch(
            depth=self._depth,
            stats=self.spool.stats,
            lag_s=self.lag.worst_s,
            certificates=self.certificates.ends,
            tunnel=self.relay_server.figures,
            webhooks=self.feed.webhooks.figures,
        )

    # --- what a reload replaces ------------------------------------------------------------------

    def configure(self, settings: Settings) -> None:
        """Put settings into force, listeners and folders aside; all of them or, where a file
        cannot be used, none.

        :raise ValueError, OSError: a key or certificate cannot be used.
        """
        tls_source = self._tls_source(settings)
        tls = certificates.load(tls_source) if tls_source is not None else None
        attest = attester(settings)
        signers = outbound.signers(settings)
        transports = self._transports(settings, attest)
        by_name = self._smarthost_router()
        locator = self._new_locator(settings, by_name)
        relaying = _relaying(settings, self.agents, self.sessions)
        self.feed.configure(settings)
        self.relay_server.configure(settings)
        is_rerouted = self.gateway.configure(settings, relaying, by_name)

        is_rerouted = is_rerouted or _routes(settings) != _routes(self.settings)
        self.settings = settings
        self.attest = attest
        self._locator = locator
        self._route(settings)
        self.dispatcher.retry = _retry(settings)
        self.dispatcher.hold_s = _hold_s(settings)
        self.pass_through.settings = _pass_through_settings(settings)
        self.scheduler.back_off_by(_site_backoff(settings))
        self.dispatcher.preparer = Preparer(signers, self.signers)
        if self.delegate is not None and self.transports:
            self.delegate.set_up(self.delegated())
        self.door.relaying = self.submission_door.relaying = relaying
        self.relay_server.door.relaying = self.injection.mailroom.relaying = relaying
        self.register.configure(settings.login)
        self.door.guard = self._guard(settings.policy)
        self.authenticator.hostname = settings.hostname
        self.door.begin_stranger = self._begin_stranger(settings)
        self.tarpit.free = settings.limits.unknown_recipients
        self.greylist.settings = _greylist_settings(settings)
        self.limits.settings = _limit_settings(settings)
        self.journal.keep(settings.journal.keep_octets, settings.journal.keep_s)
        self.requests.kept_s = settings.limits.request_memory_s
        self.certificates.use(tls_source, tls)
        self.renew_server_settings()
        self._renew_http()
        self._hiding = _hiding(settings)
        old = list(self.transports.values())
        self.transports.update(transports)
        for transport in old:
            transport.close()
        self.metrics.relay = self.gateway.figures if settings.mode == "relay" else None
        if old and is_rerouted:
            self._retry_all()

    def _route(self, settings: Settings) -> None:
        table = RoutingTable(*_routes(settings), self.agents, _shared(settings))

        def hop(address: Address, message: Message) -> NextHop:
            if message.origin.is_sandbox:
                return SANDBOX
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

    def _transports(self, settings: Settings, attest: Attest | None) -> dict[HopKind, Transport]:
        found: dict[HopKind, Transport] = {
            kind: DelegatedTransport(self.delegate, one) if self.delegate is not None else one
            for kind, one in outbound.transports(
                self.reactor, settings, own=self.own, tally=self.tally
            ).items()
        }
        found["maildir"] = MaildirTransport(
            maildir_resolver(_maildirs(settings), _mailboxes(settings)),
            in_thread=self._in_thread,
            hostname=settings.hostname,
            started_at=self.started_at,
        )
        found["sandbox"] = SandboxTransport()
        found["agent"] = AgentTransport(self.sessions, attest)
        found["tunnel"] = TunnelTransport(self.gateway.lines)
        found["webhook"] = inbound_hooks.transport(self.reactor, settings, self._in_thread)
        return found

    def _smarthost_router(self) -> SmarthostRouter:
        return SmarthostRouter(
            self.resolver,
            HostsFile(self.reactor.seconds).addresses,
            self.own,
            rng=self._rng,
            prefers_ipv6=has_global_ipv6,
        )

    def _new_locator(
        self, settings: Settings, smarthost: SmarthostRouter
    ) -> Callable[[NextHop], Deferred[Located]]:
        mx = MxRouter(
            self.resolver,
            own_names=(settings.hostname,),
            own=self.own,
            prohibited=Prohibited(map(str, settings.outbound.prohibited_networks)),
            port=settings.outbound.mx_port,
            rng=self._rng,
            prefers_ipv6=has_global_ipv6,
        )
        return Locator(
            {
                "mx": mx,
                "smarthost": smarthost,
                "lmtp": LmtpRouter(_lmtp_servers(settings), smarthost),
                "agent": AgentRouter(self.agents, self.sessions),
                "tunnel": self.gateway.router,
            }
        )

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
        return Delegate(
            spawner(self.reactor, deliverer.__name__), clock=self.reactor, tally=self.tally
        )

    def delegated(self) -> Setup:
        """What the delivery process works by."""
        return Setup(pickle.dumps(self.settings), self.own.listeners())

    # --- doors -----------------------------------------------------------------------------------

    def smtp_factory(self, listener: SmtpListener | SubmissionListener) -> IProtocolFactory:
        """Serves one listener that speaks SMTP."""
        is_submission = isinstance(listener, SubmissionListener)
        factory = self.smtp[listener.name] = SmtpServerFactory(
            self.submission_door if is_submission else self.door,
            self.server_settings(is_submission=is_submission),
            listener=listener.name,
            tally=self.tally,
            clock=self.reactor,
            now=time.time,
            new_session_id=_session_ids(),
            new_nonce=lambda: secrets.token_urlsafe(18),
            tls=self._tls_for(is_submission=is_submission),
            is_tls_first=listener.kind == "submissions",
            greet_delay_s=0.0
            if isinstance(listener, SubmissionListener)
            else listener.greet_delay_s,
        )
        return self._behind_proxies(listener, factory)

    def _behind_proxies(
        self, listener: SmtpListener | SubmissionListener, factory: IProtocolFactory
    ) -> IProtocolFactory:
        """The factory itself, where no proxies are named."""
        if not listener.proxy_protocol_from:
            return factory
        return ProxiedFactory(
            factory, listener.proxy_protocol_from, tally=self.tally, clock=self.reactor
        )

    def _guard(self, policy: Policy) -> Guard | None:
        """What is asked of strangers, or None where that is nothing."""
        lists = _dns_lists(policy)
        has_greylist = policy.greylist.enabled
        if not (lists or has_greylist or policy.helo != "off"):
            return None
        return Guard(
            self.resolver,
            self.reactor,
            helo=policy.helo,
            lists=DnsLists(lists, self.metrics.counts.dns_list_answered) if lists else None,
            greylist=self.greylist if has_greylist else None,
        )

    def _begin_stranger(self, settings: Settings) -> Begin:
        """Opens the way for mail of clients that may not relay."""
        if not settings.policy.authenticate:
            return self._begin
        return Verification(
            self.authenticator,
            self.events,
            self._begin,
            hostname=settings.hostname,
            actions=_actions(settings),
        ).begin

    def server_settings(self, *, is_submission: bool) -> ServerSettings:
        """What the sessions of one kind of listener go by."""
        settings = self.settings
        return ServerSettings(
            settings.hostname,
            message_octets=settings.limits.message_octets,
            recipients=settings.limits.recipients,
            mechanisms=self.mechanisms() if is_submission else (),
            is_submission=is_submission,
            future_release_s=settings.limits.future_release_s,
        )

    def mechanisms(self) -> tuple[str, ...]:
        """What AUTH takes from our users, the best first; CRAM-MD5 only where some account has the
        secret that it needs."""
        return (*MECHANISMS, "CRAM-MD5") if self.register.takes_cram_md5 else MECHANISMS

    def renew_server_settings(self) -> None:
        """Have new connections go by what is in force now."""
        for factory in self.smtp.values():
            factory.settings = self.server_settings(is_submission=factory.settings.is_submission)

    def http_site(self, listener: HttpListener) -> IProtocolFactory:
        """Serves one listener of kind ``http``."""
        app = http_listener.new_app()
        http_metrics.add(app, self.metrics)
        http_health.add(app, self.health)
        self.injection.add(app)
        self.message_log.add(app, self.register.credentials)
        limits = http_listener.HttpLimits(body_octets=self.settings.api.body_octets)
        factory = http_listener.site(app, clock=self.reactor, limits=limits)
        self.http[listener.name] = factory
        if listener.tls:
            self._https.add(listener.name)
            factory.tls = self._tls_for(is_submission=False)
        self._renew_http()
        return factory

    def _renew_http(self) -> None:
        """Have new connections go by what is in force now."""
        for listener in self.settings.listeners:
            factory = self.http.get(listener.name)
            if factory is not None and isinstance(listener, HttpListener):
                factory.configure(
                    trusted_proxies=listener.trusted_proxies,
                    trusted_networks=listener.relay_hosts,
                    upgrade=self.relay_server.upgrade,
                    gate=self.register.credentials.gate,
                )

    def clerk(self, reload: Callable[[], Any]) -> Clerk:
        """Carries out the commands of ``control.sock``."""
        return Clerk(self.desk, self.status, reload, pause=lambda: deferLater(self.reactor, 0))

    def _begin(self, peer: Peer, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        recipients = envelope.recipients
        helo, address = peer.helo, peer.address
        if peer.listener in self._hiding:
            helo, address = self.settings.hostname, ""

        def received(id: QueueId, at: float) -> bytes:
            return trace.received(
                hostname=self.settings.hostname,
                id=id,
                at=at,
                protocol=trace.protocol(
                    is_esmtp=peer.is_esmtp,
                    is_encrypted=peer.tls is not None,
                    is_authenticated=bool(peer.identity),
                    is_smtputf8=envelope.is_smtputf8,
                ),
                helo=helo,
                peer_address=address,
                tls=peer.tls,
                recipient=recipients[0].address if len(recipients) == 1 else None,
            )

        return self._open(peer, envelope, origin, received)

    def _begin_stream(self, peer: Peer, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        """The same for a message of an agent."""
        return self._open(
            peer,
            envelope,
            origin,
            lambda id, at: trace.received(
                hostname=self.settings.hostname,
                id=id,
                at=at,
                protocol=trace.TUNNEL,
                peer_address=peer.address,
                recipient=envelope.recipients[0].address,
            ),
        )

    def _open(
        self,
        peer: Peer | None,
        envelope: Envelope,
        origin: Origin,
        trace: Callable[[QueueId, float], bytes],
    ) -> Arrival | Reply:
        """Every door's way in: into the queue, or through to agents whose mail is not kept."""
        way = self.door.relaying.way(envelope)
        if origin.is_sandbox:
            way = "queue"
        elif origin.hold and way == "through":
            return TABLE["cannot-wait"]
        match way:
            case "queue":
                return self.acceptance.begin(envelope, origin, trace)
            case "through":
                return self.pass_through.begin(peer, envelope, origin, trace)
            case "both":
                return TABLE["comes-by-itself"]

    def submission(self, who: PeerCredentials, given: Submission) -> Intake | Reply:
        """Opens the way for a message of one of the machine's own users, who may write to
        anybody."""
        origin = Origin("sendmail", identity=f"uid {who.uid}", may_sign=True)
        hostname = self.settings.hostname
        return self._open(
            None,
            given.envelope,
            origin,
            lambda id, at: trace.received(hostname=hostname, id=id, at=at, protocol=""),
        )

    # --- TLS -------------------------------------------------------------------------------------

    def _tls_source(self, settings: Settings) -> certificates.Source | None:
        """Where the listeners' certificates come from; None for no TLS."""
        if settings.tls is not None:
            files = _tls_files(settings.tls)
            return lambda: files
        # A reload closes no listener, and those for submission and HTTPS cannot do without.
        is_served = self._https or any(one.settings.is_submission for one in self.smtp.values())
        if not settings.is_self_signed and not is_served:
            return None
        names = [settings.hostname]
        if settings.source is None:  # the embedded default, which serves this machine alone
            names += ["localhost", "127.0.0.1"]
        return partial(_self_signed, settings, names)

    def _put_tls(self, contexts: ServerContexts | None) -> None:
        self.tls = contexts
        for factory in self.smtp.values():
            factory.tls = self._tls_for(is_submission=factory.settings.is_submission)
        for name in self._https:
            self.http[name].tls = self._tls_for(is_submission=False)

    def _tls_for(self, *, is_submission: bool) -> ServerContext | None:
        if self.tls is None:
            return None
        return self.tls.submission if is_submission else self.tls.public

    # --- threads ---------------------------------------------------------------------------------

    def _in_thread(self, work: Callable[[], _T]) -> Deferred[_T]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), work)

    # --- figures ---------------------------------------------------------------------------------

    def _first_s(self) -> float:
        return self.settings.retry.first_s

    def _count_journal_error(self) -> None:
        self.metrics.journal_errors += 1

    def _depth(self) -> Depth:
        depth = self.scheduler.depth()
        entries = {
            "scheduled": depth.scheduled,
            "active": depth.active,
            "deferred": depth.deferred,
            "held": depth.held,
        }
        return Depth(entries, self._age_s(depth.oldest_arrived_at))

    def _age_s(self, arrived_at: float) -> float:
        return time.time() - arrived_at if arrived_at else 0.0

    def status(self) -> dict[str, Any]:
        """The one row of ``status``."""
        depth, stats = self.scheduler.depth(), self.spool.stats()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "hostname": self.settings.hostname,
            "mode": self.settings.mode,
            "uptime_s": time.time() - self.started_at,
            "configuration": str(self.settings.source or ""),
            "queue": {
                "messages": stats.messages,
                **self._depth().entries,
                "oldest_age_s": self._age_s(depth.oldest_arrived_at),
                "sites": depth.sites,
                "paused_sites": depth.paused_sites,
            },
            "spool": {
                "content_octets": stats.content_octets,
                "disk_octets": stats.disk_octets,
                "free_octets": stats.free_octets,
                "segments": stats.segments,
                "corrupt": stats.corrupt,
                "is_failed": stats.is_failed,
            },
            **({"relay": self.gateway.status()} if self.settings.mode == "relay" else {}),
            "connections": {
                "in": self.tally.connections_in_open,
                "out": self.tally.connections_out_open,
            },
            "tunnel": self.relay_server.status(),
            "webhooks": self.feed.status(),
        }


# --- settings to parts ---------------------------------------------------------------------------


def _domains(settings: Settings) -> dict[str, Domain]:
    """Own domains by their A-label names, and the host's own, for postmaster's mail."""
    domains = {ascii_domain(name): domain for name, domain in settings.domains.items()}
    own = MaildirDomain(maildir=_own_maildir(settings), recipients=())
    domains.setdefault(ascii_domain(settings.hostname), own)
    return domains


def _own_maildir(settings: Settings) -> str:
    """Where mail for postmaster goes that the configuration has no place for."""
    return str(settings.state_dir / "mail" / "{domain}" / "{local_part}")


def _maildirs(settings: Settings) -> dict[str, str]:
    """Where Maildirs are, by domain.  An LMTP domain has none, a tunnel domain one for postmaster,
    if that is no agent."""
    found = {}
    for name, domain in _domains(settings).items():
        if isinstance(domain, MaildirDomain):
            found[name] = domain.maildir
        elif isinstance(domain, TunnelDomain):
            found[name] = _own_maildir(settings)
    return found


def _hold_s(settings: Settings) -> Callable[[Address], float]:
    """How long mail waits for the agent that an address is."""
    held = {
        name: domain.tunnel.hold_s
        for name, domain in _domains(settings).items()
        if isinstance(domain, TunnelDomain)
    }
    otherwise = settings.retry.max_age_s
    return lambda address: held.get(ascii_domain(domain_of(address)), otherwise)


def _pass_through_settings(settings: Settings) -> PassThroughSettings:
    limits = settings.limits
    return PassThroughSettings(
        room_octets=limits.pass_through_octets, message_octets=limits.message_octets
    )


def _mailboxes(settings: Settings) -> dict[tuple[str, str], str]:
    """Maildirs that are elsewhere, by domain and local-part."""
    return {
        (name, local_part): path
        for name, domain in _domains(settings).items()
        if isinstance(domain, MaildirDomain)
        for local_part, path in domain.mailboxes.items()
    }


def _shared(settings: Settings) -> dict[str, frozenset[str]]:
    """Domains that have mailboxes elsewhere too, and those that are here; RFC 5321, 4.5.1, wants
    a postmaster here."""
    return {
        name: frozenset(("postmaster", *map(str.lower, domain.recipients)))
        for name, domain in _domains(settings).items()
        if isinstance(domain, MaildirDomain | LmtpDomain | WebhookDomain)
        if domain.shared and "*" not in domain.recipients
    }


def _actions(settings: Settings) -> dict[str, Action]:
    """What becomes of mail that fails DMARC, by own domain."""
    return {name: domain.authentication for name, domain in _domains(settings).items()}


def _relaying(settings: Settings, agents: Agents, sessions: Sessions) -> Relaying:
    def mailboxes(domain: Domain) -> Mailboxes | AgentMailboxes:
        if isinstance(domain, TunnelDomain):
            return AgentMailboxes(agents, sessions, domain.tunnel.store)
        return Mailboxes(frozenset(map(str.lower, domain.recipients)), domain.shared)

    return Relaying(
        domains={name: mailboxes(domain) for name, domain in _domains(settings).items()},
        relay_hosts={
            listener.name: listener.relay_hosts
            for listener in settings.listeners
            if isinstance(listener, SmtpListener | SubmissionListener)
        },
        postmaster=settings.postmaster or NULL,
    )


def _routes(
    settings: Settings,
) -> tuple[dict[str, Literal["maildir", "lmtp", "tunnel", "webhook"]], NextHop]:
    """What is delivered here, and the way out for the rest."""
    outbound = NextHop("mx", "")
    if settings.route == "smarthost":
        host = settings.outbound.smarthost
        assert host is not None  # the configuration was checked
        name = f"[{host.host}]" if ":" in host.host else host.host
        outbound = NextHop("smarthost", f"{name}:{host.port}")
    if settings.route == "tunnel":
        outbound = NextHop("tunnel", "")
    return {name: domain.deliver for name, domain in _domains(settings).items()}, outbound


def _lmtp_servers(settings: Settings) -> dict[str, str]:
    return {
        name: str(domain.lmtp)
        for name, domain in _domains(settings).items()
        if isinstance(domain, LmtpDomain)
    }


def _site_backoff(settings: Settings) -> Backoff:
    """One probe costs little, so that a site is tried again sooner than a message, and never later
    than the configuration lets a message wait."""
    retry = settings.retry
    return Backoff(
        first_s=min(PROBE_S, retry.first_s),
        max_interval_s=retry.max_interval_s,
        jitter=retry.jitter,
    )


def _retry(settings: Settings) -> RetrySchedule:
    retry = settings.retry
    return RetrySchedule(
        first_s=retry.first_s,
        factor=retry.factor,
        max_interval_s=retry.max_interval_s,
        jitter=retry.jitter,
        max_age_s=retry.max_age_s,
        bounce_max_age_s=retry.bounce_max_age_s,
        delay_warning_s=retry.delay_warning_s,
    )


def _limit_settings(settings: Settings) -> LimitSettings:
    limits = settings.limits
    return LimitSettings(
        connections=limits.connections,
        connections_per_ip=limits.connections_per_ip,
        messages_per_ip_per_minute=limits.messages_per_ip_per_minute,
        connections_per_ip_per_minute=limits.connections_per_ip_per_minute,
        recipients_per_ip_per_minute=limits.recipients_per_ip_per_minute,
        offences_per_ip=limits.offences_per_ip,
        shut_out_s=limits.shut_out_s,
    )


def _dns_lists(policy: Policy) -> list[DnsList]:
    return [
        *(DnsList(one.zone, _ranges(one.answers)) for one in policy.allowlist),
        *(
            DnsList(one.zone, _ranges(one.answers), refusal(one.zone, one.action))
            for one in policy.dnsbl
        ),
    ]


def _ranges(answers: Sequence[AnswerRange]) -> list[tuple[IPv4Address, IPv4Address]]:
    return [(one.low, one.high) for one in answers]


def _greylist_settings(settings: Settings) -> GreylistSettings:
    greylist = settings.policy.greylist
    return GreylistSettings(
        delay_s=greylist.delay_s,
        retry_s=greylist.retry_s,
        keep_s=greylist.keep_s,
        allow_after=greylist.allow_after,
    )


def _hiding(settings: Settings) -> frozenset[str]:
    """The listeners whose clients are nobody else's business."""
    return frozenset(
        listener.name
        for listener in settings.listeners
        if isinstance(listener, SubmissionListener) and listener.hide_client
    )


def _tls_files(tls: Tls) -> TlsFiles:
    pairs = [(tls.certificate, tls.private_key)]
    pairs += [(one.certificate, one.private_key) for one in tls.certificates]
    return TlsFiles(tuple(KeyPair(*pair) for pair in pairs), tls.min_version, tls.client_ca_file)


def _self_signed(settings: Settings, names: Sequence[str]) -> TlsFiles:
    """Files of our own, where the configuration names none."""
    now = datetime.fromtimestamp(time.time(), UTC)
    return TlsFiles((self_signed.kept(settings.self_signed_folder, names, now),))


def spool_settings(settings: Settings) -> SpoolSettings:
    """The spool's floors."""
    return SpoolSettings(
        free_octets=settings.limits.free_octets, free_inodes=settings.limits.free_inodes
    )


def _session_ids() -> Callable[[], str]:
    """Names for connections in the log, unlike those of the last start."""
    boot, count = secrets.token_hex(3), 0

    def next_id() -> str:
        nonlocal count
        count += 1
        return f"{boot}-{count}"

    return next_id
