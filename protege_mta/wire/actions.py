"""What an ESMTP server's machine asks of its shell."""

from __future__ import annotations

import enum
from typing import Final

from ..model.envelope import Envelope, Recipient
from ..model.ports import MailCommand
from ..model.value import value


@value
class AskSender:
    """Question: may this sender send?"""

    mail: MailCommand


@value
class AskRecipient:
    """Question: do we take this recipient of ``mail``?"""

    mail: MailCommand
    recipient: Recipient


@value
class OpenIntake:
    """Question: where to put the content?  To be settled by ``opened()``, or ``answer(refusal)``."""

    envelope: Envelope


@value
class Write:
    """Hand content to the intake, in order.  To be finished with before the next ``next()``."""

    octets: bytes


class Order(enum.Enum):
    """What to do that needs no argument."""

    FINISH = "the content is complete: ask the intake for its reply"
    ABORT = "the content will not be completed"
    START_TLS = "write what is out, do the handshake, and tell ``encrypted()``"
    CLOSE = "write what is out, then close the channel"


FINISH: Final = Order.FINISH
ABORT: Final = Order.ABORT
START_TLS: Final = Order.START_TLS
CLOSE: Final = Order.CLOSE

Action = AskSender | AskRecipient | OpenIntake | Write | Order
