"""Which messages of the log somebody wants to see."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class MessageQuery:
    """Those of which all of this is true; what is empty, or None, is not looked at.

    :ivar before: an id, or how one begins: only older messages.
    :ivar since: likewise: only this one, and newer ones.
    """

    recipient: str = ""
    sender: str | None = None
    status: str = ""
    tenant: str | None = None
    identity: str = ""
    campaign: str = ""
    tag: str = ""
    before: str = ""
    since: str = ""
