"""Where a recipient's mail goes next."""

from __future__ import annotations

from typing import Literal

import attrs

HopKind = Literal[
    "mx", "smarthost", "maildir", "lmtp", "webhook", "agent", "tunnel", "sandbox", "returns"
]
"""``agent`` is a relay server's way to one of its agents, ``tunnel`` a gateway's to its relay;
``sandbox`` leads nowhere, ``returns`` takes what comes back to signed return paths."""


@attrs.frozen(cache_hash=True)
class NextHop:
    """A transport, and where it shall go; what routing says of a recipient's domain.

    The hash is computed once, since every message is looked up by it.

    :ivar name: the recipient's domain for ``mx`` and the local kinds, the configured
        ``host:port`` for ``smarthost``, the agent's identity for ``agent`` and ``tunnel``, empty for
        a ``tunnel`` without any.
    """

    kind: HopKind
    name: str


@attrs.frozen
class Host:
    """One machine to try.

    :ivar name: what its certificate should say, lower case; an address literal's text where the
        domain was one.
    :ivar addresses: IP addresses in the order to try.
    """

    name: str
    addresses: tuple[str, ...]
    port: int


@attrs.frozen
class Site:
    """The hosts that serve a next hop, and which share one budget whatever domain led here.

    :ivar key: the kind and the ordered set of host names: equal keys are one queue.
    :ivar hosts: in the order to try; empty for kinds without a network.
    :ivar is_authentic: for ``mx``: whether nobody but the domain that was asked for can have named
        these hosts.  Another domain that leads to the same site may have said so without proof.
    """

    key: str
    kind: HopKind
    hosts: tuple[Host, ...] = ()
    is_authentic: bool = False
