"""A gateway's sessions: one for each of its keys, come back to whenever it is lost.

A :class:`Line` keeps one of them up; :class:`Lines` has all of them, and starts and ends them as
keys come and go.  How a connection is made is for the dialler that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Literal, Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..model.identity import Identity
from ..model.ports import Intake, Session
from ..model.reply import TABLE, Reply
from ..model.stream import DeliveryState, Stream
from .passports import Passport, Passports
from .patience import Loss, Pace, Patience

if TYPE_CHECKING:
    import random

REPLACED: Final = 4400
UNAUTHENTICATED: Final = 4401
TIMED_OUT: Final = 4408
"""Status codes with which a relay closes (the protocol's own, within RFC 6455, 7.4.2)."""

GOING_AWAY: Final = 1001
NORMAL: Final = 1000


@attrs.frozen
class Over:
    """How a connection to the relay came to its end.

    :ivar code: the status code of its close frame, whoever sent it; 0 where there was none.
    :ivar reason: what went with it, or what broke, in words.
    :ivar error: the code of the relay's ``auth_error``; empty where there was none.
    """

    code: int = 0
    reason: str = ""
    error: str = ""

    @property
    def loss(self) -> Loss:
        if self.code == REPLACED:
            return "replaced"
        if self.error == "rate_limited" or (
            self.code == TIMED_OUT and self.reason == "rate_limited"
        ):
            return "limited"
        if self.error or self.code == UNAUTHENTICATED:
            return "refused"
        return "lost"

    def __str__(self) -> str:
        words = self.error or self.reason
        return f"{self.code} {words}".strip() if self.code else words


class Call(Protocol):
    """One connection to the relay, from the first packet to the last.

    :ivar over: fires once, when nothing is left of it; never fails.
    """

    over: Deferred[Over]

    def hang_up(self, code: int, reason: str) -> None:
        """End it, in whatever state it is."""


Dial = Callable[[Passport], Call]
"""Begins to connect and to log in; the session is then told by :meth:`Lines.opened`."""

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

    def stop(self, code: int, reason: str) -> Deferred[None]:
        """Hang up and stay away; resolves when nothing is left."""
        if self._stopped is None:
            self._stopped = Deferred()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._call is None:
                self._stopped.callback(None)
            else:
                self._call.hang_up(code, reason)
        return self._stopped

    def opened(self, session: Session) -> None:
        """We are logged in."""
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

    def closed(self) -> None:
        """The session is over; the connection's own end follows."""
        self.session = None

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self.next_at = self._lines.now() + seconds
        self._timer = self._lines.clock.callLater(seconds, then)

    def _dial(self) -> None:
        self._timer = self.next_at = None
        self._began_at = self._lines.clock.seconds()
        try:
            self._call = self._lines.dial(self.passport)
        except Exception:
            self.log.failure("cannot call the relay for {name}", name=self.passport.name)
            self._lost(Over(reason=TABLE["local-error"].text), 0.0)
            return
        self._call.over.addCallbacks(self._over, self._broke)
        self._call.over.addErrback(lambda failure: self.log.failure("bug", failure=failure))

    def _broke(self, failure: Failure) -> None:
        self.log.failure("the call for {name} broke", failure=failure, name=self.passport.name)
        self._over(Over(reason=TABLE["local-error"].text))

    def _over(self, over: Over) -> None:
        was_connected = self.since > 0.0
        lasted_s = self._lines.clock.seconds() - self._began_at if was_connected else 0.0
        self._call = self.session = None
        self.since = 0.0
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        self._lost(over, lasted_s)

    def _lost(self, over: Over, lasted_s: float) -> None:
        lines = self._lines
        loss = over.loss
        lines.losses.by_reason[loss] += 1
        if loss == "limited":
            lines.pace.limited(lines.clock.seconds())
        self.error = str(over) or "the connection was lost"
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
            case "refused":
                self.log.error(
                    "the relay refuses {name} ({identity}): {cause}. Its operator has to list the "
                    "identity, or [relay] url is another relay's; trying again in {seconds:.0f} s",
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

    :param dial: begins a connection.
    :param receive: the house's answer to a stream.
    :param connected: told of an identity whose session has come up.
    :param told: what the relay says of mail that was sent earlier.
    :param now: POSIX seconds.
    :ivar dial: replaced when the configuration changes; what is connected stays as it is.
    """

    log = Logger()

    def __init__(
        self,
        *,
        dial: Dial,
        receive: Receive,
        connected: Callable[[Identity], None],
        told: Callable[[Session, DeliveryState], None],
        clock: IReactorTime,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.dial = dial
        self.clock = clock
        self.now = now
        self.rng = rng
        self.pace = Pace()
        self.losses = Losses()
        self.base_s = 0.25
        self.max_s = 30.0
        self._receive = receive
        self._connected = connected
        self.told = told
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
            self._end(line, "key removed")
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
            self._end(line, "reconfigured")
            again = self._lines[identity] = Line(
                self, line.passport, Patience(self.base_s, self.max_s)
            )
            again.start()

    def stop(self) -> Deferred[object]:
        """Hang up everywhere and stay away."""
        self._is_stopped = True
        lines, self._lines = self._lines, {}
        for line in lines.values():
            self._end(line, "gateway stopped", GOING_AWAY)
        return DeferredList([line.stop(NORMAL, "") for line in list(self._ending)])

    def _end(self, line: Line, reason: str, code: int = NORMAL) -> None:
        self._ending.add(line)
        line.stop(code, reason).addCallback(lambda _: self._ending.discard(line))

    # --- who is connected ------------------------------------------------------------------------

    def to(self, identity: Identity) -> Session | None:
        line = self._lines.get(identity)
        return None if line is None else line.session

    def status(self) -> list[LineStatus]:
        """One for each key, in the order of the keys."""
        return [line.status() for line in self._lines.values()]

    # --- what sessions tell ----------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        for line in self._of(session.identity):
            if line.state == "calling":
                line.opened(session)
                self._connected(session.identity)
                return
        # Its key went away, or the relay became another, in the middle of the login.
        session.close(NORMAL, "not needed any more")

    def closed(self, session: Session) -> None:
        for line in self._of(session.identity):
            if line.session is session:
                line.closed()

    def receive(
        self, session: Session, stream: Stream
    ) -> Intake | Reply | Deferred[Intake | Reply]:
        return self._receive(session, stream)

    def _of(self, identity: Identity) -> Iterator[Line]:
        line = self._lines.get(identity)
        if line is not None:
            yield line
        for ending in list(self._ending):
            if ending.passport.identity == identity:
                yield ending
