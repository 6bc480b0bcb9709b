"""The logins of one client: what AUTH is answered, line by line (RFC 4954).

:mod:`.sasl` puts the client's proof together, the shell judges it.  Whether AUTH is in sequence is
the machine's to say, and so is what comes after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model.ports import LoggedIn, Peer, Proof
from ..model.reply import TABLE, Reply
from .lines import Oversize
from .sasl import PLUS, UNIQUE_BINDINGS, Exchange, Terms, challenge_line
from .settings import ServerSettings

if TYPE_CHECKING:
    from .shell import Shell

Step = bytes | Reply | None
"""What comes of a line: a challenge as it is written, the reply that ends the exchange, or None for
a judgement that is still to come, and is told to :meth:`Login.judged`."""


def mechanisms(settings: ServerSettings, shell: Shell, *, is_encrypted: bool) -> tuple[str, ...]:
    """What AUTH takes on a channel as it is."""
    offered = settings.mechanisms
    if settings.is_submission and not is_encrypted:
        return ()
    if PLUS in offered and not any(map(shell.channel_binding, UNIQUE_BINDINGS)):
        return tuple(each for each in offered if each != PLUS)
    return offered


class Login:
    """Goes through one exchange after the other, counts those that fail, and writes down who the
    client turns out to be.

    :param peer: gets its identity when it is known.
    """

    __slots__ = ("_exchange", "_failed", "_name", "_peer", "_settings", "_shell")

    def __init__(self, shell: Shell, settings: ServerSettings, peer: Peer) -> None:
        self._shell = shell
        self._settings = settings
        self._peer = peer
        self._exchange: Exchange | None = None
        self._name = ""  # whose proof is being judged
        self._failed = 0

    @property
    def is_spent(self) -> bool:
        """Whether so many exchanges have failed that there is no other."""
        return self._failed >= self._settings.failed_logins

    def begin(self, mechanism: str, initial: bytes | None, offered: tuple[str, ...]) -> Step:
        """Open an exchange.

        :param mechanism: one of ``offered``.
        :param initial: the initial response as it came in the command, None where there was none.
        :param offered: what the client was told that AUTH takes.
        """
        terms = Terms(self._settings.hostname, self._shell, PLUS in offered)
        self._exchange = Exchange(mechanism, initial, terms)
        return self._step(self._exchange.begin())

    def respond(self, line: bytes | Oversize) -> Step:
        """Take the client's next line, without its CRLF."""
        if self._exchange is None:
            raise RuntimeError("a response, and no exchange is open")
        return self._step(self._exchange.respond(line))

    def judged(self, reply: Reply) -> Step:
        """The judgement of the proof is ``reply``."""
        if self._exchange is None:
            raise RuntimeError("a proof was judged, and no exchange is open")
        if 200 <= reply.code <= 299 and (last := self._exchange.accepted()) is not None:
            return challenge_line(last)
        return self._end(reply)

    def _step(self, step: bytes | Proof | Reply) -> Step:
        if isinstance(step, bytes):
            return challenge_line(step)
        if isinstance(step, Reply):
            return self._end(step)
        self._name = step.name
        answer = self._shell.ask_login(step)
        if isinstance(answer, LoggedIn):
            self._name, answer = answer.identity, TABLE["logged-in"]
        return None if answer is None else self.judged(answer)

    def _end(self, reply: Reply) -> Reply:
        self._exchange = None
        if 200 <= reply.code <= 299:
            self._peer.identity = self._name
        else:
            self._failed += 1
        return reply
