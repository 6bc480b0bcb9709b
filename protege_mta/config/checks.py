"""What no single key can tell: tables as a whole, tables beside each other, and named files.

:mod:`.credentials` is imported where a file has to be opened, for it takes half of the time that a
short command has.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Container, Iterator, Sequence
from typing import Any, Final

import attrs

from ..model.address import domain_of
from ..model.domain import ascii_domain
from .domains import LmtpDomain, MaildirDomain, TunnelDomain, WebhookDomain
from .http import Bounces, InboundHook, Webhook
from .identities import AgentEntry, of_entries
from .listeners import HttpListener, Listener, SmtpListener, SubmissionListener, Tls, TlsCertificate
from .model import Settings
from .outbound import Dkim, DkimSelector, Outbound, Smarthost
from .tunnel import AttestationKey, Relay, TrustedKey

CLEAR: Final = ("none", "opportunistic")
"""Ways to a smarthost that may be in plain text."""

_LISTENERS: Final = (SmtpListener, SubmissionListener, HttpListener)


def of_table(table: Any) -> Iterator[tuple[str, str]]:
    """Key and complaint for each fault of one table."""
    match table:
        case Tls() | TlsCertificate() | DkimSelector():
            yield from _of_files(table)
        case Smarthost():
            yield from _smarthost(table)
            yield from _of_files(table)
        case Dkim():
            yield from _selectors(table)
        case AttestationKey() | TrustedKey() | Webhook() | InboundHook():
            yield from _of_files(table)
        case Relay():
            yield from _relay(table)
        case Bounces():
            yield from _bounces(table)
        case MaildirDomain() | LmtpDomain() | WebhookDomain() if (
            table.shared and "*" in table.recipients
        ):
            yield "shared", 'wanted the local-parts that are here under recipients, got "*"'
        case Outbound(route="smarthost", smarthost=None):
            yield "smarthost", 'wanted a table, since route = "smarthost", got nothing'
        case _:
            return


def _of_files(
    table: Tls
    | TlsCertificate
    | DkimSelector
    | Smarthost
    | AttestationKey
    | TrustedKey
    | Webhook
    | InboundHook,
) -> Iterator[tuple[str, str]]:
    from . import credentials

    match table:
        case Tls():
            yield from credentials.of_tls(table)
            yield from credentials.of_ca_file("client_ca_file", table.client_ca_file)
        case TlsCertificate():
            yield from credentials.of_tls(table)
        case DkimSelector():
            yield from credentials.of_dkim_key(table.private_key)
        case Smarthost():
            yield from credentials.of_smarthost(table)
        case AttestationKey():
            yield from credentials.of_ed25519("private_key", table.private_key)
        case TrustedKey():
            yield from credentials.of_ed25519("public_key", table.public_key)
        case Webhook() | InboundHook():
            yield from credentials.of_webhook(table)


def of_tables(tables: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, str, str]]:
    """Number, key and complaint for each fault between the tables of one array."""
    yield from of_entries([(n, each) for n, each in tables if isinstance(each, AgentEntry)])
    hooks: dict[str, int] = {}
    for number, each in tables:
        if isinstance(each, Webhook) and hooks.setdefault(each.name, number) != number:
            got = f'got "{each.name}" for #{hooks[each.name]} too'
            yield number, "name", f"wanted a name of its own, {got}"
    listeners = [(number, each) for number, each in tables if isinstance(each, _LISTENERS)]
    names: dict[str, int] = {}
    for index, (number, listener) in enumerate(listeners):
        if listener.name in names:
            got = f'got "{listener.name}" for #{names[listener.name]} too'
            yield number, "name", f"wanted a name of its own, {got}"
        elif listener.name:
            names[listener.name] = number
        for other, earlier in listeners[:index]:
            if _is_same_port(listener, earlier):
                got = f"got {listener.port}, which #{other} listens on"
                yield number, "port", f"wanted a port that is free on {listener.address}, {got}"


def of_top(settings: Settings) -> Iterator[tuple[str, str]]:
    """Place and complaint for each fault of the plain keys of the top level."""
    for key, folder in (("state_dir", settings.state_dir), ("run_dir", settings.run_dir)):
        if os.path.exists(folder) and not os.path.isdir(folder):  # never raise, unlike Path's
            yield key, f'wanted a folder, got the file "{folder}"'


def of_settings(settings: Settings, given: Container[str]) -> Iterator[tuple[str, str]]:
    """Place and complaint for each fault between the tables.

    :param given: the tables and keys of the file's top level, faulty ones among them.
    """
    if settings.mode == "relay" and "relay" not in given:
        yield "[relay]", 'wanted a table, since mode = "relay", got nothing'
    if settings.mode == "local" and "relay" in given:
        yield "[relay]", 'only with mode = "relay"'
    if settings.mode == "local" and settings.route == "tunnel":
        yield "[outbound] route", 'wanted "mx" or "smarthost", since mode = "local", got "tunnel"'
    has_http = any(isinstance(each, HttpListener) for each in settings.listeners)
    if settings.tunnel_server.enabled and not has_http:
        yield "[tunnel_server] enabled", 'wanted a [[listener]] with kind = "http" too, got none'
    for name, domain in settings.domains.items():
        if isinstance(domain, TunnelDomain) and not settings.tunnel_server.enabled:
            place = f'[domains."{name}"] deliver'
            yield place, 'wanted [tunnel_server] enabled = true too, since "tunnel", got none'
    own = {ascii_domain(name) for name in (settings.hostname, *settings.domains)}
    for address in settings.bounces.report_addresses:
        if ascii_domain(domain_of(address)) not in own:
            place = "[bounces] report_addresses"
            yield place, f'wanted addresses at the domains of [domains], got "{address}"'


def completed(tables: list[Any]) -> tuple[Any, ...]:
    """The same tables, where listeners without a name have one."""
    taken = {each.name for each in tables if isinstance(each, _LISTENERS)}
    done = []
    for each in tables:
        if isinstance(each, _LISTENERS) and not each.name:
            names = (each.kind if n == 1 else f"{each.kind}-{n}" for n in range(1, len(tables) + 2))
            name = next(name for name in names if name not in taken)
            taken.add(name)
            each = attrs.evolve(each, name=name)
        done.append(each)
    return tuple(done)


def _is_same_port(a: Listener, b: Listener) -> bool:
    if a.port != b.port or a.port == 0:
        return False
    everywhere = "::" if ":" in a.address else "0.0.0.0"
    if (":" in a.address) != (":" in b.address):
        return False
    return a.address == b.address or everywhere in (a.address, b.address)


def _selectors(dkim: Dkim) -> Iterator[tuple[str, str]]:
    names = [each.name.lower() for each in dkim.selectors]
    if not names:
        yield "selectors", "wanted one selector at least, got none"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "selectors", f'wanted every name once, got "{name}" again'


def _relay(relay: Relay) -> Iterator[tuple[str, str]]:
    from . import credentials

    if relay.personas is None and not relay.identity:
        yield "personas", "wanted a folder here, or keys under identity, got neither"
    for name, path in relay.identity.items():
        for _, text in credentials.of_ed25519("", path):
            yield f"identity.{name}", text
    if relay.unattested == "refuse" and not relay.trusted:
        yield "trusted", 'wanted one key at least, since unattested = "refuse", got none'
    yield from credentials.of_ca_file("ca_file", relay.ca_file)


def _bounces(bounces: Bounces) -> Iterator[tuple[str, str]]:
    from . import bounce_rules

    for path in bounces.rules:
        try:
            bounce_rules.load(path)
        except (OSError, ValueError) as error:
            yield "rules", f"wanted rules as TOML, got {error}"


def _smarthost(smarthost: Smarthost) -> Iterator[tuple[str, str]]:
    if smarthost.username and smarthost.password_file is None:
        yield "password_file", "wanted a file, since there is a username, got nothing"
    if smarthost.username and smarthost.tls in CLEAR and not is_here(smarthost.host):
        yield (
            "tls",
            f'wanted "starttls" or "implicit" for a password on its way, got "{smarthost.tls}"',
        )
    if smarthost.password_file is not None and not smarthost.username:
        yield "username", "wanted a user name, since there is a password_file, got nothing"


def is_here(host: str) -> bool:
    """Whether what is sent there does not leave this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
