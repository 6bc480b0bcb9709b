"""What the parts go by, made of what the configuration says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, Final, Literal, TypeVar, cast

import attrs

from .config.domains import Domain, LmtpDomain, MaildirDomain, TunnelDomain, WebhookDomain
from .config.hosts import AnswerRange
from .config.listeners import SmtpListener, SubmissionListener, Tls
from .config.model import Settings
from .config.policy import Policy
from .model.address import NULL, Address, domain_of
from .model.domain import ascii_domain
from .model.envelope import Message
from .model.hop import NextHop
from .model.identity import Identity
from .model.ports import Agents, Sessions
from .policy.dns_lists import DnsList, refusal
from .policy.greylist import GreylistSettings
from .policy.guessing import LoginSettings
from .policy.limits import LimitSettings
from .policy.pass_through import PassThroughSettings
from .policy.relaying import AgentMailboxes, Mailboxes, Relaying
from .policy.verified import Action
from .routing.table import RoutingTable
from .schedule.backoff import Backoff, RetrySchedule
from .schedule.bounces import Reporter
from .spool.settings import SpoolSettings
from .transport.tls_server import KeyPair, TlsFiles
from .tunnel.passports import PassportFiles, Passports

_T = TypeVar("_T")

PROBE_S: Final = 30.0
"""How long a site that failed as a whole is left alone at first."""


def domains(settings: Settings) -> dict[str, Domain]:
    """Own domains by their A-label names, and the host's own, for postmaster's mail."""
    found = {ascii_domain(name): domain for name, domain in settings.domains.items()}
    own = MaildirDomain(maildir=own_maildir(settings), recipients=())
    found.setdefault(ascii_domain(settings.hostname), own)
    return found


def own_maildir(settings: Settings) -> str:
    """Where mail for postmaster goes that the configuration has no place for."""
    return str(settings.state_dir / "mail" / "{domain}" / "{local_part}")


def maildirs(settings: Settings) -> dict[str, str]:
    """Where Maildirs are, by domain.  An LMTP domain has none, a tunnel domain one for postmaster,
    if that is no agent."""
    found = {}
    for name, domain in domains(settings).items():
        if isinstance(domain, MaildirDomain):
            found[name] = domain.maildir
        elif isinstance(domain, TunnelDomain):
            found[name] = own_maildir(settings)
    return found


def request_memory_s(settings: Settings) -> float:
    """Streams and HTTP requests lie in one table."""
    return max(settings.limits.request_memory_s, settings.api.idempotency_s)


def hold_s(settings: Settings) -> Callable[[Address], float]:
    """How long mail waits for the agent that an address is."""
    held = {
        name: domain.tunnel.hold_s
        for name, domain in domains(settings).items()
        if isinstance(domain, TunnelDomain)
    }
    otherwise = settings.retry.max_age_s
    return lambda address: held.get(ascii_domain(domain_of(address)), otherwise)


def pass_through(settings: Settings) -> PassThroughSettings:
    limits = settings.limits
    return PassThroughSettings(
        room_octets=limits.pass_through_octets, message_octets=limits.message_octets
    )


def mailboxes(settings: Settings) -> dict[tuple[str, str], str]:
    """Maildirs that are elsewhere, by domain and local-part."""
    return {
        (name, local_part): path
        for name, domain in domains(settings).items()
        if isinstance(domain, MaildirDomain)
        for local_part, path in domain.mailboxes.items()
    }


def shared(settings: Settings) -> dict[str, frozenset[str]]:
    """Domains that have mailboxes elsewhere too, and those that are here; RFC 5321, 4.5.1, wants
    a postmaster here."""
    return {
        name: frozenset(("postmaster", *map(str.lower, domain.recipients)))
        for name, domain in domains(settings).items()
        if isinstance(domain, MaildirDomain | LmtpDomain | WebhookDomain)
        if domain.shared and "*" not in domain.recipients
    }


def actions(settings: Settings) -> dict[str, Action]:
    """What becomes of mail that fails DMARC, by own domain."""
    return {name: domain.authentication for name, domain in domains(settings).items()}


def relaying(settings: Settings, agents: Agents, sessions: Sessions) -> Relaying:
    def those_of(domain: Domain) -> Mailboxes | AgentMailboxes:
        if isinstance(domain, TunnelDomain):
            return AgentMailboxes(agents, sessions, domain.tunnel.store)
        return Mailboxes(frozenset(map(str.lower, domain.recipients)), domain.shared)

    return Relaying(
        domains={name: those_of(domain) for name, domain in domains(settings).items()},
        relay_hosts={
            listener.name: listener.relay_hosts
            for listener in settings.listeners
            if isinstance(listener, SmtpListener | SubmissionListener)
        },
        postmaster=settings.postmaster or NULL,
    )


def routes(
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
    return {name: domain.deliver for name, domain in domains(settings).items()}, outbound


def passport_files(settings: Settings) -> PassportFiles:
    """The keys that a gateway logs in with; none where it is none."""
    relay = settings.relay
    if settings.mode != "relay" or relay is None:
        return PassportFiles({}, None)
    return PassportFiles(relay.identity, relay.personas)


def reporter(
    settings: Settings, passports: Callable[[], Passports], message: Message, recipient: int
) -> Reporter | None:
    """Who reports what became of a message, where the report leaves by the tunnel.

    Nobody but an agent is let through: of mail that came by the tunnel the one whose it was, whom the
    relay knows at that domain; of other mail the one whose session is its sender's, at the first of
    our domains.

    :param passports: gives the keys that there are.
    """
    if settings.route != "tunnel":
        return None
    origin, sender = message.origin, message.envelope.sender
    if origin.source == "tunnel":
        domain = domain_of(message.envelope.recipients[recipient].address)
        return Reporter(Address(f"{origin.identity}@{domain}"), Identity(origin.identity))
    if RoutingTable(*routes(settings), shared=shared(settings)).hop(sender).kind != "tunnel":
        return None
    identity, first = passports().of(sender), next(iter(settings.domains), None)
    if identity is None or first is None:
        return None  # nobody whom the relay could know
    return Reporter(Address(f"{identity}@{ascii_domain(first)}"), identity)


def lmtp_servers(settings: Settings) -> dict[str, str]:
    return {
        name: str(domain.lmtp)
        for name, domain in domains(settings).items()
        if isinstance(domain, LmtpDomain)
    }


def site_backoff(settings: Settings) -> Backoff:
    """One probe costs little, so that a site is tried again sooner than a message, and never later
    than the configuration lets a message wait."""
    retry = settings.retry
    return Backoff(
        first_s=min(PROBE_S, retry.first_s),
        max_interval_s=retry.max_interval_s,
        jitter=retry.jitter,
    )


def retry(settings: Settings) -> RetrySchedule:
    return _same(RetrySchedule, settings.retry)


def limits(settings: Settings) -> LimitSettings:
    return _same(LimitSettings, settings.limits)


def dns_lists(policy: Policy) -> list[DnsList]:
    return [
        *(DnsList(one.zone, ranges(one.answers)) for one in policy.allowlist),
        *(
            DnsList(one.zone, ranges(one.answers), refusal(one.zone, one.action))
            for one in policy.dnsbl
        ),
    ]


def ranges(answers: Sequence[AnswerRange]) -> list[tuple[IPv4Address, IPv4Address]]:
    return [(one.low, one.high) for one in answers]


def greylist(settings: Settings) -> GreylistSettings:
    return _same(GreylistSettings, settings.policy.greylist)


def login(settings: Settings) -> LoginSettings:
    return _same(LoginSettings, settings.login)


def hiding(settings: Settings) -> frozenset[str]:
    """The listeners whose clients are nobody else's business."""
    return frozenset(
        listener.name
        for listener in settings.listeners
        if isinstance(listener, SubmissionListener) and listener.hide_client
    )


def tls_files(tls: Tls) -> TlsFiles:
    pairs = [(tls.certificate, tls.private_key)]
    pairs += [(one.certificate, one.private_key) for one in tls.certificates]
    return TlsFiles(tuple(KeyPair(*pair) for pair in pairs), tls.min_version, tls.client_ca_file)


def spool(settings: Settings) -> SpoolSettings:
    """The spool's floors."""
    return SpoolSettings(
        free_octets=settings.limits.free_octets, free_inodes=settings.limits.free_inodes
    )


def _same(kind: type[_T], table: object) -> _T:
    """Settings that a part calls as the configuration does."""
    names = [field.name for field in attrs.fields(cast(Any, kind))]
    return kind(**{name: getattr(table, name) for name in names})
