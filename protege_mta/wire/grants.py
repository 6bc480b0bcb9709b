"""What a client may have for its message that EHLO offers to some alone.

FUTURERELEASE (RFC 4865), and REQUIRETLS (RFC 8689).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..model.envelope import Envelope
from ..model.reply import TABLE, Reply
from . import commands
from .settings import ServerSettings


def granted(
    envelope: Envelope,
    settings: ServerSettings,
    *,
    has_tls: bool,
    is_encrypted: bool,
    now: Callable[[], float],
) -> Envelope | Reply:
    """An envelope with what its MAIL command asked for, or why it cannot be had.

    :param has_tls: whether the channel is encrypted, or could be.
    :param now: POSIX seconds; asked where a release may be chosen.
    """
    if envelope.requires_tls and not is_encrypted:
        return TABLE["requiretls-in-clear" if has_tls else "unknown-parameter"]
    if not envelope.future_release:
        return envelope
    if not settings.may_hold:
        return TABLE["unknown-parameter"]
    present = now()
    hold_until = commands.release_at(envelope.future_release, present)
    if hold_until <= present:
        return TABLE["release-passed"]
    if hold_until > present + settings.future_release_s:
        return TABLE["release-too-late"]
    return attrs.evolve(envelope, hold_until=hold_until)
