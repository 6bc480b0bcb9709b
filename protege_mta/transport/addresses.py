"""What the kernel knows of addresses, asked by connecting a datagram socket, which sends nothing."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

_IPV4_INTERNET: Final = "1.0.0.1"
_IPV6_INTERNET: Final = "2000::1"
"""Somewhere behind the default route; nothing is sent there."""


def is_local(address: str) -> bool:
    """Whether a packet to this IP address would stay on this machine."""
    if ipaddress.ip_address(address).is_loopback:
        return True
    return _source_for(address) == address


def has_global_ipv6() -> bool:
    """Whether packets to the IPv6 Internet would leave with an address that it can answer."""
    return _is_global(_source_for(_IPV6_INTERNET))


def public_addresses() -> list[str]:
    """This machine's addresses that the Internet can answer; none where it is behind a NAT."""
    found = map(_source_for, (_IPV4_INTERNET, _IPV6_INTERNET))
    return [each for each in found if each is not None and _is_global(each)]


def _is_global(address: str | None) -> bool:
    return address is not None and ipaddress.ip_address(address).is_global


def _source_for(address: str) -> str | None:
    """The address that packets to ``address`` would come from; None where there is no route."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 25))
            source: str = probe.getsockname()[0]
    except OSError:
        return None
    return source
