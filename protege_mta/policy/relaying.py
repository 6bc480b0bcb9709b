"""Whether a recipient may be accepted from this peer (RFC 5321, 3.6.2 and 7.9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import attrs

from ..model.address import Address, domain_of, local_part_of
from ..model.domain import ascii_domain
from ..model.envelope import Envelope, Recipient
from ..model.networks import client_address
from ..model.ports import Peer
from ..model.reply import TABLE, Reply

Network = IPv4Network | IPv6Network


KNOWN: Final = 10_000
"""So many peers' answers are remembered; looking into networks takes longer than all the rest."""


@attrs.frozen
class Mailboxes:
    """Which local-parts of one of our own domains exist.

    :ivar names: in lower case; ``*`` stands for all.
    :ivar is_shared: whether others may exist elsewhere, for those who may relay.
    """

    names: frozenset[str]
    is_shared: bool = False

    def __contains__(self, local_part: str) -> bool:
        return "*" in self.names or local_part.lower() in self.names


@attrs.frozen
class Relaying:
    """The rule: our own mailboxes from anybody, anything from those who may relay.

    Nobody is trusted for where the connection comes from unless a network is named, loopback
    included.  A local-part is never looked into: ``user%elsewhere``, ``elsewhere!user`` and
    ``"user@elsewhere"`` at one of our domains are mailboxes of that domain, which exist or do not.

    :ivar domains: our own domains, as A-labels in lower case; the host's own name is always one of
        them, since ``postmaster`` without a domain is at it.
    :ivar relay_hosts: for each listener, the networks that may relay without authentication.
    :ivar postmaster: where mail for postmaster goes that has no mailbox; empty to keep it under
        the name it came with.
    """

    domains: Mapping[str, Mailboxes]
    relay_hosts: Mapping[str, Sequence[Network]]
    postmaster: Address
    _known: dict[tuple[str, str], bool] = attrs.field(factory=dict, init=False, eq=False)

    def may_relay(self, peer: Peer) -> bool:
        """Whether the peer may name any recipient, and any of our From domains."""
        if peer.identity:
            return True
        networks = self.relay_hosts.get(peer.listener)
        if not networks:
            return False
        asked = (peer.listener, peer.address)
        known = self._known.get(asked)
        if known is None:
            address = client_address(peer.address)
            known = any(address in network for network in networks)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[asked] = known
        return known

    def judge(self, peer: Peer, address: Address) -> Reply:
        """The answer to RCPT."""
        mailboxes = self._mailboxes(address)
        if mailboxes is not None:
            local_part = local_part_of(address)
            # RFC 5321, 4.5.1: postmaster is always there.
            if local_part in mailboxes or local_part.lower() == "postmaster":
                return TABLE["recipient-ok"]
            is_ok = mailboxes.is_shared and self.may_relay(peer)
            return TABLE["recipient-ok" if is_ok else "no-such-user"]
        return TABLE["recipient-ok" if self.may_relay(peer) else "no-relaying"]

    def redirected(self, recipient: Recipient) -> Recipient:
        """The recipient as it is queued: a postmaster without a mailbox goes to the configured one."""
        mailboxes = self._mailboxes(recipient.address)
        local_part = local_part_of(recipient.address)
        if not self.postmaster or mailboxes is None or local_part.lower() != "postmaster":
            return recipient
        if local_part in mailboxes:
            return recipient
        return attrs.evolve(recipient, address=self.postmaster)

    def readdressed(self, envelope: Envelope) -> Envelope:
        """The envelope with its recipients as they are queued."""
        if not self.postmaster:
            return envelope
        return attrs.evolve(envelope, recipients=tuple(map(self.redirected, envelope.recipients)))

    def _mailboxes(self, address: Address) -> Mailboxes | None:
        domain = domain_of(address)
        return self.domains.get(domain if domain.isascii() else ascii_domain(domain))
