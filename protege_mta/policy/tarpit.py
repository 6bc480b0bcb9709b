"""Slow answers for who guesses at mailboxes.

A list with a few dead addresses notices nothing; somebody who tries a dictionary gets an answer in
ten seconds, then none.
"""

from __future__ import annotations

from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..model.ports import Peer
from ..model.reply import TABLE, Reply
from ..model.tally import Tally
from .clients import Window, network_of

_T = TypeVar("_T")

DELAYS_S: Final = (1.0, 2.0, 4.0, 8.0, 10.0)
"""For each refusal that is one too many; the last one for all that follow."""

GIVE_UP: Final = 4
"""After so many times the free ones a connection is closed; and so many are free to one client
over all its connections."""

WINDOW_S: Final = 600.0
"""In so long."""

SLOTS: Final = 200
"""So many answers are held back at a time; who comes then is sent away at once."""


class Tarpit:
    """Counts recipients that do not exist, by connection and by client.

    :param clock: of the delays.
    :ivar free: how many of a connection are refused at once; 0 to refuse all of them so.
    """

    log = Logger()

    def __init__(self, free: int, clock: IReactorTime, tally: Tally) -> None:
        self.free = free
        self._clock = clock
        self._tally = tally
        self._by_peer: dict[Peer, int] = {}
        self._by_client = Window(clock.seconds, WINDOW_S)

    def refusal(self, peer: Peer, reply: Reply) -> Reply | Deferred[Reply]:
        """``reply``, in its time, or 421 instead.

        :param reply: what a recipient that does not exist is refused with.
        :return: a Deferred that may be cancelled.
        """
        free = self.free
        if not free:
            return reply
        count = self._by_peer[peer] = self._by_peer.get(peer, 0) + 1
        in_all = self._by_client.add(network_of(peer.address))
        excess = max(count - free, in_all - GIVE_UP * free)
        if excess <= 0:
            return reply
        tally = self._tally
        if count > GIVE_UP * free or tally.recipients_delayed_now >= SLOTS:
            return TABLE["too-many-unknown"]
        delay_s = DELAYS_S[min(excess, len(DELAYS_S)) - 1]
        self.log.info(
            "unknown recipient delayed session_id={session_id} peer={peer} delay_s={delay_s:g}",
            session_id=peer.session_id,
            peer=peer.address,
            delay_s=delay_s,
        )
        tally.recipients_delayed += 1
        tally.recipients_delayed_now += 1
        return deferLater(self._clock, delay_s, lambda: reply).addBoth(self._let_go)

    def _let_go(self, result: _T) -> _T:
        self._tally.recipients_delayed_now -= 1
        return result

    def closed(self, peer: Peer) -> None:
        """Forget the connection."""
        self._by_peer.pop(peer, None)
