"""One WebSocket connection, from its opening to its end, at either side of a tunnel.

It pauses its socket while the house or the other side has to catch up, notices silence, and makes
a :class:`~.session.TunnelSession` once the agent is known.  :mod:`.socket_server` and
:mod:`.socket_client` say how that goes.
"""

from __future__ import annotations

import abc
import enum
from collections import deque
from typing import Final, Protocol

from twisted.logger import Logger

from ..transport.sweep import NEVER, Sweep
from ..wire.tunnel.frames import FrameReader
from ..wire.tunnel.messages import MESSAGE_OCTETS
from .limits import TunnelLimits
from .session import BROKEN, TunnelSession

BACKLOG_OCTETS: Final = 65_536
"""Control messages that may wait for the other side to read, before we read no more of it."""

HANDSHAKE_OCTETS: Final = 8_192
"""The longest message before authentication."""

GOING_AWAY: Final = 1001
LOST: Final = 1006
"""The close code of who is gone without one (RFC 6455, 7.4.1)."""


class Socket(Protocol):
    """The WebSocket."""

    @property
    def peer_address(self) -> str: ...

    def send_text(self, octets: bytes) -> None: ...

    def send_binary(self, octets: bytes) -> None: ...

    def send_ping(self, payload: bytes) -> None: ...

    def send_close(self, code: int, reason: str) -> None: ...

    def abort(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Stage(enum.Enum):
    OPENING = "opening"  # until the agent is known
    OPEN = "open"
    CLOSING = "closing"  # a close was sent, or has come
    CLOSED = "closed"


class Connection(abc.ABC):
    """What a socket tells, and what it is told.

    :ivar session: None before authentication.
    """

    log = Logger()

    def __init__(self, socket: Socket, limits: TunnelLimits, sweep: Sweep) -> None:
        self.session: TunnelSession | None = None
        self.stage = Stage.OPENING
        self.is_stuck = False
        self._socket = socket
        self._limits = limits
        self._sweep = sweep
        self._reader = FrameReader()
        self._is_text = True
        self._kept = bytearray()  # of a text message, or of any before authentication
        self._is_at_begin = False
        self._queue: deque[bytes | bool | None] = deque()  # True: text begins, None: message ends
        self._is_feeding = False
        self._is_paused = False
        self._backlog = 0
        self._heard = 0
        self._seen = 0
        sweep.add(self)  # first: it looks at the clock, if nobody was there
        self._since = self._began = sweep.after(0)
        self._stuck_since = NEVER
        self._is_asked = False  # whether it is still there

    @property
    def peer_address(self) -> str:
        return self._socket.peer_address

    # --- what differs ----------------------------------------------------------------------------

    @abc.abstractmethod
    def opened(self) -> None:
        """The WebSocket handshake is done."""

    @abc.abstractmethod
    def authenticate(self, octets: bytes) -> None:
        """A message before authentication."""

    @abc.abstractmethod
    def ended(self, code: int, reason: str) -> None:
        """Nothing goes any more: a close was sent or has come, or the socket is gone.  Once."""

    @abc.abstractmethod
    def left(self) -> None:
        """The socket is gone.  Once."""

    def begin(self, session: TunnelSession) -> None:
        """The agent is known."""
        self.session = session
        self.stage = Stage.OPEN
        self._since = self._sweep.now
        session.begin()

    takes_json_in_binary = False
    """Whether a binary message that is none of the tunnel's may be a control message."""

    # --- from the socket -------------------------------------------------------------------------

    def heard(self) -> None:
        """Octets have come."""
        self._heard += 1

    def message_began(self, is_binary: bool) -> None:
        self._take(not is_binary)

    def message_data(self, octets: bytes) -> None:
        self._take(octets)

    def message_ended(self) -> None:
        self._take(None)

    def pinged(self, payload: bytes) -> None:
        """The socket has answered."""
        self._charge(len(payload) + 2)
        self._feed()

    def ponged(self, payload: bytes) -> None:
        if self.session is not None and len(payload) == 8:
            self.session.ponged(int.from_bytes(payload, "big"))

    def stuck(self, is_stuck: bool) -> None:
        """Whether what was sent has yet to leave."""
        self.is_stuck = is_stuck
        if is_stuck:
            self._stuck_since = self._sweep.now
            return
        self._stuck_since = NEVER
        self._heard += 1  # of its TCP: on a slow link pings and their answers stand in line
        self._backlog = 0
        if self.session is not None:
            self.session.flow()
        self._feed()

    def closing(self, code: int, reason: str) -> None:
        """A close was sent; or it has come, and was answered."""
        self._end(code, reason)

    def gone(self, code: int, reason: str) -> None:
        """The socket is closed."""
        self._end(code, reason)
        if self.stage is not Stage.CLOSED:
            self.stage = Stage.CLOSED
            self._sweep.remove(self)
            self._feed()
            self.left()

    # --- Wire ------------------------------------------------------------------------------------

    def send_text(self, octets: bytes) -> None:
        if self.stage in (Stage.OPENING, Stage.OPEN):
            self._socket.send_text(octets)
            self._charge(len(octets))

    def send_binary(self, octets: bytes) -> None:
        if self.stage is Stage.OPEN:
            self._socket.send_binary(octets)

    def ping(self, number: int) -> None:
        if self.stage is Stage.OPEN:
            self._socket.send_ping(number.to_bytes(8, "big"))

    def close(self, code: int, reason: str) -> None:
        if self.stage in (Stage.OPENING, Stage.OPEN):
            self._socket.send_close(code, reason)
            self.closing(code, reason)

    def go_on(self) -> None:
        self._feed()

    def _charge(self, octets: int) -> None:
        """Count what goes out in answer to what comes in, while it does not leave."""
        if self.is_stuck:
            self._backlog += octets

    # --- what comes in ---------------------------------------------------------------------------

    def _take(self, item: bytes | bool | None) -> None:
        if self.stage in (Stage.OPENING, Stage.OPEN):
            self._queue.append(item)
            self._feed()

    @property
    def _is_held(self) -> bool:
        if self.session is not None and self.session.is_waiting:
            return True
        return self._backlog > BACKLOG_OCTETS and self.stage in (Stage.OPENING, Stage.OPEN)

    def _feed(self) -> None:
        """Let in what is there, as far as the house can take it."""
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._queue and not self._is_held:
                self._feed_one(self._queue.popleft())
        except Exception:
            self.log.failure("a session broke")
            self._queue.clear()
            self._socket.abort()
        finally:
            self._is_feeding = False
        if self._is_held != self._is_paused and self.stage in (Stage.OPENING, Stage.OPEN):
            self._is_paused = not self._is_paused
            if self._is_paused:
                self._socket.pause()
            else:
                self._socket.resume()
        if self.stage in (Stage.CLOSING, Stage.CLOSED) and not self._queue and not self._is_held:
            self._drained()

    def _drained(self) -> None:
        if self.session is not None:
            self.session.drained()

    def _feed_one(self, item: bytes | bool | None) -> None:
        if item is None:
            self._message_ended()
        elif isinstance(item, bool):
            self._is_text, self._is_at_begin, self._kept = item, True, bytearray()
            self._reader.begin()
        else:
            self._message_data(item)

    def _message_data(self, octets: bytes) -> None:
        session = self.session
        if session is not None and not self._is_text:
            if self._is_at_begin and self.takes_json_in_binary and octets[:1] == b"{":
                self._is_text = True
            else:
                self._is_at_begin = self._is_at_begin and not octets
                session.parts(self._reader.feed(octets))
                return
        limit = HANDSHAKE_OCTETS if session is None else MESSAGE_OCTETS
        if len(self._kept) + len(octets) > limit:
            self._kept = bytearray()
            self._too_long()
            return
        self._kept += octets

    def _message_ended(self) -> None:
        kept, self._kept = bytes(self._kept), bytearray()
        if self.session is None:
            self.authenticate(kept)
        elif self._is_text:
            self.session.text(kept)
        else:
            self.session.parts(self._reader.finish())

    def _too_long(self) -> None:
        self.close(BROKEN, "invalid_message")

    # --- the end ---------------------------------------------------------------------------------

    def _end(self, code: int, reason: str) -> None:
        if self.stage not in (Stage.OPENING, Stage.OPEN):
            return
        self.stage = Stage.CLOSING
        self._since = self._sweep.now
        if self._is_paused:
            self._is_paused = False
            self._socket.resume()
        if self.session is not None:
            self.session.over()
        self.ended(code, reason)
        self._feed()

    # --- the sweep -------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        now, limits = self._sweep.now, self._limits
        if self.stage is Stage.OPENING:
            return self._began + limits.auth_s
        if self.stage is Stage.CLOSING:
            return self._since + limits.close_s
        if self._heard != self._seen or self._is_paused:
            self._seen = self._heard
            self._since = now
            self._is_asked = False
        if self.session is not None and self.session.is_busy:
            return now
        wait_s = limits.idle_s if self._is_asked else limits.ping_s
        return min(self._since + wait_s, self._stuck_since + limits.idle_s)

    def expired(self) -> None:
        now, limits = self._sweep.now, self._limits
        if self.stage is Stage.CLOSING:
            self._socket.abort()
        elif self.stage is Stage.OPENING:
            self.too_late()
        elif now >= min(self._since, self._stuck_since) + limits.idle_s:
            self._socket.send_close(GOING_AWAY, "idle")
            self._socket.abort()
        else:
            if now >= self._since + limits.ping_s and not self._is_asked and self.session:
                self._is_asked = True
                self.ping(self.session.next_ping())
            if self.session is not None:
                self.session.look()

    def too_late(self) -> None:
        """Authentication takes too long."""
        self.close(BROKEN, "auth_timeout")
