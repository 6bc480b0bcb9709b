"""A gateway: a machine behind NAT that has its mail, and sends its own, through a relay server.

:class:`Gateway` is made once, like the house that it is a part of, and has no sessions unless
``mode = "relay"``.  What the configuration decides is replaced by :meth:`Gateway.configure`;
sessions stay up through that, unless the relay or the trust in it has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import from_settings
from .config.gateway_json import with_personas
from .config.model import Settings
from .config.toml import Complaint
from .config.tunnel import Relay
from .message import trace
from .model.domain import ascii_domain
from .model.envelope import Envelope, Message, Origin
from .model.hop import NextHop
from .model.ids import QueueId
from .model.ports import Arrival, Events, InThread, Session
from .model.reply import Reply
from .model.stream import DeliveryState, Stream
from .model.verdicts import Result, Signal, Verdicts
from .observe.metrics import RelayFigures
from .policy.inbound_stream import Attested, InboundStreams, StreamRules
from .policy.relaying import Relaying
from .routing.smarthost import SmarthostRouter
from .routing.tunnel import TunnelRouter
from .schedule.intake import Acceptance
from .transport.control import Row
from .transport.tls_client import ClientTls
from .tunnel.client import Lines, LineStatus
from .tunnel.dial import Dialler, RelayEndpoint, host_and_port
from .tunnel.limits import TunnelLimits
from .tunnel.passports import PassportFiles, Passports
from .tunnel.socket_client import TunnelClient
from .wire.tunnel.attestation import verify

if TYPE_CHECKING:
    import random


LOOK_S: Final = 10.0
"""How often the folder of personas is looked at."""


@attrs.frozen
class _Found:
    """What a look at the files of agents has shown.

    :ivar passports: None where nobody knows.
    :ivar settings: with the mailboxes of a project's personas as they are now; the same object where
        nothing has changed.
    :ivar complaints: about personas.
    """

    passports: Passports | None
    settings: Settings
    complaints: tuple[str, ...]


def _looked(files: PassportFiles, settings: Settings) -> _Found:
    complaints: list[str] = []
    renewed = with_personas(
        settings,
        lambda path, place, text: complaints.append(str(Complaint(str(path), place, text))),
    )
    return _Found(files.read(), renewed, tuple(complaints))


@attrs.frozen
class _Way:
    """What sessions are made by."""

    url: str
    ca_file: str
    ping_s: float
    message_octets: int


def _way(relay: Relay, settings: Settings) -> _Way:
    ca_file = str(relay.ca_file or "")
    return _Way(relay.url, ca_file, relay.ping_s, settings.limits.message_octets)


class Gateway:
    """:param acceptance: the way into the spool.
    :param changed: told of a hop behind which a session has come or gone.
    :param rerouted: told that the ways of queued mail may be others.
    :param renew: puts settings into force everywhere, here too, or raises as :meth:`configure`.
    :ivar lines: the sessions.
    :ivar passports: the keys that are there.
    :ivar router: finds the sites of ``tunnel`` hops.
    :ivar streams: the way in.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        relaying: Relaying,
        events: Events,
        acceptance: Acceptance,
        changed: Callable[[NextHop], None],
        rerouted: Callable[[], None],
        renew: Callable[[Settings], None],
        in_thread: InThread,
        rng: random.Random,
        new_session_id: Callable[[], str],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._hostname = settings.hostname
        self._acceptance = acceptance
        self._rerouted = rerouted
        self._renew = renew
        self._told_of: tuple[str, ...] = ()
        self._in_thread = in_thread
        self.passports = Passports({})
        self._files = PassportFiles({}, None)
        self._trusted: dict[str, Ed25519PublicKey] = {}
        self._dialler: Dialler | None = None
        self._way: _Way | None = None
        self._relay = ("", 0)
        self._find: SmarthostRouter | None = None
        self.streams = InboundStreams(
            _rules(settings, relaying),
            events,
            self._begin,
            verify=self._verify,
            is_ours=lambda local_part: self.passports.has(local_part),
            new_session_id=new_session_id,
        )
        self.lines = Lines(
            receive=self.streams.receive,
            changed=lambda identity: changed(NextHop("tunnel", identity)),
            clock=reactor,
            now=time.time,
            rng=rng,
        )
        self.router = TunnelRouter(self.lines)
        self._is_started = False
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    # --- life ------------------------------------------------------------------------------------

    def configure(self, settings: Settings, relaying: Relaying, find: SmarthostRouter) -> bool:
        """Put settings into force.

        :param find: knows the addresses of hosts.
        :return: whether queued mail may have to go by other ways than before.
        :raise ValueError, OSError: a key that the configuration names cannot be used; nothing has
            changed then.
        """
        relay = settings.relay if settings.mode == "relay" else None
        trusted = {} if relay is None else _trusted(relay)
        files = from_settings.passport_files(settings)
        passports = files.read()
        if passports is None:  # the folder cannot be looked at
            passports = self.passports if files.is_like(self._files) else Passports({})
        is_new = passports != self.passports

        self._settings = settings
        self._hostname = settings.hostname
        self._trusted = trusted
        self._find = find
        self.streams.rules = _rules(settings, relaying)
        self._files = files
        self.passports = passports
        if relay is not None:
            self.lines.set_waits(relay.reconnect_base_s, relay.reconnect_max_s)
            self._go_by(relay, settings)
        if relay is not None and (is_new or not passports.by_identity):
            self._hint()
        if self._is_started:
            self.lines.use(passports)
        return is_new

    def start(self) -> None:
        """Have a session for every key, and go on looking for new ones."""
        self._is_started = True
        self.lines.use(self.passports)
        self._looking.start(LOOK_S, now=False).addErrback(self._not_looking)

    def stop(self) -> Deferred[Any]:
        """Hang up.  :return: once nothing is left."""
        if self._looking.running:
            self._looking.stop()
        self._is_started = False
        return self.lines.stop().addCallback(self._stopped)

    def _stopped(self, result: object) -> None:
        if self._dialler is not None:
            self._dialler.client.close()

    def _go_by(self, relay: Relay, settings: Settings) -> None:
        """What new sessions go by; the old ones end where it is another relay's."""
        way = _way(relay, settings)
        old, self._way = self._way, way
        client = self._dialler.client if self._dialler is not None else None
        if client is None or way != old:
            if client is not None:
                client.close()
            client = self._new_client(way)
        # Made anew even for the same way: the certificates that are trusted may be others.
        endpoint = self._endpoints(way)
        if self._dialler is None:
            self._dialler = self.lines.dial = Dialler(client, endpoint)
        else:
            self._dialler.client, self._dialler.new_endpoint = client, endpoint
        if old is not None and (old.url, old.ca_file) != (way.url, way.ca_file):
            self.log.info("another relay, {url}: sessions begin anew", url=way.url)
            self.lines.renew()

    def _new_client(self, way: _Way) -> TunnelClient:
        limits = TunnelLimits(
            message_octets=way.message_octets, ping_s=way.ping_s, idle_s=2 * way.ping_s
        )
        return TunnelClient(
            way.url,
            self.lines,
            limits=limits,
            clock=self._reactor,
            new_id=lambda: str(uuid4()),
            told=self._told,
        )

    def _endpoints(self, way: _Way) -> Callable[[], RelayEndpoint]:
        host, port = self._relay = host_and_port(way.url)
        if way.url.startswith("ws:") and not _is_near(host):
            self.log.warn(
                "the way to the relay {host} is not encrypted: whoever is on it reads the mail, and "
                "may pass for the relay",
                host=host,
            )
        creator = ClientTls(is_verifying=True, ca_file=way.ca_file).creator
        tls = creator if way.url.startswith("wss:") else None
        return lambda: RelayEndpoint(self._reactor, host, port, self._find_addresses, tls)

    def _find_addresses(self, host: str) -> Deferred[Sequence[str]]:
        return Deferred.fromCoroutine(self._addresses(host))

    async def _addresses(self, host: str) -> Sequence[str]:
        assert self._find is not None  # set before anything is started
        found = await self._find.addresses(host.lower())
        if not found.all():
            raise OSError(found.trouble or f"{host} has no address")
        return self._find.in_order(found)

    # --- keys ------------------------------------------------------------------------------------

    async def look(self) -> None:
        files, settings = self._files, self._settings
        try:
            seen = await self._in_thread(lambda: _looked(files, settings))
        except Exception:
            self.log.failure("cannot look for keys")
            return
        if settings is not self._settings or not self._is_started:
            return  # read again meanwhile
        for complaint in seen.complaints:
            if complaint not in self._told_of:
                self.log.error("{complaint}", complaint=complaint)
        self._told_of = seen.complaints
        if seen.settings is not settings:
            self._have(seen.settings)
        elif seen.passports is not None:
            self._use(seen.passports)

    def _have(self, settings: Settings) -> None:
        """Mailboxes before sessions: what comes through one has to find the other."""
        self.log.info("the personas of the project have changed")
        try:
            self._renew(settings)
        except (ValueError, OSError) as error:
            self.log.error("the configuration stays as it was: {error}", error=error)

    def _use(self, found: Passports) -> None:
        is_new = found != self.passports
        self.passports = found
        self.lines.use(found)
        if is_new:
            self._hint()
            self._rerouted()

    def _hint(self) -> None:
        """Say what will not work as it is."""
        if not self.passports.by_identity:
            self.log.warn(
                "no key of an agent is there, so that no mail comes or goes through the relay: "
                "[relay] personas or identity should lead to one"
            )
        domains = self.streams.rules.relaying.domains
        for passport in self.passports.by_identity.values():
            for address in passport.addresses:
                domain = ascii_domain(address.partition("@")[2])
                if domain and domain not in domains:
                    self.log.warn(
                        "persona {name} calls itself {address}, and mail for it is refused: there "
                        'is no table [domains."{domain}"]',
                        name=passport.name,
                        address=address,
                        domain=domain,
                    )

    def _not_looking(self, failure: Failure) -> None:
        self.log.failure("nobody looks for keys any more", failure=failure)

    # --- ways ------------------------------------------------------------------------------------

    def hop(self, message: Message) -> NextHop:
        """Out: through the session of whose mail it is; a report, of whose mail it is about."""
        reporter = message.origin.identity if message.origin.source == "internal" else ""
        if self.passports.has(reporter):
            return NextHop("tunnel", reporter)
        return NextHop("tunnel", self.passports.of(message.envelope.sender) or "")

    def _begin(self, session: Session, envelope: Envelope, origin: Origin) -> Arrival | Reply:
        (recipient,) = envelope.recipients
        dialler = self._dialler

        def received(id: QueueId, at: float) -> bytes:
            return trace.streamed(
                hostname=self._hostname,
                id=id,
                at=at,
                recipient=recipient.address,
                peer_address=session.peer_address,
                relay=self._relay[0],
                tls=None if dialler is None else dialler.tls(session.identity),
            )

        return self._acceptance.begin(envelope, origin, received)

    def _verify(self, stream: Stream) -> Attested:
        check, signals = verify(stream, self._trusted)
        verdicts = Verdicts(_result(signals.spf), _result(signals.dkim), _result(signals.dmarc))
        key_id = "" if stream.attestation is None else stream.attestation.key_id
        return Attested(check.value, verdicts, key_id)

    def _told(self, session: Session, state: DeliveryState) -> None:
        """What the relay says of mail that it has; the DSN of what failed comes by mail."""
        level = self.log.warn if state.state == "failed" else self.log.info
        id, _, recipient = state.request_id.partition(".")
        level(
            "at the relay: queue_id={queue_id} recipient={recipient} {state}: {code} {text}",
            queue_id=id,
            recipient=recipient,
            state=state.state,
            code=state.code,
            text=state.text,
        )

    # --- figures ---------------------------------------------------------------------------------

    def figures(self) -> RelayFigures:
        """For metrics."""
        states = [line.state for line in self.lines.status()]
        return RelayFigures(
            identities=len(states),
            sessions=states.count("connected"),
            logins=self.lines.losses.logins,
            losses={str(why): n for why, n in self.lines.losses.by_reason.items()},
            attestations={str(result): n for result, n in self.streams.seen.items()},
        )

    def status(self) -> list[Row]:
        """One row for each key."""
        return [_row(line) for line in self.lines.status()]


def _row(line: LineStatus) -> Row:
    return {
        "identity": line.identity,
        "name": line.name,
        "state": line.state,
        "connected_since": line.since,
        "is_reliable": line.is_reliable,
        "peer_address": line.peer_address,
        "next_attempt_at": line.next_at,
        "last_error": line.error,
    }


def _rules(settings: Settings, relaying: Relaying) -> StreamRules:
    relay = settings.relay
    return StreamRules(
        relaying,
        settings.hostname,
        settings.limits.message_octets,
        "accept" if relay is None else relay.unattested,
    )


def _trusted(relay: Relay) -> dict[str, Ed25519PublicKey]:
    """:raise ValueError, OSError:"""
    found = {}
    for one in relay.trusted:
        key = load_pem_public_key(one.public_key.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"{one.public_key} is a key of another kind than Ed25519")
        found[one.key_id] = key
    return found


def _is_near(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _result(signal: Signal) -> Result:
    return "" if signal == "unknown" else signal
