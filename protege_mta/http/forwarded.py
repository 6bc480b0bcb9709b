"""Who the client is, where proxies stand between: ``X-Forwarded-For``."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from ..model.networks import Network, client_address


def client_of(peer: str, fields: Sequence[str], trusted: Sequence[Network]) -> str:
    """The last address on the way to us that is not one of our proxies'.

    Each proxy adds whom it was called by at the end; what stands before the word of the last one
    that is trusted may be anybody's invention.

    :param peer: the IP address of the connection.
    :param fields: the values of ``X-Forwarded-For``, in order; addresses may have a port.
    """
    address = peer
    hops = ",".join(fields).split(",") if fields else []
    while hops and is_in(address, trusted):
        found = _address(hops.pop())
        if found is None:
            break
        address = str(found)
    return address


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks; what is no address is in none."""
    found = _address(address) if networks else None
    return found is not None and any(found in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return client_address(text)
    except ValueError:
        return None
