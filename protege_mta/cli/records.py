"""The DNS records that a configuration wants published."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from ..config.checks import is_here
from ..dkim import keys
from ..dkim.record import dns_name, dns_record, strings

if TYPE_CHECKING:
    from ..config.model import Settings
    from ..config.outbound import Dkim

UNKNOWN_ADDRESS: Final = "YOUR-ADDRESS"
UNKNOWN_IPV6_ADDRESS: Final = "YOUR-IPV6-ADDRESS"
"""Stand where our own public addresses are not known from the configuration."""


@attrs.frozen
class Record:
    """A record to publish.

    :ivar name: without a closing dot.
    :ivar value: a TXT record's as one string.
    :ivar why: what for, in a few words.
    """

    name: str
    type: str
    value: str
    why: str

    @property
    def is_for_zone(self) -> bool:
        """Whether it can stand in the domain's zone file as it is: nothing in it is unknown, and it
        is not for the reverse zone, which whoever gave us the address has."""
        is_known = self.value not in (UNKNOWN_ADDRESS, UNKNOWN_IPV6_ADDRESS)
        return is_known and self.type != "PTR"

    def zone_line(self) -> str:
        """As a zone file has it, or a comment."""
        value = self.value
        if self.type == "TXT":
            value = " ".join(f'"{piece}"' for piece in strings(value))
        mark = "" if self.is_for_zone else "; "
        return f"{mark}{self.name}. IN {self.type} {value}"


def records_of(settings: Settings) -> list[Record]:
    """MX, SPF, DKIM and DMARC of every domain, behind the host's own addresses; of a machine behind
    a relay the keys alone, for the rest is the relay's.

    :raise OSError: a key cannot be read.
    :raise BadKey: a file holds no key.
    """
    if settings.mode == "relay":
        return [record for name, dkim in settings.dkim.items() for record in _dkim(name, dkim)]
    host = settings.hostname
    records = list(_addresses(settings))
    if host not in settings.domains:
        records.append(Record(host, "TXT", "v=spf1 a -all", "bounces come from this name (SPF)"))
    for domain in {**settings.domains, **settings.dkim}:
        if domain in settings.domains:
            records.append(Record(domain, "MX", f"10 {host}.", "mail for the domain comes here"))
        records.append(
            Record(domain, "TXT", _spf(settings, domain), "who may send for the domain (SPF)")
        )
        records += _dkim(domain, settings.dkim.get(domain))
        policy = f"v=DMARC1; p=none; rua=mailto:postmaster@{domain}"
        records.append(
            Record(f"_dmarc.{domain}", "TXT", policy, "what others do with forgeries (DMARC)")
        )
    return records


def _addresses(settings: Settings) -> Iterator[Record]:
    known = list(settings.public_addresses)
    if not known:
        ours = [each.address for each in settings.listeners if each.kind == "smtp"]
        ours += settings.outbound.source_addresses
        known = sorted({text for text in ours if ipaddress.ip_address(text).is_global})
    host = settings.hostname
    for text in known:
        yield Record(host, "AAAA" if ":" in text else "A", text, "our address")
    if not known:
        yield Record(host, "A", UNKNOWN_ADDRESS, "our address")
        yield Record(host, "AAAA", UNKNOWN_IPV6_ADDRESS, "our IPv6 address, where there is one")
    for text in known:
        pointer = ipaddress.ip_address(text).reverse_pointer
        yield Record(pointer, "PTR", f"{host}.", "our name; set by whoever gave us the address")
    if not known:
        why = "our name; set by whoever gave us the address, for each of them"
        yield Record(UNKNOWN_ADDRESS, "PTR", f"{host}.", why)


def _spf(settings: Settings, domain: str) -> str:
    own = "mx" if domain in settings.domains else f"a:{settings.hostname}"
    smarthost = settings.outbound.smarthost
    if settings.route == "smarthost" and smarthost is not None and not is_here(smarthost.host):
        # Others see the smarthost's address; where it has several, its own SPF record knows.
        return f"v=spf1 {own} {_mechanism(smarthost.host)} -all"
    return f"v=spf1 {own} -all"


def _mechanism(host: str) -> str:
    """The SPF mechanism for a host name or an IP address (RFC 7208, 5)."""
    try:
        return f"ip{ipaddress.ip_address(host).version}:{host}"
    except ValueError:
        return f"a:{host}"


def _dkim(domain: str, dkim: Dkim | None) -> Iterator[Record]:
    for selector in dkim.selectors if dkim is not None else ():
        key = keys.load(selector.private_key.read_bytes())
        name = dns_name(selector.name, domain)
        yield Record(name, "TXT", dns_record(key), f"our signatures, {key.kind} (DKIM)")


def zone(records: list[Record]) -> str:
    """The records as lines of a zone file."""
    return "".join(f"{record.zone_line()}\n" for record in records)
