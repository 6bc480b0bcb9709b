"""Where mail of sandboxed keys ends: it is delivered, deferred or bounced as its recipients' names
say (:mod:`..model.sandbox`), and nothing of it leaves the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed

from ..model.address import Address
from ..model.outcome import Contact, Delivered, Outcome, PermanentFailure, Scope, TransientFailure
from ..model.ports import Attempt
from ..model.reply import Reply
from ..model.sandbox import DEFERRALS, play_of

_NOWHERE: Final = Contact("sandbox")
_DELIVERED: Final = Delivered(_NOWHERE, Reply(250, "2.0.0", ("sandbox: taken, and not sent",)))
_BOUNCED: Final = PermanentFailure(
    Scope.RECIPIENT, Reply(550, "5.1.1", ("sandbox: no such mailbox",)), _NOWHERE
)
_DEFERRED: Final = TransientFailure(
    Scope.RECIPIENT, Reply(451, "4.3.0", ("sandbox: come back later",)), _NOWHERE
)


class SandboxTransport:
    """:class:`~..model.ports.Transport` for the site of the kind ``sandbox``."""

    def deliver(self, attempt: Attempt) -> Deferred[Sequence[tuple[int, Outcome]]]:
        """Play each recipient's part."""
        recipients = attempt.content.message.envelope.recipients
        return succeed(
            [
                (index, _outcome(recipients[index].address, attempt.failures))
                for index in attempt.recipients
            ]
        )

    def close(self) -> Deferred[None]:
        """There is nothing to be closed."""
        return succeed(None)


def _outcome(recipient: Address, failures: int) -> Outcome:
    match play_of(recipient):
        case "bounced":
            return _BOUNCED
        case "deferred" if failures < DEFERRALS:
            return _DEFERRED
    return _DELIVERED
