"""What the process that posts events says about each webhook."""

from __future__ import annotations

from typing import Final

import msgspec

from ..model.webhook import Figures
from ..transport.link import Noted, Ready


class Told(msgspec.Struct, array_like=True, tag="told"):
    """From the child: how its webhooks are."""

    hooks: list[Figures]


from_notifier: Final = msgspec.msgpack.Decoder(Ready | Noted | Told).decode
