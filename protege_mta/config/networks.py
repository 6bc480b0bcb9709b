"""Networks that mail by MX records never goes to, unless the configuration says otherwise."""

from __future__ import annotations

import ipaddress
from typing import Final

from protege_mta.model.networks import PROHIBITED

from .hosts import IpNetwork

PROHIBITED_NETWORKS: Final[tuple[IpNetwork, ...]] = tuple(map(ipaddress.ip_network, PROHIBITED))
"""Networks that no MX record of the Internet rightly leads to: loopback, link-local, private,
shared, multicast, reserved."""
