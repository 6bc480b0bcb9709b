"""Mail that goes in circles (RFC 5321, section 6.3; RFC 9228)."""

from __future__ import annotations

from typing import Final

from ..model.address import Address
from .headers import values

HOPS: Final = 100
"""As many Received fields as a message may have; RFC 5321, 6.3, wants this limit large."""


def is_delivered_before(header: bytes, recipient: Address) -> bool:
    """Whether final delivery to this very mailbox has happened already, and the message came back.

    Case does not tell mailboxes apart here: a forwarder may have changed it.
    """
    wanted = recipient.lower()
    return any(
        value.decode("utf-8", "replace").lower() == wanted
        for value in values(header, b"delivered-to")
    )
