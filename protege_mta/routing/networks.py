"""Addresses that mail is never sent to: networks that are not the Internet, and ourselves."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final

import attrs

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


def unwrapped(text: str) -> _Address:
    """The address that packets to ``text`` reach in the end.

    IPv4-mapped and IPv4-compatible (RFC 4291, 2.5.5), 6to4 (RFC 3056) and NAT64 (RFC 6052)
    addresses hold an IPv4 address.

    :raise ValueError: where ``text`` is no IP address.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        return inner
    is_compatible = address in _COMPATIBLE and int(address) > 0xFFFF  # :: and ::1 are their own
    if is_compatible or address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


class Prohibited:
    """Networks that route ``mx`` never connects to.

    :param networks: in CIDR form; host bits may be set.
    :raise ValueError: where one is no network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(each, strict=False) for each in networks)

    def __contains__(self, address: str) -> bool:
        """Whether mail may not go there; what is no address at all is not for mail either."""
        try:
            inner = unwrapped(address)
        except ValueError:
            return True
        return any(inner in network for network in self._networks)


@attrs.define
class OwnListeners:
    """Where we listen ourselves.

    :ivar is_local: whether an address belongs to this machine, for listeners on all addresses.
    """

    is_local: Callable[[str], bool]
    _listeners: set[tuple[_Address, int]] = attrs.field(factory=set, init=False)

    def add(self, address: str, port: int) -> None:
        """A listener is open; an empty address, as ``0.0.0.0`` and ``::``, means all of them."""
        self._listeners.add((unwrapped(address or "0.0.0.0"), port))

    def listeners(self) -> list[tuple[str, int]]:
        """Address and port of each, as :meth:`add` takes them."""
        return [(str(address), port) for address, port in self._listeners]

    def is_own(self, address: str, port: int) -> bool:
        """Whether a connection there would come back to us.

        :raise ValueError: where ``address`` is no IP address.
        """
        wanted = unwrapped(address)
        for listening, own_port in self._listeners:
            if own_port != port:
                continue
            if listening == wanted:
                return True
            if (listening.is_unspecified or wanted.is_unspecified) and (
                wanted.is_unspecified or self.is_local(str(wanted))
            ):
                return True
        return False
