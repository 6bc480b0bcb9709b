"""IP addresses of clients, and the networks that are not the Internet (the IANA special-purpose
registries, RFC 6890)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network


def client_address(text: str) -> IPv4Address | IPv6Address:
    """A client's address as it is compared and looked up: without a scope, and IPv4 where IPv6 but
    wraps it (RFC 4291, 2.5.5)."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


PROHIBITED: Final[tuple[str, ...]] = (
    "0.0.0.0/8",  # this network (RFC 1122, 3.2.1.3); Linux takes 0.0.0.0 for loopback
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # shared behind carriers' NAT (RFC 6598)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local (RFC 3927)
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # IETF protocols (RFC 6890)
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.88.99.0/24",  # 6to4 relays, withdrawn (RFC 7526)
    "192.168.0.0/16",  # private
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "::/3",  # unspecified, loopback, reserved
    "2001::/23",  # IETF protocols, Teredo (RFC 2928)
    "2001:db8::/32",  # documentation (RFC 3849)
    "3fff::/20",  # documentation (RFC 9637)
    "4000::/2",  # reserved: global unicast is 2000::/3 alone (RFC 4291, 2.4)
    "8000::/1",  # reserved, unique local fc00::/7, link-local fe80::/10, multicast ff00::/8
)
"""What ``[outbound] prohibited_networks`` says when it is left out."""
