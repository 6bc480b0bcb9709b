"""A next hop that does what a test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs
from twisted.internet.defer import Deferred, succeed

from ..model.outcome import Contact, Delivered, Outcome
from ..model.ports import Attempt, HopAbilities, Prepared
from ..model.reply import Reply

TAKEN = Delivered(Contact("mx.test", "192.0.2.1"), Reply(250, "2.0.0", ("taken",)))


@attrs.define(eq=False)
class ScriptedTransport:
    """A :class:`~..model.ports.Transport`.

    :ivar script: what becomes of the next attempts: outcomes by recipient index, the ones not
        named being :data:`TAKEN`; a Deferred is handed out as it is.  Empty: everything is taken.
    :ivar attempts: every attempt, in order.
    :ivar sent: what would have gone over the wire, for prepared attempts.
    """

    script: deque[dict[int, Outcome] | Deferred[Sequence[tuple[int, Outcome]]]] = attrs.field(
        factory=deque
    )
    attempts: list[Attempt] = attrs.field(factory=list)
    sent: list[bytes] = attrs.field(factory=list)

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        self.attempts.append(attempt)
        prepared = attempt.prepare(HopAbilities())
        if isinstance(prepared, Prepared):
            rest = attempt.content.read(prepared.skip_octets)
            self.sent.append(prepared.head + (rest if prepared.body is None else prepared.body))
        said = self.script.popleft() if self.script else {}
        if isinstance(said, Deferred):
            return said
        return succeed([(index, said.get(index, TAKEN)) for index in attempt.recipients])

    def close(self) -> Deferred[None]:
        return succeed(None)
