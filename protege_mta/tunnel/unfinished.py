"""What outlives a session: streams that were cut, and requests whose answer has not come.

Streams are known by the agent's identity and the sender's request id.  One of them is either with
a session (``claim``) or kept for the next one (``keep``), never both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from ..model.identity import Identity
from ..model.ports import Intake
from ..transport.sweep import NEVER, Sweep
from ..wire.tunnel.incoming import Receiving

Request = tuple[Identity, str]
"""An agent, and the sender's request id."""

ASKED: Final = 10_000
"""Requests without an answer that are remembered."""


class Holder(Protocol):
    """A session that a stream is with."""

    def hand_over(self, number: int) -> Kept | None:
        """Give a stream up; None where nothing can be gone on with."""


@attrs.frozen(eq=False)
class Kept:
    """A stream between two sessions.

    :ivar at: when it was cut, by the clock that ages are measured by.
    """

    receiving: Receiving
    intake: Intake
    at: float = 0.0

    def goes_on_as(self, receiving: Receiving) -> bool:
        """Whether the start of another stream is about the same message."""
        old, new = self.receiving.stream, receiving.stream
        return (old.sender, old.recipient, old.size_octets) == (
            new.sender,
            new.recipient,
            new.size_octets,
        )


class Unfinished:
    """What is kept of streams, within bounds.

    :param octets: all contents together.  :param per_agent: contents of one agent.
    :param age_s: how long a content is kept.
    """

    def __init__(
        self,
        sweep: Sweep,
        *,
        contents: int = 1000,
        per_agent: int = 16,
        octets: int = 256 * 2**20,
        age_s: float = 600.0,
    ) -> None:
        self.sweep = sweep
        self._contents = contents
        self._per_agent = per_agent
        self._octets = octets
        self._age_s = age_s
        self._kept: OrderedDict[Request, Kept] = OrderedDict()  # the oldest first
        self._kept_octets = 0
        self._live: dict[Request, tuple[Holder, int]] = {}
        self._storing: dict[Request, list[Callable[[], None]]] = {}
        self._asked: OrderedDict[Request, None] = OrderedDict()

    # --- receiving -------------------------------------------------------------------------------

    def claim(self, request: Request, holder: Holder, receiving: Receiving) -> Kept | None:
        """A session begins a stream.  Another one that is at it gives it up.

        :return: what there is of it already, and may be gone on with; what may not is aborted.
        """
        live = self._live.pop(request, None)
        found = self.take(request)
        if live is not None:
            if found is not None:
                found.intake.abort()
            found = live[0].hand_over(live[1])
        self._live[request] = holder, receiving.number
        if found is not None and not (receiving.is_asked and found.goes_on_as(receiving)):
            found.intake.abort()
            return None
        return found

    def release(self, request: Request, holder: Holder, number: int) -> None:
        """The stream is no longer with the session, if it was."""
        if self._live.get(request) == (holder, number):
            del self._live[request]

    def storing(self, request: Request) -> None:
        """The content is complete; until :meth:`stored` nobody knows whether it will stay."""
        self._storing[request] = []

    def stored(self, request: Request) -> None:
        for call in self._storing.pop(request, []):
            call()

    def when_stored(self, request: Request, call: Callable[[], None]) -> bool:
        """Whether a content of this request is being stored; then ``call`` comes once it is not."""
        waiting = self._storing.get(request)
        if waiting is None:
            return False
        waiting.append(call)
        return True

    def keep(self, request: Request, kept: Kept) -> None:
        """A session was cut; what is too much is aborted, the oldest first."""
        if (old := self.take(request)) is not None:
            old.intake.abort()
        self.sweep.add(self)
        self._kept[request] = kept
        self._kept_octets += kept.receiving.taken
        own = [other for other in self._kept if other[0] == request[0]]
        if len(own) > self._per_agent:
            self._drop(own[0])
        while len(self._kept) > self._contents or self._kept_octets > self._octets:
            self._drop(next(iter(self._kept)))

    def take(self, request: Request) -> Kept | None:
        kept = self._kept.pop(request, None)
        if kept is not None:
            self._kept_octets -= kept.receiving.taken
        if not self._kept:
            self.sweep.remove(self)
        return kept

    @property
    def deadline(self) -> float:
        """When the oldest content is too old, for the sweep."""
        return next((kept.at + self._age_s for kept in self._kept.values()), NEVER)

    def expired(self) -> None:
        while self.deadline <= self.sweep.now:
            self._drop(next(iter(self._kept)))

    def close(self) -> None:
        """Abort everything."""
        while self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, request: Request) -> None:
        if (kept := self.take(request)) is not None:
            kept.intake.abort()

    @property
    def octets(self) -> int:
        """Of all contents that are kept."""
        return self._kept_octets

    # --- sending ---------------------------------------------------------------------------------

    def is_asked(self, request: Request) -> bool:
        """Whether it was sent before, and nobody has answered it."""
        return request in self._asked

    def ask(self, request: Request) -> None:
        """It is sent."""
        self._asked[request] = None
        self._asked.move_to_end(request)
        if len(self._asked) > ASKED:
            self._asked.popitem(last=False)

    def answered(self, request: Request) -> None:
        self._asked.pop(request, None)
