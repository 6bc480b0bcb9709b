"""What is asked of strangers beyond what SMTP asks: lists, names, patience.

All of it is off by default, and there is no guard then.  A client that may relay is no stranger.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..model.address import local_part_of
from ..model.envelope import Recipient
from ..model.ports import MailCommand, Peer, Resolver
from ..model.reply import Reply
from .dns_lists import DnsLists, Standing
from .greylist import Greylist
from .helo import Name, is_full
from .lookups import Lookups

HeloCheck = Literal["off", "syntax", "resolves"]

WAIT_S: Final = 8.0
"""So long RCPT waits for the DNS at most; what has not answered by then has nothing against it."""


@attrs.define
class Visit:
    """One stranger's connection."""

    lookups: Lookups
    standing: Standing
    name: Name = attrs.field(factory=lambda: Name(""))


class Guard:
    """Asks the DNS from the moment a stranger connects, and judges at RCPT.

    :param clock: of how long an answer is waited for.
    :param lists: None for none.
    :param greylist: None for none.
    """

    def __init__(
        self,
        resolver: Resolver,
        clock: IReactorTime,
        *,
        helo: HeloCheck = "off",
        lists: DnsLists | None = None,
        greylist: Greylist | None = None,
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._helo = helo
        self._lists = lists
        self._greylist = greylist
        self._visits: dict[Peer, Visit] = {}

    def __len__(self) -> int:
        return len(self._visits)

    def opened(self, peer: Peer) -> None:
        """A stranger has connected."""
        lookups = Lookups(self._resolver)
        standing = Standing() if self._lists is None else self._lists.ask(peer.address, lookups)
        self._visits[peer] = Visit(lookups, standing)

    def closed(self, peer: Peer) -> None:
        """A connection is gone, a stranger's or not."""
        visit = self._visits.pop(peer, None)
        if visit is not None:
            visit.lookups.close()

    def mail(self, peer: Peer) -> None:
        """A transaction begins, under the name that was given last."""
        visit = self._visits.get(peer)
        if self._helo == "off" or visit is None or visit.name.text == peer.helo:
            return
        visit.name = Name(peer.helo)
        if self._helo == "resolves" and is_full(peer.helo):
            visit.name.ask(visit.lookups)
        else:
            visit.name.may_exist = True

    def ready(self, peer: Peer) -> Deferred[None] | None:
        """What to wait for before :meth:`refusal` can tell; None for nothing."""
        visit = self._visits.get(peer)
        waiting = None if visit is None else visit.lookups.wait()
        if waiting is not None:
            waiting.addTimeout(WAIT_S, self._clock, lambda result, waited_s: None)
        return waiting

    def refusal(self, peer: Peer, recipient: Recipient) -> Reply | None:
        """What the DNS has against the client.

        Postmaster hears everybody, so that who is listed by mistake can say so (RFC 5321, 4.5.1).
        """
        visit = self._visits.get(peer)
        if visit is None or visit.standing.is_vouched_for:
            return None
        if local_part_of(recipient.address).lower() == "postmaster":
            return None
        if visit.standing.refusal is not None:
            return visit.standing.refusal
        return None if self._helo == "off" else visit.name.refusal

    def patience(self, peer: Peer, mail: MailCommand, recipient: Recipient) -> Reply | None:
        """Whether a recipient that would be taken has to be tried again later."""
        visit = self._visits.get(peer)
        if self._greylist is None or visit is None or visit.standing.is_vouched_for:
            return None
        return self._greylist.judge(peer, mail.envelope.sender, recipient.address)
