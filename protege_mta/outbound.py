"""Makes the parts that sign mail and carry it to other hosts, for whichever process does that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .config.credentials import secret
from .config.model import Settings
from .config.outbound import Smarthost
from .dkim.keys import load as load_key
from .dkim.sign import Signer
from .model.domain import ascii_domain
from .model.hop import HopKind
from .model.tally import Tally
from .routing.networks import OwnListeners, Prohibited
from .transport.client_settings import ClientSettings
from .transport.crew import Crew
from .transport.relay import SmtpTransport
from .wire.sasl_client import Credentials

SIGNERS: Final = 2
"""Threads that sign; RSA lets go of the interpreter, so that two sign twice as fast."""


def transports(
    reactor: Any, settings: Settings, *, own: OwnListeners, tally: Tally
) -> dict[HopKind, SmtpTransport]:
    """By kind, all that lead to other hosts.

    :param own: where the service itself listens, which is never connected to.
    :raise OSError: a password cannot be read.
    """
    networks = Prohibited(map(str, settings.outbound.prohibited_networks))

    def is_prohibited(address: str, port: int) -> bool:
        return address in networks or own.is_own(address, port)

    def smtp(client: ClientSettings, refuses: Callable[[str, int], bool]) -> SmtpTransport:
        return SmtpTransport(reactor, client, clock=reactor, tally=tally, is_prohibited=refuses)

    name, sources = settings.hostname, settings.outbound.source_addresses
    found: dict[HopKind, SmtpTransport] = {
        "mx": smtp(ClientSettings(name, source_addresses=sources), is_prohibited),
        "lmtp": smtp(ClientSettings(name, protocol="lmtp", tls="none"), own.is_own),
    }
    host = settings.outbound.smarthost
    if host is not None:
        client = ClientSettings(
            name,
            tls=host.tls,
            ca_file=str(host.ca_file or ""),
            credentials=_credentials(host),
            source_addresses=sources,
        )
        found["smarthost"] = smtp(client, own.is_own)
    return found


def signers(settings: Settings) -> dict[str, list[Signer]]:
    """The keys by From domain, in either spelling.  :raise ValueError, OSError: one is unfit."""
    found = {}
    for domain, dkim in settings.dkim.items():
        name = ascii_domain(domain)
        keys = [
            Signer(name, one.name, load_key(one.private_key.read_bytes())) for one in dkim.selectors
        ]
        found[name] = found[domain.lower()] = keys
    return found


def signer_crew(reactor: Any) -> Crew:
    """For signatures alone, so that slow disks do not hold them up."""
    return Crew(SIGNERS, reactor.callFromThread, "signer")


def _credentials(host: Smarthost) -> Credentials | None:
    if not host.username:
        return None
    password = ""
    if host.password_file is not None:
        password = secret(host.password_file).decode("utf-8")
    return Credentials(host.username, password)
