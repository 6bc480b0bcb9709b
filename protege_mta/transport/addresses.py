"""What the kernel knows of addresses, asked by connecting a datagram socket, which sends nothing."""

from __future__ import annotations

import ipaddress
import socket


def is_local(address: str) -> bool:
    """Whether a packet to this IP address would stay on this machine."""
    if ipaddress.ip_address(address).is_loopback:
        return True
    return _source_for(address) == address


def has_global_ipv6() -> bool:
    """Whether packets to the IPv6 Internet would leave with an address that it can answer."""
    source = _source_for("2000::1")
    return source is not None and ipaddress.ip_address(source).is_global


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
