"""A gateway's sessions: one for each of its keys, come back to whenever it is lost.

A :class:`Line` keeps one of them up; :class:`Lines` has all of them, and starts and ends them as
keys come and go.  How a connection is made is for the dialler that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..model.identity import Identity
from ..model.ports import Intake, Session
from ..model.reply import TABLE, Reply
from ..model.stream import Stream
from .passports import Passport, Passports
from .patience import Loss, Pace, Patience
from .socket_client import Watcher

if TYPE_CHECKING:
    import random

REPLACED: Final = 4400
UNAUTHENTICATED: Final = 4401
"""Status codes with which a relay closes (the protocol's own, within RFC 6455, 7.4.2)."""

NOT_ALLOWED: Final = "identity_not_allowed"
EXPIRED: Final = "challenge_expired"
"""Reasons with which it does: the key may not come; the login took too long, or so it seems to a relay
whose clock was set meanwhile."""

NORMAL: Final = 1000


def loss_of(code: int, reason: str, *, was_connected: bool) -> Loss:
    """What the end of a connection means for the next one.

    :param code: of its close frame, whoever sent it (RFC 6455, 7.4.1).
    :param was_connected: whether the relay had let us in, so that it ended over something else.
    """
    if code == REPLACED:
        return "replaced"
    if reason == "rate_limited":  # our answer to its error may be the first close
        return "limited"
    is_refused = code == UNAUTHENTICATED and not was_connected and reason != EXPIRED
    return "refused" if is_refused else "lost"


class Call(Protocol):
    """One connection to the relay, or the attempt to have one."""

    def stop(self) -> None:
        """End it, in whatever state it is; the watcher is told as ever."""


Dial = Callable[[Passport, Watcher], Call]
"""Begins to connect, and logs in."""

Receive = Callable[[Session, Stream], Intake | Reply | Deferred[Intake | Reply]]
State = Literal["idle", "waiting", "calling", "connected", "stopped"]


@attrs.frozen
class LineStatus:
    """What there is to tell of one session.

    :ivar since: when it was logged in, POSIX seconds; None while it is not.
    :ivar next_at: when it is tried again, POSIX seconds; None where no time is set.
    :ivar error: why it was lost, or could not be had, the last time; empty if never.
    """

    identity: Identity
    name: str
    state: State
    since: float | None
    is_reliable: bool
    peer_address: str
    next_at: float | None
    error: str


@attrs.define(eq=False)
class Losses:
    """Counts, for metrics.

    :ivar logins: sessions that came to be.
    :ivar by_reason: how calls and sessions ended, but for those that we ended.
    """

    logins: int = 0
    by_reason: dict[Loss, int] = attrs.field(
        factory=lambda: {"lost": 0, "replaced": 0, "refused": 0, "limited": 0}
    )


class Line:
    """Keeps the session of one identity up."""

    log = Logger()

    def __init__(self, lines: Lines, passport: Passport, patience: Patience) -> None:
        self.passport = passport
        self.patience = patience
        self.session: Session | None = None
        self.error = ""
        self.since = 0.0
        self.next_at: float | None = None
        self._lines = lines
        self._began_at = 0.0
        self._call: Call | None = None
        self._is_calling = False
        self._timer: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._said = ""

    @property
    def state(self) -> State:
        if self._stopped is not None:
            return "stopped"
        if self.session is not None:
            return "connected"
        if self._call is not None:
            return "calling"
        return "idle" if self._timer is None else "waiting"

    def start(self) -> None:
        """Call when it is our turn."""
        self._wait(self._lines.pace.turn(self._lines.clock.seconds()), self._dial)

    def stop(self) -> Deferred[None]:
        """Hang up and stay away; resolves when nothing is left."""
        if self._stopped is None:
            self._stopped = Deferred()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._call is None:
                self._stopped.callback(None)
            else:
                self._call.stop()
        return self._stopped

    def connected(self, session: Session) -> None:
        """We are logged in."""
        if self._stopped is not None:
            session.close(NORMAL, "client_stopped")
            return
        self.session = session
        self.since = self._lines.now()
        self._began_at = self._lines.clock.seconds()
        self._said = ""
        self._lines.losses.logins += 1
        self.log.info(
            "connected to the relay at {peer}: {name} ({identity}){kind}",
            peer=session.peer_address,
            name=self.passport.name,
            identity=self.passport.identity,
            kind="" if session.is_reliable else ", which acknowledges nothing",
        )
        self._lines.changed(self.passport.identity)

    def lost(self, code: int, reason: str) -> None:
        """The connection is over, or never was."""
        was_connected = self.session is not None
        lasted_s = self._lines.clock.seconds() - self._began_at if was_connected else 0.0
        self._call = self.session = None
        self._is_calling = False
        self.since = 0.0
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        loss = loss_of(code, reason, was_connected=was_connected)
        self._retry(loss, f"{reason} ({code})" if reason else str(code), lasted_s)
        if was_connected:
            self._lines.changed(self.passport.identity)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self.next_at = self._lines.now() + seconds
        self._timer = self._lines.clock.callLater(seconds, then)

    def _dial(self) -> None:
        self._timer = self.next_at = None
        self._is_calling = True
        try:
            call = self._lines.dial(self.passport, self)
        except Exception:
            self.log.failure("cannot call the relay for {name}", name=self.passport.name)
            self._is_calling = False
            self._retry("lost", TABLE["local-error"].text, 0.0)
            return
        if self._is_calling:
            self._call = call

    def _retry(self, loss: Loss, cause: str, lasted_s: float) -> None:
        lines = self._lines
        lines.losses.by_reason[loss] += 1
        if loss == "limited":
            lines.pace.limited(lines.clock.seconds())
        self.error = cause
        seconds = self.patience.after(loss, lasted_s, lines.rng)
        self._say(loss, seconds)
        self._wait(seconds, self.start)

    def _say(self, loss: Loss, seconds: float) -> None:
        """Once for each new cause; what goes on is in ``status``."""
        said = f"{loss} {self.error}"
        if said == self._said:
            return
        self._said = said
        about = {
            "name": self.passport.name,
            "identity": self.passport.identity,
            "cause": self.error,
            "seconds": seconds,
        }
        match loss:
            case "replaced":
                self.log.error(
                    "another gateway runs with the key of {name} ({identity}) and has its mail "
                    "now: stop one of the two. We look again in {seconds:.0f} s, and ever more "
                    "seldom while it is there",
                    **about,
                )
            case "refused" if self.error.startswith(NOT_ALLOWED):
                self.log.error(
                    "the relay refuses {name} ({identity}): {cause}. Its operator has to list the "
                    "identity, or [relay] url is another relay's; trying again in {seconds:.0f} s",
                    **about,
                )
            case "refused":
                self.log.error(
                    "the relay refuses the login of {name} ({identity}): {cause}; trying again in "
                    "{seconds:.0f} s",
                    **about,
                )
            case "limited":
                self.log.warn(
                    "the relay says that we log in too often ({name}: {cause}); the next in "
                    "{seconds:.0f} s",
                    **about,
                )
            case "lost":
                self.log.warn(
                    "no connection to the relay for {name} ({identity}): {cause}; trying again in "
                    "{seconds:.1f} s, and at least every {most:.0f} s",
                    most=self.patience.max_s,
                    **about,
                )

    def status(self) -> LineStatus:
        session = self.session
        return LineStatus(
            self.passport.identity,
            self.passport.name,
            self.state,
            self.since or None,
            session is not None and session.is_reliable,
            "" if session is None else session.peer_address,
            self.next_at,
            self.error,
        )


class Lines:
    """All sessions of a gateway: a :class:`~..model.ports.Sessions`, and the
    :class:`~..model.ports.StreamDoor` of every one of them.

    :param receive: the house's answer to a stream.
    :param changed: told of an identity whose session has come or gone.
    :param now: POSIX seconds.
    :ivar dial: set before the first key is used; replaced when the configuration changes, and what
        is connected stays as it is.
    """

    log = Logger()
    dial: Dial

    def __init__(
        self,
        *,
        receive: Receive,
        changed: Callable[[Identity], None],
        clock: IReactorTime,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.clock = clock
        self.now = now
        self.rng = rng
        self.pace = Pace()
        self.losses = Losses()
        self.base_s = 0.25
        self.max_s = 30.0
        self.changed = changed
        self._receive = receive
        self._lines: dict[Identity, Line] = {}
        self._ending: set[Line] = set()
        self._is_stopped = False

    def set_waits(self, base_s: float, max_s: float) -> None:
        """Seconds after a first loss, and at most; from the next loss on."""
        self.base_s, self.max_s = base_s, max_s
        for line in self._lines.values():
            line.patience.base_s, line.patience.max_s = base_s, max_s

    def use(self, passports: Passports) -> bool:
        """Have a session for each of these keys, and for no other.

        :return: whether any came or went.
        """
        wanted = passports.by_identity
        gone = [identity for identity in self._lines if identity not in wanted]
        new = [identity for identity in wanted if identity not in self._lines]
        if self._is_stopped:
            return False
        for identity in gone:
            line = self._lines.pop(identity)
            self.log.info("no more sessions for {name}: its key is gone", name=line.passport.name)
            self._end(line)
        for identity in new:
            line = self._lines[identity] = Line(
                self, wanted[identity], Patience(self.base_s, self.max_s)
            )
            line.start()
        return bool(gone or new)

    def renew(self) -> None:
        """End every session, and have new ones: the relay, or the way to it, is another."""
        lines, self._lines = self._lines, {}
        for identity, line in lines.items():
            self._end(line)
            again = self._lines[identity] = Line(
                self, line.passport, Patience(self.base_s, self.max_s)
            )
            again.start()

    def stop(self) -> Deferred[Any]:
        """Hang up everywhere and stay away."""
        self._is_stopped = True
        lines, self._lines = self._lines, {}
        for line in lines.values():
            self._end(line)
        return DeferredList([line.stop() for line in list(self._ending)])

    def _end(self, line: Line) -> None:
        self._ending.add(line)
        line.stop().addCallback(lambda _: self._ending.discard(line))

    # --- who is connected ------------------------------------------------------------------------

    def to(self, identity: Identity) -> Session | None:
        line = self._lines.get(identity)
        return None if line is None else line.session

    def status(self) -> list[LineStatus]:
        """One for each key, in the order of the keys."""
        return [line.status() for line in self._lines.values()]

    # --- the door --------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """Its line is told too, and knows more."""

    def closed(self, session: Session) -> None:
        """As :meth:`opened`."""

    def receive(
        self, session: Session, stream: Stream
    ) -> Intake | Reply | Deferred[Intake | Reply]:
        return self._receive(session, stream)
