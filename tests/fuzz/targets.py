"""All targets by name."""

from __future__ import annotations

from typing import Final

from . import (
    auth,
    client,
    content,
    disk,
    inbound,
    journal,
    local,
    names,
    proxy,
    reports,
    senders,
    server,
    tunnel,
)
from .target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        server.STREAM,
        server.COMMAND,
        server.BDAT,
        server.ADDRESS,
        proxy.HEADER,
        auth.SASL,
        client.REPLIES,
        names.MESSAGE,
        disk.SEGMENTS,
        journal.RECOVERY,
        senders.MESSAGE,
        senders.RECORD,
        content.HEADER,
        content.SUBMISSION,
        content.DOWNGRADE,
        content.DSN,
        content.SIGNATURE,
        inbound.MESSAGE,
        inbound.HTML,
        local.CONTROL,
        local.SUBMIT,
        local.SENDMAIL,
        local.CONFIG,
        reports.REPORT,
        reports.TOKEN,
        tunnel.FRAME,
        tunnel.CONTROL,
        tunnel.START,
        tunnel.RELAY,
        tunnel.CLIENT,
    )
}
