"""Whether a recipient may be accepted from this peer (RFC 5321, 3.6.2 and 7.9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Literal

import attrs

from ..model.address import Address, domain_of, local_part_of
from ..model.domain import ascii_domain
from ..model.envelope import Envelope, Recipient
from ..model.networks import Network, client_address
from ..model.ports import Agents, Peer, Sessions
from ..model.reply import TABLE, Reply

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

    def judge(self, address: Address) -> Reply:
        """Whether mail is taken for an address at the domain."""
        is_there = "*" in self.names or local_part_of(address).lower() in self.names
        return TABLE["recipient-ok" if is_there else "no-such-user"]


@attrs.frozen
class AgentMailboxes:
    """The mailboxes of a domain whose mail goes to agents.

    :ivar is_kept: whether mail waits for those that are away; else it is taken only for those that
        are connected.
    """

    agents: Agents
    sessions: Sessions
    is_kept: bool
    is_shared: ClassVar = False

    def judge(self, address: Address) -> Reply:
        """As :meth:`Mailboxes.judge`; what an agent would get if it were there comes later."""
        identity = self.agents.at(address)
        if identity is None:
            return TABLE["no-such-user"]
        if self.sessions.to(identity) is not None:
            return TABLE["recipient-ok"]
        is_held = self.is_kept and self.agents.may_hold(identity)
        return TABLE["recipient-ok" if is_held else "agent-away"]


Way = Literal["queue", "through", "both"]
"""Into the queue, or straight through to agents whose mail is not kept."""


@attrs.frozen
class Relaying:
    """The rule: our own mailboxes from anybody, anything from those who may relay.

    Nobody is trusted for where the connection comes from unless a network is named, loopback
    included.  A local-part is never looked into: ``user%elsewhere``, ``elsewhere!user`` and
    ``"user@elsewhere"`` at one of our domains are mailboxes of that domain, which exist or do not.

    :ivar domains: our own domains, as A-labels in lower case; the host's own name is always one of
        them, since ``postmaster`` without a domain is at it.
    :ivar relay_hosts: for each listener, the networks that may relay without authentication.
    :ivar has_pass_through: whether there are mailboxes whose mail is never kept.
    :ivar postmaster: where mail for postmaster goes that has no mailbox; empty to keep it under
        the name it came with.
    """

    domains: Mapping[str, Mailboxes | AgentMailboxes]
    relay_hosts: Mapping[str, Sequence[Network]]
    postmaster: Address
    has_pass_through: bool = attrs.field(init=False)
    _has_agents: bool = attrs.field(init=False)
    _known: dict[tuple[str, str], bool] = attrs.field(factory=dict, init=False, eq=False)

    @has_pass_through.default
    def _passes_any_through(self) -> bool:
        return any(
            isinstance(one, AgentMailboxes) and not one.is_kept for one in self.domains.values()
        )

    @_has_agents.default
    def _are_any_agents(self) -> bool:
        return any(isinstance(one, AgentMailboxes) for one in self.domains.values())

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
            reply = mailboxes.judge(address)
            if reply is TABLE["no-such-user"] and (
                _is_postmaster(address)  # RFC 5321, 4.5.1: always there
                or (mailboxes.is_shared and self.may_relay(peer))
            ):
                return TABLE["recipient-ok"]
            return reply
        return TABLE["recipient-ok" if self.may_relay(peer) else "no-relaying"]

    def is_own(self, address: Address) -> bool:
        """Whether it is at a domain of ours."""
        return self._mailboxes(address) is not None

    def has_mailbox(self, address: Address) -> bool:
        """Whether it is at a domain of ours and mail for it is taken."""
        mailboxes = self._mailboxes(address)
        if mailboxes is None:
            return False
        return mailboxes.judge(address).code < 300 or _is_postmaster(address)

    def redirected(self, recipient: Recipient) -> Recipient:
        """The recipient as it is queued: a postmaster without a mailbox goes to the configured one."""
        address = recipient.address
        mailboxes = self._mailboxes(address)
        if not self.postmaster or mailboxes is None or not _is_postmaster(address):
            return recipient
        if mailboxes.judge(address) is not TABLE["no-such-user"]:
            return recipient
        return attrs.evolve(recipient, address=self.postmaster)

    def readdressed(self, envelope: Envelope) -> Envelope:
        """The envelope with its recipients as they are queued; agents' mailboxes, which have no
        case, once each."""
        if not self.postmaster and not self._has_agents:
            return envelope
        recipients = tuple(map(self.redirected, envelope.recipients))
        if self._has_agents and len(recipients) > 1:
            first: dict[str, Recipient] = {}
            for one in recipients:
                is_agents = isinstance(self._mailboxes(one.address), AgentMailboxes)
                first.setdefault(one.address.lower() if is_agents else one.address, one)
            recipients = tuple(first.values())
        return attrs.evolve(envelope, recipients=recipients)

    def is_passed_through(self, recipient: Recipient) -> bool:
        """Whether a recipient's mail is never kept."""
        if not self.has_pass_through:
            return False
        address = self.redirected(recipient).address
        mailboxes = self._mailboxes(address)
        if not isinstance(mailboxes, AgentMailboxes) or mailboxes.is_kept:
            return False
        return not _is_postmaster(address) or mailboxes.agents.at(address) is not None

    def way(self, envelope: Envelope) -> Way:
        """How a message goes in."""
        if not self.has_pass_through:
            return "queue"
        passed = set(map(self.is_passed_through, envelope.recipients))
        return "both" if len(passed) > 1 else "through" if True in passed else "queue"

    def _mailboxes(self, address: Address) -> Mailboxes | AgentMailboxes | None:
        domain = domain_of(address)
        return self.domains.get(domain if domain.isascii() else ascii_domain(domain))


def _is_postmaster(address: Address) -> bool:
    return local_part_of(address).lower() == "postmaster"
